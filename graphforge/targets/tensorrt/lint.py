"""What TensorRT makes of an ONNX file before a plan is built: its parser is asked.

What the parser takes and only the builder refuses is known, and told as well.  Nothing is built, and no GPU
is needed; a network of ten thousand nodes is parsed in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.targets.findings import Finding, NodePlace, Severity

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.targets.tensorrt.flavour import Flavour

__all__ = ["MOST_OF_TOP_K", "lint"]

# Of ITopKLayer; more is refused when the plan is built.
MOST_OF_TOP_K = 3840


def lint(path: Path, flavour: Flavour | None = None) -> list[Finding]:
    """Findings about an ONNX file, or about model.onnx of a bundle, errors first.

    Args:
        path: the file or the folder.
        flavour: which TensorRT is asked; None is the one that a compilation would take.

    Raises:
        GraphForgeError: it cannot be read, or no TensorRT is installed.
    """
    from graphforge.ir import infer_node, nodes_of
    from graphforge.onnx_io.importing import admit, as_written
    from graphforge.onnx_io.origins import read_origins
    from graphforge.runners.recorded import locate_artifact
    from graphforge.targets.tensorrt.flavour import choose_flavour

    file, _ = locate_artifact(path)
    admit(file)
    chosen = flavour or choose_flavour()
    model = as_written(file)
    opset = model.opset_imports.get("", 1)
    for node in nodes_of(model.graph):
        infer_node(node, opset)
        read_origins(node)
    found = [*_of_the_opset(opset, chosen), *_of_the_parser(file, chosen), *_known_at_build(model, chosen)]
    order = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}
    return sorted(dict.fromkeys(found), key=lambda finding: order[finding.severity])


def _of_the_opset(opset: int, flavour: Flavour) -> Iterator[Finding]:
    from graphforge.targets.tensorrt.flavour import OLDEST_OPSET

    newest = flavour.newest_opset()
    if not OLDEST_OPSET <= opset <= newest:
        message = f"opset {opset}, and its parser reads {OLDEST_OPSET} to {newest}"
        yield Finding("T1", Severity.WARNING, "D", message, "", f"compile it in opset {newest}")


def _of_the_parser(file: Path, flavour: Flavour) -> Iterator[Finding]:
    """Every complaint of the parser, at its node; those without a node at the nodes that provoke them."""
    from graphforge.last_step import entering
    from graphforge.targets.tensorrt.blame import NodeIndex, complaints_of, culprits
    from graphforge.targets.tensorrt.log import collect_log, vendor_logger

    trt = flavour.load()
    with collect_log():
        entering(trt.__name__, f"parse {file.name}", file)
        builder = trt.Builder(vendor_logger(trt))
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, vendor_logger(trt))
        if parser.parse_from_file(str(file)):
            yield from _of_the_network(network)
            return
        complaints = complaints_of(parser)
    index = NodeIndex(file)
    for complaint in complaints:
        names = [complaint.node] if complaint.node else culprits(file, trt, index)
        for name in names or [""]:
            operator = complaint.operator or index.operator(name)
            unknown = complaint.unsupported and bool(complaint.operator)
            lacking = index.lacking(name)
            message = (
                f"it does not support {operator}" if unknown else f"refused: {complaint.text or 'no reason given'}"
            )
            way_out = "replace it in a pass of your own"
            if lacking:
                message, way_out = f"it has no {lacking}", "compute in int32 or int64 there, in the model"
            place = NodePlace(name, operator, index.origin(name)) if name else ""
            yield Finding("T2", Severity.ERROR, "A", message, place, way_out)


def _of_the_network(network: Any) -> Iterator[Finding]:
    for position in range(network.num_inputs):
        tensor = network.get_input(position)
        if tensor.is_shape_tensor:
            message = f"the values of input {tensor.name!r} decide shapes inside the network"
            yield Finding("T3", Severity.ERROR, "A", message, "", "make it a constant")


def _known_at_build(model: ir.Model, flavour: Flavour) -> Iterator[Finding]:
    """What the parser takes and the builder refuses, or changes without a word."""
    import onnx_ir

    from graphforge.ir import constant_of, nodes_of, operator_name, origin_text

    def place(node: ir.Node) -> NodePlace:
        return NodePlace(node.name or "", operator_name(node), origin_text(node))

    for node in nodes_of(model.graph):
        first = node.inputs[0] if node.inputs else None
        if node.op_type == "NonMaxSuppression" and flavour.name == "tensorrt_rtx":
            way_out = "write NMS in plain tensor operators, its portable form"
            yield Finding("T4", Severity.ERROR, "O", "TensorRT for RTX has no kernel for it", place(node), way_out)
        if node.op_type == "TopK" and len(node.inputs) > 1:
            count = constant_of(node.inputs[1])
            if count is not None and int(count.reshape(-1)[0]) > MOST_OF_TOP_K:
                message = f"k is {int(count.reshape(-1)[0])}, and it takes {MOST_OF_TOP_K} at most"
                yield Finding("T5", Severity.ERROR, "O", message, place(node), "compile it for target tensorrt")
        if node.op_type in ("ReduceMax", "ReduceMin") and first is not None and first.dtype == onnx_ir.DataType.BOOL:
            way_out = "compile it for target tensorrt, which reduces integers there"
            yield Finding("T6", Severity.ERROR, "O", "its reductions take no booleans", place(node), way_out)
        if any(value is not None and value.dtype == onnx_ir.DataType.DOUBLE for value in node.outputs):
            yield Finding("T7", Severity.WARNING, "O", "float64 is computed in float32", place(node))
