"""What torch's archives bring beside weights: a .pt2 or TorchScript file that would run code is refused unread.

torch's own readers trust a file: they unpickle, evaluate the text of symbolic sizes, import what a container names,
load compiled libraries, write Python from names, and call whatever ``torch.…`` an operator resolves to.  So an archive
is read record by record first, by the same reader, and everything that torch would make code of must be what
``torch.export.save`` writes there.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError, argument

__all__ = ["check_exported_program", "check_torchscript", "is_torch_file"]

_NAME = re.compile(r"[\w.\-:/$]*")
_WORDS = re.compile(r"[\w.\-:/$ ]*")
_PLAIN = re.compile(r"\w*")
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(?:\.(\w+))?")
# Operators that read or write files, or load libraries; and attributes of Python that are no operators.
_REFUSED_OPERATORS = frozenset("from_file save load load_library import_module".split())
_SPECIAL = frozenset(
    f"__{name}__" for word in "and or xor lshift rshift".split() for name in (word, f"i{word}", f"r{word}")
)
_SIZE_FUNCTIONS = re.compile(
    r"(?:torch\.(?:_?sym_\w+|_check|_check_is_size|_constrain_as_size)"
    r"|_operator\.(?:add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|index|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|invert"
    r"|lshift|rshift|getitem|truth)"
    r"|math\.\w+)"
)
# How sympy writes an expression of sizes, beside its own classes.
_NOT_EXPRESSIONS = frozenset("Lambda Function WildFunction Subs Wild Dummy Basic Expr".split())
_FACTORIES = frozenset("bool complex dict float int list set str tuple".split())
_MAX_EXPRESSION = 20_000
_MAX_EXPONENT = 64
_MAX_RATIO = 100  # torch stores records as they are; 1 MB of zeros deflates to 1 kB
# Statements of TorchScript that reach files.
_SCRIPT_FILES = re.compile(rb"\b(?:torch|ops\.\w+)\.(save|from_file|load|_load_for_lite_interpreter)\s*\(")


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as those that ``torch.save`` writes: a zip archive, or before torch 1.6 a pickle."""
    with open(path, "rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or start[:1] == b"\x80"


def check_exported_program(path: Path) -> None:
    """Refuse an archive that would run code, or that is not one of ``torch.export.save``.

    Raises:
        GraphForgeError: says which record, and what of it.
    """
    reader = _reader(path)
    names = reader.get_all_records()
    if "archive_format" not in names or "archive_version" not in names:
        raise _refusal(path, "it is of the older format, whose weights are pickled", "or save it again")
    for name in names:
        if name.startswith("data/aotinductor/"):
            raise _refusal(path, f"it brings a compiled library ({name})")
    for name in names:
        if name.startswith("models/"):
            _check_program(path, name, _json(path, name, reader))
        elif name.startswith(("data/weights/", "data/constants/")) and name.endswith("_config.json"):
            _check_payloads(path, name, _json(path, name, reader), reader)
        elif name.startswith("data/sample_inputs/") or name.endswith(".pt"):
            _check_pickle(path, name, reader.get_record(name))


def check_torchscript(path: Path) -> None:
    """Refuse a script that would reach files when it is read or run; what is not an archive is left to its reader.

    Raises:
        GraphForgeError: names the record and the call.
    """
    try:
        reader = _reader(path)
    except _NotAnArchiveError:
        return
    for name in reader.get_all_records():
        if name.startswith("code/"):
            found = _SCRIPT_FILES.search(reader.get_record(name))
            if found:
                raise _refusal(path, f"its script calls {found[1].decode()}, which reads or writes files ({name})")


class _NotAnArchiveError(GraphForgeError):
    """torch's reader does not read it as an archive."""


def _reader(path: Path) -> _Archive:
    """torch's own reader of archives: another one could see other records in the same bytes."""
    import torch

    inflated = []
    with suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError), zipfile.ZipFile(path) as archive:
        inflated = [info for info in archive.infolist() if info.file_size > _MAX_RATIO * max(info.compress_size, 1024)]
    if inflated:
        raise GraphForgeError(
            f"{str(path)!r} is not an archive of torch: its record {inflated[0].filename!r} grows from "
            f"{inflated[0].compress_size} to {inflated[0].file_size} bytes",
            "torch stores records without compressing them",
        )
    with _damage(path, _NotAnArchiveError):
        return _Archive(path, torch._C.PyTorchFileReader(str(path)))


