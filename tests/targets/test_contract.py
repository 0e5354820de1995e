"""What the contract promises of every target's options, and what becomes of a target that falls short of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import graphforge
from graphforge.errors import GraphForgeError, UsageError, UserCodeError
from graphforge.targets import get_target, option, options_for, target_names
from graphforge.targets.contract import check_contract, shortcomings
from graphforge.targets.onnx import OnnxTarget
from graphforge.targets.options import PRECISION, declared_options
from graphforge.targets.support import runtimes
from tests.cli.command import run_command


@dataclass(frozen=True, slots=True)
class Options:
    """One option of every type that the contract reads."""

    precision: str = option("fp32", values={"fp32": "everything in float32", "fp16": "half"}, help="arithmetic")
    flag: bool = option(False, help="a yes or no")
    count: int = option(2, help="a whole number")
    share: float = option(0.5, help="a number")
    title: str = option("", help="a text")
    folder: Path | None = option(None, help="a path")
    style: Literal["plain", "loud"] = option("plain", help="one of two")
    level: Literal[0, 1] | None = option(None, help="a number of a few")
    sizes: tuple[int, ...] = option((), help="numbers")
    data: str | Mapping[str, Any] | None = option(None, help="a file, or arrays")


class Toy(OnnxTarget):
    """The ONNX target with options of every type."""

    name = "toy"
    options: type[Any] = Options


def own(**given: object) -> Options:
    found: Options = options_for(Toy(), own=given).own
    return found


@pytest.mark.parametrize("name", target_names())
def test_every_target_fulfils_the_contract(name: str) -> None:
    assert list(shortcomings(get_target(name))) == []


@pytest.mark.parametrize("name", target_names())
def test_every_option_has_help_of_one_line_and_a_form(name: str) -> None:
    for one in declared_options(get_target(name)):
        helps = one.values.values() if one.name == PRECISION else ()
        for text in (one.help, one.form, *helps):
            assert text.strip()
            assert "\n" not in text


@pytest.mark.parametrize("name", target_names())
def test_declared_defaults_are_values_that_could_be_asked(name: str) -> None:
    target = get_target(name)
    for one in declared_options(target):
        if one.default is None:
            continue
        given = {one.name: one.default}
        asked = options_for(target, precision=given.get(PRECISION), own={} if one.name == PRECISION else given)
        assert getattr(asked.own, one.name) == one.default
        assert asked.own == target.options()


@pytest.mark.parametrize("name", target_names())
def test_every_declared_precision_can_be_asked(name: str) -> None:
    target = get_target(name)
    precision = declared_options(target)[0]
    assert precision.name == PRECISION
    for one in precision.values:
        assert options_for(target, precision=one).precision == one


@pytest.mark.parametrize("name", ["tensorrt", "magicmind"])
def test_readme_of_the_folder_lists_the_options_that_are_declared(name: str) -> None:
    text = (Path(graphforge.__file__).parent / "targets" / name / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z][a-z0-9_]*)` \| ([^|]*) \|", text.partition("## Options")[2], re.MULTILINE))
    declared = {one.name: one.default for one in declared_options(get_target(name)) if one.name != PRECISION}
    assert rows.keys() == declared.keys()
    for option_name, default in declared.items():
        if isinstance(default, str | bool) and default != "":
            assert rows[option_name] == f"`{str(default).lower()}`"


@pytest.mark.parametrize("name", target_names())
def test_tables_that_describe_a_target_are_there(name: str) -> None:
    for table in get_target(name).tables:
        assert runtimes(table)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("flag", "yes", True),
        ("flag", True, True),
        ("flag", "0", False),
        ("count", "3", 3),
        ("count", 3, 3),
        ("share", "1e-3", 0.001),
        ("share", 1, 1.0),
        ("title", "a=b", "a=b"),
        ("folder", "here", Path("here")),
        ("folder", None, None),
        ("style", "loud", "loud"),
        ("level", "1", 1),
        ("level", 0, 0),
        ("level", None, None),
        ("sizes", "1, 2", (1, 2)),
        ("sizes", [3], (3,)),
        ("data", "file.npz", "file.npz"),
        ("data", {"x": 1}, {"x": 1}),
    ],
)
def test_text_and_python_values_are_read_by_the_type_of_the_option(name: str, given: object, value: object) -> None:
    read = getattr(own(**{name: given}), name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("flag", "perhaps", "expected true or false, got 'perhaps'"),
        ("count", "2.5", "expected whole number, got '2.5'"),
        ("count", True, "expected whole number, got True"),
        ("count", 2.0, "expected whole number, got 2.0"),
        ("share", "nan", "expected number, got 'nan'"),
        ("share", "half", "expected number, got 'half'"),
        ("title", 3, "expected text, got 3"),
        ("title", None, "expected text, got None"),
        ("style", "lout", "unknown value 'lout'"),
        ("level", "2", "unknown value '2'"),
        ("sizes", "1,x", "got '1,x'"),
        ("data", 3, "got 3"),
    ],
)
def test_value_that_an_option_cannot_have_is_refused_with_what_it_can(name: str, given: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        own(**{name: given})
    assert caught.value.message.startswith(f"target 'toy', option {name!r}: ")
    assert message in caught.value.message
    declared = next(one for one in declared_options(Toy()) if one.name == name)
    assert caught.value.notes[-1] == f"{name} is {declared.form}: {declared.help}"


def test_value_outside_the_listed_ones_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        own(style="lout")
    assert caught.value.notes[:2] == ("did you mean 'loud'?", "known: plain, loud")


def test_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="target 'toy' has no option 'fold'") as caught:
        own(fold="x")
    assert "did you mean 'folder'?" in caught.value.notes
    assert "`graphforge targets toy` tells all about it" in caught.value.notes


def test_unknown_precision_is_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match="target 'toy' has no precision 'fp8'") as caught:
        options_for(Toy(), precision="fp8")
    assert "fp32 (default): everything in float32" in caught.value.notes


def test_precision_is_not_given_among_the_options() -> None:
    with pytest.raises(UsageError, match="precision is not given among the options") as caught:
        own(precision="fp16")
    assert "precision=NAME" in caught.value.notes[0]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"precision": "fp8"}, "target 'onnx' has no precision 'fp8'"),
        ({"target_options": {"nonsense": 1}}, "target 'onnx' has no option 'nonsense'"),
    ],
)
def test_what_onnx_does_not_have_is_refused_before_any_work(
    keywords: dict[str, Any], message: str, tmp_path: Path
) -> None:
    steps: list[str] = []
    with pytest.raises(UsageError, match=message):
        graphforge.compile(
            torch.nn.ReLU(), torch.zeros(1), output=tmp_path / "out", progress=steps.append, verify=False, **keywords
        )
    assert steps == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "fp8"), "target 'onnx' has no precision 'fp8'"),
        (("--option", "bogus=1"), "target 'onnx' has no option 'bogus'"),
        (("--target", "magicmind", "--option", "arch=mtp_372"), "target 'magicmind' has no option 'arch'"),
        (("--target", "magicmind", "--precision", "force_float61"), "has no precision 'force_float61'"),
    ],
)
def test_command_line_refuses_what_the_target_does_not_have(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text("import torch\nbuild = torch.nn.ReLU\n")
    outcome = run_command("compile", "net.py:build", "--input", "x:1x8", "-o", "out", *arguments, cwd=tmp_path)
    assert outcome.code == 2
    assert message in outcome.error
    assert not (tmp_path / "out").exists()


def test_manifest_holds_what_was_asked_and_what_was_used(tmp_path: Path) -> None:
    bundle = graphforge.compile(
        torch.nn.ReLU(),
        torch.zeros(2),
        target=Toy(),
        opset=17,
        target_options={"count": "3", "data": {"x": torch.zeros(2, 3)}},
        output=tmp_path / "out",
        verify=False,
    )
    assert bundle.manifest["target"] == {
        "name": "toy",
        "opset": 17,
        "outputs": None,
        "nms": None,
        "precision": "fp32",
        "options": {
            "precision": "fp32",
            "flag": False,
            "count": 3,
            "share": 0.5,
            "title": "",
            "folder": None,
            "style": "plain",
            "level": None,
            "sizes": [],
            "data": {"x": "torch.float32[2,3]"},
        },
        "asked": ["opset", "count", "data"],
    }
    assert json.loads((bundle.path / "manifest.json").read_text())["target"] == bundle.manifest["target"]


class Mute(OnnxTarget):
    """A target that nothing here runs."""

    def runner(self, folder: Path) -> None:
        return None

    def runs_here(self, folder: Path | None = None) -> str | None:
        return "it takes a board"


def test_target_that_nothing_here_runs_is_not_verified_for_its_own_reason(tmp_path: Path) -> None:
    bundle = graphforge.compile(torch.nn.ReLU(), torch.zeros(2), target=Mute(), output=tmp_path / "out")
    reason = "nothing on this machine runs what target onnx makes: it takes a board"
    assert bundle.manifest["verification"] == {"verdict": "skipped", "passed": None, "skipped": reason}
    assert f"not verified: {reason}" in bundle.manifest["notes"]


class Clumsy(OnnxTarget):
    """Every method raises what a slip of the pen raises."""

    def __init__(self, clumsy: str) -> None:
        super().__init__()
        self.clumsy = clumsy

    def __getattribute__(self, name: str) -> Any:
        if name != "clumsy" and name == self.clumsy:
            return lambda *_: self._slip()
        return super().__getattribute__(name)

    def _slip(self) -> None:
        raise KeyError("opset")


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("available", "whether it works here"),
        ("pipeline", "its passes"),
        ("emit", "the artifact"),
        ("runner", "a run of the artifact"),
    ],
)
def test_exception_in_a_target_of_somebody_else_is_told_with_its_line(method: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(UserCodeError) as caught:
        graphforge.compile(torch.nn.ReLU(), torch.zeros(2), target=Clumsy(method), output=tmp_path / "out")
    assert caught.value.message == f"target 'onnx' failed when asked for {what}: KeyError: 'opset'"
    assert "test_contract.py" in caught.value.notes[0]
    assert not (tmp_path / "out").exists()


# -- targets that fall short -------------------------------------------------------------------------------------------


class Deaf(OnnxTarget):
    """Its emit cannot be called as the contract calls it."""

    emit: Any = lambda self, model: None


def _with_options(declared: object) -> object:
    class Short(OnnxTarget):
        options: Any = declared

    return Short()


def _with_tables(named: object) -> object:
    class Short(OnnxTarget):
        tables: Any = named

    return Short()


@dataclass
class Thawed:
    """Options that could be changed under way."""

    precision: str = option("fp32", values={"fp32": "all"}, help="arithmetic")


@dataclass(frozen=True)
class Undeclared:
    """An option nobody described."""

    precision: str = option("fp32", values={"fp32": "all"}, help="arithmetic")
    depth: int = 3


@dataclass(frozen=True)
class Imprecise:
    """Options without a precision."""

    depth: int = option(3, help="how deep")


@dataclass(frozen=True)
class Defaulting:
    """A default that could not be asked for."""

    precision: str = option("fp64", values={"fp32": "all"}, help="arithmetic")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (object, "it has no name, makes, options, tables, available, pipeline, emit, runner, runs_here"),
        (Deaf, r"its emit does not take \(model, folder, options, shapes\)"),
        (lambda: OnnxTarget, "it is the class OnnxTarget, expected an instance of it"),
        (lambda: _with_tables("onnxruntime"), "its tables are not a sequence of names"),
        (lambda: _with_options(dict), "its options are not a frozen dataclass"),
        (lambda: _with_options(Thawed), "its options are not a frozen dataclass"),
        (lambda: _with_options(Undeclared), r"of its options, depth is not declared by option\(default, help=...\)"),
        (lambda: _with_options(Imprecise), "its options have no precision"),
        (lambda: _with_options(Defaulting), "default of its option precision, 'fp64', is not among its values"),
    ],
)
def test_target_that_falls_short_is_refused_in_a_sentence(made: Callable[[], object], message: str) -> None:
    with pytest.raises(GraphForgeError, match=message) as caught:
        check_contract(made(), origin="package:Class")
    assert "(package:Class) does not fulfil the contract" in caught.value.message
    assert caught.value.notes == ("graphforge/targets/README.md shows a complete target",)


def test_target_given_from_python_is_held_to_the_contract_too(tmp_path: Path) -> None:
    broken: Any = object()
    with pytest.raises(GraphForgeError, match="does not fulfil the contract"):
        graphforge.compile(torch.nn.ReLU(), torch.zeros(1), target=broken, output=tmp_path / "out")
