"""Python decisions over values: by constants, and by what data selects, each held to the model where it is false."""

from __future__ import annotations

import importlib.util
import linecache
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphforge.call import input_tree
from graphforge.errors import CaptureError
from graphforge.frontend import decisions
from graphforge.frontend.capture import capture
from graphforge.frontend.captured import Captured
from graphforge.frontend.lower import lower
from tests.frontend.helpers import assert_same, lower_and_compare, run_model


def _captured(model: nn.Module, *inputs: Tensor) -> Captured:
    tree = input_tree(model, inputs, {})
    return capture(model, tree, tree.spec(), method="export")


def _holds(model: nn.Module, captured: Captured, inputs: list[Tensor]) -> None:
    lowered = lower(captured).model
    for one in inputs:
        expected = model(one.clone())
        assert_same(run_model(lowered, {"x": one}), list(expected) if isinstance(expected, tuple) else [expected])


# -- by constants ------------------------------------------------------------------------------------------------------


class Stored(nn.Module):
    """Branches on a buffer, a parameter, an attribute and a tensor made on the spot; sizes from a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sizes", torch.tensor([2, -1]))
        self.gain = nn.Parameter(torch.tensor([1.5, 0.0]))
        self.switch = torch.tensor([0.0, 1.0])

    def forward(self, x: Tensor) -> Tensor:
        sizes: Any = self.sizes
        if torch.any(sizes == 0):
            raise ValueError("a size is missing")
        if self.gain.abs().max() > 1:
            x = x * 2
        if not self.switch[0]:
            x = x + float(self.switch[1] * 3)
        if torch.tensor([4.0]).sqrt().item() > 3:
            x = x - 100
        return x.reshape(sizes.tolist())


def test_what_weights_and_constants_decide_is_computed_from_them() -> None:
    model = Stored().eval()
    captured = _captured(model, torch.rand(4, 3))
    assert not captured.notes
    _holds(model, captured, [torch.rand(4, 3)])


class ByInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.mean() > 0 else x


def test_a_value_of_the_input_still_decides_nothing() -> None:
    with pytest.raises(CaptureError, match="could not be captured"):
        _captured(ByInput().eval(), torch.rand(4, 3))


class PartOfAPart(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        some = x[x > 0]
        few = some[some > 0.5]
        return few * 2 if few.numel() <= some.numel() else few * 3


def test_a_selection_from_a_selection_is_taken_to_be_a_part_of_it() -> None:
    captured = _captured(PartOfAPart().eval(), torch.rand(8, 3))
    (note,) = captured.notes
    assert "few.numel() <= some.numel()" in note
    _holds(PartOfAPart(), captured, [torch.rand(8, 3), torch.randn(8, 3), -torch.rand(8, 3)])


class LikeAWeight(nn.Module):
    """Decides over an input that looks like its only weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight if x.sum() > 0 else x - 1


@pytest.mark.parametrize("method", ["export", "fx", "trace"])
def test_an_input_is_never_taken_for_a_weight(method: str) -> None:
    model = LikeAWeight().eval()
    tree = input_tree(model, (torch.rand(4, 3),), {})
    with pytest.raises(CaptureError):
        capture(model, tree, tree.spec(), method=method)


# -- by what data selects ----------------------------------------------------------------------------------------------


class Rows(nn.Module):
    """The tests that detectors ask, each in words of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Any:
        mask = x[:, 0] > 0.5
        if self.how == "any":
            if not mask.any():
                return x.new_zeros((0, x.shape[1]))
        elif self.how == "sum":
            if mask.sum() == 0:
                return x[:0]
        elif self.how == "item" and int(mask.sum()) < 1:
            return x[:0]
        y = x[mask]
        if self.how == "len" and len(y) == 0:
            return y
        if self.how == "numel":
            if y.numel() > 0:
                y = y * 2
        elif self.how == "not" and not y.shape[0]:
            return y
        elif self.how == "most" and y.shape[0] > 4:
            y = y[:4]
        elif self.how == "min":
            return y[:, 1].topk(min(3, y.shape[0])).values
        return y


_HOWS = ("any", "sum", "item", "len", "numel", "not", "most", "min")


@pytest.mark.parametrize("how", _HOWS)
def test_rows_that_data_selects_may_be_asked_for(how: str) -> None:
    model = Rows(how).eval()
    torch.manual_seed(0)
    captured = _captured(model, torch.rand(9, 3))
    if how != "min":
        (note,) = captured.notes
        assert "hangs on data" in note
        assert "the other case was run and agrees" in note
        assert "test_decisions.py" in note
        assert captured.feeds_to_try
    some = torch.rand(9, 3)
    some[2:] -= 1
    _holds(model, captured, [torch.rand(9, 3), torch.zeros(9, 3), torch.ones(9, 3) + torch.rand(9, 3), some])


class Elsewhere(nn.Module):
    """Gives something else when nothing is selected: one row of its own, or other values."""

    def __init__(self, *, rows: bool) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        y = x[x[:, 0] > 0.5]
        if self.rows:
            return torch.ones(1, x.shape[1]) if y.shape[0] == 0 else y
        return x + 1 if y.shape[0] > 5 else x - 1


@pytest.mark.parametrize("rows", [False, True])
def test_a_branch_that_matters_is_refused_with_its_line(rows: bool) -> None:
    with pytest.raises(CaptureError, match="behaves otherwise where data selects fewer rows: `return ") as refused:
        _captured(Elsewhere(rows=rows).eval(), torch.rand(9, 3) + torch.linspace(-1, 1, 9)[:, None])
    assert "test_decisions.py" in refused.value.notes[0]


class Sure(nn.Module):
    """Assertions on values, and a detour that changes nothing where it is not taken."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(0, 1)
        assert (x >= 0).all(), "negative"
        if torch.isnan(x).any():
            x = torch.nan_to_num(x)
        if (x == 0).all():
            return x
        return x * 3


