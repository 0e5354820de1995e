"""A clone without symbolic links: `graphforge.passes` and `graphforge.ops` are the folders beside the package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

__all__ = ["find_folders_beside"]

_FOLDERS = {"graphforge.passes": "passes", "graphforge.ops": "ops"}


class _Finder:
    """Finds the two packages in the clone's own folders; everything below them is found the ordinary way."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The package's spec, None for every other name."""
        if name not in _FOLDERS:
            return None
        folder = self.root / _FOLDERS[name]
        return spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])


def find_folders_beside(root: Path) -> None:
    """Make `graphforge.passes` and `graphforge.ops` importable from a clone's top-level folders.

    Args:
        root: the clone's top level.

    Raises:
        ImportError: the folders are not there; says what to do.
    """
    missing = [folder for folder in _FOLDERS.values() if not (root / folder / "__init__.py").is_file()]
    if missing:
        raise ImportError(
            f"graphforge is incomplete: {' and '.join(missing)} should be folders in {root}; "
            "clone the repository again, or install it with: pip install ."
        )
    # first: an editable install of another clone also knows these two names
    sys.meta_path.insert(0, _Finder(root))
