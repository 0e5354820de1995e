"""Hostile and odd input to the installed command: refused in a sentence, within limits that are told, at the door."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphforge.cli.main import run
from tests.cli.command import run_command

FLOAT = TensorProto.FLOAT
NET = "import torch\n\n\ndef build(**_):\n    return torch.nn.Linear(3, 2).eval()\n"


def _value(name: str, shape: Sequence[int | str] | None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(
    nodes: list[onnx.NodeProto],
    shape: Sequence[int | str] = (2, 3),
    constants: dict[str, Any] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "net", [_value("x", shape)], [_value("y", None)], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, functions=list(functions), opset_imports=opsets, ir_version=8)


def _bomb(depth: int) -> onnx.ModelProto:
    """Functions of which each calls the next one twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    functions = []
    for level in range(depth):
        name, domain = ("Sin", "") if level == depth - 1 else (f"F{level + 1}", "mine")
        calls = [helper.make_node(name, [one], [to], domain=domain) for one, to in (("a", "b"), ("b", "c"))]
        functions.append(helper.make_function("mine", f"F{level}", ["a"], ["c"], calls, opsets))
    return _model([helper.make_node("F0", ["x"], ["y"], domain="mine")], functions=functions)


def _windows(operator: str, **attributes: Any) -> onnx.ModelProto:
    weight = {"w": np.ones((2, 3, 5, 5), np.float32)} if "Conv" in operator else {}
    node = helper.make_node(operator, ["x", *weight], ["z"], **attributes)
    ends = {"s": [0], "e": [1], "a": [2]}
    cut = helper.make_node("Slice", ["z", "s", "e", "a"], ["y"])
    return _model([node, cut], (1, 3, 3, 3), {**weight, **ends})


def _nested(depth: int) -> onnx.ModelProto:
    name = "y0"
    body = helper.make_graph([helper.make_node("Identity", ["x"], [name])], "inner", [], [_value(name, None)])
    for level in range(1, depth):
        name = f"y{level}"
        other = helper.make_graph([helper.make_node("Neg", ["x"], [f"n{level}"])], "e", [], [_value(f"n{level}", None)])
        node = helper.make_node("If", ["c"], [name], then_branch=body, else_branch=other)
        body = helper.make_graph([node], "body", [], [_value(name, None)])
    node = body.node[0]
    node.output[0] = "y"
    return _model([node], constants={"c": True})


def _sparse() -> onnx.ModelProto:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"])])
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    indices = numpy_helper.from_array(np.zeros((1,), np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 20, 1 << 20]))
    return model


