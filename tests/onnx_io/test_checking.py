"""ONNX's full check over files: what is valid passes, what is not is told with node, origin and pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graphforge.errors import GraphForgeError
from graphforge.onnx_io.checking import check_file, complaint_about, load_without_weights

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def model(
    nodes: list[Any], *weights: onnx.TensorProto, output: tuple[int, list[int]] = (FLOAT, [2])
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", FLOAT, [2])
    y = helper.make_tensor_value_info("y", *output)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("acme", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=opsets, ir_version=8)


def complaint(path: Path, proto: onnx.ModelProto) -> str:
    onnx.save(proto, path / "m.onnx")
    found = complaint_about(path / "m.onnx")
    return "" if found is None else found.text


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
def test_an_operator_that_is_a_function_may_leave_attributes_to_their_defaults(opset: int, tmp_path: Path) -> None:
    """ONNX's own check does not see them inside; what it has against the rest of the file stays."""
    text = """<ir_version: 8, opset_import: ["" : OPSET]> g (float[2,3,H,4] x, bool c) => (float[2,3,H,4] y) {
        y = If (c) <
            then_branch = t () => (float[2,3,H,4] a) { a = MeanVarianceNormalization (x) },
            else_branch = e () => (float[2,3,H,4] b) { b = Relu (x) }
        >
    }"""
    proto = onnx.parser.parse_model(text.replace("OPSET", str(opset)))
    assert complaint(tmp_path, proto) == ""
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    assert "3" in complaint(tmp_path, proto)


def test_a_valid_file_with_operators_of_other_domains(tmp_path: Path) -> None:
    nodes = [helper.make_node("Thing", ["x"], ["a"], domain="acme"), helper.make_node("Relu", ["a"], ["y"])]
    assert complaint(tmp_path, model(nodes)) == ""


def test_what_is_not_valid(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["a"], ["y"], name="late")
    absolute = helper.make_node("Abs", ["x"], ["a"])
    assert "topologically sorted" in complaint(tmp_path, model([relu, absolute]))
    assert "Unrecognized attribute: alpha" in complaint(
        tmp_path, model([helper.make_node("Relu", ["x"], ["y"], alpha=0.1)])
    )
    assert "Inferred elem type differs" in complaint(
        tmp_path, model([helper.make_node("Relu", ["x"], ["y"])], output=(INT64, [2]))
    )
    assert "dimension 0: (2) vs (3)" in complaint(
        tmp_path, model([helper.make_node("Relu", ["x"], ["y"])], output=(FLOAT, [3]))
    )
    foreign = [helper.make_node("Thing", ["x"], ["y"], domain="nobody")]
    assert "No opset import for domain 'nobody'" in complaint(tmp_path, model(foreign))


def test_files_that_are_no_onnx(tmp_path: Path) -> None:
    for content in (b"", b"\xff" * 64, b"\x3a\xff\x7f", b"\x3a\x03\x0a\xff\x7f"):
        (tmp_path / "m.onnx").write_bytes(content)
        found = complaint_about(tmp_path / "m.onnx")
        assert found is not None
        assert "is not an ONNX file" in found.text


@pytest.mark.parametrize("external", [False, True])
def test_large_weights_are_left_out_and_their_shapes_still_count(tmp_path: Path, external: bool) -> None:
    weight = numpy_helper.from_array(np.ones((2, 5000), np.float32), "w")
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")], weight, output=(FLOAT, [5000]))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=external, location="m.data")
    assert complaint_about(tmp_path / "m.onnx") is None
    read = load_without_weights(tmp_path / "m.onnx")
    assert read.ByteSize() < 1000
    assert list(read.graph.initializer[0].dims) == [2, 5000]
    wrong = model([helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")], weight, output=(FLOAT, [4]))
    onnx.save(wrong, tmp_path / "wrong.onnx")
    found = complaint_about(tmp_path / "wrong.onnx")
    assert found is not None
    assert found.node == "mm"


def test_weights_whose_elements_are_not_there(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((2, 5000), np.float32), "w")
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], weight, output=(FLOAT, [5000]))
    proto.graph.initializer[0].raw_data = weight.raw_data[:-4]
    assert complaint(tmp_path, proto) == "weight 'w' has 39996 bytes of elements, its shape asks for 40000"
    proto.graph.initializer[0].raw_data = weight.raw_data
    onnx.save(proto, tmp_path / "e.onnx", save_as_external_data=True, location="e.data")
    (tmp_path / "e.data").write_bytes(weight.raw_data[:-4])
    found = complaint_about(tmp_path / "e.onnx")
    assert found is not None
    assert found.text == "the elements of weight 'w' go beyond the end of e.data"
    (tmp_path / "e.data").unlink()
    found = complaint_about(tmp_path / "e.onnx")
    assert found is not None
    assert "which does not exist" in found.text


def test_the_error_names_node_origin_and_pass(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="head/Relu", alpha=0.1)
    for key, value in (("module", "head"), ("source", "net.py:12"), ("made_by", "fuse-relu")):
        node.metadata_props.add(key=f"graphforge.{key}", value=value)
    onnx.save(model([node]), tmp_path / "model.onnx")
    with pytest.raises(GraphForgeError, match=r"model\.onnx is not a valid ONNX file and is not delivered") as caught:
        check_file(tmp_path / "model.onnx")
    assert "node 'head/Relu' came from head, net.py:12" in str(caught.value)
    assert "the pass 'fuse-relu' made it" in str(caught.value)


def test_memory_does_not_grow_with_the_weights(tmp_path: Path) -> None:
    """200 MB of weights are checked in a process that may not take 100 MB more than it has."""
    weight = numpy_helper.from_array(np.zeros((2, 25_000_000), np.float32), "w")
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], weight, output=(FLOAT, [25_000_000]))
    onnx.save(proto, tmp_path / "m.onnx")
    code = (
        "import resource, sys, onnx; from pathlib import Path\n"
        "from graphforge.onnx_io.checking import complaint_about\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert complaint_about(Path(sys.argv[1])) is None\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.onnx")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100
