"""Assumptions of a capture about what data selects, held against the model where they are false.

`decisions.py` answers "did this select anything?" and "more than so many?" as if a great many had been selected.
Here inputs are looked for with which each of these answers is wrong (all selected, none), the captured program is run
on them in PyTorch and compared with the model.  Where the two part, the branch that was not captured matters, and the
model is refused; where they agree the inputs go to verification as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree

from graphforge.call import CallInputs
from graphforge.errors import CaptureError
from graphforge.frontend.captured import Captured
from graphforge.frontend.decisions import ASSUMED, COUNTED, Assumption
from graphforge.module_state import ModuleState

__all__ = ["Watched", "agree", "check_assumptions", "eager", "result_of"]

_SEED = 20
# The same kernels in another order: what they may differ by, as a share of the largest magnitude.
_RTOL = 1e-3
# Inputs whose results are so many times larger than those of the example say little about rounding: they are compared
# here, where both sides are PyTorch, and go no further.
_FAR = 1e3
# Of the whole numbers in an input, so many are tried.
_VALUES = 8


def check_assumptions(
    model: torch.nn.Module, inputs: CallInputs, captured: Captured, assumptions: Sequence[Assumption]
) -> None:
    """Run the program where its assumptions are false; fills ``captured.notes`` and ``captured.feeds_to_try``.

    Raises:
        CaptureError: the model gives something else there.
    """
    unseen = dict(enumerate(assumptions))
    usual: list[Any] = []
    for tensors in _draws(inputs):
        if not unseen:
            break
        program = Watched(captured, assumptions)
        try:
            found = program.results(tensors)
        except MemoryError:
            raise
        except Exception:  # inputs that the program itself rejects
            continue
        false = [place for place in unseen if program.truth.get(place) is False]
        if not false:
            continue
        expected = eager(model, inputs, tensors)
        if expected is None:  # the model rejects them
            continue
        if not agree(found, expected):
            raise _refusal(unseen[false[0]])
        # the questions behind one that is answered otherwise need not have been asked
        if all(program.truth.get(place, True) for place in range(false[0])):
            del unseen[false[0]]
        usual = usual or eager(model, inputs, inputs.tensors) or []
        if _largest(expected) <= _FAR * max(1.0, _largest(usual)):
            captured.feeds_to_try.append(tensors)
    for one in assumptions:
        captured.notes.append(_told(one, seen=one not in unseen.values()))
    captured.notes = list(dict.fromkeys(captured.notes))


def _told(one: Assumption, *, seen: bool) -> str:
    where = f" ({one.place})" if one.place else ""
    tried = "the other case was run and agrees" if seen else "no input was found for the other case, which is not tried"
    return f"`{one.text}`{where} hangs on data: captured as it is for many rows; {tried}"


def _refusal(one: Assumption) -> CaptureError:
    return CaptureError(
        f"the model behaves otherwise where data selects fewer rows: `{one.text}`",
        f"asked at {one.place}" if one.place else "",
        "compute both cases with one expression, torch.where or torch.cond: an artifact has no Python to decide",
    )


def _draws(inputs: CallInputs) -> Iterator[dict[str, torch.Tensor]]:
    """The given tensors, then such as select nothing or everything: zeros, large, small, negated, drawn anew."""
    given = inputs.tensors
    yield dict(given)
    generator = torch.Generator().manual_seed(_SEED)

    def mapped(change: Any) -> dict[str, torch.Tensor]:
        return {name: change(tensor) if tensor.is_floating_point() else tensor for name, tensor in given.items()}

    for scale in (0.0, -1.0, 0.1, 10.0, -10.0):
        yield mapped(lambda tensor, scale=scale: tensor * scale)
    for offset in (-1.0, 1.0, -100.0, 100.0):
        yield mapped(lambda tensor, offset=offset: tensor + offset)
    for scale in (1.0, 5.0, 0.2):
        yield mapped(
            lambda tensor, scale=scale: (
                torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor.dtype) * scale
            )
        )
    for scale in (1000.0, -1000.0):
        yield mapped(lambda tensor, scale=scale: tensor * scale)
    if any(tensor.dtype is torch.bool for tensor in given.values()):
        for full in (torch.zeros_like, torch.ones_like):
            yield {n: full(tensor) if tensor.dtype is torch.bool else tensor for n, tensor in given.items()}
    if any(not tensor.is_floating_point() and tensor.dtype is not torch.bool for tensor in given.values()):
        yield {n: tensor if tensor.is_floating_point() else torch.zeros_like(tensor) for n, tensor in given.items()}
    for name, tensor in given.items():
        if len(given) > 1 or not tensor.is_floating_point():
            yield from ({**given, name: other} for other in _alone(tensor))


def _alone(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """What may select nothing or everything by one input alone: each of a few whole numbers everywhere, or nowhere."""
    if tensor.dtype is torch.bool or tensor.is_floating_point() or tensor.is_complex():
        yield from (torch.zeros_like(tensor), torch.ones_like(tensor))
        return
    values = tensor.unique()
    if values.numel() > _VALUES:
        values = values[torch.linspace(0, values.numel() - 1, _VALUES).long()]
    for value in values:
        yield torch.full_like(tensor, value.item())
        if values.numel() > 1:
            yield torch.where(tensor == value, values[1] if value == values[0] else values[0], tensor)


def eager(model: torch.nn.Module, inputs: CallInputs, tensors: Mapping[str, torch.Tensor]) -> list[Any] | None:
    """What the model gives for tensors of the same names, leaf by leaf; None where it rejects them."""
    result = result_of(model, inputs, tensors)
    return None if result is None else _pytree.tree_leaves(result)


def result_of(model: torch.nn.Module, inputs: CallInputs, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What the model returns for tensors of the same names; None where it rejects them."""
    state = ModuleState(model)
    args, kwargs = inputs.map_leaves(lambda name, leaf: tensors[name].clone() if name in tensors else leaf)
    try:
        with torch.no_grad():
            return model(*args, **kwargs)
    except MemoryError:
        raise
    except Exception:  # whatever the user's forward raises
        return None
    finally:
        state.put_back()


