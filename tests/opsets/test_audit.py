"""The opset a model needs: by schema, by meaning, and checked against what ONNX Runtime makes of the older opset."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.loader import load_model_tests
from rich.console import Console

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.opsets.audit import OpsetReport, _without_defaults, opset_report, opset_report_of_file
from graphforge.runners.arrays import Array
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from tests.verify import small


def report(text: str, opset: int = 20) -> OpsetReport:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    return opset_report(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


@pytest.mark.parametrize(
    ("text", "lowest", "reason"),
    [
        ("g (float[a] x) => (float[a] y) { y = Relu(x) }", 7, ""),
        ("g (float[a] x) => (float[a] y) { y = Gelu(x) }", 20, "came with opset 20"),
        ("g (float[a] x) => (float[a] y) { y = LayerNormalization(x, x) }", 17, "came with opset 17"),
        ("g (float[a, b] x) => (float[a, b] y) { y = Softmax<axis = -1>(x) }", 11, "counts an axis from the end"),
        ("g (float[a, b] x) => (float[a, b] y) { y = Softmax<axis = 1>(x) }", 7, ""),
        ("g (float[a, b, c] x) => (float[a, b, c] y) { y = Softmax<axis = 1>(x) }", 13, "along axis 1 alone"),
        ("g (float[a, b, c] x) => (float[a, b, c] y) { y = Softmax(x) }", 13, "leaves out the axis"),
        ("g (float[a] x) => (float[b] y) <int64[1] s = {-1}> { y = Reshape<allowzero = 0>(x, s) }", 7, ""),
        (
            "g (float[a] x) => (float[b] y) <int64[1] s = {0}> { y = Reshape<allowzero = 1>(x, s) }",
            14,
            "has attribute allowzero",
        ),
        ("g (float[a, b] x) => (float[b] y) <int64[1] s = {0}> { y = ReduceMean<keepdims=0>(x, s) }", 18, "2 inputs"),
        ("g (int64[a] x) => (int64[a] y) { y = Relu(x) }", 14, "tensor(int64)"),
        ("g (bfloat16[a] x) => (bfloat16[a] y) { y = Relu(x) }", 13, "tensor(bfloat16)"),
        (
            "g (float[1, 2, 3, 4] x, float[1, 5, 5, 2] z) => (float[1, 2, 5, 5] y)"
            ' { y = GridSample<mode = "linear">(x, z) }',
            20,
            "bilinear before",
        ),
        ("g (float[1, 2, 3, 4] x, float[1, 5, 5, 2] z) => (float[1, 2, 5, 5] y) { y = GridSample(x, z) }", 16, ""),
        ("g (float[a] x, float[a] z) => (float[a] y) { y = Max(x, z) }", 7, ""),
        ("g (float[a] x, float[1] z) => (float[a] y) { y = Max(x, z) }", 8, "broadcasts"),
    ],
)
def test_what_a_node_needs_and_why(text: str, lowest: int, reason: str) -> None:
    found = report(text)
    assert found.lowest == lowest
    assert any(reason in need.reason for need in found.deciding) == bool(found.deciding)
    if reason:
        assert found.deciding


@pytest.mark.parametrize(
    ("dtype", "fmod", "lowest"),
    [("float", 0, 28), ("float16", 0, 28), ("double", 0, 28), ("float", 1, 10), ("int32", 0, 10), ("uint8", 0, 10)],
)
def test_mod_of_floats_with_the_divisors_sign_came_with_opset_28(dtype: str, fmod: int, lowest: int) -> None:
    found = report(f"g ({dtype}[a] x, {dtype}[a] z) => ({dtype}[a] y) {{ y = Mod<fmod = {fmod}>(x, z) }}", opset=28)
    assert found.lowest == lowest
    assert ("for integers alone before opset 28" in found.deciding[0].reason) == (lowest == 28)


def test_the_node_that_decides_is_named_with_its_origin() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\ng (float[a] x) => (float[a] y) { r = Relu(x) y = Gelu(r) }'
    )
    small.add_property(proto.graph.node[1], "graphforge.module", "mlp.act")
    model = ir.from_proto(proto)
    from graphforge.onnx_io.origins import read_origins

    for node in model.graph:
        read_origins(node)
    found = opset_report(model)
    assert [(need.node, need.operator) for need in found.deciding] == [("y", "Gelu")]
    assert "mlp.act" in found.deciding[0].origin
    assert {row.operator: row.lowest for row in found.operators} == {"Gelu": 20, "Relu": 7}


def test_bodies_and_other_domains_are_seen() -> None:
    text = (
        "g (bool c, float[a] x) => (float[a] y) {"
        " z = Mystery.Op(x)"
        " y = If(c) <then_branch = t () => (float[a] u) { u = Gelu(z) }, else_branch = e () => (float[a] v)"
        " { v = Neg(z) }> }"
    )
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20, "Mystery" : 3]>\n{text}')
    found = opset_report(ir.from_proto(proto))
    assert found.lowest == 20
    assert found.domains == {"Mystery": 3}
    assert "Mystery::Op" in [row.operator for row in found.operators]


def test_what_is_not_legal_even_now_is_listed() -> None:
    found = report("g (float[a] x) => (float[a] y) { y = Gelu(x) }", opset=17)
    assert [need.operator for need in found.invalid] == ["Gelu"]
    assert "opset 17 has no operator Gelu" in found.invalid[0].reason


def test_a_file_is_read_without_its_weights_and_left_alone(tmp_path: Path) -> None:
    path = small.write_net(small.net(), tmp_path / "net.onnx")
    before = path.read_bytes()
    found = opset_report_of_file(path)
    assert path.read_bytes() == before
    assert (found.opset, found.lowest) == (20, 18)
    assert {need.operator for need in found.deciding} == {"ReduceMean"}
    text = io.StringIO()
    found.render(Console(file=text, width=160))
    assert "needs opset 18" in text.getvalue()
    assert json.dumps(found.to_dict()) == json.dumps(opset_report_of_file(path).to_dict())


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="no file"):
        opset_report_of_file(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff")
    with pytest.raises(GraphForgeError, match="not an ONNX file"):
        opset_report_of_file(tmp_path / "broken.onnx")


def same(one: object, other: object) -> bool:
    first, second = np.asarray(one), np.asarray(other)
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.dtype.kind == "f":
        return bool(np.allclose(first, second, rtol=1e-5, atol=1e-6, equal_nan=True))
    return bool(np.array_equal(first, second))


def outputs_of(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array] | None:
    """What ONNX Runtime makes of it; None when it lacks a kernel or a version for it."""
    try:
        with OnnxRuntimeRunner(model, threads=1) as runner:
            return runner.run(feeds)
    except GraphForgeError as error:
        lacks = ("NOT_IMPLEMENTED", "not supported", "is till opset", "Unsupported", "not tensors", "not a tensor")
        if any(text in f"{error} {error.__cause__}" for text in lacks):
            return None
        raise


@pytest.mark.filterwarnings("ignore")
def test_onnxs_own_node_cases_give_the_same_at_the_opset_that_is_named() -> None:
    """Every seventeenth of ONNX's node cases that ONNX Runtime runs: set to the lowest opset, it must give the same."""
    lowered = 0
    for case in load_model_tests(kind="node")[::17]:
        assert case.model is not None
        model = ir.from_proto(onnx.shape_inference.infer_shapes(case.model))
        if set(model.opset_imports) != {""} or case.model.graph.input[0].type.WhichOneof("value") != "tensor_type":
            continue
        found = opset_report(model)
        if found.invalid or found.lowest >= min(found.opset, 26):
            continue
        assert case.data_sets is not None
        feeds = {value.name: array for value, array in zip(case.model.graph.input, case.data_sets[0][0], strict=False)}
        if not all(isinstance(array, np.ndarray) for array in feeds.values()):
            continue  # types without a numpy form
        expected = outputs_of(case.model, feeds)
        if expected is None:
            continue
        with ExitStack() as stack:
            for node in model.graph.all_nodes():
                stack.enter_context(_without_defaults(node, found.opset))
            model.graph.opset_imports[""] = found.lowest
            older = ir.to_proto(model)
        outputs = outputs_of(older, feeds)
        if outputs is None:
            continue
        assert list(outputs) == list(expected)
        assert all(same(outputs[name], expected[name]) for name in expected), case.name
        lowered += 1
    assert lowered > 35


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_every_runtime_and_opset_is_named_whatever_the_width(width: int, tmp_path: Path) -> None:
    answer = graphforge.opset(small.write_net(small.net(), tmp_path / "net.onnx"))
    text = io.StringIO()
    answer.render(Console(file=text, width=width))
    lines = text.getvalue().splitlines()
    told = [line.split() for line in lines]
    heads = [words for words in told if words and all(word.isdigit() for word in words)]
    assert answer.matrix is not None
    assert [int(word) for words in heads for word in words] == [cell.opset for cell in answer.matrix.cells]
    for fit in answer.fits:
        assert len([line for line in lines if line.strip().startswith(f"{fit.runtime.title} ")]) >= len(heads)
    assert "…" not in text.getvalue()
