"""What holds for every file of passes: edits go through the Rewriter, which counts them and tells its listeners."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "passes"
FILES = sorted(FOLDER.rglob("*.py"))

# What the Rewriter has a method for.
_STATED = {"type": "set_type", "dtype": "set_type", "shape": "set_shape", "const_value": "set_constant"}
_CALLED = {
    "replace_input_with": "set_input",
    "resize_inputs": "keep_inputs",
    "resize_outputs": "keep_outputs",
    "register_initializer": "constant",
    "sort": "sort",
    "insert_after": "move_out",
    "insert_before": "builder",
}
_ALLOWED = {("rewriter", "sort"), ("np", "sort")}


def _raw_edits(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute) and node.target.attr == "changes":
            yield f"line {node.lineno}: the count is the rewriter's"
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for one in target.elts if isinstance(target, ast.Tuple) else (target,):
                    if isinstance(one, ast.Attribute) and one.attr in _STATED and not _is_self(one.value):
                        yield f"line {node.lineno}: .{one.attr} = ...: use rewriter.{_STATED[one.attr]}"
                    if isinstance(one, ast.Subscript) and _attribute(one.value) in ("attributes", "opset_imports"):
                        yield f"line {node.lineno}: use rewriter.set_attribute or set_opset"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CALLED:
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if (name, node.func.attr) not in _ALLOWED:
                yield f"line {node.lineno}: .{node.func.attr}(...): use rewriter.{_CALLED[node.func.attr]}"


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _attribute(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_a_pass_edits_through_the_rewriter(file: Path) -> None:
    assert list(_raw_edits(ast.parse(file.read_text(encoding="utf-8")))) == []


def test_what_is_forbidden() -> None:
    bad = "rewriter.changes += 1\nvalue.type = t\na.type, a.shape = x, y\nnode.attributes['k'] = v\ng.sort()\n"
    assert len(list(_raw_edits(ast.parse(bad)))) == 6
    assert list(_raw_edits(ast.parse("rewriter.set_type(value, t)\nself.shape = 1\nrewriter.sort()\n"))) == []