@contextmanager
def _damage(path: Path, kind: type[GraphForgeError] = GraphForgeError) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:  # of a message of torch's own that repeats it
        raise GraphForgeError(f"{str(path)!r} is damaged: it holds text that is not UTF-8", "save it again") from None
    except (RuntimeError, IndexError) as error:  # C++'s std::out_of_range is an IndexError here
        reason = str(error).splitlines()[0].partition(" This is an internal miniz error")[0]
        raise kind(f"{str(path)!r} is not an archive of torch, or damaged: {reason}", "save it again") from None


class _Archive:
    """The records of an archive; one that cannot be read is damage, told with the file."""

    def __init__(self, path: Path, reader: Any) -> None:
        self.path = path
        self.reader = reader

    def get_all_records(self) -> list[str]:
        with _damage(self.path):
            return list(self.reader.get_all_records())

    def get_record(self, name: str) -> bytes:
        with _damage(self.path):
            return bytes(self.reader.get_record(name))


def _refusal(path: Path, why: str, otherwise: str = "") -> GraphForgeError:
    return GraphForgeError(
        f"{str(path)!r} would run code when it is read: {why}",
        f"if you trust where it came from: {argument('trust_pickle', True)}{f', {otherwise}' if otherwise else ''}",
    )


def _json(path: Path, name: str, reader: _Archive) -> Any:
    try:
        return json.loads(reader.get_record(name))
    except (ValueError, RecursionError) as error:
        raise GraphForgeError(
            f"{str(path)!r} is damaged: {name} is not JSON ({type(error).__name__})", "save it again"
        ) from None


def _check_payloads(path: Path, name: str, config: Any, reader: _Archive) -> None:
    """Weights or constants: raw bytes, or tensors in a pickle that brings nothing but tensors."""
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise GraphForgeError(f"{str(path)!r} is damaged: {name} describes no weights", "save it again")
    folder = name.rpartition("/")[0]
    there = frozenset(reader.get_all_records())
    for key, entry in entries.items():
        _see(path, f"weight {key!r}", _NAME, key)
        stored = entry.get("path_name") if isinstance(entry, dict) else None
        if not isinstance(stored, str):
            raise GraphForgeError(f"{str(path)!r} is damaged: {name} does not say where {key!r} is", "save it again")
        if not stored.startswith(("weight_", "tensor_")):
            raise _refusal(path, f"{key!r} is a pickled object ({stored})")
        if f"{folder}/{stored}" not in there:
            raise GraphForgeError(f"{str(path)!r} is damaged: {folder}/{stored} is missing", "save it again")
        if entry.get("use_pickle"):
            _check_pickle(path, f"{folder}/{stored}", reader.get_record(f"{folder}/{stored}"))


def _check_pickle(path: Path, name: str, content: bytes) -> None:
    import torch

    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # pickle, zip and torch errors of many types: it is not what a reader without trust reads
        raise _refusal(path, f"{name} is a pickle of more than tensors") from None


def _check_program(path: Path, record: str, program: Any) -> None:
    """Every text that becomes Python: targets, names, expressions, containers, guards."""
    allowed = _expression_classes()
    for key, text in _texts(program, ""):
        where = f"{key} in {record}"
        if key in ("target", "as_operator"):
            _see_target(path, where, text)
        elif key == "expr_str":
            _see_expression(path, where, text, allowed)
        elif key == "guards_code":
            _see_guard(path, where, text, allowed)
        elif key in ("in_spec", "out_spec"):
            _see_container(path, where, text)
        elif key == "forward_arg_names":
            _see(path, where, _PLAIN, text)
        elif key in ("name", "as_name", "fqn") or key.endswith("_name"):
            _see(path, where, _NAME, text)