def test_assertions_on_data_hold_and_are_dropped() -> None:
    model = Sure().eval()
    captured = _captured(model, torch.rand(4, 3))
    _holds(model, captured, [torch.rand(4, 3) * 9 - 4, torch.zeros(4, 3)])
    assert len(captured.notes) == 2  # of the two branches: what is asserted is nothing that was assumed


class PaddedIds(nn.Module):
    """Hides padding, and scales what is left where there is any."""

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        padding = ids == 0
        if padding.any():
            return x.masked_fill(padding[..., None], 0.0) * 2
        return x


def test_whole_numbers_of_which_one_is_nowhere_are_tried() -> None:
    """In forty of 0, 1, 2 drawn at random there is always a 0."""
    ids = torch.arange(40).reshape(1, 40) % 3
    with pytest.raises(CaptureError, match=r"fewer rows: `if padding\.any\(\):`"):
        _captured(PaddedIds().eval(), ids, torch.rand(1, 40, 2))


class OneAfterTheOther(nn.Module):
    def forward(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if first.any():
            if not second.any():
                return x * 3
            return x + second
        return x


def test_a_question_behind_another_is_tried_where_the_first_is_answered_as_it_was() -> None:
    """With nothing in either mask the model never asks for the second one."""
    some = torch.tensor([True, True, False])
    with pytest.raises(CaptureError, match=r"fewer rows: `if not second\.any\(\):`"):
        _captured(OneAfterTheOther().eval(), torch.rand(3), some, some)


def test_where_nothing_tells_the_other_case_apart_the_note_says_so() -> None:
    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x[torch.sigmoid(x[:, 0]) >= 0]
            return y if y.numel() else torch.ones(1, 3)

    (note,) = _captured(Always().eval(), torch.rand(4, 3)).notes
    assert "no input was found for the other case" in note


class Asserting(nn.Module):
    """Sizes that depend on data are asserted to be a tensor's value, in lists, over several lines."""

    def forward(self, x: Tensor) -> Tensor:
        chosen = x[:, 0] > 0
        rows, many = x[chosen], chosen.sum()
        assert list(rows.shape) == [
            many,
            x.shape[1],
        ]
        assert many < 1000, "so many"
        return rows * many


def test_what_an_assertion_asks_is_answered_by_yes() -> None:
    captured = _captured(Asserting().eval(), torch.rand(4, 3) - 0.5)
    _holds(Asserting(), captured, [torch.rand(4, 3) - 0.5, torch.rand(4, 3), -torch.rand(4, 3)])


class OwnMask(nn.Module):
    """Asks a mask that it makes itself, in the size of its input and padded to whole windows."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[:2])
        mask = nn.functional.pad(mask, (0, -x.shape[1] % 4), value=0.0)
        hidden = (1.0 - mask) * -1e4
        if (hidden > 0).flatten().any().item():
            x = x[:1]
        nothing = torch.zeros_like(x, dtype=torch.bool)
        nothing[:, :0] = True
        return x if nothing.any() else x * 2


class OwnMaskOfASize(nn.Module):
    """The same, where the answer hangs on the size."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if torch.ones(x.shape[:2]).sum() > 12 else x


class OwnMaskOfData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if (torch.zeros_like(x) + x).sum() > 0 else x


def test_what_hangs_on_sizes_is_answered_if_all_promised_ones_agree() -> None:
    others = [(torch.rand(1, 2),), (torch.rand(6, 9),)]
    lower_and_compare(OwnMask(), (torch.rand(3, 5),), dynamic={"x": {0: (1, 6), 1: (2, 9)}}, other_inputs=others)


@pytest.mark.parametrize("model", [OwnMaskOfASize(), OwnMaskOfData()], ids=lambda one: type(one).__name__)
def test_what_hangs_on_sizes_is_not_answered_if_they_differ(model: nn.Module) -> None:
    with pytest.raises(CaptureError, match="decides in Python"):
        lower_and_compare(model, (torch.rand(3, 5),), dynamic={"x": {0: (1, 6), 1: (2, 9)}})


class Refusing(nn.Module):
    """What it does not take is refused in Python, by raising."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.isnan(x).any() or not torch.isfinite(x).all():
            raise ValueError("not finite")
        elif x.min() < -50:
            lowest = f"{x.min()} is too low"
            raise ValueError(lowest)
        else:
            x = x + 1
        if x.max().item() > 100:
            raise ValueError("too high")
        return x * 2


class RefusingSome(nn.Module):
    """Nothing says which of two questions is answered by no."""

    def forward(self, x: Tensor) -> Tensor:
        if x.min() < -50 and x.max() > 50:
            raise ValueError("too wide")
        return x * 2


class RefusedWithin(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        try:
            if x.sum() > 9:
                raise ValueError("too much")
        except ValueError:
            return x
        return x * 2


class RefusingOnce(nn.Module):
    """What ends in a raise may leave before it."""

    def forward(self, x: Tensor) -> Tensor:
        for row in x:
            if row.sum() > 9:
                if len(x) > 2:
                    return x
                raise ValueError("too much")
        return x * 2


def test_what_is_asked_before_a_raise_is_answered_by_no() -> None:
    _holds(Refusing(), _captured(Refusing().eval(), torch.rand(4, 3)), [torch.rand(4, 3) - 0.5])


class Otherwise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 9 or not x.sum() > 100
        return x + 1


class Caught(nn.Module):
    """What is asserted is false now and then, and the caller goes another way."""

    def forward(self, x: Tensor) -> Tensor:
        try:
            self.check(x)
        except AssertionError:
            return x.clamp(max=9)
        return x + 1

    def check(self, x: Tensor) -> None:
        assert (x < 9).all()


class Kept(nn.Module):
    """What is asserted holds either way, and the answer to a part of it is used further on."""

    def forward(self, x: Tensor) -> Tensor:
        assert (large := bool((x > 9).all())) <= 1  # noqa: RUF018
        return x * 2 if large else x


@pytest.mark.parametrize(
    "model",
    [Otherwise(), Caught(), Kept(), RefusingSome(), RefusedWithin(), RefusingOnce()],
    ids=lambda one: type(one).__name__,
)
def test_an_assertion_that_a_no_may_fulfil_is_not_answered(model: nn.Module) -> None:
    with pytest.raises(CaptureError, match=r"decides in Python|behaves otherwise"):
        _captured(model.eval(), torch.rand(4, 3))


_QUESTION = "x.sum() > 99"
_BY_YES = (
    "assert (x < 9).all() and x.sum() < 99, x",
    "assert bool((x < 9).all())",
    "assert (x < 9).all().item() is True",
    "assert -9 < x.sum() < 99",
    "assert all(bool((row < 9).all()) for row in x)",
    "assert all([(x < 9).all(), len(x) == 4])",
    "with torch.no_grad(): assert (x[x > 0] < 9).all()",
    "with contextlib.nullcontext():\n            assert x.sum() < 99",
    "found = [(x < 9).all(), x.sum() < 99]\n        assert all(found)",
    "assert not torch.isnan(x).any()",
    "assert not (x.sum() > 99) is True",
    "assert not any(row.sum() > 99 for row in x)",
    "assert not (x.sum() > 99 or bool((x > 9).any()))",
    "assert torch.isinf(x).any().item() is False",
    "assert torch.isinf(x).any() == False  # noqa: E712",
    "assert len(x) < 9 and not x.sum() > 99",
    "assert (x < 9).all() and not (x > 9).any(), 'large'",
    "assert not (\n            not bool((x < 9).all())\n            or (x > 9).any()\n        )",
    "assert (x.sum() > 99) is not True and not (x > 9).any() and -9 < x.sum() < 99",
    "with Timed(): assert (x < 9).all()",
    "with self.timed(), Timed() as clock: assert (x < 9).all()",
)
_EITHER_WAY = (
    f"assert self.note(bool({_QUESTION}))",
    f"assert self.note(0 < x.sum() < 9, {_QUESTION})",
    f"assert len([x for _ in x if {_QUESTION}]) < 9",
    f"assert all(len(x) for _ in x if {_QUESTION})",
    f"assert any([bool({_QUESTION}), True])",
    f"assert [2, 1][bool({_QUESTION})]",
    f"assert [{_QUESTION}, True].count(True)",
    f"assert not ({_QUESTION} and len(x) > 9)",
    f"assert not 9 < x.sum() < ({_QUESTION})",
    f"assert (x if {_QUESTION} else -x) is not None",
    f"assert bool({_QUESTION}) == bool(x.sum() > 999)",
    f"with suppress(AssertionError): assert {_QUESTION}",
    f"try: assert {_QUESTION}\n        finally: return x",
    f"try:\n            assert {_QUESTION}\n        except ERRORS: pass",
    f"try:\n            assert {_QUESTION}\n        except Exception:\n            if len(x): return -x\n"
    "            raise",
    f"try:\n            x = 2 * x if {_QUESTION} else x\n        except RuntimeError: pass",
    f"with suppress(Exception): x = 2 * x if {_QUESTION} else x",
    f"assert (x < 9).all() and not ({_QUESTION} and len(x) > 9)",
    f"with Ending(): assert {_QUESTION}",
    f"with Timed(), ending(): assert {_QUESTION}",
    f"with ending(): x = 2 * x if {_QUESTION} else x",
)


_CONTEXTS = """
class Timed:
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.ended = True
class Ending(Timed):
    def __exit__(self, *error):
        return error[0] is not None
@contextlib.contextmanager
def ending():
    try:
        yield
    except Exception:
        pass
"""


def _asserting(folder: Path, statement: str) -> nn.Module:
    """A model with a statement of its own, in a file, as the lines are read."""
    (folder / "asserting_model.py").write_text(
        "import contextlib, torch\nfrom contextlib import suppress\nERRORS = (AssertionError,)\n"
        f"{_CONTEXTS}class Model(torch.nn.Module):\n    def note(self, *answers):\n        return [*answers]\n"
        "    @contextlib.contextmanager\n    def timed(self):\n        with Timed():\n            yield\n"
        f"    def forward(self, x):\n        {statement}\n        return x + 1\n"
    )
    linecache.checkcache()
    for one in (decisions._wanted_by_assertion, decisions._guarded_lines, decisions._parts_of):
        one.cache_clear()
    spec = importlib.util.spec_from_file_location("asserting_model", folder / "asserting_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["asserting_model"] = module
    spec.loader.exec_module(module)
    model: nn.Module = module.Model().eval()
    return model


@pytest.mark.parametrize("statement", _BY_YES)
def test_a_question_that_makes_an_assertion_hold_is_answered(tmp_path: Path, statement: str) -> None:
    model = _asserting(tmp_path, statement)
    _holds(model, _captured(model, torch.rand(4, 3)), [torch.rand(4, 3)])


@pytest.mark.parametrize("statement", _EITHER_WAY)
def test_a_question_whose_answer_an_assertion_hands_on_is_not_answered(tmp_path: Path, statement: str) -> None:
    with pytest.raises(CaptureError, match=r"decides in Python|behaves otherwise"):
        _captured(_asserting(tmp_path, statement), torch.rand(4, 3))


def test_no_other_method_follows_a_model_that_catches_what_is_refused(tmp_path: Path) -> None:
    model = _asserting(tmp_path, "try: assert x.sum() < 99\n        except Exception: return x")
    tree = input_tree(model, (torch.rand(4, 3),), {})
    with pytest.raises(CaptureError, match=r"decides in Python"):
        capture(model, tree, tree.spec())


def test_an_assertion_that_is_told_as_another_error_is_answered() -> None:
    class Told(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            try:
                assert all((row < 9).all() for row in x)
            except AssertionError as error:
                raise ValueError("too large") from error
            return x + 1

    _holds(Told(), _captured(Told().eval(), torch.rand(4, 3)), [torch.rand(4, 3)])


class _InBlocks(nn.Module):
    """Block after block of eight rows, as models do it that would need much memory for all at once."""

    def forward(self, x: Tensor) -> Tensor:
        blocks = []
        for start in range(0, x.shape[0], 8):
            end = min(x.shape[0], start + 8)
            block = x[start:end]
            blocks.append(block - block.mean(0))
        return torch.cat(blocks)


@pytest.mark.parametrize(("rows", "low", "high"), [(5, 2, 8), (10, 2, 30)])
def test_a_loop_over_blocks_is_captured_whatever_is_left_of_the_last_ones(rows: int, low: int, high: int) -> None:
    others = [(torch.rand(size, 3),) for size in {low, 8, high, (low + high) // 2}]
    lower_and_compare(_InBlocks(), (torch.rand(rows, 3),), dynamic={"x": {0: (low, high)}}, other_inputs=others)


def test_a_loop_over_blocks_is_refused_where_their_number_shows() -> None:
    class Means(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[start : min(x.shape[0], start + 8)].mean(0) for start in range(0, x.shape[0], 8)])

    with pytest.raises(CaptureError, match="behaves otherwise at") as refused:
        lower_and_compare(Means(), (torch.rand(10, 3),), dynamic={"x": {0: (2, 30)}})
    assert "(x_0 + 7)//8) == 2" in "".join(refused.value.notes)
