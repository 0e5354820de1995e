"""Rules about the model (G1 to G17)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from graphforge.ir import constant_of, operator_name, schema_of
from graphforge.onnx_io.checking import complaint_about
from graphforge.targets.magicmind.lint.finding import Finding, Severity, Subject, checks, node_place
from graphforge.targets.magicmind.operators import EVIDENCED, FRAGILE, REFUSED
from graphforge.targets.magicmind.options import OPSET

__all__: list[str] = []

_INT32 = np.iinfo(np.int32)
_LIMIT_BYTES = 2**31
_LOWER = f"lower the model: a compilation for the target magicmind writes opset {OPSET}"


@checks("G1", "D,O", "opset of the default domain")
def _opset(subject: Subject) -> Iterator[Finding]:
    opset = subject.opset
    if opset == OPSET:
        return
    message = f"opset {opset}; every public sample of a PyTorch export is at {OPSET}"
    if opset >= 13:
        message = f"opset {opset}: the importer refuses 13 and above ('onnx.Unsqueeze' op requires a single operand)"
        yield Finding("G1", Severity.ERROR, "D", message, fix=_LOWER)
    elif opset in (7, 10, 12):
        yield Finding("G1", Severity.NOTE, "O", f"{message}; {opset} was seen once", fix=_LOWER)
    else:
        yield Finding("G1", Severity.WARNING, "I", f"{message}; {opset} was never seen", fix=_LOWER)


@checks("G2", "I", "default domain only")
def _domains(subject: Subject) -> Iterator[Finding]:
    fix = "decompose it into ONNX operators, or keep that part out of the model"
    for node in subject.nodes():
        if node.domain not in ("", "ai.onnx"):
            message = f"operator {operator_name(node)}: nothing public maps custom domains to plugins"
            yield Finding("G2", Severity.ERROR, "I", message, node_place(node), fix)
    for function in subject.model.functions.values():
        yield Finding("G2", Severity.ERROR, "I", f"local function {function.domain}::{function.name}", fix=fix)


@checks("G3", "D", "axes as attributes")
def _attribute_forms(subject: Subject) -> Iterator[Finding]:
    for node in subject.nodes():
        if node.op_type in ("Squeeze", "Unsqueeze", "ReduceSum", "Split") and len(node.inputs) > 1:
            message = f"{node.op_type} has its axes or sizes as an input; the importer takes them as attributes"
            yield Finding("G3", Severity.ERROR, "D", message, node_place(node), _LOWER)


@checks("G4", "D", "64-bit types")
def _wide_types(subject: Subject) -> Iterator[Finding]:
    converts = subject.setting("opt_config", "type64to32_conversion", default=subject.config is None)
    seen_int64 = False
    for node in subject.nodes():
        for value in (*node.inputs, *node.outputs):
            if value is None or value.dtype is None:
                continue
            if value.dtype == ir.DataType.DOUBLE:
                message = f"value {value.name!r} is float64, which MagicMind does not compute"
                yield Finding("G4", Severity.ERROR, "D,I", message, node_place(node), "compute it in float32")
                break
            seen_int64 = seen_int64 or value.dtype == ir.DataType.INT64
    if seen_int64 and not converts:
        message = "the model has int64 values, but opt_config.type64to32_conversion is not true"
        yield Finding("G4", Severity.ERROR, "D", message, "build_config.json", "set it to true")


@checks("G5", "D,O", "integer inputs")
def _wide_inputs(subject: Subject) -> Iterator[Finding]:
    for value in subject.model.graph.inputs:
        if value.dtype == ir.DataType.INT64:
            message = f"input {value.name!r} is int64: it is fed as int32 there"
            yield Finding("G5", Severity.WARNING, "D,O", message, fix="run_mm.py converts the feeds")


@checks("G6", "D,I", "constants that fit int32")
def _wide_constants(subject: Subject) -> Iterator[Finding]:
    for value in subject.model.graph.initializers.values():
        if value.dtype not in (ir.DataType.INT64, ir.DataType.UINT64, ir.DataType.UINT32):
            continue
        array = constant_of(value, limit=1 << 24)
        if array is None or array.size == 0 or _INT32.min <= array.min() <= array.max() <= _INT32.max:
            continue
        message = (
            f"constant {value.name!r} has values beyond int32 ({array.min()}..{array.max()}), "
            "which type64to32_conversion changes"
        )
        if not value.uses():
            fix = "nothing uses it: remove it (pass eliminate-dead-code)"
            yield Finding("G6", Severity.ERROR, "D,I", message, fix=fix)
        for node, index in value.uses():
            is_bound = node.op_type == "Slice" and index in (1, 2, 4)
            fix = "clamp it (pass clamp-slice-bounds)" if is_bound else "keep the values within int32"
            if node.op_type == "NonMaxSuppression" and index == 2:
                fix = "clamp it (pass clamp-nms-limit)"
            severity = Severity.WARNING if is_bound else Severity.ERROR
            yield Finding("G6", severity, "D,I", message, node_place(node), fix)


@checks("G7", "D,O,I", "operators with evidence")
def _operators(subject: Subject) -> Iterator[Finding]:
    unknown: Counter[str] = Counter()
    for node in subject.nodes():
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in REFUSED:
            message = f"{node.op_type} is not taken: {REFUSED[node.op_type]}"
            yield Finding("G7", Severity.ERROR, "D,I", message, node_place(node), "write it in other operators")
        elif node.op_type not in EVIDENCED:
            unknown[node.op_type] += 1
    for operator, count in sorted(unknown.items()):
        message = f"no public sample shows {operator} ({count} nodes); the importer may still take it"
        yield Finding("G7", Severity.WARNING, "I", message)


@checks("G8", "O", "float32 pins under reduced precision")
def _pins(subject: Subject) -> Iterator[Finding]:
    precision = subject.setting("precision_config", "precision_mode", default="force_float32")
    if subject.config is None or precision == "force_float32":
        return
    pins = list((subject.bundle or {}).get("pins", ()))
    for node in subject.nodes():
        is_pinned = any(pin in (node.name or "") for pin in pins)
        if node.op_type in ("NonMaxSuppression", "TopK") and not is_pinned:
            message = f"{node.op_type} runs in reduced precision ({precision}); samples keep it in float32"
            yield Finding("G8", Severity.WARNING, "O", message, node_place(node), "name the node in pins")


@checks("G9", "O", "control flow and recurrence")
def _fragile(subject: Subject) -> Iterator[Finding]:
    found = sorted({node.op_type for node in subject.nodes() if node.op_type in FRAGILE})
    if not found:
        return
    names = ", ".join(found)
    precision = str(subject.setting("precision_config", "precision_mode", default=""))
    if precision.startswith("qint8"):
        yield Finding("G9", Severity.WARNING, "O", f"{names} with int8: no sample does it", fix="use force_float16")
    if subject.config is not None and subject.setting("debug_config", "fusion_enable", default=True):
        message = f"{names}: samples build these with debug_config.fusion_enable false"
        yield Finding("G9", Severity.WARNING, "O", message, "build_config.json")


@checks("G10", "I", "Resize modes")
def _resize(subject: Subject) -> Iterator[Finding]:
    for node in subject.nodes():
        if node.op_type != "Resize":
            continue
        mode = node.attributes.get_string("mode", "nearest")
        coordinates = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
        if mode not in ("nearest", "linear"):
            message = f"Resize mode {mode!r}: MagicMind's node has nearest and bilinear"
            yield Finding("G10", Severity.WARNING, "I", message, node_place(node), "write it as a convolution")
        if coordinates not in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"):
            message = f"Resize coordinates {coordinates!r}: its node knows align_corners and half_pixel"
            yield Finding("G10", Severity.WARNING, "I", message, node_place(node))


@checks("G11", "O", "Flatten and Reshape with dynamic dims")
def _reshapes(subject: Subject) -> Iterator[Finding]:
    for node in subject.nodes():
        data = node.inputs[0] if node.inputs else None
        if data is None or data.shape is None or data.shape.is_static():
            continue
        if node.op_type == "Flatten":
            message = "Flatten of a value with dynamic dims: a sample had to write Reshape instead"
            yield Finding("G11", Severity.WARNING, "O", message, node_place(node), "write it as Reshape")
        if node.op_type != "Reshape":
            continue
        target = constant_of(node.inputs[1])
        if target is None:
            continue
        copied = [axis for axis, size in enumerate(target.tolist()) if size == 0 and axis < len(data.shape)]
        open_dims = sum(not isinstance(data.shape[axis], int) for axis in copied) + int((target == -1).sum())
        if open_dims > 1 and (target == -1).any():
            message = "Reshape with -1 beside copied dynamic dims: two unknown sizes at once"
            yield Finding("G11", Severity.WARNING, "I", message, node_place(node))


@checks("G12", "O", "named, unique inputs and outputs")
def _names(subject: Subject) -> Iterator[Finding]:
    graph = subject.model.graph
    for what, values in (("input", graph.inputs), ("output", graph.outputs)):
        for name, count in Counter(value.name for value in values).items():
            if not name:
                yield Finding("G12", Severity.ERROR, "O", f"an {what} has no name")
            elif count > 1:
                yield Finding("G12", Severity.ERROR, "O", f"{what} name {name!r} occurs {count} times")
    if not graph.outputs:
        yield Finding("G12", Severity.ERROR, "O", "the model has no output")


@checks("G13", "D", "operators of the opset")
def _too_new(subject: Subject) -> Iterator[Finding]:
    for node in subject.nodes():
        if node.domain in ("", "ai.onnx") and schema_of(node.op_type, "", subject.opset) is None:
            message = f"{node.op_type} is not an operator of opset {subject.opset}"
            yield Finding("G13", Severity.ERROR, "D", message, node_place(node), _LOWER)


@checks("G14", "I", "one file below 2 GB")
def _external(subject: Subject) -> Iterator[Finding]:
    is_external = any(
        isinstance(value.const_value, ir.ExternalTensor) for value in subject.model.graph.initializers.values()
    )
    if is_external or subject.onnx_file.stat().st_size >= _LIMIT_BYTES:
        message = "weights lie outside the ONNX file: whether the importer reads them is not public"
        yield Finding("G14", Severity.WARNING, "I", message)


@checks("G15", "O", "weights are not inputs")
def _overridable(subject: Subject) -> Iterator[Finding]:
    inputs = [value.name for value in subject.model.graph.inputs if value.is_initializer()]
    if inputs:
        message = f"{len(inputs)} weights are graph inputs too; samples have that, and they do not count as inputs"
        yield Finding("G15", Severity.NOTE, "O", message)


@checks("G16", "I", "dims of the model agree with dim_range")
def _ranges(subject: Subject) -> Iterator[Finding]:
    ranges = subject.setting("dim_range", default={})
    inputs = [value for value in subject.model.graph.inputs if not value.is_initializer()]
    for index, value in enumerate(inputs):
        given = ranges.get(str(index)) if isinstance(ranges, dict) else None
        if value.shape is None or not isinstance(given, dict) or not {"min", "max"} <= set(given):
            continue
        bounds = zip(value.shape.dims, given["min"], given["max"], strict=False)
        for axis, (dim, low, high) in enumerate(bounds):
            if isinstance(dim, int) and not (low == dim == high):
                message = f"input {value.name!r} has {dim} baked in on axis {axis}, dim_range says {low}..{high}"
                yield Finding("G16", Severity.ERROR, "I", message, "build_config.json")


@checks("G17", "O", "a valid ONNX file with unique node names")
def _valid(subject: Subject) -> Iterator[Finding]:
    complaint = complaint_about(subject.onnx_file)
    if complaint is not None:
        yield Finding("G17", Severity.ERROR, "O", f"not a valid ONNX model: {complaint.text}")
    names = Counter(node.name or "" for node in subject.nodes())
    if "" in names:
        message = f"{names.pop('')} nodes have no name: pins and messages need names"
        yield Finding("G17", Severity.ERROR, "O", message)
    for name, count in names.items():
        if count > 1:
            yield Finding("G17", Severity.ERROR, "O", f"node name {name!r} occurs {count} times")
