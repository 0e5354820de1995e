"""Holds graphforge/targets/tables/openvino.toml against the OpenVINO that is installed.

Every operator, version and element type is tried as a model of one node, and so are uses of operators that attributes
or ranks make (antialias, volumes, reductions): read, compiled, run on random numbers, compared with ONNX Runtime, or
with onnx's reference where that has no kernel.  Prints where the table is wrong; exit code 1 when something differs:
.venv/bin/python scripts/probe_openvino.py [--all] [OPERATOR ...]
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from graphforge.ir import HOME_OPSET
from graphforge.ir.versions import versions_of
from graphforge.runners.session import new_session
from graphforge.targets.tables import Facts, facts_of, table_of
from scripts import probe_onnxruntime as one

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = tuple(ir.DataType[name] for name in "FLOAT DOUBLE FLOAT16 INT8 INT32 INT64 UINT8 BOOL".split())
RIGHT, WRONG, REFUSED, UNKNOWN = "right", "wrong", "refused", "no reference"
# Of the largest magnitude: what rounding may do.
_CLOSE = {"float64": 1e-9, "float32": 2e-4, "float16": 2e-2}
# Random by their meaning, or without a way to make up inputs here.
_NOT_COMPARED = frozenset(
    "Bernoulli Dropout Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()
)


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one model.

    Attributes:
        operator, version: the node.
        what: its element type, or the form of it.
        answer: ``right``, ``wrong``, ``refused`` or ``no reference``.
        text: how wrong, or what OpenVINO said.
    """

    operator: str
    version: int
    what: str
    answer: str
    text: str = ""


@dataclass(slots=True)
class Measured:
    """What the installed release takes, and how far up it reads."""

    version: str
    newest_opset: int
    tried: list[Tried] = field(default_factory=list)


def run_in_openvino(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """As the target runs it: in float32, with one thread."""
    from graphforge.targets.openvino.manifest import config_of
    from graphforge.targets.openvino.vendor import core

    runtime = core()
    read = runtime.read_model(model.SerializeToString())
    compiled = runtime.compile_model(read, "CPU", {**config_of("f32"), "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": "1"})
    known = {name for port in compiled.inputs for name in port.names}
    found = compiled({name: array for name, array in feeds.items() if name in known})
    return [np.array(found[at]) for at in range(len(compiled.outputs))]


def run_for_reference(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array] | None:
    """What ONNX Runtime makes of it, else onnx's reference, else nothing."""
    try:
        return [np.asarray(value) for value in new_session(model).run(None, dict(feeds))]
    except Exception:  # the runtime has a class of its own for each status code
        pass
    try:
        from onnx.reference import ReferenceEvaluator

        with np.errstate(all="ignore"):
            return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, dict(feeds))]
    except Exception:  # it lacks operators and element types, and says so in many ways
        return None


