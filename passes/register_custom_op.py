"""Check and type nodes of operators you declare yourself, so that they go through to the file as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import Graph, describe, here, nodes_of, operator_name
from graphforge.ops.custom_op import declared_ops, find_op
from graphforge.transform import Pass, Rewriter
from graphforge.user_files import load_file

__all__ = ["RegisterCustomOp"]


@dataclass(frozen=True)
class RegisterCustomOp(Pass):
    """Load declarations (``graphforge.ops.custom_op``) and apply them to the graph.

    Attributes:
        file: a Python file with declarations; None takes those that are there already.
        strict: a node of a foreign domain without a declaration is an error.
    """

    name: ClassVar[str] = "register-custom-op"
    file: str | None = None
    strict: bool = False

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Check every node of a declared operator, fill in types and shapes, import the domain."""
        if self.file is not None:
            _load(Path(self.file))
        for node in nodes_of(graph):
            if node.domain in ("", "graphforge"):
                continue
            op = find_op(node.domain, node.op_type)
            where = f"at {describe(node)}"
            if op is None:
                if self.strict:
                    theirs = [one.qualified_name for one in declared_ops() if one.domain != "graphforge"]
                    known = ", ".join(theirs) or "none"
                    raise GraphForgeError(
                        f"operator {operator_name(node)} is not declared (declared: {known})",
                        where,
                        here(node),
                        "declare it with graphforge.custom_op(...)",
                    )
                rewriter.declined(f"{operator_name(node)} is not declared", node)
                continue
            problem = op.check(node)
            if problem is not None:
                raise GraphForgeError(f"{op.qualified_name} {problem}", where, here(node))
            rewriter.infer(node)
            if graph.opset_imports.get(node.domain) is None:
                rewriter.set_opset(op.version, node.domain)
            if op.library is not None:
                rewriter.note(f"{op.qualified_name} needs its kernel library in ONNX Runtime: {op.library}")


def _load(path: Path) -> None:
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}", "register-custom-op{file=...} takes a Python file with declarations"
        )
    load_file(path, failed=f"{path} cannot be loaded", fresh=True)