def _sum_of(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """Adds to the input what nodes make out of constants, in ``z``."""
    total = helper.make_node("ReduceSum", ["z"], ["m"], keepdims=0)
    return _model([*nodes, total, helper.make_node("Add", ["x", "m"], ["y"])], constants=constants)


def _cut(node: onnx.NodeProto, shape: Sequence[int | str] = (2, 3), **constants: Any) -> onnx.ModelProto:
    """A slice of what a node makes of the input, in ``z``."""
    cut = helper.make_node("Slice", ["z", "begin", "end"], ["y"])
    return _model([node, cut], shape, {**constants, "begin": [0], "end": [1]})


def _doubling() -> onnx.ModelProto:
    names = ["k", *(f"z{step}" for step in range(39)), "z"]
    nodes = [helper.make_node("Concat", [one, one], [to], axis=0) for one, to in pairwise(names)]
    return _sum_of(*nodes, k=np.ones(4, np.float32))


def _loop(count: int | None, *, decides: bool = False) -> onnx.ModelProto:
    """Adds one to the input, round by round; ``decides``: whether each round computes that it is not the last."""
    last = ("Less", ["i", "most"]) if decides else ("Identity", ["go"])
    nodes = [helper.make_node("Add", ["s", "one"], ["t"]), helper.make_node(*last, ["on"])]
    inner = [_value("i", [], TensorProto.INT64), _value("go", [], TensorProto.BOOL), _value("s", (2, 3))]
    body = helper.make_graph(nodes, "round", inner, [_value("on", [], TensorProto.BOOL), _value("t", (2, 3))])
    node = helper.make_node("Loop", ["" if count is None else "count", "first", "x"], ["y"], body=body)
    constants = {"one": np.float32(1), "most": np.int64(1 << 62), "first": np.bool_(True)}
    return _model([node], constants=constants if count is None else {**constants, "count": np.int64(count)})


def _loops_within_loops() -> onnx.ModelProto:
    """Six loops inside each other, of a hundred rounds each."""
    inner = [_value("i0", [], TensorProto.INT64), _value("g0", [], TensorProto.BOOL), _value("s0", (2, 3))]
    nodes = [helper.make_node("Neg", ["s0"], ["t0"]), helper.make_node("Identity", ["g0"], ["o0"])]
    for level in range(1, 7):
        outputs = [_value(f"o{level - 1}", [], TensorProto.BOOL), _value(f"t{level - 1}", (2, 3))]
        body = helper.make_graph(nodes, f"body{level}", inner, outputs)
        state = "x" if level == 6 else f"s{level}"
        to = "y" if level == 6 else f"t{level}"
        nodes = [helper.make_node("Loop", ["count", "", state], [to], body=body)]
        if level < 6:
            nodes.append(helper.make_node("Identity", [f"g{level}"], [f"o{level}"]))
        inner = [_value(f"i{level}", [], TensorProto.INT64), _value(f"g{level}", [], TensorProto.BOOL)]
        inner.append(_value(f"s{level}", (2, 3)))
    return _model(nodes, constants={"count": np.int64(100)})


def _large_in_a_branch() -> onnx.ModelProto:
    made = [helper.make_node("ConstantOfShape", ["s"], ["z"]), helper.make_node("ReduceSum", ["z"], ["t"], keepdims=0)]
    then = helper.make_graph(made, "then", [], [_value("t", None)])
    other = helper.make_graph([helper.make_node("ReduceSum", ["x"], ["e"], keepdims=0)], "e", [], [_value("e", None)])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    return _model(nodes, constants={"zero": np.float32(0), "s": [1 << 40]})


_BEYOND = "and the limit is 1,073,741,824"
ONNX: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "Conv larger than its input": (lambda: _windows("Conv"), "a window of 5 does not fit its input"),
    "pool larger than its input": (
        lambda: _windows("AveragePool", kernel_shape=[9, 9]),
        "a window of 9 does not fit its input",
    ),
    "dilated past its input": (
        lambda: _windows("MaxPool", kernel_shape=[2, 2], dilations=[7, 7]),
        "a window of 8 does not fit its input",
    ),
    "stride of zero": (lambda: _windows("Conv", strides=[0, 1]), "strides [0, 1]"),
    "stride of zero, padded": (lambda: _windows("Conv", strides=[0, 1], auto_pad="SAME_UPPER"), "strides [0, 1]"),
    "stride of zero, transposed": (lambda: _windows("ConvTranspose", strides=[0, 1]), "expected numbers above 0"),
    "pads of one side": (lambda: _windows("MaxPool", kernel_shape=[1, 1], pads=[1]), "do not make windows"),
    "axis of a slice": (
        lambda: _model(
            [helper.make_node("Slice", ["x", "s", "e", "a"], ["y"])], constants={"s": [0], "e": [1], "a": [9]}
        ),
        "axis value: 9",
    ),
    "bounds of two axes": (
        lambda: _model(
            [helper.make_node("Slice", ["x", "s", "e", "a"], ["y"])], constants={"s": [0], "e": [[1]], "a": [0]}
        ),
        "'ends' has the shape 1x1, expected one axis",
    ),
    "bounds without an axis": (
        lambda: _model([helper.make_node("Slice", ["x", "s", "e"], ["y"])], constants={"s": 0, "e": [1]}),
        "'starts' has the shape (), expected one axis",
    ),
    "bounds of other axes": (
        lambda: _model(
            [helper.make_node("Slice", ["x", "s", "e", "a"], ["y"])], constants={"s": [0], "e": [1], "a": [0, 1]}
        ),
        "it has 1 starts, 1 ends, 2 axes, expected as many of each",
    ),
    "shape that is a table": (
        lambda: _model([helper.make_node("Reshape", ["x", "s"], ["y"])], constants={"s": [[3, 2]]}),
        "'shape' has the shape 1x2, expected one axis",
    ),
    "axis of a reduction": (lambda: _model([helper.make_node("ReduceMax", ["x"], ["y"], axes=[9])]), "axis must be in"),
    "permutation": (
        lambda: _model([helper.make_node("Transpose", ["x"], ["y"], perm=[0, 7])]),
        "Invalid attribute perm",
    ),
    "zero of a reshape": (
        lambda: _model([helper.make_node("Reshape", ["x", "s"], ["y"])], constants={"s": [0, 0, 0, -1]}),
        "Invalid position of 0",
    ),
    "element type": (lambda: _model([helper.make_node("Cast", ["x"], ["y"], to=99)]), "valid type"),
    "scalar joined": (lambda: _model([helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], ()), "axis must be in"),
    "negative size": (lambda: _model([helper.make_node("Neg", ["x"], ["y"])], (-2, 3)), "has a negative size: -2"),
    "huge size": (
        lambda: _model([helper.make_node("Neg", ["x"], ["y"])], (1 << 40, 1 << 20)),
        "elements: about 10^18, and the limit is 268,435,456",
    ),
    "functions without end": (lambda: _bomb(30), "1,073,741,824, and the limit is 200,000"),
    "functions beyond counting": (lambda: _bomb(90), "and the limit is 200,000"),
    "sparse tensor": (_sparse, _BEYOND),
    "constant of a shape": (
        lambda: _sum_of(helper.make_node("ConstantOfShape", ["s"], ["z"]), s=[1 << 29]),
        "makes out of constants: 2,147,483,648, and the limit is",
    ),
    "constant of many digits": (
        lambda: _sum_of(helper.make_node("ConstantOfShape", ["s"], ["z"]), s=[1 << 40, 1 << 40]),
        _BEYOND,
    ),
    "one hot": (
        lambda: _sum_of(
            helper.make_node("OneHot", ["i", "d", "v"], ["z"]), i=[1], d=1 << 40, v=np.array([0, 1], np.float32)
        ),
        _BEYOND,
    ),
    "doubled forty times": (_doubling, _BEYOND),
    "product of constants": (
        lambda: _sum_of(
            helper.make_node("MatMul", ["k", "l"], ["z"]),
            k=np.ones((100_000, 1), np.float32),
            l=np.ones((1, 100_000), np.float32),
        ),
        _BEYOND,
    ),
    "expanded": (
        lambda: _model([helper.make_node("Expand", ["x", "s"], ["y"])], (1, 1), {"s": [1_000_000, 1_000_000]}),
        "makes by repeating: 4,000,000,000,000, and the limit is",
    ),
    "repeated": (lambda: _model([helper.make_node("Tile", ["x", "s"], ["y"])], constants={"s": [1 << 31, 9]}), _BEYOND),
    "made in a branch": (_large_in_a_branch, _BEYOND),
    "padded to much": (lambda: _cut(helper.make_node("Pad", ["x", "p"], ["z"]), p=[0, 0, 1 << 20, 1 << 20]), _BEYOND),
    "resized to much": (
        lambda: _cut(helper.make_node("Resize", ["x", "", "", "s"], ["z"]), s=[1 << 20, 1 << 20]),
        _BEYOND,
    ),
    "rounds of a loop": (lambda: _loop(10**15), "rounds of its loops: 1,000,000,000,000,000, and the limit is 10,000"),
    "rounds of loops within loops": (_loops_within_loops, "rounds of its loops: 1,010,101,010,100, and the limit is"),
    "padded below zero": (
        lambda: _cut(helper.make_node("Pad", ["x", "p"], ["z"]), p=[-3, 0, 0, 0]),
        "its output would have -1 elements on axis 0 (-1x3)",
    ),
    "resized below zero": (
        lambda: _cut(helper.make_node("Resize", ["x", "", "s"], ["z"]), s=np.array([1, -2], np.float32)),
        "its output would have -6 elements on axis 1",
    ),
    "transposed convolution cut below zero": (
        lambda: _cut(
            helper.make_node("ConvTranspose", ["x", "w"], ["z"], pads=[5, 5]),
            (1, 3, 3),
            w=np.ones((3, 2, 2), np.float32),
        ),
        "its output would have -6 elements on axis 2",
    ),
}


