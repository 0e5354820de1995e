"""Origins of the nodes of an ONNX file: from our own metadata, the stock exporter's, or the scopes in a node's name."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

import onnx_ir as ir

from graphforge.ir import Origin, origins_from_metadata, set_origins

__all__ = ["read_origins"]

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def read_origins(node: ir.Node) -> None:
    """Record on the node where it comes from, as far as the file tells."""
    known = origins_from_metadata(node.metadata_props)
    set_origins(node, known or (_origin(node),))


def _origin(node: ir.Node) -> Origin:
    value = node.outputs[0].name or "" if node.outputs else ""
    target = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    properties = node.metadata_props
    if "pkg.torch.onnx.name_scopes" in properties:
        module, module_class = _torch_module(properties)
        file, line = _torch_source(properties.get("pkg.torch.onnx.stack_trace", ""))
        return Origin(module, module_class, target, file, line, value=value)
    return Origin(_module_from_name(node.name or ""), "", target, value=value)


def _torch_module(properties: Mapping[str, str]) -> tuple[str, str]:
    """Innermost module and its class: both lists run from the root to the operator itself, which is left out."""
    scopes = _read_list(properties["pkg.torch.onnx.name_scopes"])[:-1]
    classes = _read_list(properties.get("pkg.torch.onnx.class_hierarchy", "[]"))[:-1]
    return (scopes[-1] if scopes else ""), (classes[-1] if classes else "")


def _read_list(text: str) -> list[str]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(item) for item in found] if isinstance(found, list) else []


def _torch_source(trace: str) -> tuple[str, int]:
    """The last frame of the trace outside torch: the line of the user's forward that called the operator."""
    frames = _FRAME.findall(trace)
    frames = [frame for frame in frames if not re.search(r"/torch/(nn/|_)", frame[0])] or frames
    return (frames[-1][0], int(frames[-1][1])) if frames else ("", 0)


def _module_from_name(name: str) -> str:
    """Module path in a node name: ``/layer1/layer1.0/conv1/Conv`` gives ``layer1.0.conv1``, ``a/b/Conv2D`` ``a.b``."""
    path = ""
    for scope in name.strip("/").split("/")[:-1]:
        # torch repeats the container's name in front of the child's.
        path = scope if not path or scope.startswith(path + ".") else f"{path}.{scope}"
    return path
