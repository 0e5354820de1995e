"""Arrays by key, in memory up to a budget and in files beyond it."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from graphforge.runners.arrays import Array

__all__ = ["Store", "give_back"]

K = TypeVar("K", bound=Hashable)
# Smaller arrays are not worth a file.
_SMALL = 1 << 14


class Store(Generic[K]):
    """What is put in can be read any number of times; what is over the budget is mapped from a file when it is read.

    Args:
        budget: bytes held in memory.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.held = 0
        self.spilled = 0
        self._arrays: dict[K, Array | tuple[Path, Array]] = {}
        self._owners: set[int] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def put(self, key: K, array: Array, *, owner: int | None = None) -> None:
        """Keep an array.

        Args:
            key: its name.
            array: it must not change afterwards.
            owner: address of the memory that it is a view of; views of one memory are counted once.
        """
        if owner is not None and owner in self._owners:
            self._arrays[key] = array
            return
        if array.nbytes > _SMALL and self.held + array.nbytes > self.budget:
            self._arrays[key] = self._file(array)
            return
        if owner is not None:
            self._owners.add(owner)
        self.held += array.nbytes
        self._arrays[key] = array

    def _file(self, array: Array) -> tuple[Path, Array]:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="graphforge-values-")
        path = Path(self._folder.name) / f"{len(self._arrays)}.bin"
        np.ascontiguousarray(array).tofile(path)
        self.spilled += array.nbytes
        return path, np.empty((0, *array.shape), array.dtype)

    def __getitem__(self, key: K) -> Array:
        found = self._arrays[key]
        if not isinstance(found, tuple):
            return found
        path, like = found
        return np.memmap(path, like.dtype, "r", shape=like.shape[1:])

    def __contains__(self, key: K) -> bool:
        return key in self._arrays

    def __iter__(self) -> Iterator[K]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def close(self) -> None:
        """Forget everything and remove the files."""
        self._arrays.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def give_back() -> None:
    """Hand memory that was let go of back to the system; the C library keeps blocks of up to 32 MB for later."""
    with suppress(OSError, AttributeError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
