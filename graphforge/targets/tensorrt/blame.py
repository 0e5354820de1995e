"""From the names TensorRT mentions back to the node of the ONNX file and the line of Python it came from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphforge.ir import describe, origins_from_metadata, set_origins

__all__ = ["NodeIndex", "ParserComplaint", "complaints_of"]

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
        quoted = re.search(r'Assertion failed: .*?&& "?(.+?)"?$', text)
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
        for node in ir.traversal.RecursiveGraphIterator(ir.load(onnx_file).graph):
            if node.name:
                set_origins(node, origins_from_metadata(dict(node.metadata_props)))
                self._nodes.setdefault(node.name, node)

    def describe(self, name: str) -> str:
        """``Det node 'layer4.det' (layer4.det (Det), aten.det.default, model.py:41)``."""
        node = self._nodes.get(name)
        if node is None:
            return f"node {name!r}"
        return describe(node)

    def operator(self, name: str) -> str:
        """The operator of the node of that name, "" when there is none."""
        node = self._nodes.get(name)
        return "" if node is None else node.op_type

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
        """One note a complaint, with the origin of its node."""
        notes = []
        for complaint in complaints[:_MAX_NOTES]:
            place = self.describe(complaint.node) if complaint.node else "the model as a whole"
            is_unknown = complaint.unsupported and complaint.node
            reason = "operator not supported" if is_unknown else "refused"
            notes.append(f"{place}: {reason}" + (f" ({complaint.text})" if complaint.text else ""))
        if len(complaints) > _MAX_NOTES:
            notes.append(f"and {len(complaints) - _MAX_NOTES} more")
        return notes
