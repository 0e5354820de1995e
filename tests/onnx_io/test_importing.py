"""Import of ONNX files: what is refused and how, what older and newer opsets become, origins, functions, constants."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import graphforge
from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import HOME_OPSET, Level, origins_of, verify_graph
from graphforge.onnx_io.checking import complaint_about
from graphforge.onnx_io.importing import IMPORT_NOTES, as_written, import_onnx, import_onnx_proto, input_spec
from graphforge.prepare import prepare
from graphforge.runners.session import new_session
from graphforge.spec import ShapeSpec, TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]
_RNG = np.random.default_rng(0)


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
    *,
    opset: int = HOME_OPSET,
    constants: Mapping[str, Array] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [_info(name, array) for name, array in feeds.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(function.domain, 1) for function in functions)]
    model = helper.make_model(graph, opset_imports=imports, functions=functions)
    model.ir_version = min(model.ir_version, 8)
    return model if functions else onnx.shape_inference.infer_shapes(model)


def _relu_file(folder: Path) -> Path:
    path = folder / "model.onnx"
    feeds = {"x": np.zeros((2, 3), np.float32)}
    model = _model([helper.make_node("Add", ["x", "w"], ["y"])], feeds, ["y"], constants={"w": np.ones(3, np.float32)})
    onnx.save(model, path)
    return path


def _external_file(folder: Path, location: str, *, length: int = 12, offset: int = 0) -> Path:
    path = _relu_file(folder)
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def _run(model: onnx.ModelProto | ir.Model, feeds: Mapping[str, Array]) -> list[Any]:
    return list(new_session(model).run(None, dict(feeds)))


# What is refused


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _garble(path: Path) -> None:
    path.write_bytes(os.urandom(4096))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _as_text(path: Path) -> None:
    path.write_text("this is no model\n" * 100)


def _edit(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())

    return edit


def _no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def _unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Addition"


def _future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def _undefined(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "z"
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))


def _short_data(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"\0\0\0\0"


def _huge_shape(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]


def _negative_dim(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-3]


def _unknown_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 77


def _huge_sparse(model: onnx.ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add(dims=[1 << 31])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))


def _bad_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("axis", 3))


def _no_text(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"Add", b"A\xffd"))


def _constant_of_nothing(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"]))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_truncate, "not an ONNX model, or it is truncated"),
        (_garble, "not an ONNX model"),
        (_as_text, "not an ONNX model"),
        (_empty, "is empty"),
        (_no_text, "is not text"),
        (_edit(_constant_of_nothing), "contains no value"),
        (_edit(_no_opset), "names no opset"),
        (_edit(_unknown_operator), "has no such operator"),
        (_edit(_future), "opset 99"),
        (_edit(_undefined), "reads 'nowhere', which nothing before it computes"),
        (_edit(_cycle), "cycle"),
        (_edit(_twice), "redeclared"),
        (_edit(_short_data), "holds 4 bytes"),
        (_edit(_huge_shape), "holds 12 bytes"),
        (_edit(_negative_dim), "negative dim"),
        (_edit(_unknown_type), "unknown element type"),
        (_edit(_huge_sparse), "written out in full: 8,589,934,592, and the limit is"),
        (_edit(_bad_attribute), "attribute axis"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    path = _relu_file(tmp_path)
    damage(path)
    with pytest.raises(GraphForgeError, match=said):
        import_onnx(path)


def test_a_file_with_flipped_bytes_is_read_or_refused_never_a_crash(tmp_path: Path) -> None:
    path = _relu_file(tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 5)):
            damaged[place] = int(rng.integers(0, 256))
        path.write_bytes(bytes(damaged))
        try:
            import_onnx(path)
        except GraphForgeError:
            refused += 1
    assert refused > 100


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="no file"):
        import_onnx(tmp_path / "none.onnx")
    with pytest.raises(GraphForgeError, match="not a file"):
        import_onnx(tmp_path)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret.bin", "a/../../secret.bin", "C:\\secret.bin", "..\\s.bin"]
)
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(GraphForgeError, match="outside the model's folder"):
        import_onnx(_external_file(folder, location))


def test_external_data_behind_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "soft.bin").symlink_to(secret)
    (folder / "hard.bin").hardlink_to(secret)
    with pytest.raises(GraphForgeError, match="outside the model's folder"):
        import_onnx(_external_file(folder, "soft.bin"))
    with pytest.raises(GraphForgeError, match="hard links"):
        import_onnx(_external_file(folder, "hard.bin"))


@pytest.mark.parametrize(
    ("size", "length", "offset", "said"),
    [(8, 12, 0, "ends at 8"), (64, 12, 60, "ends at 64"), (64, 8, 0, "needs 12"), (64, 12, -4, "ends at 64")],
)
def test_external_data_that_does_not_fit_is_refused(
    tmp_path: Path, size: int, length: int, offset: int, said: str
) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(size))
    with pytest.raises(GraphForgeError, match=said):
        import_onnx(_external_file(tmp_path, "data.bin", length=length, offset=offset))


def test_external_data_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="is not there"):
        import_onnx(_external_file(tmp_path, "data.bin"))


def test_external_weights_stay_on_disk_until_asked_for(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    model = import_onnx(_external_file(tmp_path, "data.bin"))
    tensor = model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.LazyTensor)
    on_disk = tensor.raw()
    assert isinstance(on_disk, ir.ExternalTensor)
    assert on_disk.raw is None
    np.testing.assert_array_equal(tensor.numpy(), [0, 1, 2])
    (written,) = ir.to_proto(model).graph.initializer
    assert not written.external_data  # a copy elsewhere does not refer to this file
    assert written.raw_data == tensor.tobytes()


@pytest.mark.parametrize("way", ["cut", "gone", "a link that leads out", "a pipe", "a folder"])
def test_external_data_that_changes_while_it_is_read_is_refused(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    data = folder / "data.bin"
    data.write_bytes(bytes(12))
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    tensor = import_onnx(_external_file(folder, "data.bin")).graph.initializers["w"].const_value
    assert tensor is not None
    data.unlink()
    if way == "cut":
        data.write_bytes(bytes(8))
    elif way == "a pipe":
        os.mkfifo(data)
    elif way == "a folder":
        data.mkdir()
    elif way != "gone":
        data.symlink_to(tmp_path / "secret.bin")
    with pytest.raises(GraphForgeError, match=r"data.bin' changed while it was read"):
        tensor.numpy()


@pytest.mark.parametrize("way", ["a pipe", "a folder", "a device"])
def test_external_data_that_is_no_file_is_refused(tmp_path: Path, way: str) -> None:
    place = tmp_path / "data.bin"
    if way == "a pipe":
        os.mkfifo(place)
    elif way == "a folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero")
    with pytest.raises(GraphForgeError, match=r"is not there|outside the model's folder"):
        import_onnx(_external_file(tmp_path, "data.bin"))


# What older opsets become: ONNX Runtime runs the file as it is and our graph; both must say the same


def _x(*shape: int) -> Array:
    return _RNG.standard_normal(shape).astype(np.float32)


def _ints(*items: int) -> Array:
    return np.array(items, dtype=np.int64)


_Old = tuple[str, int, list[Array], dict[str, Any], int]
_IMAGE = _x(2, 3, 5, 7)
_OLD: dict[str, _Old] = {
    "add-7": ("Add", 7, [_x(2, 3), _x(3)], {}, 1),
    "softmax-axis-1": ("Softmax", 11, [_x(2, 3, 4)], {"axis": 1}, 1),
    "softmax-default": ("Softmax", 9, [_x(2, 3, 4)], {}, 1),
    "log-softmax-axis-0": ("LogSoftmax", 12, [_x(2, 3)], {"axis": 0}, 1),
    "hardmax-axis-1": ("Hardmax", 9, [_x(2, 3, 4)], {"axis": 1}, 1),
    "batch-norm-7": ("BatchNormalization", 7, [_IMAGE, _x(3), _x(3), _x(3), np.abs(_x(3))], {"epsilon": 1e-3}, 1),
    "clip-6": ("Clip", 9, [_x(4, 4)], {"min": -0.5, "max": 0.5}, 1),
    "clip-6-min": ("Clip", 10, [_x(4, 4)], {"min": -0.5}, 1),
    "pad-2": ("Pad", 10, [_x(2, 3)], {"pads": [0, 1, 2, 0], "value": 3.5}, 1),
    "pad-2-reflect": ("Pad", 9, [_x(3, 4)], {"pads": [1, 1, 2, 0], "mode": "reflect"}, 1),
    "slice-1": ("Slice", 9, [_x(5, 6)], {"starts": [1, -3], "ends": [4, 100], "axes": [0, 1]}, 1),
    "slice-1-no-axes": ("Slice", 7, [_x(5, 6)], {"starts": [1], "ends": [4]}, 1),
    "top-k-1": ("TopK", 9, [_x(4, 9)], {"k": 3, "axis": 1}, 2),
    "top-k-10": ("TopK", 10, [_x(4, 9), _ints(2)], {}, 2),
    "squeeze-1": ("Squeeze", 9, [_x(1, 3, 1)], {"axes": [0]}, 1),
    "squeeze-all": ("Squeeze", 11, [_x(1, 3, 1)], {}, 1),
    "unsqueeze-11": ("Unsqueeze", 11, [_x(3)], {"axes": [0, -1]}, 1),
    "reduce-sum-11": ("ReduceSum", 11, [_x(2, 3, 4)], {"axes": [1, 2], "keepdims": 0}, 1),
    "reduce-mean-13": ("ReduceMean", 13, [_x(2, 3, 4)], {"axes": [-1]}, 1),
    "reduce-max-all": ("ReduceMax", 12, [_x(2, 3)], {}, 1),
    "split-2": ("Split", 9, [_x(2, 6)], {"axis": 1, "split": [1, 5]}, 2),
    "split-13-even": ("Split", 13, [_x(4, 6)], {"axis": 1}, 3),
    "dropout-7": ("Dropout", 7, [_x(3, 3)], {"ratio": 0.9}, 1),
    "dropout-10": ("Dropout", 10, [_x(3, 3)], {"ratio": 0.9}, 1),
    "upsample-7-nearest": ("Upsample", 7, [_IMAGE], {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}, 1),
    "upsample-7-linear": ("Upsample", 7, [_IMAGE], {"mode": "linear", "scales": [1.0, 1.0, 2.0, 2.0]}, 1),
    "upsample-9": ("Upsample", 9, [_IMAGE, np.array([1, 1, 2, 1.5], np.float32)], {"mode": "nearest"}, 1),
    "resize-10-nearest": ("Resize", 10, [_IMAGE, np.array([1, 1, 2, 0.5], np.float32)], {}, 1),
    "resize-10-shrink": ("Resize", 10, [_IMAGE, np.array([1, 1, 0.4, 0.6], np.float32)], {}, 1),
    "resize-10-linear": ("Resize", 10, [_IMAGE, np.array([1, 1, 2, 0.6], np.float32)], {"mode": "linear"}, 1),
    "scatter-9": ("Scatter", 9, [_x(3, 3), np.array([[1, 0, 2]]), _x(1, 3)], {}, 1),
    "arg-max-11": ("ArgMax", 11, [_x(3, 4)], {"axis": 1}, 1),
    "grid-sample-16": ("GridSample", 16, [_IMAGE, _x(2, 3, 3, 2)], {"mode": "bicubic"}, 1),
    "grid-sample-default": ("GridSample", 16, [_IMAGE, _x(2, 3, 3, 2)], {}, 1),
    "roi-align-10": ("RoiAlign", 15, [_IMAGE, np.array([[0, 0, 4, 3]], np.float32), _ints(1)], {"output_width": 2}, 1),
    "average-pool-10": ("AveragePool", 10, [_IMAGE], {"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [2, 2]}, 1),
    "shape-13": ("Shape", 13, [_IMAGE], {}, 1),
    "gemm-9": ("Gemm", 9, [_x(2, 3), _x(3, 4), _x(4)], {"alpha": 0.5}, 1),
}
_IN_AN_OLDER_RUNTIME = {"roi-align-10"}  # ONNX Runtime has no RoiAlign of opset 22


@pytest.mark.parametrize("name", _OLD)
def test_an_older_form_means_the_same_at_the_home_opset(name: str) -> None:
    op_type, opset, inputs, attributes, outputs = _OLD[name]
    feeds = {f"i{position}": array for position, array in enumerate(inputs)}
    results = [f"o{position}" for position in range(outputs)]
    first = dict(list(feeds.items())[:1])
    rest = dict(list(feeds.items())[1:])
    node = helper.make_node(op_type, list(feeds), results, **attributes)
    proto = _model([node], first, results, opset=opset, constants=rest)
    proto.ir_version = 4
    expected = _run(proto, first)
    model = import_onnx_proto(proto, name)
    assert model.graph.opset_imports[""] == HOME_OPSET
    verify_graph(model, Level.CAPTURED)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    if name in _IN_AN_OLDER_RUNTIME:
        got = ReferenceEvaluator(ir.to_proto(model)).run(None, first)
    else:
        got = _run(model, first)
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)


def test_a_channel_broadcast_of_opset_6_becomes_numpys() -> None:
    feeds = {"a": _x(2, 3, 4, 5), "b": _x(3)}
    node = helper.make_node("Add", ["a", "b"], ["y"], broadcast=1, axis=1)
    proto = _model([node], feeds, ["y"], opset=6)
    (got,) = _run(import_onnx_proto(proto), feeds)
    np.testing.assert_allclose(got, feeds["a"] + feeds["b"].reshape(3, 1, 1), rtol=1e-6)


def test_group_normalization_of_opset_18_scales_by_group() -> None:
    feeds = {"x": _x(2, 4, 3, 3)}
    scale, bias = _x(2), _x(2)
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2, epsilon=1e-3)
    proto = _model([node], feeds, ["y"], opset=18, constants={"s": scale, "b": bias})
    (got,) = _run(import_onnx_proto(proto), feeds)
    grouped = feeds["x"].reshape(2, 2, -1)
    normal = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-3)
    expected = (normal * scale[None, :, None] + bias[None, :, None]).reshape(2, 4, 3, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_an_operator_that_changed_before_opset_6_is_refused() -> None:
    feeds = {"x": _x(2, 3)}
    node = helper.make_node("Relu", ["x"], ["y"])
    proto = _model([node], feeds, ["y"], opset=5)
    with pytest.raises(GraphForgeError, match="has changed at opset 6"):
        import_onnx_proto(proto)


# What newer opsets become


@pytest.mark.parametrize("opset", [27, 28])
def test_a_newer_file_is_read_where_its_operators_mean_the_same(opset: int) -> None:
    feeds = {"x": _x(2, 3)}
    proto = _model([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT32)], feeds, ["y"], opset=opset)
    model = import_onnx_proto(proto)
    assert model.graph.opset_imports[""] == HOME_OPSET
    np.testing.assert_array_equal(_run(model, feeds)[0], feeds["x"].astype(np.int32))


def test_a_newer_form_that_the_home_opset_lacks_names_the_node() -> None:
    feeds = {"x": np.zeros((2, 3), np.float32)}
    proto = _model([helper.make_node("Cast", ["x"], ["y"], "narrow", to=28)], feeds, ["y"], opset=28)
    with pytest.raises(GraphForgeError, match=r"Cast node 'narrow'.* needs opset 28"):
        import_onnx_proto(proto)


def test_floor_mod_of_floats_has_the_sign_of_the_divisor() -> None:
    feeds = {
        "a": np.array([5.5, -5.5, 5.5, -5.5, 4.0, -4.0], np.float32),
        "b": np.array([2, 2, -2, -2, 2, 2], np.float32),
    }
    proto = _model([helper.make_node("Mod", ["a", "b"], ["y"])], feeds, ["y"], opset=28)
    np.testing.assert_allclose(_run(import_onnx_proto(proto), feeds)[0], np.mod(feeds["a"], feeds["b"]))


# Constants, inputs, functions, names, origins


def test_constant_nodes_become_initializers_in_bodies_too() -> None:
    feeds = {"c": np.array(True)}
    bodies = {
        branch: helper.make_graph(
            [helper.make_node("Constant", [], ["k"], value_float=value)],
            branch,
            [],
            [helper.make_tensor_value_info("k", TensorProto.FLOAT, [])],
        )
        for branch, value in (("then_branch", 1.5), ("else_branch", 2.5))
    }
    nodes = [
        helper.make_node("Constant", [], ["two"], value_ints=[2, 2]),
        helper.make_node("If", ["c"], ["k0"], **bodies),
        helper.make_node("Expand", ["k0", "two"], ["y"]),
    ]
    model = import_onnx_proto(_model(nodes, feeds, ["y"]))
    verify_graph(model, Level.CAPTURED)
    assert not any(node.op_type == "Constant" for node in model.graph.all_nodes())
    np.testing.assert_array_equal(_run(model, feeds)[0], np.full((2, 2), 1.5, np.float32))


def test_inputs_with_defaults_become_constants_and_are_noted(tmp_path: Path) -> None:
    path = _relu_file(tmp_path)
    proto = onnx.load(path)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]))
    onnx.save(proto, path)
    model = import_onnx(path)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert "w" in model.meta[IMPORT_NOTES][0]


def test_shapes_that_the_nodes_do_not_compute_are_put_right_and_noted() -> None:
    feeds = {"x": _x(2, 3)}
    proto = _model([helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])], feeds, ["y"])
    del proto.graph.value_info[:]
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [7, 3]))
    model = import_onnx_proto(proto)
    assert list(model.graph[0].outputs[0].shape or ()) == [2, 3]
    assert "a ([7,3], computed [2,3])" in model.meta[IMPORT_NOTES][0]


def test_functions_are_inlined_each_from_its_own_opset() -> None:
    function = helper.make_function(
        "mine",
        "SumOf",
        ["a"],
        ["b"],
        [helper.make_node("ReduceSum", ["a"], ["b"], axes=[1], keepdims=0)],
        [helper.make_opsetid("", 11)],
        [],
    )
    feeds = {"x": _x(2, 3)}
    proto = _model([helper.make_node("SumOf", ["x"], ["s"], domain="mine")], feeds, ["s"], functions=[function])
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("s", TensorProto.FLOAT, [2]))
    model = import_onnx_proto(proto)
    assert not model.functions
    np.testing.assert_allclose(_run(model, feeds)[0], feeds["x"].sum(1), rtol=1e-5)


def test_a_function_that_calls_itself_is_refused() -> None:
    function = helper.make_function(
        "mine", "Loop1", ["a"], ["b"], [helper.make_node("Loop1", ["a"], ["b"], domain="mine")], [], []
    )
    feeds = {"x": _x(2)}
    proto = _model([helper.make_node("Loop1", ["x"], ["y"], domain="mine")], feeds, ["y"], functions=[function])
    with pytest.raises(GraphForgeError, match="calls itself"):
        import_onnx_proto(proto)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/backbone/stem/Relu", "backbone.stem"),
        ("resnet/block1/Conv2D", "resnet.block1"),
        ("Conv_12", ""),
    ],
)
def test_the_origin_is_read_from_the_scopes_of_the_name(name: str, module: str) -> None:
    feeds = {"x": _x(2, 3)}
    model = import_onnx_proto(_model([helper.make_node("Relu", ["x"], ["y"], name)], feeds, ["y"]))
    (origin,) = origins_of(model.graph[0])
    assert (origin.module, origin.target, origin.value) == (module, "Relu", "y")


def test_the_origin_is_read_from_the_stock_exporters_metadata() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    for key, value in (
        ("pkg.torch.onnx.name_scopes", "['', 'layer1', 'layer1.0', 'relu']"),
        ("pkg.torch.onnx.class_hierarchy", "['__main__.Net', 'torch.nn.Sequential', 'torch.nn.ReLU', 'aten.relu']"),
        ("pkg.torch.onnx.stack_trace", 'File "net.py", line 7, in forward\n  File "block.py", line 42, in forward'),
    ):
        node.metadata_props.add(key=key, value=value)
    model = import_onnx_proto(_model([node], {"x": _x(2, 3)}, ["y"]))
    (origin,) = origins_of(model.graph[0])
    assert (origin.module, origin.module_class, origin.source) == ("layer1.0", "torch.nn.ReLU", "block.py:42")
    assert model.graph[0].metadata_props["pkg.torch.onnx.name_scopes"].startswith("['', 'layer1'")


def test_nodes_out_of_order_are_sorted() -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"])]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = import_onnx_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert [node.op_type for node in model.graph] == ["Neg", "Relu"]


# The inputs of a file


def _save_dynamic(folder: Path) -> Path:
    path = folder / "dynamic.onnx"
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 3, "h"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_input_spec_takes_shapes_from_the_file_and_sizes_from_the_caller(tmp_path: Path) -> None:
    assert input_spec(_relu_file(tmp_path)).inputs == (TensorSpec("x", (2, 3)),)
    path = _save_dynamic(tmp_path)
    given = ShapeSpec((TensorSpec("x", (4, 3, 8)),))
    assert input_spec(path, given).inputs == (TensorSpec("x", (4, 3, 8), "float16"),)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "dynamic dims"),
        (TensorSpec("z", (1, 3, 4)), "no input 'z'"),
        (TensorSpec("x", (1, 4, 4)), "size 3 on axis 1"),
        (TensorSpec("x", (1, 3)), "3 dims in the file"),
        (TensorSpec("x", (1, 3, 4), "int64"), "float16 in the file"),
    ],
)
def test_input_spec_refuses_what_does_not_fit_the_file(tmp_path: Path, given: TensorSpec | None, said: str) -> None:
    path = _save_dynamic(tmp_path)
    spec = None
    if given is not None:
        spec = ShapeSpec((given,) if given.name == "x" else (TensorSpec("x", (1, 3, 4)), given))
    with pytest.raises(UsageError, match=said):
        input_spec(path, spec)


@pytest.mark.parametrize(
    ("names", "dynamic", "tried"),
    [
        (("n", "n"), {"x": {0: (2, 6)}, "y": {0: (2, 6)}}, "n"),
        (("n", "n"), {"x": {0: (2, 6)}, "y": {0: "m:2..6"}}, None),
        (("n", "n"), {"x": {0: "x_length:2..6"}, "y": {0: (2, 6)}}, None),
        (("n", "m"), {"x": {0: (2, 6)}, "y": {0: (2, 6)}}, None),
        (("unk", "unk"), {"x": {0: (2, 6)}, "y": {0: (2, 6)}}, None),
        (("batch size", "batch size"), {"x": {0: (2, 6)}, "y": {0: (2, 6)}}, "batch_size"),
        (("2*n", "2*n"), {"x": {0: (2, 6)}, "y": {0: (2, 6)}}, "dim_2_n"),
        (("batch size", "batch-size"), {"x": {0: (2, 6)}, "y": {0: (2, 6)}}, None),
    ],
)
def test_dims_that_a_file_calls_by_one_name_vary_together(
    tmp_path: Path, names: tuple[str, str], dynamic: dict[str, object], tried: str | None
) -> None:
    path = tmp_path / "sum.onnx"
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [dim]) for name, dim in zip("xy", names, strict=True)
    ]
    result = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Add", ["x", "y"], ["z"])], "test", infos, [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    prepared = prepare(path, {"x": np.ones(4, np.float32), "y": np.ones(4, np.float32)}, dynamic_shapes=dynamic)
    if tried is None:
        assert len(prepared.shapes.dims) == 2
        assert not prepared.notes
    else:
        assert list(prepared.shapes.dims) == [tried]
        assert prepared.notes == [f"x:0, y:0 are one dim, {names[0]}, as the file calls them: they vary together"]


# Nodes whose operands have ranks that the operator does not take: x [2, 3], z [3], r a scalar.
CONTRADICTIONS = {
    "Concat of two ranks": "y = Concat<axis = 1>(q, w)",
    "Concat of scalars": "y = Concat<axis = 0>(r, r)",
    "Gemm of a vector": "y = Gemm(w, w)",
    "Reshape that keeps an axis too many": "a = Constant<value_ints = [3, 0, 0]>() y = Reshape(w, a)",
    "Squeeze of a scalar": "a = Constant<value_ints = [0]>() y = Squeeze(r, a)",
    "Split of a scalar": "y, u = Split<num_outputs = 2>(r)",
    "Unsqueeze at one place twice": "a = Constant<value_ints = [0, 0]>() y = Unsqueeze(q, a)",
}


@pytest.mark.parametrize("nodes", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_operands_of_wrong_ranks_are_the_files_fault(tmp_path: Path, nodes: str) -> None:
    text = f"""<ir_version: 9, opset_import: ["" : 18]> g (float[2,3] x, float[3] z) => (float y)
    {{ q = Relu(x) w = Relu(z) r = ReduceSum<keepdims = 0>(x) {nodes} }}"""
    path = tmp_path / "contradictory.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    with suppress(GraphForgeError):  # whoever runs it is told by the runtime
        import_onnx(path)
    with pytest.raises(GraphForgeError):
        graphforge.compile(path, output=tmp_path / "bundle")


def _float_for_int(attribute: onnx.AttributeProto) -> None:
    attribute.type, attribute.f = onnx.AttributeProto.FLOAT, 1.0


def _typeless(attribute: onnx.AttributeProto) -> None:
    attribute.type = onnx.AttributeProto.UNDEFINED


@pytest.mark.parametrize(
    ("damage", "words"), [(_float_for_int, "is of type FLOAT"), (_typeless, "is of type UNDEFINED")]
)
def test_an_attribute_of_another_type_than_the_operators_is_the_files_fault(
    tmp_path: Path, damage: Callable[[onnx.AttributeProto], None], words: str
) -> None:
    text = (
        """<ir_version: 9, opset_import: ["" : 18]> g (float[2,3] x) => (float y) { y = ReduceSum<keepdims = 0>(x) }"""
    )
    proto = onnx.parser.parse_model(text)
    damage(proto.graph.node[0].attribute[0])
    onnx.save(proto, tmp_path / "damaged.onnx")
    for read in (import_onnx, as_written):
        with pytest.raises(GraphForgeError, match=f"'keepdims' {words}, expected INT"):
            read(tmp_path / "damaged.onnx")


def test_text_that_is_not_utf_8_is_the_files_fault_and_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]> g (float[2,3] x) => (float y) { y = Pad<mode = "edge">(x, x) }"""
    content = onnx.parser.parse_model(text).SerializeToString().replace(b"edge", b"\xd2ge\xff")
    (tmp_path / "damaged.onnx").write_bytes(content)
    for read in (import_onnx, as_written):
        with pytest.raises(GraphForgeError, match="'mode' is not UTF-8 text"):
            read(tmp_path / "damaged.onnx")
    assert capfd.readouterr() == ("", "")


def test_an_axis_that_an_input_has_not_is_an_obstacle_at_older_opsets(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]> g (float[2,3] x) => (float a, float b)
    { a, b = Split<axis = 7, num_outputs = 2>(x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "split.onnx")
    answer = graphforge.opset(tmp_path / "split.onnx")
    assert "input 0 has 2 axes and none of the number 7" in json.dumps(answer.to_dict())


def test_sizes_beyond_64_bits_and_opsets_that_are_none_are_the_files_fault(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]> g (float[4611686018427387904, 3] x) => (float y)
    { y = Concat<axis = 0>(x, x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "large.onnx")
    with pytest.raises(GraphForgeError, match="more elements on an axis than 64 bits can say"):
        import_onnx(tmp_path / "large.onnx")
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[3] x) => (float y) { y = Relu(x, x) }'
    )
    proto.opset_import[0].version = 2**40
    onnx.save(proto, tmp_path / "strange.onnx")
    assert complaint_about(tmp_path / "strange.onnx") is not None
