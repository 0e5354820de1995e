"""Substitutions: found wherever a function was imported, counted, scoped to one thread, and gone afterwards."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphforge
from graphforge.errors import CaptureError, GraphForgeError, UsageError
from graphforge.frontend.replacing import forget_calls, substituting
from graphforge.frontend.substitution import Substitution, declared_substitutions, substitute, withdraw

LIBRARY = """
import torch

def pick(x, limit):
    kept = []
    for row in x:                      # a Python loop over data: nothing captures this
        if float(row.sum()) > limit:
            kept.append(row)
    return torch.stack(kept) if kept else x[:0]

def double(x):
    return x * 2

class Head:
    def score(self, x):
        return x + 1

    @staticmethod
    def still(x):
        return x - 1

    @classmethod
    def named(cls, x):
        return x * 3
"""
USER = """
from gf_sub_library import pick as choose
from gf_sub_library import Head, double

def run(x):
    return choose(double(x), 0.5)
"""


def module(name: str, source: str) -> ModuleType:
    made = ModuleType(name)
    sys.modules[name] = made
    exec(source, vars(made))  # a module of the test's own
    for held in vars(made).values():
        if getattr(held, "__module__", None) == "builtins":
            held.__module__ = name
    return made


@pytest.fixture
def modules() -> Iterator[tuple[Any, Any]]:
    library = module("gf_sub_library", LIBRARY)
    user = module("gf_sub_user", USER)
    yield library, user
    for name in ("gf_sub_library", "gf_sub_user"):
        del sys.modules[name]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    targets = (None, "onnx", "magicmind")
    before = [one for target in targets for one in declared_substitutions(target)]
    yield
    for one in [one for target in targets for one in declared_substitutions(target)]:
        if one not in before:
            withdraw(one.function)


def tensor_pick(x: Tensor, limit: float) -> Tensor:
    return x[x.sum(1) > limit]


class Model(nn.Module):
    def __init__(self, user: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.user = [user]  # no submodule

    def forward(self, x: Tensor) -> Tensor:
        picked: Tensor = self.user[0].run(self.linear(x))
        return picked + 1


def names_held(library: Any, user: Any) -> list[Any]:
    return [library.pick, user.choose, library.double, user.double, vars(library.Head)["score"]]


def test_a_loop_over_data_compiles_with_a_substitute_and_equals_eager(modules: Any, tmp_path: Path) -> None:
    library, user = modules
    held = names_held(library, user)
    torch.manual_seed(0)
    model, x = Model(user).eval(), torch.randn(6, 4)
    with pytest.raises(CaptureError):
        graphforge.compile(model, x, output=tmp_path / "without")
    substitute("gf_sub_library.pick")(tensor_pick)
    bundle = graphforge.compile(model, x, output=tmp_path / "with")
    assert bundle.manifest["verification"]["passed"]
    assert bundle.manifest["capture"]["substitutions"] == [
        {"function": "gf_sub_library.pick", "substitute": f"{__name__}.tensor_pick", "calls": 1}
    ]
    assert all(a is b for a, b in zip(names_held(library, user), held, strict=True))


def test_found_under_every_name_and_put_back(modules: Any) -> None:
    library, user = modules
    held = names_held(library, user)
    with substituting([Substitution("gf_sub_library.double", lambda x: x + 100)]) as applied:
        assert user.double(1) == 101
        assert library.double(1) == 101
        assert set(applied[0].places) >= {"gf_sub_library.double", "gf_sub_user.double"}
    assert applied[0].calls == 2
    assert user.double(1) == 2
    assert all(a is b for a, b in zip(names_held(library, user), held, strict=True))


def test_a_module_of_two_names_is_one_place(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library, _ = modules
    monkeypatch.setitem(sys.modules, "gf_sub_alias", library)
    with substituting([Substitution("gf_sub_library.double", abs)]) as applied:
        assert sorted(applied[0].places) == ["gf_sub_library.double", "gf_sub_user.double"]


def test_a_second_attempt_counts_anew(modules: Any) -> None:
    _, user = modules
    with substituting([Substitution("gf_sub_library.double", lambda x: x + 100)]) as applied:
        user.double(1)
        user.double(1)
        forget_calls()
        user.double(1)
    assert applied[0].calls == 1


def test_put_back_after_an_exception(modules: Any) -> None:
    library, user = modules
    held = names_held(library, user)
    with pytest.raises(ZeroDivisionError), substituting([Substitution("gf_sub_library.double", lambda x: 1 // 0)]):
        user.double(1)
    assert all(a is b for a, b in zip(names_held(library, user), held, strict=True))


def test_put_back_when_one_of_several_names_nothing(modules: Any) -> None:
    library, user = modules
    held = names_held(library, user)
    with (
        pytest.raises(GraphForgeError),
        substituting(
            [Substitution("gf_sub_library.double", abs), Substitution("gf_sub_library.missing", abs)],
        ),
    ):
        pass
    assert all(a is b for a, b in zip(names_held(library, user), held, strict=True))


def test_a_module_imported_meanwhile_is_put_back_too(modules: Any) -> None:
    library, _ = modules
    original = library.double
    with substituting([Substitution("gf_sub_library.double", lambda x: x + 100)]):
        late = module("gf_sub_late", "from gf_sub_library import double")
        assert late.double(1) == 101
    assert late.double is original
    del sys.modules["gf_sub_late"]


def test_looking_for_a_function_imports_nothing_of_a_lazy_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gf_sub_lazy"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import importlib\ndef __getattr__(name):\n    return importlib.import_module(f'{__name__}.{name}')\n"
    )
    (package / "rare.py").write_text("def step(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    lazy: Any = importlib.import_module("gf_sub_lazy")
    wanted = [Substitution("gf_sub_lazy.rare.step", lambda x: x + 100, required=False)]
    try:
        with substituting(wanted) as applied:
            assert "gf_sub_lazy.rare" not in sys.modules
            assert applied == []
        rare = lazy.rare  # now it is imported
        with substituting(wanted) as applied:
            assert rare.step(1) == 101
            assert applied[0].places == ("gf_sub_lazy.rare.step",)
    finally:
        for name in ("gf_sub_lazy", "gf_sub_lazy.rare"):
            sys.modules.pop(name, None)


def test_methods_of_every_kind(modules: Any) -> None:
    library, _ = modules
    before = dict(vars(library.Head))
    with substituting(
        [
            Substitution("gf_sub_library.Head.score", lambda self, x: (type(self).__name__, x)),
            Substitution("gf_sub_library.Head.still", lambda x: -x),
            Substitution("gf_sub_library.Head.named", lambda cls, x: (cls.__name__, x)),
        ]
    ):
        assert library.Head().score(1) == ("Head", 1)
        assert library.Head.still(1) == -1
        assert library.Head.named(1) == ("Head", 1)
    assert dict(vars(library.Head)) == before
    assert library.Head.named(2) == 6


def test_inside_the_substitute_the_name_means_the_original(modules: Any) -> None:
    library, user = modules
    with substituting([Substitution("gf_sub_library.double", lambda x: user.double(x) + 0.5)]):
        assert library.double(1) == 2.5


def test_two_threads_do_not_see_each_others(modules: Any) -> None:
    library, user = modules
    original = library.double
    barrier = threading.Barrier(3)
    seen: dict[str, list[int]] = {"a": [], "b": [], "none": []}

    def work(name: str, substitutions: list[Substitution]) -> None:
        for _ in range(20):
            with substituting(substitutions):
                barrier.wait()  # all three are inside
                seen[name].append(user.double(1))
                barrier.wait()

    threads = [
        threading.Thread(target=work, args=("a", [Substitution("gf_sub_library.double", lambda x: x + 10)])),
        threading.Thread(target=work, args=("b", [Substitution("gf_sub_library.double", lambda x: x + 20)])),
        threading.Thread(target=work, args=("none", [])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": [11] * 20, "b": [21] * 20, "none": [2] * 20}
    assert library.double is original
    assert user.double is original


def test_two_compilations_at_once(modules: Any, tmp_path: Path) -> None:
    """One thread has the substitution for its target, the other has none and fails to capture."""
    library, user = modules
    held = names_held(library, user)
    substitute("gf_sub_library.pick", target="onnx")(tensor_pick)
    from graphforge.call import input_tree
    from graphforge.frontend.capture import capture

    model, x = Model(user).eval(), torch.randn(6, 4)
    tree = input_tree(model, (x,), {})
    outcome: dict[str, object] = {}

    def work(target: str) -> None:
        try:
            outcome[target] = capture(model, tree, tree.spec(), target=target).substitutions
        except CaptureError as error:
            outcome[target] = error

    threads = [threading.Thread(target=work, args=(target,)) for target in ("onnx", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(outcome["onnx"], list)
    assert isinstance(outcome["other"], CaptureError)
    assert all(a is b for a, b in zip(names_held(library, user), held, strict=True))


def test_a_name_that_is_not_there_is_an_error_with_the_nearest(modules: Any) -> None:
    with (
        pytest.raises(GraphForgeError, match="gf_sub_library has no 'dubble'") as caught,
        substituting([Substitution("gf_sub_library.dubble", abs)]),
    ):
        pass
    assert "gf_sub_library.double" in str(caught.value)


def test_a_module_that_is_not_there_is_an_error() -> None:
    with (
        pytest.raises(GraphForgeError, match="there is no module 'gf_no_such'"),
        substituting([Substitution("gf_no_such.thing", abs)]),
    ):
        pass


def test_never_called_is_an_error_for_the_call_and_a_note_for_the_process(modules: Any, tmp_path: Path) -> None:
    model, x = nn.Linear(4, 4).eval(), torch.randn(2, 4)
    given = Substitution("gf_sub_library.pick", tensor_pick)
    with pytest.raises(GraphForgeError, match=r"gf_sub_library.pick matched nothing: the model never calls it"):
        graphforge.compile(model, x, substitutes=[given], output=tmp_path / "a")
    substitute("gf_sub_library.pick")(tensor_pick)
    with pytest.raises(GraphForgeError, match=r"gf_sub_library.pick matched nothing: the model never calls it"):
        graphforge.compile(model, x, substitutes=[tensor_pick], output=tmp_path / "a")
    bundle = graphforge.compile(model, x, output=tmp_path / "a")
    assert bundle.manifest["capture"]["substitutions"] == []
    assert [note for note in bundle.manifest["notes"] if "gf_sub_library.pick matched nothing" in note]
    withdraw(tensor_pick)
    substitute("gf_sub_library.pick", required=False)(tensor_pick)
    bundle = graphforge.compile(model, x, output=tmp_path / "a")
    assert not [note for note in bundle.manifest["notes"] if "gf_sub_library.pick" in note]


def test_a_name_that_is_nowhere_is_a_note_for_the_process_and_told_when_capture_fails(
    modules: Any, tmp_path: Path
) -> None:
    _, user = modules
    substitute("gf_sub_library.pikc")(tensor_pick)
    bundle = graphforge.compile(nn.Linear(4, 4).eval(), torch.randn(2, 4), output=tmp_path / "a")
    (note,) = [note for note in bundle.manifest["notes"] if "gf_sub_library.pikc" in note]
    assert note == (
        "the substitution of gf_sub_library.pikc matched nothing: gf_sub_library has no 'pikc'; "
        "nearest: gf_sub_library.pick"
    )
    with pytest.raises(CaptureError, match=r"gf_sub_library.pikc matched nothing: gf_sub_library has no 'pikc'"):
        graphforge.compile(Model(user).eval(), torch.randn(6, 4), output=tmp_path / "b")


def test_export_strict_never_stands_in_silently(modules: Any, tmp_path: Path) -> None:
    """It reads byte code, where nothing can be substituted: refused, or told."""
    given = Substitution("gf_sub_library.double", tensor_pick)
    model, x = nn.Linear(4, 4).eval(), torch.randn(2, 4)
    with pytest.raises(CaptureError, match="declared substitutions cannot be put in"):
        graphforge.compile(model, x, substitutes=[given], capture="export-strict", output=tmp_path / "a")
    substitute("gf_sub_library.double")(tensor_pick)
    notes = graphforge.compile(model, x, capture="export-strict", output=tmp_path / "a").manifest["notes"]
    assert "export-strict reads Python's byte code: what the process substitutes is left out" in notes

    class Failing(nn.Module):
        def __init__(self, library: Any) -> None:
            super().__init__()
            self.library = [library]

        def forward(self, x: Tensor) -> Tensor:
            doubled: Tensor = self.library[0].double(x)
            return doubled

    def failing(x: Tensor) -> Tensor:
        raise RuntimeError("not like this")

    substitute("gf_sub_library.double")(failing)
    with pytest.raises(CaptureError, match="export-strict: it reads Python's byte code"):
        graphforge.compile(Failing(modules[0]).eval(), x, output=tmp_path / "b")


def test_the_targets_own_goes_before_a_general_one(modules: Any) -> None:
    substitute("gf_sub_library.double", target="magicmind")(abs)
    substitute("gf_sub_library.double")(tensor_pick)
    chosen = {target: declared_substitutions(target)[-1].function for target in ("magicmind", "onnx")}
    assert chosen == {"magicmind": abs, "onnx": tensor_pick}


def test_a_class_or_a_bare_name_cannot_be_substituted(modules: Any) -> None:
    with pytest.raises(UsageError, match="give the full name"):
        substitute("double")
    with (
        pytest.raises(GraphForgeError, match="it is a class"),
        substituting([Substitution("gf_sub_library.Head", abs)]),
    ):
        pass


def test_a_scope_ends_with_what_was_declared_in_it(modules: Any) -> None:
    def mine() -> list[Substitution]:  # other tests' modules, and our own, declare for the process
        return [one for one in declared_substitutions() if one.path.startswith("gf_sub_")]

    with graphforge.substitutions(Substitution("gf_sub_library.pick", tensor_pick)):
        substitute("gf_sub_library.double")(abs)
        assert [one.path for one in mine()] == ["gf_sub_library.pick", "gf_sub_library.double"]
        with graphforge.substitutions(Substitution("gf_sub_library.pick", abs)):
            functions = {one.path: one.function for one in mine()}
            assert functions == {"gf_sub_library.pick": abs, "gf_sub_library.double": abs}
        elsewhere: list[Any] = []
        thread = threading.Thread(target=lambda: elsewhere.extend(mine()))
        thread.start()
        thread.join()
        assert elsewhere == []
    assert mine() == []


def test_a_module_imported_inside_a_scope_declares_for_the_process(
    modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import graphforge\n@graphforge.substitute('gf_sub_library.double')\ndef twice(x):\n    return x\n"
    (tmp_path / "gf_sub_declares.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with graphforge.substitutions():
        import gf_sub_declares  # type: ignore[import-not-found]
    assert [one.function for one in declared_substitutions() if one.path == "gf_sub_library.double"] == [
        gf_sub_declares.twice
    ]
    graphforge.withdraw("gf_sub_library.double")
    with pytest.raises(UsageError, match=r"'gf_sub_library.double' is not declared here"):
        graphforge.withdraw("gf_sub_library.double")
    del sys.modules["gf_sub_declares"]


def test_declaring_again_replaces() -> None:
    for value in (1, 2):
        code = f"@substitute('gf_sub_library.double')\ndef mine(x):\n    return {value}\n"
        exec(code, {"substitute": substitute, "__name__": "__main__"})
    (declared,) = [one for one in declared_substitutions() if one.path == "gf_sub_library.double"]
    assert declared.function(0) == 2


def test_what_is_given_must_be_a_substitution(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a substitution"), graphforge.substitutions(tensor_pick):
        pass
    with pytest.raises(UsageError, match="substitutes is a list"):
        graphforge.compile(nn.ReLU(), torch.ones(1), substitutes="mine.py", output=tmp_path / "a")


FILE = "import graphforge\n@graphforge.substitute('gf_sub_library.double')\ndef mine(x):\n    return x\n"


def test_a_file_of_substitutions(modules: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    for result in ("x", "x + 1"):
        file.write_text(FILE.replace("return x", f"return {result}"))
        for _ in range(2):
            with graphforge.substitutions(file):
                (declared,) = [one for one in declared_substitutions() if one.path == "gf_sub_library.double"]
                assert declared.function(1) == eval(result, {"x": 1})
    assert [one for one in declared_substitutions() if one.path == "gf_sub_library.double"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\n", "declares no substitution"),
        (
            "import no_such_package\n",
            r"cannot be loaded: ModuleNotFoundError[^\n]*\n.*raised at .*mine.py:1: import no",
        ),
        (None, "there is no file"),
    ],
)
def test_a_file_that_brings_none(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(GraphForgeError, match=message), graphforge.substitutions(file):
        pass