def _texts(data: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text with the key that it stands under, those of lists under the list's."""
    pending = [(key, data)]
    while pending:
        key, item = pending.pop()
        if isinstance(item, str):
            yield key, item
        elif isinstance(item, dict):
            pending.extend((str(name), one) for name, one in item.items() if name != "metadata")
        elif isinstance(item, list):
            pending.extend((key, one) for one in item)


def _see(path: Path, where: str, pattern: re.Pattern[str], text: str) -> None:
    if not pattern.fullmatch(text):
        raise _refusal(path, f"{where} is {_cut(text)}, which is not a name")


def _see_target(path: Path, where: str, text: str) -> None:
    operator = _OPERATOR.fullmatch(text)
    if operator is not None:
        parts = [part for part in operator.groups() if part]
        python = [part for part in parts if part.startswith("__") and part not in _SPECIAL]
        if not python and not _REFUSED_OPERATORS & set(parts) and not parts[0].startswith("_"):
            return
        if not python and parts[0].startswith("_c10d"):
            return
    elif _SIZE_FUNCTIONS.fullmatch(text) or (
        _NAME.fullmatch(text) and not text.startswith(("torch", "_operator", "math"))
    ):
        return
    raise _refusal(path, f"{where} is {_cut(text)}, which is not an operator")


def _expression_classes() -> frozenset[str]:
    import sympy
    from torch.utils._sympy import functions

    names = {
        name
        for module in (sympy, functions)
        for name in dir(module)
        if isinstance(getattr(module, name), type) and issubclass(getattr(module, name), sympy.Basic)
    }
    return frozenset(names - _NOT_EXPRESSIONS)


def _see_expression(path: Path, where: str, text: str, classes: Iterable[str]) -> None:
    tree = _parsed(path, where, text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            known = isinstance(node.func, ast.Name) and (
                node.func.id in classes or node.func.id in ("floor", "ceiling", "sqrt")
            )
            if not known:
                raise _refusal(path, f"{where} is {_cut(text)}, which calls more than expressions of sizes do")
        else:
            _see_arithmetic(path, where, text, node)


def _see_guard(path: Path, where: str, text: str, classes: Iterable[str]) -> None:
    """``L['x'].size()[0] <= 8``: conditions on sizes, and no other attribute or call."""
    for node in ast.walk(_parsed(path, where, text)):
        if isinstance(node, ast.Call):
            method = isinstance(node.func, ast.Attribute)
            known = method or (isinstance(node.func, ast.Name) and node.func.id in (*classes, "len", "min", "max"))
            if not known or (method and node.func.attr not in ("size", "stride", "storage_offset", "dim")):  # type: ignore[attr-defined]
                raise _refusal(path, f"{where} is {_cut(text)}, which calls more than conditions on sizes do")
        elif isinstance(node, ast.Attribute):
            if node.attr not in ("size", "stride", "storage_offset", "dim", "shape"):
                raise _refusal(path, f"{where} is {_cut(text)}, which is not a condition on sizes")
        elif not isinstance(node, ast.Subscript | ast.List | ast.Tuple):
            _see_arithmetic(path, where, text, node)


def _parsed(path: Path, where: str, text: str) -> ast.Expression:
    try:
        if len(text) > _MAX_EXPRESSION:
            raise ValueError("it is too long")
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GraphForgeError(
            f"{str(path)!r} is damaged: {where} is {_cut(text)}, which is not an expression ({error})", "save it again"
        ) from None


_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.keyword, ast.expr_context),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


def _see_arithmetic(path: Path, where: str, text: str, node: ast.AST) -> None:
    if isinstance(node, ast.Name):
        fine = not node.id.startswith("_")
    elif isinstance(node, ast.Constant):
        value = node.value
        fine = isinstance(value, bool | int | float) or (isinstance(value, str) and bool(_NAME.fullmatch(value)))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        exponent = node.right.value if isinstance(node.right, ast.Constant) else _MAX_EXPONENT + 1
        fine = isinstance(exponent, int | float) and abs(exponent) <= _MAX_EXPONENT
    else:
        fine = isinstance(node, _ARITHMETIC)
    if not fine:
        raise _refusal(path, f"{where} is {_cut(text)}, which is more than arithmetic on sizes")


def _see_container(path: Path, where: str, text: str) -> None:
    """The containers of inputs and outputs, as JSON: their names become Python, their types are imported."""
    try:
        spec = json.loads(text) if text else None
    except (ValueError, RecursionError):
        raise GraphForgeError(f"{str(path)!r} is damaged: {where} is not JSON", "save it again") from None
    pending = [spec]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            factory = (item.get("default_factory_module", "builtins"), item.get("default_factory_name", "int"))
            if "__enum__" in item or factory[0] != "builtins" or factory[1] not in _FACTORIES:
                raise _refusal(path, f"{where} imports what it names: {_cut(json.dumps(item))}")
            pending.extend((*item.keys(), *item.values()))
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str):
            if item.startswith(("[", "{", '"')):  # the context of a container is JSON in JSON
                try:
                    pending.append(json.loads(item))
                    continue
                except (ValueError, RecursionError):
                    pass
            _see(path, where, _WORDS, item)


def _cut(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]} ...")
