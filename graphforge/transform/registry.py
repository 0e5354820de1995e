"""The registry: pass name -> class, found lazily in the passes folder, in entry points and in users' files."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.transform.base import Pass
from graphforge.user_code import user_error
from graphforge.user_files import load_file

__all__ = ["ENTRY_POINT_GROUP", "PassRegistry", "default_registry", "load_pass_from_file"]

ENTRY_POINT_GROUP = "graphforge.passes"


class PassRegistry:
    """Names of passes and how to get at their classes; nothing is imported before it is asked for."""

    def __init__(self) -> None:
        self._loaders: dict[str, Callable[[], type[Pass]]] = {}
        self._sources: dict[str, str] = {}

    def add(self, name: str, loader: Callable[[], type[Pass]], source: str) -> None:
        """Make a pass known under a name; ``source`` says where it comes from, for messages.

        Raises:
            GraphForgeError: the name is taken by a pass from elsewhere.
        """
        known = self._sources.get(name)
        if known is not None and known != source:
            raise GraphForgeError(
                f"two passes are called {name!r}: one from {known}, one from {source}",
                "rename yours: the class attribute `name`",
            )
        self._loaders[name] = loader
        self._sources[name] = source

    def add_class(self, pass_class: type[Pass], source: str) -> None:
        """Make a pass that is loaded already known."""
        self.add(pass_class.name, lambda: pass_class, source)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._loaders)

    def source(self, name: str) -> str:
        """Where the pass comes from."""
        return self._sources[name]

    def get(self, name: str) -> type[Pass]:
        """The class of a pass.

        Raises:
            UsageError: no pass has this name; the nearest names are suggested.
        """
        if name not in self._loaders:
            near = difflib.get_close_matches(name, self._loaders, n=3, cutoff=0.5)
            raise UsageError(
                f"no pass is called {name!r}",
                f"did you mean {' or '.join(near)}?" if near else "",
                f"`graphforge passes` lists them all; your own go along with {argument('passes')}",
            )
        found = self._loaders[name]()
        if found.name != name:
            raise GraphForgeError(f"{self._sources[name]} promises a pass {name!r}, its class is called {found.name!r}")
        return found

    def copy(self) -> PassRegistry:
        """A registry to which passes can be added without anybody else noticing."""
        other = PassRegistry()
        other._loaders = dict(self._loaders)
        other._sources = dict(self._sources)
        return other


@functools.lru_cache(maxsize=1)
def default_registry() -> PassRegistry:
    """The built-in passes and those of installed packages (entry point group ``graphforge.passes``)."""
    registry = PassRegistry()
    folder = importlib.util.find_spec("graphforge.passes")
    assert folder is not None, "the passes folder is part of the package"
    for module in pkgutil.iter_modules(folder.submodule_search_locations):
        if not module.ispkg and not module.name.startswith("_"):  # a folder holds helpers of a pass
            path = f"graphforge.passes.{module.name}"
            registry.add(module.name.replace("_", "-"), functools.partial(_from_module, path), path)
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        registry.add(point.name, functools.partial(_from_entry_point, point), f"entry point {point.value}")
    return registry


def _from_module(path: str) -> type[Pass]:
    module = importlib.import_module(path)
    name = path.rpartition(".")[2].replace("_", "-")
    for found in vars(module).values():
        if _is_pass(found) and found.name == name and found.__module__ == path:
            return found
    raise GraphForgeError(f"{path} has no pass called {name!r}")


def _from_entry_point(point: importlib.metadata.EntryPoint) -> type[Pass]:
    try:
        found = point.load()
    except Exception as error:
        raise user_error(
            f"the pass {point.name!r} cannot be loaded from {point.value}",
            error,
            "uninstall or repair the package that brings it",
        ) from error
    if not _is_pass(found):
        raise GraphForgeError(
            f"entry point {point.name!r} ({point.value}) is not a subclass of graphforge.transform.Pass"
        )
    return found


def _is_pass(found: object) -> TypeGuard[type[Pass]]:
    return inspect.isclass(found) and issubclass(found, Pass) and found is not Pass


def load_pass_from_file(spec: str) -> type[Pass]:
    """Load a pass class from ``FILE.py:Class`` (the class may be left out when the file has only one).

    A file that was edited since is read again.

    Raises:
        UsageError: the text has another form, the file is missing, or there is no such pass in it.
        GraphForgeError: the file fails when it is run.
    """
    match = re.fullmatch(r"(.+?\.py)(?::([A-Za-z_]\w*))?", spec.strip())
    if match is None:
        raise UsageError(
            f"cannot read pass {spec!r}",
            "write it as FILE.py:Class, for example my_passes.py:DropDropout",
            f"options go into the pipeline: {argument('pipeline', 'drop-dropout{rate=5}')}" if "{" in spec else "",
        )
    path, wanted = Path(match[1]), match[2]
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "the path is taken from the current folder")
    module = load_file(path, failed=f"{path} cannot be loaded")
    passes = {
        name: found for name, found in vars(module).items() if _is_pass(found) and found.__module__ == module.__name__
    }
    if wanted is None and len(passes) == 1:
        wanted = next(iter(passes))
    if wanted is None or wanted not in passes:
        there = f"passes in {path}: {', '.join(passes)}" if passes else f"{path} defines no pass"
        missing = f"which pass of {path}" if wanted is None else f"{path} has no pass {wanted!r}"
        raise UsageError(missing, there, "a pass is a subclass of graphforge.transform.Pass")
    found = passes[wanted]
    if not re.fullmatch(r"[a-z][a-z0-9-]*", found.name):
        raise UsageError(
            f"{path}: class {wanted} needs a name of lower-case words joined by '-', got {found.name!r}",
            'write name: ClassVar[str] = "my-pass" in the class',
        )
    return found