def judge(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> tuple[str, str]:
    """The answer for one model, and what there is to say of it."""
    from graphforge.targets.openvino.vendor import told

    expected = run_for_reference(model, feeds)
    if expected is None:  # nobody takes it: then it is the probe that made up what cannot be
        return UNKNOWN, ""
    try:
        found = run_in_openvino(model, feeds)
    except (RuntimeError, TypeError, ValueError) as error:
        return REFUSED, told(error)[:300]
    for at, (mine, theirs) in enumerate(zip(found, expected, strict=False)):
        if mine.shape != theirs.shape:
            return WRONG, f"output {at} has shape {list(mine.shape)}, expected {list(theirs.shape)}"
        off = _distance(mine, theirs)
        if off > _CLOSE.get(theirs.dtype.name, 0.0):
            return WRONG, f"output {at} is off by {off:.2g} of its largest magnitude"
    return RIGHT, ""


def _distance(found: Array, expected: Array) -> float:
    if not expected.size:
        return 0.0
    if expected.dtype.kind not in "fiu":
        return float((found != expected).mean())
    mine, theirs = found.astype(np.float64), expected.astype(np.float64)
    if not (np.isfinite(mine) == np.isfinite(theirs)).all():
        return float("inf")
    fine = np.isfinite(theirs)
    if not fine.any():
        return 0.0
    return float(np.abs(mine - theirs)[fine].max() / max(np.abs(theirs[fine]).max(), 1e-30))


# -- one node of every element type ------------------------------------------------------------------------------------


_FEEDS: dict[str, Sequence[Any]] = {
    "AffineGrid": [np.ones((2, 2, 3)), [2, 3, 4, 5]],
    "CenterCropPad": [np.ones((4, 5)), [3, 6]],
    "ConstantOfShape": [[2, 3]],
    "DequantizeLinear": [np.ones((2, 3)), 0.5],
    "GatherElements": [np.ones((2, 3)), [[0, 1, 0], [1, 1, 0]]],
    "GatherND": [np.ones((2, 3)), [[0], [1]]],
    "QuantizeLinear": [np.ones((2, 3)), 0.5],
    "Reshape": [np.ones((2, 3)), [3, -1]],
    "RoiAlign": [one._IMAGE, np.array([[0, 0, 2, 3]]), [0]],
    "Slice": [np.ones((4, 5)), [1, 0], [3, 4]],
    "Unsqueeze": [np.ones((2, 3)), [1]],
    **one._each("BlackmanWindow HammingWindow HannWindow", [6]),
}


def _feeds(model: onnx.ModelProto, operator: str) -> dict[str, Array]:
    """Random numbers in the shapes that the node takes; what is not of ones there is fed as it is."""
    random = np.random.default_rng(0)
    given = _FEEDS.get(operator, one._FEEDS.get(operator))
    feeds = {}
    for value in model.graph.input:
        dtype = ir.DataType(value.type.tensor_type.elem_type).numpy()
        written = None if given is None else np.asarray(given[int(value.name[1:])])
        shape = (2, 3) if written is None else written.shape
        if written is not None and not (
            written.ndim and written.size and (written == 1).all() and written.dtype == float
        ):
            feeds[value.name] = written.astype(dtype)
        elif dtype.kind == "f":
            feeds[value.name] = random.uniform(0.1, 0.9, shape).astype(dtype)
        elif dtype.kind == "b":
            feeds[value.name] = random.integers(0, 2, shape).astype(bool)
        else:
            feeds[value.name] = random.integers(1, min(np.iinfo(dtype).max, 200), shape).astype(dtype)
    return feeds


def _is_of_ones(array: Array) -> bool:
    return bool(array.ndim and array.size and array.dtype == float and (array == 1).all())


def _of_element_types(operator: str, newest: int) -> Iterator[Tried]:
    for version, opset in one.tried_versions(operator, newest):
        for dtype in DTYPES:
            model = one.one_node(operator, version, dtype, opset)
            if model is None:
                continue
            feeds = _feeds(model, operator)
            answer, text = judge(*_settled(model, feeds))
            yield Tried(operator, version, dtype.numpy().name, answer, text)


def _settled(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model with the shapes of what it is fed; numbers that say how (axes, sizes) are constants, as in files."""
    (node,) = model.graph.node
    decides = one._DECIDES.get(node.op_type, 0)
    fixed = {name for name in feeds if name != f"x{decides}" and _says_how(node.op_type, int(name[1:]))}
    inputs = list(model.graph.input)
    del model.graph.input[:]
    for value in inputs:
        array = feeds[value.name]
        if value.name in fixed:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        else:
            kind = value.type.tensor_type.elem_type
            model.graph.input.append(helper.make_tensor_value_info(value.name, kind, array.shape))
    return model, {name: array for name, array in feeds.items() if name not in fixed}


def _says_how(operator: str, position: int) -> bool:
    given = _FEEDS.get(operator, one._FEEDS.get(operator))
    return given is not None and position < len(given) and isinstance(given[position], list | int)


# -- forms of operators ------------------------------------------------------------------------------------------------

_R = np.random.default_rng(1)


def _u(*shape: int) -> Array:
    return _R.uniform(-0.9, 0.9, shape).astype(np.float32)


def _n(*items: int) -> Array:
    return np.array(items, dtype=np.int64)


def _sized(*sizes: int) -> tuple[Array | None, ...]:
    """A picture and the sizes to resize it to."""
    return _u(1, 2, 7, 9), None, None, _n(*sizes)


def _scaled(*scales: float) -> tuple[Array | None, ...]:
    """A picture and the scales to resize it by."""
    return _u(1, 2, 7, 9), None, np.array(scales, np.float32)


@dataclass(frozen=True)
class Use:
    """An operator as it is used in one way: from which opset on, what goes in, which inputs are constants."""

    operator: str
    name: str
    since: int
    inputs: tuple[Array | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constant: tuple[int, ...] = ()
    outputs: int = 1

    def model(self, opset: int) -> onnx.ModelProto:
        """The model of one node."""
        names = ["" if array is None else f"x{at}" for at, array in enumerate(self.inputs)]
        fixed = [
            helper.make_tensor(names[at], helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.reshape(-1))
            for at in self.constant
            if (array := self.inputs[at]) is not None
        ]
        inputs = [
            helper.make_tensor_value_info(names[at], helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for at, array in enumerate(self.inputs)
            if array is not None and at not in self.constant
        ]
        outputs = [f"y{at}" for at in range(self.outputs)]
        node = helper.make_node(self.operator, names, outputs, **self.attributes)
        imports = [helper.make_opsetid("", opset)]
        graph = helper.make_graph([node], "probe", inputs, [onnx.ValueInfoProto(name=name) for name in outputs], fixed)
        made = helper.make_model(
            graph, opset_imports=imports, ir_version=min(helper.find_min_ir_version_for(imports), 10)
        )
        return onnx.shape_inference.infer_shapes(made)

    def feeds(self) -> dict[str, Array]:
        """What is fed."""
        return {
            f"x{at}": array for at, array in enumerate(self.inputs) if array is not None and at not in self.constant
        }


def forms() -> Iterator[Use]:
    """Uses that attributes, ranks and optional inputs make; each is tried at every version of its operator."""
    how: Any
    axis: Any
    kind: Any
    for mode in ("linear", "cubic"):
        yield Use("Resize", f"antialias {mode}", 18, _sized(1, 2, 3, 4), {"mode": mode, "antialias": 1}, (3,))
    for coordinates in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"):
        for mode in ("linear", "cubic", "nearest"):
            how = {"mode": mode, "coordinate_transformation_mode": coordinates}
            yield Use("Resize", f"{mode} {coordinates}", 13, _sized(1, 2, 11, 5), how, (3,))
            yield Use("Resize", f"{mode} {coordinates} by scales", 13, _scaled(1, 1, 1.7, 0.6), how, (2,))
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        how = {"mode": "nearest", "nearest_mode": rounding}
        yield Use("Resize", f"nearest {rounding}", 13, _sized(1, 2, 11, 5), how, (3,))
    half = {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}
    yield Use("Resize", "half_pixel_symmetric", 19, _scaled(1, 1, 1.7, 0.6), half, (2,))
    yield Use("Resize", "axes", 18, (_u(1, 2, 7, 9), None, None, _n(11, 5)), {"mode": "linear", "axes": [2, 3]}, (3,))
    ratio = {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    yield Use("Resize", "keeps the aspect ratio", 18, (_u(1, 2, 7, 9), None, None, _n(11, 5)), ratio, (3,))
    outside = {"mode": "cubic", "exclude_outside": 1}
    yield Use("Resize", "cubic exclude_outside", 13, _sized(1, 2, 11, 5), outside, (3,))
    yield Use(
        "Resize", "linear, a volume", 13, (_u(1, 2, 3, 4, 5), None, None, _n(1, 2, 5, 6, 7)), {"mode": "linear"}, (3,)
    )
    for mode in ("linear", "cubic", "nearest"):
        for padding in ("zeros", "border", "reflection"):
            for corners in (0, 1):
                how = {"mode": mode, "padding_mode": padding, "align_corners": corners}
                yield Use("GridSample", f"{mode} {padding} {corners}", 20, (_u(1, 2, 5, 6), 1.3 * _u(1, 3, 4, 2)), how)
                if mode != "cubic":
                    yield Use(
                        "GridSample",
                        f"volume {mode} {padding} {corners}",
                        20,
                        (_u(1, 2, 3, 4, 5), _u(1, 2, 3, 2, 3)),
                        how,
                    )
    where = np.array([[0, 1, 1], [2, 0, 1]], dtype=np.int64)
    for reduction, since in (("none", 11), ("add", 16), ("mul", 16), ("min", 18), ("max", 18)):
        how = {"reduction": reduction} if reduction != "none" else {}
        yield Use(
            "ScatterElements",
            reduction,
            since,
            (_u(3, 3), where if how else _n(0, 1, 2)[None], _u(2, 3) if how else _u(1, 3)),
            how,
        )
        indices = np.array([[0], [2], [0]] if how else [[0], [2], [1]], dtype=np.int64)
        yield Use("ScatterND", reduction, since, (_u(4, 3), indices, _u(3, 3)), how)
    for ceil in (0, 1):
        for pads in ([0, 0, 0, 0], [1, 1, 1, 1]):
            how = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": pads, "ceil_mode": ceil}
            yield Use("MaxPool", f"ceil {ceil} pads {pads[0]}", 11, (_u(1, 2, 8, 9),), how)
            yield Use("MaxPool", f"ceil {ceil} pads {pads[0]}, indices", 11, (_u(1, 2, 8, 9),), how, outputs=2)
            for counted in (0, 1):
                yield Use(
                    "AveragePool",
                    f"ceil {ceil} pads {pads[0]} counted {counted}",
                    11,
                    (_u(1, 2, 8, 9),),
                    {**how, "count_include_pad": counted},
                )
    yield Use("MaxPool", "dilations", 11, (_u(1, 2, 8, 9),), {"kernel_shape": [2, 2], "dilations": [2, 2]})
    yield Use("AveragePool", "dilations", 19, (_u(1, 2, 8, 9),), {"kernel_shape": [2, 2], "dilations": [2, 2]})
    for mode, since in (("constant", 11), ("reflect", 11), ("edge", 11), ("wrap", 19)):
        yield Use("Pad", mode, since, (_u(2, 5, 6), _n(0, 1, 2, 0, 2, 1)), {"mode": mode}, (1,))
    yield Use("Pad", "constant, negative", 11, (_u(2, 5, 6), _n(0, -1, 2, 0, 2, -1)), {}, (1,))
    yield Use("Pad", "axes", 18, (_u(2, 5, 6), _n(1, 2), None, _n(-1)), {}, (1, 3))
    boxes, rows = np.array([[0, 0, 4, 4], [1, 1, 3, 5]], np.float32), _n(0, 0)
    for mode in ("avg", "max"):
        for ratio_of in (0, 2):
            how = {"output_height": 2, "output_width": 3, "sampling_ratio": ratio_of, "mode": mode}
            yield Use("RoiAlign", f"{mode} {ratio_of}", 11, (_u(1, 2, 6, 6), boxes, rows), how)
    for exclusive in (0, 1):
        for reverse in (0, 1):
            how = {"exclusive": exclusive, "reverse": reverse}
            yield Use("CumSum", f"exclusive {exclusive} reverse {reverse}", 11, (_u(3, 4), np.array(1)), how, (1,))
    for last in (0, 1):
        yield Use(
            "ArgMax",
            f"last {last}",
            13,
            (np.array([[1, 3, 3], [2, 2, 1]], np.float32),),
            {"axis": 1, "select_last_index": last},
        )
    yield Use("TopK", "smallest", 11, (_u(3, 7), _n(3)), {"largest": 0}, (1,), 2)
    yield Use("TopK", "k computed", 11, (_u(3, 7), _n(3)), {}, (), 2)
    yield Use("TopK", "of ties", 11, (np.zeros((2, 7), np.float32), _n(3)), {}, (1,), 2)
    yield Use("Mod", "fmod", 13, (_u(5), np.full(5, 0.3, np.float32)), {"fmod": 1})
    yield Use("Mod", "negative integers", 13, (_n(-5, 5, -4), _n(3, -3, 3)), {})
    for equation, shapes in (
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("ii->i", ((3, 3),)),
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
        ("i,j->ij", ((3,), (4,))),
        ("...ij,...jk->...ik", ((2, 3, 4), (2, 4, 5))),
    ):
        yield Use("Einsum", equation, 12, tuple(_u(*shape) for shape in shapes), {"equation": equation})
    for upper in (0, 1):
        yield Use("Trilu", f"upper {upper}", 14, (_u(4, 5), np.array(1)), {"upper": upper}, (1,))
    for how in ("DCR", "CRD"):
        yield Use("DepthToSpace", how, 11, (_u(1, 8, 2, 3),), {"blocksize": 2, "mode": how})
    for approximate in ("none", "tanh"):
        yield Use("Gelu", approximate, 20, (_u(3, 4),), {"approximate": approximate})
    for axis in (0, 1, -1):
        yield Use("Softmax", f"axis {axis}", 11, (_u(2, 3, 4),), {"axis": axis})
        yield Use("LogSoftmax", f"axis {axis}", 11, (_u(2, 3, 4),), {"axis": axis})
        yield Use(
            "OneHot",
            f"axis {axis}",
            11,
            (_n(0, 2, -1), np.array(3), np.array([0, 1], np.float32)),
            {"axis": axis},
            (1, 2),
        )
        yield Use("Gather", f"axis {axis}, from the end", 11, (_u(3, 4, 5), _n(0, -1)), {"axis": axis})
        yield Use(
            "GatherElements", f"axis {axis}", 11, (_u(2, 3, 3), np.array([[[0, 1, -1]]], np.int64)), {"axis": axis}
        )
        yield Use(
            "LayerNormalization",
            f"axis {axis}",
            17,
            (_u(3, 4, 5), *([_u(*{0: (3, 4, 5), 1: (4, 5), -1: (5,)}[axis])] * 2)),
            {"axis": axis},
        )
    yield Use("GatherND", "batch", 12, (_u(2, 3, 4), np.array([[[0]], [[2]]], np.int64)), {"batch_dims": 1})
    for name in "Sum Mean Max Min Prod L1 L2 LogSum LogSumExp SumSquare".split():
        data = np.abs(_u(2, 3, 4)) + 0.1
        yield Use(f"Reduce{name}", "axes", 18, (data, _n(1, -1)), {"keepdims": 0}, (1,))
        yield Use(f"Reduce{name}", "no axes, nothing done", 18, (data, _n()), {"noop_with_empty_axes": 1}, (1,))
        yield Use(f"Reduce{name}", "axes computed", 18, (data, _n(1)), {"keepdims": 1})
        yield Use(f"Reduce{name}", "of nothing", 18, (np.zeros((0, 3), np.float32), _n(0)), {}, (1,))
    yield Use("InstanceNormalization", "3 dims", 11, (_u(2, 3, 4), _u(3), _u(3)), {})
    yield Use("GroupNormalization", "by channel", 21, (_u(2, 4, 5), _u(4), _u(4)), {"num_groups": 2})
    yield Use("RMSNormalization", "last axis", 23, (_u(2, 3, 4), _u(4)), {})
    q, k, v = _u(2, 4, 3, 8), _u(2, 2, 5, 8), _u(2, 2, 5, 8)
    yield Use("Attention", "4 dims", 23, (q, _u(2, 4, 5, 8), _u(2, 4, 5, 8)), {})
    yield Use("Attention", "causal", 23, (q, _u(2, 4, 5, 8), _u(2, 4, 5, 8)), {"is_causal": 1})
    yield Use("Attention", "fewer heads for keys", 23, (q, k, v), {})
    yield Use("Attention", "float mask", 23, (q, _u(2, 4, 5, 8), _u(2, 4, 5, 8), _u(3, 5)), {})
    yield Use("Attention", "bool mask", 23, (q, _u(2, 4, 5, 8), _u(2, 4, 5, 8), _u(2, 1, 3, 5) > -0.5), {})
    yield Use("Attention", "scale and softcap", 23, (q, _u(2, 4, 5, 8), _u(2, 4, 5, 8)), {"scale": 0.3, "softcap": 2.0})
    yield Use("Attention", "3 dims", 23, (_u(2, 3, 8), _u(2, 5, 8), _u(2, 5, 8)), {"q_num_heads": 2, "kv_num_heads": 2})
    past = (_u(2, 4, 3, 8), _u(2, 4, 1, 8), _u(2, 4, 1, 8), None, _u(2, 4, 5, 8), _u(2, 4, 5, 8))
    yield Use("Attention", "past", 23, past, {}, (), 3)
    for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        for name, gates, outputs in (("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)):
            inputs = (_u(5, 2, 3), _u(count, gates * 4, 3), _u(count, gates * 4, 4), _u(count, gates * 8))
            how = {"hidden_size": 4, "direction": direction}
            yield Use(name, direction, 14, inputs, how, (1, 2, 3), outputs)
            lengths = np.array([5, 3], np.int32)
            yield Use(name, f"{direction}, lengths", 14, (*inputs, lengths), how, (1, 2, 3), outputs)
    yield Use(
        "GRU",
        "linear_before_reset",
        14,
        (_u(5, 2, 3), _u(1, 12, 3), _u(1, 12, 4), _u(1, 24)),
        {"hidden_size": 4, "linear_before_reset": 1},
        (1, 2, 3),
        2,
    )
    yield Use(
        "ConvTranspose",
        "output_padding",
        11,
        (_u(1, 2, 4, 4), _u(2, 3, 3, 3)),
        {"strides": [2, 2], "output_padding": [1, 1], "pads": [1, 1, 1, 1]},
        (1,),
    )
    yield Use("ConvTranspose", "groups", 11, (_u(1, 4, 4, 4), _u(4, 2, 3, 3)), {"group": 2, "dilations": [2, 2]}, (1,))
    yield Use("Conv", "weight computed", 11, (_u(1, 2, 6, 6), _u(3, 2, 3, 3)), {})
    yield Use(
        "Conv", "SAME_LOWER", 11, (_u(1, 2, 6, 7), _u(3, 2, 2, 2)), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (1,)
    )
    yield Use(
        "Conv",
        "1 dim, dilations",
        11,
        (_u(1, 4, 12), _u(4, 2, 3)),
        {"dilations": [2], "group": 2, "pads": [2, 1]},
        (1,),
    )
    yield Use("Slice", "steps backwards", 11, (_u(5, 6), _n(4, -1), _n(-9, -9), _n(0, 1), _n(-2, -1)), {}, (1, 2, 3, 4))
    yield Use("Slice", "computed", 11, (_u(5, 6), _n(1), _n(9), _n(1)), {})
    for kind in (np.int8, np.uint8):
        zero = np.array(3, kind)
        yield Use(
            "QuantizeLinear", np.dtype(kind).name, 13, (4 * _u(3, 4), np.array(0.05, np.float32), zero), {}, (1, 2)
        )
        yield Use(
            "DequantizeLinear",
            np.dtype(kind).name,
            13,
            (_R.integers(0, 99, (3, 4)).astype(kind), np.array(0.05, np.float32), zero),
            {},
            (1, 2),
        )
        axis = (_R.integers(0, 99, (3, 4)).astype(kind), np.array([0.1, 0.2, 0.3], np.float32), np.zeros(3, kind))
        yield Use("DequantizeLinear", f"{np.dtype(kind).name} by channel", 13, axis, {"axis": 0}, (1, 2))
    suppressed = (
        np.array([[[0, 0, 2, 2], [0, 0, 2, 2.1], [4, 4, 6, 6], [0, 4, 2, 6]]], np.float32),
        np.array([[[0.9, 0.8, 0.7, 0.1]]], np.float32),
        _n(3),
        np.array([0.5], np.float32),
        np.array([0.2], np.float32),
    )
    yield Use("NonMaxSuppression", "corners", 11, suppressed, {}, (2, 3, 4))
    yield Use("NonMaxSuppression", "centres", 11, suppressed, {"center_point_box": 1}, (2, 3, 4))
    yield Use("Cast", "float to int8, out of range", 13, (np.array([300.7, -200.2, 1.9], np.float32),), {"to": 6})
    yield Use("Cast", "int64 to uint8, wrapped", 13, (_n(300, -1, 5),), {"to": 2})
    yield Use("Cast", "float to bool", 13, (np.array([0.2, 0, -3], np.float32),), {"to": 9})
    yield Use("Clip", "int64", 12, (_n(-5, 3, 9), np.array(0), np.array(4)), {}, (1, 2))
    yield Use("Clip", "no lower bound", 11, (_u(5), None, np.array(0.1, np.float32)), {}, (2,))
    yield Use("Pow", "integer base, float power", 13, (_n(2, 3), np.array([0.5, 2], np.float32)), {})
    yield Use("Div", "negative integers", 13, (_n(-7, 7, -8), _n(2, -2, 3)), {})
    yield Use("Where", "of broadcast", 11, (_u(3, 1) > 0, _u(1, 4), _u(3, 4)), {})
    yield Use("Round", "halves", 11, (np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32),), {})
    yield Use(
        "Col2Im",
        "strides, dilations",
        18,
        (_u(1, 8, 4), _n(5, 5), _n(2, 2)),
        {"strides": [2, 2], "dilations": [2, 2]},
        (1, 2),
    )
    for inverse in (0, 1):
        for onesided in (0, 1):
            if not (inverse and onesided):
                yield Use(
                    "DFT",
                    f"inverse {inverse} onesided {onesided}",
                    17,
                    (_u(2, 6, 2 if inverse else 1),),
                    {"inverse": inverse, "onesided": onesided},
                )
    yield Use("MatMul", "vectors", 11, (_u(4), _u(4)), {})
    yield Use(
        "MatMul",
        "int32",
        11,
        (_R.integers(-9, 9, (2, 3)).astype(np.int32), _R.integers(-9, 9, (3, 2)).astype(np.int32)),
        {},
    )
    yield Use(
        "MatMulInteger",
        "zero points",
        11,
        (
            _R.integers(0, 99, (2, 3)).astype(np.uint8),
            _R.integers(0, 99, (3, 2)).astype(np.uint8),
            np.array(3, np.uint8),
            np.array(5, np.uint8),
        ),
        {},
        (2, 3),
    )
    yield Use(
        "BitShift", "right", 11, (np.array([9, 200], np.uint8), np.array([1, 3], np.uint8)), {"direction": "RIGHT"}
    )
    yield Use(
        "Unique", "sorted, by axis", 11, (np.array([[1, 0, 0], [1, 0, 0], [2, 3, 4]], np.float32),), {"axis": 0}, (), 4
    )
    yield Use("IsInf", "one sign", 11, (np.array([np.inf, -np.inf, 1], np.float32),), {"detect_negative": 0})
    yield Use(
        "MaxPool", "of NaN", 11, (np.array([[[[1, np.nan], [np.nan, 2]]]], np.float32),), {"kernel_shape": [2, 2]}
    )
    yield Use("Max", "of NaN", 12, (np.array([1, np.nan], np.float32), np.array([np.nan, 2], np.float32)), {})
    yield Use("Relu", "of NaN", 11, (np.array([1, np.nan], np.float32),), {})


def _of_forms(operator: str, newest: int) -> Iterator[Tried]:
    for form in [one_form for one_form in forms() if one_form.operator == operator]:
        for version, opset in one.tried_versions(operator, newest):
            if opset < form.since:
                continue
            model = form.model(opset)
            answer, text = judge(model, form.feeds())
            yield Tried(operator, version, form.name, answer, text)


# -- all of them -------------------------------------------------------------------------------------------------------


def measure(operators: Collection[str]) -> Measured:
    """Try every operator, each in a child that may die of it."""
    from graphforge.targets.openvino.vendor import load

    found = Measured(str(load().__version__).partition("-")[0], _newest_opset())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context)
    for operator in sorted(operators):
        try:
            found.tried += pool.submit(_tried, operator, found.newest_opset).result(timeout=300)
        except BrokenProcessPool:
            found.tried.append(Tried(operator, 0, "", REFUSED, "OpenVINO ends the process"))
            pool = ProcessPoolExecutor(1, mp_context=context)
    pool.shutdown()
    return found


def _tried(operator: str, newest: int) -> list[Tried]:
    kinds = [] if operator in _NOT_COMPARED else list(_of_element_types(operator, newest))
    return [*kinds, *_of_forms(operator, newest)]


def _newest_opset() -> int:
    def reads(opset: int) -> bool:
        return judge(one._relu(opset, 8), {"x": np.array([-1, 2], np.float32)})[0] == RIGHT

    return next((opset for opset in range(HOME_OPSET, 0, -1) if reads(opset)), 0)


def lies(found: Measured, facts: Facts) -> list[str]:
    """Where the table says something else than was measured, one line each; empty where it is true."""
    wrong = []
    if facts.newest_opset != found.newest_opset:
        wrong.append(f"newest opset: the table says {facts.newest_opset}, measured {found.newest_opset}")
    supported = frozenset(table_of("openvino").get("supported", "").split())
    known = {name for fault in facts.faults for name in fault.seen}
    for tried in found.tried:
        if tried.answer == UNKNOWN or f"{tried.operator} {tried.what}" in known:
            continue
        dtype = next((one_of for one_of in DTYPES if one_of.numpy().name == tried.what), None)
        gone = tried.operator not in supported or tried.version >= facts.without_kernel.get(tried.operator, 99)
        lacks = gone or (dtype is not None and not facts.kernels.has(tried.operator, dtype, tried.version))
        name = f"{tried.operator}-{tried.version} {tried.what}".strip()
        # what happens to be right of a type or a form that mostly is not proves nothing
        if tried.answer == RIGHT and gone:
            wrong.append(f"{name}: right, the table says it is not taken")
        if tried.answer != RIGHT and not lacks and not _is_written_otherwise(tried, facts):
            wrong.append(f"{name}: the table says taken; {tried.answer}: {tried.text}")
    return wrong


def _is_written_otherwise(tried: Tried, facts: Facts) -> bool:
    """Whether the table asks for this node to be written in another form."""
    asked = [form for form in facts.forms if form.operator == tried.operator and form.holds_at(tried.version)]
    if not asked:
        return False
    opset = next(end for version, end in one.tried_versions(tried.operator) if version == tried.version)
    made = next((form for form in forms() if (form.operator, form.name) == (tried.operator, tried.what)), None)
    dtype = next((one_of for one_of in DTYPES if one_of.numpy().name == tried.what), None)
    model = None if dtype is None else one.one_node(tried.operator, tried.version, dtype, opset)
    model = made.model(opset) if made is not None else model
    if model is None:
        return False
    (node,) = ir.from_proto(model).graph
    return any(form.means(node) for form in asked)


def every_operator() -> frozenset[str]:
    """The operators of ONNX that can be tried."""
    return frozenset(name for name in one.operators() | {form.operator for form in forms()} if versions_of(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help="only these; all by default")
    parser.add_argument("--all", action="store_true", help="print every answer, not only where the table is wrong")
    options = parser.parse_args(arguments)
    facts = facts_of("openvino")
    found = measure(options.operators or every_operator())
    if options.all:
        for tried in found.tried:
            print(f"{tried.operator}-{tried.version} {tried.what}: {tried.answer} {tried.text}")
    wrong = lies(found, facts)
    print("\n".join([f"{facts.called}, entry {facts.release}: {len(found.tried)} models of one node", *wrong]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
