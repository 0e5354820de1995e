"""Where a node comes from: module, ATen operator, source line, pass.  Kept in node.meta, written to metadata_props."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import onnx_ir as ir

__all__ = ["Origin", "origins_from_metadata", "origins_of", "set_origins", "write_origin_metadata"]

_META_KEY = "graphforge.origins"
# More origins than this on one node say nothing to a reader and make files large; the first ones are kept.
_MAX_ORIGINS = 8


@dataclass(frozen=True, slots=True)
class Origin:
    """One place in the user's program that a node stands for.

    Attributes:
        module: module path, ``backbone.layer1.0.conv1`` ("" at the root).
        module_class: class name of that module, ``torch.nn.modules.conv.Conv2d``.
        target: ATen operator, ``aten.conv2d.default``, or the ONNX operator of an imported file.
        file: source file of the Python line that called it, "" when unknown.
        line: line number in ``file``, 0 when unknown.
        made_by: name of the pass that made the node, "" for the frontend.
        value: name of the captured program's value (FX node) that this node computes, "" when unknown.
        callers: the lines that led to ``file:line``, each ``file.py:line``, the nearest first.
    """

    module: str = ""
    module_class: str = ""
    target: str = ""
    file: str = ""
    line: int = 0
    made_by: str = ""
    value: str = ""
    callers: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """``file.py:line``, or "" when unknown."""
        return f"{self.file}:{self.line}" if self.file else ""

    def describe(self) -> str:
        """One phrase for messages: ``features.3.conv (Conv2d), aten.conv2d.default, model.py:41``."""
        parts = []
        if self.module:
            short = self.module_class.rpartition(".")[2]
            parts.append(f"{self.module} ({short})" if short else self.module)
        if self.target:
            parts.append(self.target)
        if self.source:
            parts.append(self.source)
        return ", ".join(parts) or "unknown origin"


def origins_of(node: ir.Node) -> tuple[Origin, ...]:
    """The origins of a node, the main one first; empty when none was recorded."""
    found = node.meta.get(_META_KEY, ())
    assert isinstance(found, tuple)
    return found


def set_origins(node: ir.Node, origins: Iterable[Origin], *, made_by: str = "") -> None:
    """Record origins on a node, without doubles, keeping their order; ``made_by`` stamps the pass's name on them."""
    unique: dict[Origin, None] = {}
    for origin in origins:
        unique[replace(origin, made_by=made_by) if made_by else origin] = None
        if len(unique) == _MAX_ORIGINS:
            break
    node.meta[_META_KEY] = tuple(unique)


_PROPERTIES = ("module", "module_class", "target", "source", "made_by", "value", "called_from")
_CALLED = " < "


def write_origin_metadata(node: ir.Node) -> None:
    """Copy the origins into the node's metadata_props, so that they survive in the artifact."""
    origins = origins_of(node)
    if not origins:
        return
    for name in _PROPERTIES:
        texts = [_short_callers(origin) if name == "called_from" else str(getattr(origin, name)) for origin in origins]
        if any(texts):
            node.metadata_props[f"graphforge.{name}"] = "\n".join(texts) if len(set(texts)) > 1 else texts[0]
    if len(origins) > 1:
        node.metadata_props["graphforge.origins"] = str(len(origins))


def origins_from_metadata(properties: dict[str, str]) -> tuple[Origin, ...]:
    """Read back what ``write_origin_metadata`` wrote; also understands the stock exporter's metadata."""
    # onnx_ir hands out bytes where they are not UTF-8
    properties = {key: text for key, text in properties.items() if isinstance(text, str)}
    told = properties.get("graphforge.origins", "1")
    count = int(told) if told.isascii() and told.isdigit() and len(told) < 3 else 1
    columns: dict[str, list[str]] = {}
    for name in _PROPERTIES:
        text = properties.get(f"graphforge.{name}", "")
        rows = text.split("\n")
        columns[name] = rows if len(rows) == count else [text] * count
    if not any(any(column) for column in columns.values()):
        return ()
    origins = []
    for row in range(count):
        file, _, line = columns["source"][row].rpartition(":")
        origins.append(
            Origin(
                module=columns["module"][row],
                module_class=columns["module_class"][row],
                target=columns["target"][row],
                file=file,
                line=int(line) if line.isascii() and line.isdigit() and len(line) < 10 else 0,
                made_by=columns["made_by"][row],
                value=columns["value"][row],
                callers=_whole_callers(columns["called_from"][row], file),
            )
        )
    return tuple(origins)


def _short_callers(origin: Origin) -> str:
    """``net.py:5 < net.py:14``: what lies in the folder of the source goes without it, since every node has its own."""
    folder = _folder(origin.file)
    return _CALLED.join(caller.removeprefix(folder) for caller in origin.callers)


def _whole_callers(text: str, file: str) -> tuple[str, ...]:
    folder = _folder(file)
    return tuple(one if "/" in one or "\\" in one else f"{folder}{one}" for one in text.split(_CALLED) if one)


def _folder(file: str) -> str:
    return file[: max(file.rfind("/"), file.rfind("\\")) + 1]