@pytest.mark.parametrize("kind", ONNX)
def test_a_hostile_file_is_refused_in_a_sentence(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = ONNX[kind]
    (tmp_path / "model.onnx").write_bytes(make().SerializeToString())
    monkeypatch.chdir(tmp_path)
    assert run(["compile", "model.onnx", "-o", "out"]) == 1
    assert message in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    for verb in (["inspect", "model.onnx"], ["opset", "model.onnx"]):  # these may show it all the same
        assert run(verb) in (0, 1)
        assert "Traceback" not in capsys.readouterr().err


BEFORE_IT_RUNS: dict[str, Sequence[str]] = {
    "profile": ("--runs", "1"),
    "profile --layers": ("--runs", "1"),
    "diff": ("--against", "model.onnx"),
    "diff --against": ("twin.onnx",),
    "reduce": (),
    "bisect": (),
    "explain": ("y",),
    "lint": ("--target", "magicmind"),
    "optimize": (),
}


@pytest.mark.parametrize("command", BEFORE_IT_RUNS)
@pytest.mark.parametrize("kind", ["doubled forty times", "rounds of a loop", "functions without end"])
def test_every_verb_counts_beforehand_what_a_file_comes_to(
    tmp_path: Path, command: str, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = ONNX[kind]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(make().SerializeToString())
    (tmp_path / "twin.onnx").write_bytes(_model([helper.make_node("Neg", ["x"], ["y"])]).SerializeToString())
    verb, *options = command.split(" ")
    given = ["twin.onnx", "--against", "model.onnx"] if options == ["--against"] else ["model.onnx", *options]
    more = () if options == ["--against"] else BEFORE_IT_RUNS[command]
    assert run([verb, *given, *more]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["profile", "compile"])
def test_a_run_without_an_end_is_ended(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = _loop(None, decides=True)
    model.graph.output[0].CopyFrom(_value("y", (2, 3)))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert run([verb, "model.onnx", "--limit", "seconds=1"]) == 1
    told = capsys.readouterr().err
    assert "model.onnx in 1 s, which is the limit" in told
    assert "note: if it needs more time: --limit seconds=8" in told


def test_a_loop_that_decides_for_itself_is_not_counted(tmp_path: Path) -> None:
    from graphforge.limiting import limits
    from graphforge.onnx_io.importing import import_onnx_proto

    with limits(rounds=20):
        import_onnx_proto(_loop((1 << 63) - 1, decides=True))
        import_onnx_proto(_loop(20))


def test_a_death_of_onnx_in_the_audit_is_a_note_of_the_command(tmp_path: Path) -> None:
    node = helper.make_node("Pad", ["x", "p"], ["z"])
    cut = helper.make_node("Slice", ["z", "s", "e", "a"], ["y"])
    model = _model([node, cut], constants={"p": [-3, -3, 0, 0], "s": [0], "e": [1], "a": [0]})
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    done = run_command("opset", "model.onnx", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "types could not be inferred: onnx" in " ".join(done.stdout.split())
    assert "died (SIG" in done.stdout


def test_what_is_made_out_of_constants_may_be_large_when_that_is_meant(tmp_path: Path) -> None:
    from graphforge.errors import GraphForgeError
    from graphforge.limiting import limits
    from graphforge.onnx_io.importing import import_onnx_proto

    def tables() -> onnx.ModelProto:
        return _sum_of(helper.make_node("ConstantOfShape", ["s"], ["z"]), s=[300])

    with limits(constant_bytes=1199), pytest.raises(GraphForgeError, match="1,200, and the limit is 1,199"):
        import_onnx_proto(tables())
    with limits(constant_bytes=1200):
        assert len(import_onnx_proto(tables()).graph) == 3


def test_a_function_that_calls_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    call = helper.make_node("F1", ["a"], ["c"], domain="mine")
    back = helper.make_node("F0", ["a"], ["c"], domain="mine")
    functions = [
        helper.make_function("mine", "F0", ["a"], ["c"], [call], opsets),
        helper.make_function("mine", "F1", ["a"], ["c"], [back], opsets),
    ]
    model = _model([helper.make_node("F0", ["x"], ["y"], domain="mine")], functions=functions)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert run(["inspect", str(tmp_path / "model.onnx")]) == 1
    assert "calls itself, directly or by others" in capsys.readouterr().err


def test_a_limit_is_raised_by_the_option_that_the_message_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(_bomb(8).SerializeToString())
    few = ["--limit", "nodes=100"]
    assert run(["inspect", "model.onnx", *few]) == 1
    assert "note: if that is meant: --limit nodes=256" in capsys.readouterr().err
    assert run(["inspect", "model.onnx", "--limit", "nodes=256"]) == 0
    (tmp_path / "model.onnx").write_bytes(_nested(6).SerializeToString())
    assert run(["inspect", "model.onnx", "--limit", "nesting=4"]) == 1
    assert run(["inspect", "model.onnx"]) == 0


def test_functions_are_written_out_in_time_that_grows_with_them(tmp_path: Path) -> None:
    import time

    from graphforge.onnx_io.importing import import_onnx_proto

    def seconds(depth: int) -> float:
        start = time.process_time()
        assert len(import_onnx_proto(_bomb(depth)).graph) == 1 << depth
        return time.process_time() - start

    seconds(6)
    assert seconds(12) < 60 * seconds(
        9
    )  # 8 times the nodes; by the calls' names alone it was 64 times the time and more


TEXTS: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "documentation": lambda model: setattr(model, "doc_string", "TEXT"),
    "producer": lambda model: setattr(model, "producer_name", "TEXT"),
    "documentation of a node": lambda model: setattr(model.graph.node[0], "doc_string", "TEXT"),
    "metadata": lambda model: model.metadata_props.add(key="TEXT", value="TEXT"),
    "metadata of a node": lambda model: model.graph.node[0].metadata_props.add(key="graphforge.module", value="TEXT"),
    "line of an origin": lambda model: [
        model.graph.node[0].metadata_props.add(key="graphforge.module", value="TEXT"),
        model.graph.node[0].metadata_props.add(key="graphforge.source", value="net.py:²" + "9" * 5000),
    ],
    "count of origins": lambda model: model.graph.node[0].metadata_props.add(key="graphforge.origins", value="TEXT"),
}


@pytest.mark.parametrize("place", TEXTS)
def test_text_that_is_not_utf8_does_no_harm_where_it_only_describes(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = _model([helper.make_node("Neg", ["x"], ["y"])])
    TEXTS[place](model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString().replace(b"TEXT", b"TE\xff\xfe"))
    assert run(["compile", "model.onnx", "-o", "out"]) == 0
    assert run(["report", "out"]) == 0


def test_markup_in_names_is_shown_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = _model([helper.make_node("Neg", ["x"], ["[bold]y[/nope]"], name="[red]n[/]")])
    model.graph.output[0].name = "[bold]y[/nope]"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert run(["compile", "model.onnx", "-o", "out"]) == 0
    assert "[bold]y[/nope]" in capsys.readouterr().out
    assert run(["optimize", "model.onnx"]) == 0
    assert run(["opset", "model.onnx", "--prove"]) == 0


ARGUMENTS: dict[str, tuple[Sequence[str], str]] = {
    "seed": (["--seed", "-1"], "-1 is not in the range"),
    "input of a terabyte": (["--input", "x:1000000x1000000"], "1,000,000,000,000, and the limit is 268,435,456"),
    "size of many digits": (["--input", "x:" + "9" * 30], "a size of 30 digits is too large"),
    "range of many digits": (["--input", "x:2x3", "--dynamic", "x:0=1.." + "9" * 30], "a size of 30 digits"),
    "nested arguments": (["--kwargs", '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"], "is nested too deeply"),
    "number of many digits": (["--kwargs", '{"a": ' + "9" * 5000 + "}"], "is not JSON"),
    "input of many axes": (["--input", "x:" + "1x" * 99 + "3"], "has 100 axes, and numpy and torch go up to 64"),
    "unknown limit": (["--limit", "bytes=3"], "there is no limit 'bytes'"),
    "limit of nothing": (["--limit", "nodes=0"], "expected a whole number above 0"),
    "limit of words": (["--limit", "nodes=many"], "cannot read limit"),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_an_odd_argument_is_refused_before_the_model_is_loaded(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = ARGUMENTS[kind]
    assert run(["compile", "net.py:build", *arguments]) in (1, 2)
    told = capsys.readouterr().err
    assert message in told
    assert "net.py" not in told


def test_a_range_of_a_trillion_sizes_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return x.unfold(1, 3, 2)\n"
        "\n\ndef build():\n    return Net()\n"
    )
    ranges = ("--input", "x:2x9", "--dynamic", "x:1=5..1000000000000")
    done = run_command("compile", "net.py:build", *ranges, "-o", "out", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["manifest"]["verification"]["passed"]


def test_what_ends_for_want_of_memory_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def build():\n    raise MemoryError('no more')\n")
    assert run(["inspect", f"{tmp_path}/net.py:build"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_memory_error_of_the_models_own_is_told_with_its_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
        "        raise MemoryError('the table is full')\n\n\ndef build():\n    return Net(), (torch.rand(2),)\n"
    )
    assert run(["compile", f"{tmp_path}/net.py:build", "-o", f"{tmp_path}/out"]) == 1
    said = capsys.readouterr().err
    assert "the model's own code ran into a limit: MemoryError: the table is full" in said
    assert "net.py:6, in forward" in said
    assert "smaller inputs" not in said


@pytest.mark.parametrize("end", [7, 60, 100, 127])
def test_an_array_that_is_cut_or_nonsense_is_refused(
    tmp_path: Path, end: int, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    content = (tmp_path / "x.npy").read_bytes()
    for number, spoiled in enumerate((content[:end], content[:end] + b"(" + content[end + 1 :])):
        path = tmp_path / f"{number}.npy"
        path.write_bytes(spoiled)
        (tmp_path / "net.py").write_text(NET)
        assert run(["inspect", f"{tmp_path}/net.py:build", "--input-file", f"x={path}"]) in (0, 1, 2)
        assert "Traceback" not in capsys.readouterr().err


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "net.py").write_text(NET)
    assert run(["inspect", f"{tmp_path}/net.py:build", "--input-file", f"{tmp_path}/x.npy"]) == 1
    assert "cannot be read as numpy data: Object arrays cannot be loaded" in capsys.readouterr().err


def test_texts_are_not_drawn_and_are_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "net",
        [_value("x", (2,), TensorProto.STRING)],
        [_value("y", (2,), TensorProto.STRING)],
        [numpy_helper.from_array(np.array(["TE"], dtype=object), "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    assert run(["profile", str(path), "--runs", "1", "--warmup", "0"]) == 1
    assert "input 'x' is tensor(string), and only tensors of numbers can be drawn" in capsys.readouterr().err
    path.write_bytes(model.replace(b"TE", b"\xff\xfe"))
    assert run(["inspect", str(path)]) == 1
    assert "tensor 's' holds text that is not UTF-8" in capsys.readouterr().err


def test_a_member_that_is_no_array_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"not an array")
    (tmp_path / "net.py").write_text(NET)
    assert run(["inspect", f"{tmp_path}/net.py:build", "--input-file", f"{tmp_path}/x.npz"]) == 1
    assert "cannot be read as numpy data: its member 'x' is not an array" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["m.onnx", "x=a.npz", "w.pth", "M.PT2", "out"])
def test_memory_is_limited_for_whatever_reads_data(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphforge.cli.supervisor import reads_data

    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    assert not reads_data(["compile", "net.py:build", "--input", "x:2x3", "-o", "out"])
    (tmp_path / "out" / "manifest.json").write_text("{}")
    assert reads_data(["profile", name])
    (tmp_path / "sdk").mkdir()
    (tmp_path / "sdk" / "deploy.json").write_text("{}")
    assert reads_data(["run", "sdk", "--input", "a.png"])


BEHIND: dict[str, tuple[Sequence[str], str]] = {
    "values without an end": (["--range", "x=0..inf"], "x=0..inf is not a range of numbers with two ends"),
    "values that are none": (["--range", "x=nan..1"], "x=nan..1 is not a range of numbers with two ends"),
    "values too far apart": (["--range", "x=-1e308..1e308"], "is not a range of numbers with two ends"),
    "opset 0": (["--opset", "0"], "opset 0 cannot be delivered, expected"),
}


@pytest.mark.parametrize("kind", BEHIND)
def test_an_odd_argument_is_refused_once_the_model_is_known(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(NET)
    arguments, message = BEHIND[kind]
    assert run(["compile", f"{tmp_path}/net.py:build", "--input", "x:2x3", *arguments, "-o", f"{tmp_path}/out"]) == 2
    assert message in capsys.readouterr().err


def test_a_terminal_shows_control_characters_and_does_not_obey_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _model([helper.make_node("Neg", ["x"], ["y"], name="\x1b[2J")], (2, 3))
    model.graph.node[0].input[0] = "\x1b[31mnowhere"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert run(["compile", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out")]) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "\x1b" not in told
    assert r"\x1b[31mnowhere" in told


@pytest.mark.parametrize(
    "line",
    [
        "inspect",
        "inspect --full",
        "inspect --summary",
        "profile --runs 1 --warmup 0",
        "diff --against model.onnx",
        "opset",
        "lint --target magicmind",
        "explain fold-constants",
    ],
)
def test_no_table_passes_on_what_a_terminal_would_obey(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = "\x1b[2J\x1b]0;title\x07\x9b31m"
    node = helper.make_node("Add", [f"x{bad}", f"w{bad}"], [f"y{bad}"], name=f"n{bad}", doc_string=bad)
    graph = helper.make_graph(
        [node],
        f"g{bad}",
        [_value(f"x{bad}", (f"b{bad}", 3))],
        [_value(f"y{bad}", (f"b{bad}", 3))],
        [numpy_helper.from_array(np.ones(3, np.float32), f"w{bad}")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name=bad)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    verb, *options = line.split(" ")
    assert run([verb, "model.onnx", *options]) in (0, 1)
    told = capsys.readouterr()
    assert not any(character in told.out + told.err for character in "\x1b\x07\x9b")
    assert told.out


def test_colours_of_ours_are_kept_and_the_rest_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from graphforge.cli.console import print_text

    print_text("\x1b[1mAdd\x1b[0m(\x1b[2J)", colours=True)
    print_text("\x1b[8mhidden", colours=False)
    assert capsys.readouterr().out == "\x1b[1mAdd\x1b[0m(\\x1b[2J)\n\\x1b[8mhidden\n"


def test_what_an_array_says_of_itself_is_counted_before_it_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import zipfile

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (3_000_000_000,)})
    (tmp_path / "x.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile("x.npz", "w") as archive:
        archive.writestr("input.npy", header.getvalue())
    for given in ("x=x.npy", "x.npz"):
        assert run(["inspect", "net.py:build", "--input-file", given]) == 1
        assert "elements: 3,000,000,000, and the limit is 268,435,456" in capsys.readouterr().err
    with zipfile.ZipFile("many.npz", "w") as archive:
        for number in range(10_001):
            archive.writestr(f"{number}.npy", b"")
    assert run(["inspect", "net.py:build", "--input-file", "many.npz"]) == 1
    assert "it holds 10,001 arrays, and no more than 10,000 are read" in capsys.readouterr().err


def test_text_among_the_results_is_compared_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def says(name: str, text: bytes) -> None:
        nodes = [helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Neg", ["x"], ["y"])]
        outputs = [_value("y", (2, 3)), _value("t", (1,), TensorProto.STRING)]
        given = [numpy_helper.from_array(np.array(["TE"], dtype=object), "s")]
        graph = helper.make_graph(nodes, "net", [_value("x", (2, 3))], outputs, given)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        Path(name).write_bytes(model.SerializeToString().replace(b"TE", text))

    says("a.onnx", b"ab")
    says("b.onnx", b"ac")
    says("bad.onnx", b"\xff\xfe")
    for line in (
        "compile a.onnx -o out",
        "inspect a.onnx --summary",
        "opset a.onnx --prove",
        "diff a.onnx --against out",
    ):
        assert run(line.split(" ")) == 0, capsys.readouterr().err
    assert run(["diff", "a.onnx", "--against", "b.onnx"]) == 1
    assert "texts differ" in capsys.readouterr().out
    assert run(["diff", "a.onnx", "--against", "bad.onnx"]) == 1
    assert "tensor 's' holds text that is not UTF-8" in capsys.readouterr().err


def test_a_name_that_is_not_text_is_told(tmp_path: Path) -> None:
    import os
    import subprocess

    from tests.cli.command import COMMAND, environment

    (tmp_path / "net.py").write_text(NET)
    name = b"out\xff"
    arguments: list[str | bytes] = [*COMMAND, b"compile", b"net.py:build", b"--input", b"x:2x3", b"-o", name]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    assert b"Traceback" not in done.stderr
    assert all(os.fsencode(entry.name) in (name, b"net.py", b"__pycache__") for entry in tmp_path.iterdir())


@pytest.mark.parametrize("command", [["profile", "--runs", "1", "--warmup", "0"], ["lint", "--target", "magicmind"]])
def test_damaged_files_are_refused_in_a_sentence(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _bomb(2)
    for call in model.functions[0].node:
        call.attribute.append(onnx.AttributeProto(name="a", type=onnx.AttributeProto.GRAPH))
        call.attribute[-1].g.node.add().attribute.add().type = onnx.AttributeProto.TENSORS
    whole = _model([helper.make_node("Sin", ["x"], ["y"])]).SerializeToString()
    for data in (model.SerializeToString(), whole[: len(whole) // 2], whole.replace(b"Sin", b"S\xff\xfe")):
        (tmp_path / "m.onnx").write_bytes(data)
        code = run([command[0], f"{tmp_path}/m.onnx", *command[1:]])
        said = capsys.readouterr().err
        assert (code, "internal error" in said) == (1, False), said


@pytest.mark.parametrize("place", ["a constant with too many bytes", "a mode"])
def test_what_is_damaged_inside_a_sound_file_is_no_internal_error(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pad = helper.make_node("Pad", ["x", "p"], ["z"], mode="reflect")
    pick = helper.make_node("Gather", ["z", "i"], ["y"])
    model = _model([pad, pick], (4, 4), {"p": np.array([0, 1, 0, 1]), "i": np.int64(0)})
    if place == "a constant with too many bytes":
        model.graph.initializer[1].raw_data += bytes(8)
    data = model.SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data.replace(b"reflect", b"\xff" * 7) if place == "a mode" else data)
    assert run(["opset", f"{tmp_path}/m.onnx"]) in (0, 1)
    assert "internal error" not in capsys.readouterr().err
