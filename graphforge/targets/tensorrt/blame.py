"""From the names TensorRT mentions back to the node of the ONNX file and the line of Python it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphforge.ir import bodies_of, describe, infer_node, origin_text, origins_from_metadata, set_origins
from graphforge.ir.dtypes import dtype_name

__all__ = ["NodeIndex", "ParserComplaint", "complaints_of", "culprits"]

# Its ONNX parser reads no tensors of these; float64 it reads as float32.
_MISSING = frozenset(ir.DataType[name] for name in ("INT16", "UINT16", "UINT32", "UINT64", "COMPLEX64", "COMPLEX128"))
# More lines than this say nothing new to a reader.
_MAX_NOTES = 8


@dataclass(frozen=True, slots=True)
class ParserComplaint:
    """One error of the ONNX parser, in plain types.

    Attributes:
        node: name of the ONNX node, "" when the error is about no node.
        operator: its operator, "" likewise.
        unsupported: whether the parser says it does not know the operator at all (or this form of it).
        text: what it says, "" when nothing worth reading.
    """

    node: str
    operator: str
    unsupported: bool
    text: str


def complaints_of(parser: Any) -> list[ParserComplaint]:
    """The parser's errors; unsupported operators and missing plugins in words, not as source code."""
    complaints = []
    for position in range(parser.num_errors):
        error = parser.get_error(position)
        text = " ".join(error.desc().split())
        unsupported = "UNSUPPORTED_NODE" in str(error.code()) or "Plugin not found" in text
        if text in ("false", "0") or "Plugin not found" in text:
            text = ""
        quoted = re.search(r'&& "?([^"&]+)"?$', text)
        complaints.append(
            ParserComplaint(error.node_name(), error.node_operator(), unsupported, quoted[1] if quoted else text)
        )
    return complaints


class NodeIndex:
    """Finds the nodes of an ONNX file by name and describes where they come from.

    Reads the very file given to TensorRT, so what it says is true of that file.
    """

    def __init__(self, onnx_file: Path) -> None:
        self._nodes: dict[str, ir.Node] = {}
        model = ir.load(onnx_file)
        self._opset = model.opset_imports.get("", 1)
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.name:
                set_origins(node, origins_from_metadata(dict(node.metadata_props)))
                self._nodes.setdefault(node.name, node)

    def describe(self, name: str) -> str:
        """``Det node 'layer4.det' (layer4.det (Det), aten.det.default, model.py:41)``."""
        node = self._nodes.get(name)
        if node is None:
            return f"node {name!r}"
        return describe(node)

    def origin(self, name: str) -> str:
        """Where the node of that name comes from, "" when nothing is known."""
        node = self._nodes.get(name)
        return "" if node is None else origin_text(node)

    def nodes(self) -> Iterator[ir.Node]:
        """Every node that has a name."""
        yield from self._nodes.values()

    def operator(self, name: str) -> str:
        """The operator of the node of that name, "" when there is none."""
        node = self._nodes.get(name)
        return "" if node is None else node.op_type

    def lacking(self, name: str) -> str:
        """An element type of the node's operands or results that TensorRT does not have, "" when it has all."""
        node = self._nodes.get(name)
        if node is None:
            return ""
        infer_node(node, self._opset)
        dtypes = [value.dtype for value in (*node.inputs, *node.outputs) if value is not None]
        return next((dtype_name(dtype) for dtype in dtypes if dtype in _MISSING), "")

    def readers(self, value: str) -> list[str]:
        """Names of the nodes that read the value of that name."""
        return [
            name for name, node in self._nodes.items() if any(v is not None and v.name == value for v in node.inputs)
        ]

    def reason(self, complaint: ParserComplaint) -> str:
        """Why the parser refuses a node, in a few words."""
        lacking = self.lacking(complaint.node)
        if lacking:
            return f"TensorRT has no {lacking}"
        if complaint.unsupported and complaint.operator:
            return "operator not supported" + (f" ({complaint.text})" if complaint.text else "")
        return "refused" + (f" ({complaint.text})" if complaint.text else "")

    def mentioned(self, texts: Sequence[str]) -> list[str]:
        """Names of nodes that the texts mention, in order of appearance.

        TensorRT names layers after nodes, appends ``_0``, or spans them: ``{ForeignNode[first...last]}``.
        """
        found: dict[str, None] = {}
        for text in texts:
            for word in re.split(r"[\s\[\]{}(),;'\"]+|\.{3}", text):
                name = word.strip(".:")
                name = name if name in self._nodes else re.sub(r"_\d+$", "", name)
                if name in self._nodes:
                    found[name] = None
        return list(found)

    def notes(self, complaints: Sequence[ParserComplaint]) -> list[str]:
        """One note a complaint, with the origin of its node; the parser repeats some, which are told once."""
        places = [self.describe(one.node) if one.node else "the model as a whole" for one in complaints]
        told = [f"{place}: {self.reason(one)}" for place, one in zip(places, complaints, strict=True)]
        notes = list(dict.fromkeys(told))
        return [*notes[:_MAX_NOTES], *([f"and {len(notes) - _MAX_NOTES} more"] if len(notes) > _MAX_NOTES else [])]


def culprits(onnx_file: Path, trt: Any, index: NodeIndex) -> list[str]:
    """Names of the nodes that the parser refuses by themselves, for refusals that name none.

    Every kind of node (operator, attributes, element types and ranks of what goes in) is parsed as a model of its own,
    which takes a millisecond.
    """
    from graphforge.targets.tensorrt.log import collect_log, vendor_logger

    opset = ir.load(onnx_file).opset_imports.get("", 1)
    answers: dict[tuple[object, ...], bool] = {}
    found = []
    with collect_log():
        builder = trt.Builder(vendor_logger(trt))
        for node in index.nodes():
            infer_node(node, opset)
            kind = _kind(node)
            if any(True for _ in bodies_of(node)):
                continue  # its nodes are tried one by one
            if kind not in answers:
                network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
                parser = trt.OnnxParser(network, vendor_logger(trt))
                answers[kind] = bool(parser.parse(_alone(node, opset)))
            if not answers[kind] and node.name:
                found.append(node.name)
    return found


def _kind(node: ir.Node) -> tuple[object, ...]:
    values = [
        None if value is None else (value.dtype, None if value.shape is None else len(value.shape))
        for value in node.inputs
    ]
    attributes = sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())
    return node.domain, node.op_type, tuple(values), tuple(attributes)


def _alone(node: ir.Node, opset: int) -> bytes:
    """A model of that node: what goes in are inputs of the model, save the constants."""
    import onnx

    proto = ir.to_proto(node)
    inputs, constants = [], []
    for value in dict.fromkeys(node.inputs):
        if value is None or not value.name:
            continue
        if value.const_value is not None:
            constants.append(ir.to_proto(value.const_value))
            constants[-1].name = value.name
        else:
            inputs.append(ir.to_proto(value))
    outputs = [ir.to_proto(value) for value in node.outputs if value.name]
    graph = onnx.helper.make_graph([proto], "alone", inputs, outputs, constants)
    imports = [onnx.helper.make_opsetid("", opset)]
    if node.domain:
        imports.append(onnx.helper.make_opsetid(node.domain, 1))
    made: bytes = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
    return made
