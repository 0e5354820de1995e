"""What the linter says: findings, and the checks they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import onnx_ir as ir

from graphforge.ir import infer_node, operator_name, origin_text, origins_of
from graphforge.onnx_io.importing import as_written
from graphforge.onnx_io.origins import read_origins
from graphforge.targets.findings import TAGS, Finding, NodePlace, Severity

__all__ = ["CHECKS", "TAGS", "Check", "Finding", "NodePlace", "Severity", "Subject", "checks", "node_place"]


@dataclass(frozen=True)
class Subject:
    """What is linted: a model, and the bundle around it as far as there is one.

    Attributes:
        onnx_file: the model.
        config: build_config.json as data; None without a bundle.
        bundle: bundle.json as data; None without a bundle.
        folder: the bundle's folder; None without one.
    """

    onnx_file: Path
    config: Mapping[str, Any] | None = None
    bundle: Mapping[str, Any] | None = None
    folder: Path | None = None

    @cached_property
    def model(self) -> ir.Model:
        """The model, its weights left on disk, types and shapes filled in where the file does not state them."""
        model = as_written(self.onnx_file)
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            infer_node(node, _opset_of(model))
        return model

    @cached_property
    def opset(self) -> int:
        """The opset of the default domain."""
        return _opset_of(self.model)

    def nodes(self) -> Iterator[ir.Node]:
        """All nodes, those of the bodies of If, Loop and Scan too."""
        yield from ir.traversal.RecursiveGraphIterator(self.model.graph)

    def setting(self, *keys: str, default: Any = None) -> Any:
        """A value of the configuration, ``default`` where it is not set."""
        value: Any = self.config
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                return default
            value = value[key]
        return value


CheckFunction: TypeAlias = Callable[[Subject], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: the id of the rule it holds a model to, the evidence for it, and what is run."""

    id: str
    tag: str
    title: str
    run: CheckFunction


CHECKS: dict[str, Check] = {}


def checks(identity: str, tag: str, title: str) -> Callable[[CheckFunction], CheckFunction]:
    """Register a check under its id."""

    def register(check: CheckFunction) -> CheckFunction:
        assert identity not in CHECKS, f"check {identity} is defined twice"
        CHECKS[identity] = Check(identity, tag, title, check)
        return check

    return register


def _opset_of(model: ir.Model) -> int:
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))


def node_place(node: ir.Node) -> NodePlace:
    """``node head/Add (Add), from head (Head), aten.add.Tensor, model.py:41``."""
    if not origins_of(node):
        read_origins(node)
    return NodePlace(node.name or "", operator_name(node), origin_text(node))
