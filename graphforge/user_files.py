"""Python files of the user's (models, passes, declarations): run as modules, and read again once they are edited.

What is read again: the file itself, and the modules of its folder that it imported, all of them as soon as one of them
has changed.  Modules from elsewhere, and those that the process had imported before, stay as Python's import keeps
them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.user_code import is_installed, is_ours, shown_path, user_error

__all__ = ["is_outdated", "load_file", "name_of", "path_of_module", "reading", "stands_in", "user_modules"]


@dataclass(frozen=True, slots=True)
class _Read:
    """A module as it was read from a file."""

    module: ModuleType
    path: Path
    content: str


# Held while a file is read: one thread at a time, with whatever it keeps of what the file declares.
reading = threading.RLock()
_files: dict[str, _Read] = {}  # by module name
_companions: dict[str, _Read] = {}  # modules that a file imported from its own folder, by name


def load_file(path: Path, *, failed: str, fresh: bool = False) -> ModuleType:
    """The module that a Python file makes.

    Args:
        path: the file, which exists.
        failed: how a message about a failure begins.
        fresh: run it even if neither the file nor its companions changed.

    Raises:
        UserCodeError: the file raises.
    """
    path = path.resolve()
    name = _module_name(path)
    with reading:
        changed = _forget_edited_companions(path.parent)
        known = _files.get(name)
        source = path.read_bytes()
        if known is not None and not fresh and not changed and known.content == _digest(source):
            return known.module
        _files.pop(name, None)  # the latest stands last
        try:
            return _run(path, name, source, failed)
        except BaseException:
            sys.modules.pop(name, None)
            _files.pop(name, None)
            raise


def path_of_module(name: str) -> Path | None:
    """The file that a module was read from by `load_file`; None for any other module."""
    known = _files.get(name)
    return None if known is None else known.path


def name_of(thing: Any) -> str:
    """A function or class as its user knows it: ``net.py:pick``, or ``package.module.pick``."""
    module = str(getattr(thing, "__module__", ""))
    name = str(getattr(thing, "__qualname__", type(thing).__name__))
    path = path_of_module(module)
    return f"{module}.{name}" if path is None else f"{path.name}:{name}"


def stands_in(thing: Any) -> str | None:
    """``FILE.py:Class`` of a class that was loaded from a file, None for any other."""
    path = path_of_module(thing.__module__)
    return None if path is None else f"{path}:{thing.__qualname__}"


def is_outdated(names: dict[str, Any]) -> bool:
    """Whether a module's file was read again since; ``names`` are the module's globals."""
    name = names.get("__name__", "")
    known = _files.get(name) or _companions.get(name)
    return known is not None and vars(known.module) is not names


def user_modules(file: str) -> list[ModuleType]:
    """The modules that were read from files of this name or path, the latest first."""
    wanted = Path(file)
    whole = wanted.resolve() if wanted.is_absolute() else None
    parts = tuple(part for part in wanted.parts if part not in (".", ".."))
    return [
        read.module
        for read in reversed(list(_files.values()))
        if (read.path == whole if whole is not None else read.path.parts[-len(parts) :] == parts)
    ]


def _module_name(path: Path) -> str:
    return f"graphforge_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _run(path: Path, name: str, source: bytes, failed: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise GraphForgeError(f"{failed}: {shown_path(path)} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    linecache.checkcache(str(path))
    before, folder, writes = set(sys.modules), str(path.parent), sys.dont_write_bytecode
    sys.modules[name] = module
    _files[name] = _Read(module, path, _digest(source))  # by which the file knows itself while it runs
    sys.path.insert(0, folder)
    # byte code is matched by the time of the file in seconds: two edits within one would give the older one
    sys.dont_write_bytecode = True
    try:
        # from the source, not by the loader, for the same reason
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except GraphForgeError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        ends = "it ends the process: put that under `if __name__ == '__main__':`"
        raise user_error(failed, error, ends if isinstance(error, SystemExit) else "") from error
    finally:
        sys.dont_write_bytecode = writes
        if folder in sys.path:
            sys.path.remove(folder)
        _note_companions(before, path.parent)
    return module


def _note_companions(before: set[str], folder: Path) -> None:
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        file = getattr(module, "__file__", None)
        # torch.ops and its like are modules that claim to come from a file of the current folder
        if name in _files or is_ours(name) or not file or not os.path.isabs(file) or is_installed(file):
            continue
        path = Path(file).resolve()
        if path.suffix == ".py" and path.is_relative_to(folder) and path.is_file():
            _companions[name] = _Read(module, path, _digest(path.read_bytes()))


def _forget_edited_companions(folder: Path) -> bool:
    """Take the modules of this folder out of Python's table when one was edited, so that they are imported anew."""
    own = {name: read for name, read in _companions.items() if read.path.is_relative_to(folder)}
    edited = any(not read.path.is_file() or _digest(read.path.read_bytes()) != read.content for read in own.values())
    if edited:
        _forget(own)
    # `helpers` beside another file is not the `helpers` beside this one
    namesakes = {
        name: read
        for name, read in _companions.items()
        if name not in own
        and ((folder / f"{name.split('.')[0]}.py").exists() or (folder / name.split(".")[0]).is_dir())
    }
    _forget(namesakes)
    return edited


def _forget(companions: dict[str, _Read]) -> None:
    for name, read in companions.items():
        linecache.checkcache(str(read.path))
        if sys.modules.get(name) is read.module:
            del sys.modules[name]
        del _companions[name]
    importlib.invalidate_caches()