def _largest(results: Sequence[Any]) -> float:
    """The largest magnitude among results; infinite where one of them is not finite."""
    largest = 0.0
    for one in results:
        if isinstance(one, torch.Tensor) and one.is_floating_point() and one.numel():
            value = float(one.abs().max())
            largest = max(largest, value if value < float("inf") else float("inf"))
    return largest


def agree(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two runs gave the same, but for rounding."""
    found, expected = [[one for one in leaves if one is not None] for leaves in (found, expected)]
    if len(found) != len(expected):
        return False
    for one, other in zip(found, expected, strict=True):
        if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
            if type(one) is type(other) and one != other:
                return False
            continue
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if one.is_floating_point() or one.is_complex():
            finite = other[torch.isfinite(other)].abs()
            allowed = _RTOL * float(finite.max()) if finite.numel() else 0.0
            if not torch.allclose(one, other, rtol=_RTOL, atol=allowed, equal_nan=True):
                return False
        elif not torch.equal(one, other):
            return False
    return True


class Watched(torch.fx.Interpreter):
    """The captured program in PyTorch, which notices which assumptions hold.

    Attributes:
        truth: number of an assumption -> whether it held.
    """

    def __init__(self, captured: Captured, assumptions: Sequence[Assumption]) -> None:
        super().__init__(captured.graph_module)
        self.captured = captured
        self.assumptions = assumptions
        self.truth: dict[int, bool] = {}
        self.sizes: dict[Any, int] = {}
        self.counted: dict[str, int] = {}

    def results(self, tensors: Mapping[str, torch.Tensor]) -> list[Any]:
        """What the program gives for the user's inputs, leaf by leaf."""
        captured = self.captured
        fed: list[Any] = []
        for node in captured.graph_module.graph.nodes:
            if node.op != "placeholder":
                continue
            if node.name in captured.weights:
                weight = captured.weights[node.name][1]
                fed.append(weight.detach() if isinstance(weight, torch.nn.Parameter) else weight.clone())
            elif node.name in captured.constants:
                fed.append(captured.constants[node.name])
            else:
                fed.append(tensors[captured.input_names[node.name]].clone())
        with torch.no_grad():
            results = _pytree.tree_leaves(self.run(*fed))
        for place, one in enumerate(self.assumptions):
            if one.expression is None:
                continue
            known = {
                symbol: self.counted.get(str(symbol), self.sizes.get(symbol)) for symbol in one.expression.free_symbols
            }
            if None not in known.values():
                self.truth[place] = bool(one.expression.subs(known)) is one.answer
        return [
            result for result, name in zip(results, captured.output_names, strict=True) if name is not None
        ]  # the others are buffers that were written

    def run_node(self, n: torch.fx.Node) -> Any:
        """As the interpreter does, without assertions."""
        if str(n.target) == "aten._assert_async.msg" and str(n.args[1]).startswith(ASSUMED):
            place = int(str(n.args[1]).removeprefix(ASSUMED))
            value = self.fetch_args_kwargs_from_env(n)[0][0]
            self.truth[place] = self.truth.get(place, True) and bool(value)
            return None
        if str(n.target) == "aten._assert_async.msg" and str(n.args[1]).startswith(COUNTED):
            self.counted[str(n.args[1]).removeprefix(COUNTED)] = int(self.fetch_args_kwargs_from_env(n)[0][0])
            return None
        if str(n.target) in ("aten._assert_scalar.default", "aten._assert_async.default", "aten._assert_async.msg"):
            return None
        result = super().run_node(n)
        self._bind(n.meta.get("val"), result)
        return result

    def _bind(self, fake: Any, real: Any) -> None:
        if isinstance(fake, torch.Tensor) and isinstance(real, torch.Tensor):
            for size, known in zip(fake.shape, real.shape, strict=True):
                self._bind(size, known)
        elif isinstance(fake, torch.SymInt):
            if fake.node.expr.is_Symbol:
                self.sizes.setdefault(fake.node.expr, int(real))
        elif isinstance(fake, list | tuple) and isinstance(real, list | tuple):
            for one, other in zip(fake, real, strict=False):
                self._bind(one, other)
