"""A node in the words of messages: its operator, its name, and where it comes from."""

from __future__ import annotations

import onnx_ir as ir

from graphforge.ir.origin import origins_of

__all__ = ["describe", "node_name", "operator_name", "origin_text"]


def describe(node: ir.Node) -> str:
    """``LayerNormalization node 'y' (blocks.0.norm1, model.py:12)``, the origin left out when none is known."""
    origin = origin_text(node)
    return f"{operator_name(node)} node {node_name(node)!r}" + (f" ({origin})" if origin else "")


def node_name(node: ir.Node) -> str:
    """The node's name, else that of its first named output, "?" where nothing has one.

    A name that was only counted (``node_Relu_2``) comes after that of the output, which is what users see.
    """
    named = next((value.name for value in node.outputs if value.name), None) or ""
    name = node.name or ""
    return (named or name if name.startswith("node_") else name or named) or "?"


def operator_name(node: ir.Node) -> str:
    """``Conv``, and with the domain where it is not ONNX's own: ``acme::Sort``."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def origin_text(node: ir.Node) -> str:
    """``blocks.0.norm1 (LayerNorm), aten.layer_norm.default, model.py:12``, "" when nothing is known."""
    origins = origins_of(node)
    placed = [origin for origin in origins if origin.module or origin.file]
    # an operator alone says less than the place of another origin, and nothing where it is the node's own
    named = [origin for origin in origins if origin.target not in ("", node.op_type)]
    return next((origin.describe() for origin in [*placed, *named]), "")
