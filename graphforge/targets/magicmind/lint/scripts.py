"""Rules about the scripts of a bundle (S1 to S4), checked on their syntax trees: nothing is run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from graphforge.targets.magicmind.lint.finding import Finding, Severity, Subject, checks

__all__: list[str] = []

# Methods that return a Status, which must be looked at.
_STATUS_METHODS = frozenset(
    "parse set_dimension set_data_type parse_from_string parse_from_file set_quantization_algorithm set_remote active "
    "calibrate serialize_to_file deserialize_from_file enqueue sync set_precision set_output_type".split()
)
# The same names on other objects: argparse's parse_args does not match, but json's and os's methods could be.
_CHECKERS = ("check",)
# What must come before what in build_mm.py.
_ORDER = ("parse", "set_dimension", "parse_from_file", "calibrate", "build_model", "serialize_to_file")
_PYTHON = (3, 7)
# What Python's parser raises of text with zeros in it, and of what is nested too deeply.
_BEYOND_PARSING = (ValueError, RecursionError, MemoryError)


def _scripts(subject: Subject) -> Iterator[tuple[str, str]]:
    if subject.folder is None:
        return
    for name in ("build_mm.py", "run_mm.py"):
        file = subject.folder / name
        if file.is_file():
            yield name, file.read_text(encoding="utf-8", errors="replace")
        else:
            yield name, ""


def _tree(text: str) -> ast.Module | None:
    try:
        return ast.parse(text, feature_version=_PYTHON)
    except (SyntaxError, *_BEYOND_PARSING):
        return None


@checks("S1", "D", "every Status is checked")
def _statuses(subject: Subject) -> Iterator[Finding]:
    for name, text in _scripts(subject):
        tree = _tree(text)
        for line, method in _unchecked(tree) if tree is not None else ():
            message = f"the Status of {method}() is not checked"
            yield Finding("S1", Severity.ERROR, "D", message, f"{name}:{line}", "pass it to check()")
        if tree is not None and name == "build_mm.py" and not _compares_model_to_none(tree):
            yield Finding("S1", Severity.ERROR, "D", "the result of build_model() is not compared to None", name)


def _unchecked(tree: ast.Module) -> Iterator[tuple[int, str]]:
    checked: set[ast.Call] = set()
    for node in ast.walk(tree):
        # check(x.parse(...), "...") or x.parse(...).ok()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CHECKERS:
            checked.update(argument for argument in node.args if isinstance(argument, ast.Call))
        if isinstance(node, ast.Attribute) and node.attr == "ok" and isinstance(node.value, ast.Call):
            checked.add(node.value)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or node in checked:
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in _STATUS_METHODS:
            yield node.lineno, node.func.attr


def _compares_model_to_none(tree: ast.Module) -> bool:
    built = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr == "build_model"
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return any(
        isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Name)
        and node.left.id in built
        and isinstance(node.ops[0], ast.Is | ast.IsNot)
        for node in ast.walk(tree)
    )


@checks("S2", "D", "the order of the steps")
def _order(subject: Subject) -> Iterator[Finding]:
    for name, text in _scripts(subject):
        tree = _tree(text) if name == "build_mm.py" else None
        if tree is None:
            continue
        steps = [step for step in _steps(tree, "build") if step in _ORDER]
        ranks = [_ORDER.index(step) for step in steps]
        if ranks != sorted(ranks) or {"parse", "build_model", "serialize_to_file"} - set(steps):
            message = f"steps come in the order {', '.join(dict.fromkeys(steps))}; expected {', '.join(_ORDER)}"
            yield Finding("S2", Severity.ERROR, "O", message, name)
        every = _steps(tree, "build")
        late = [step for step in ("calibrate", "build_model") if step in every and "set_precision" in every]
        if any(every.index(step) < every.index("set_precision") for step in late):
            message = "nodes are kept in float32 after the calibration, which then knows nothing of it"
            yield Finding("S2", Severity.ERROR, "O", message, name, "call pin_to_float32 before calibrate")


def _steps(tree: ast.Module, start: str) -> list[str]:
    """Names of methods called, in the order in which they run, following calls of the script's own functions."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}

    def walk(node: ast.AST, seen: tuple[str, ...]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            yield from walk(child, seen)
        if not isinstance(node, ast.Call):
            return
        if isinstance(node.func, ast.Attribute):
            yield node.func.attr
        elif isinstance(node.func, ast.Name) and node.func.id in functions and node.func.id not in seen:
            yield from walk(functions[node.func.id], (*seen, node.func.id))

    return list(walk(functions[start], (start,))) if start in functions else []


@checks("S3", "O,I", "Python 3.7, with magicmind, numpy and the standard library only")
def _portable(subject: Subject) -> Iterator[Finding]:
    for name, text in _scripts(subject):
        if not text:
            yield Finding("S3", Severity.ERROR, "O", "the script is missing", name)
            continue
        try:
            tree = ast.parse(text, feature_version=_PYTHON)
        except SyntaxError as error:
            message = f"not Python {_PYTHON[0]}.{_PYTHON[1]}: {error.msg}"
            yield Finding("S3", Severity.ERROR, "I", message, f"{name}:{error.lineno}")
            continue
        except _BEYOND_PARSING as error:
            message = str(error) or "it is nested too deeply"
            yield Finding("S3", Severity.ERROR, "I", f"not Python: {message}", name)
            continue
        for line, module in _imports(tree):
            top = module.partition(".")[0]
            if top not in ("magicmind", "numpy") and top not in sys.stdlib_module_names:
                yield Finding("S3", Severity.ERROR, "O,I", f"imports {module}", f"{name}:{line}")


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


@checks("S4", "D", "mm_run gets its dims")
def _bench(subject: Subject) -> Iterator[Finding]:
    if subject.folder is None:
        return
    file: Path = subject.folder / "bench.sh"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    if "--input_dims" not in text:
        yield Finding("S4", Severity.WARNING, "D", "mm_run without --input_dims, which mutable models need", "bench.sh")
