"""OpenMMLab's models in: a stock config's name or a file, a checkpoint if there is one, made a model that compiles."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphforge.frontend.openmmlab.load import load_openmmlab as load_openmmlab

__all__ = ["load_openmmlab"]


def __getattr__(name: str) -> Any:
    if name == "load_openmmlab":  # it reaches torch, which the name of a codebase does not
        return import_module("graphforge.frontend.openmmlab.load").load_openmmlab
    raise AttributeError(name)
