"""From the nodes that OpenVINO's messages name back to the node of the ONNX file and its line of Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from graphforge.ir import describe, origins_from_metadata, set_origins

__all__ = ["places"]

_MOST = 6


def places(message: str, onnx_file: Path) -> list[str]:
    """One line for each node that a message names: what it is and where it comes from."""
    if not onnx_file.is_file():
        return []
    return list(_found(message, onnx_file))[:_MOST]


def _found(message: str, onnx_file: Path) -> Iterator[str]:
    words = set(re.split(r"[\s'\"<>(),;:\[\]{}]+", message))
    # "No conversion rule found for operations: Det-23, com.acme.Sort-1"
    without_rule = {word.rpartition("-")[0].rpartition(".")[2] for word in words if re.search(r"\w-\d+$", word)}
    for node in ir.traversal.RecursiveGraphIterator(ir.load(onnx_file).graph):
        names = {node.name, *(value.name for value in node.outputs)} - {None, ""}
        if names & words or node.op_type in without_rule:
            set_origins(node, origins_from_metadata(dict(node.metadata_props)))
            yield describe(node)
