"""The packages of OpenMMLab that a model spec may name, and what is said where one is missing."""

from __future__ import annotations

import importlib.util
from importlib import metadata

from graphforge.errors import GraphForgeError

__all__ = ["CODEBASES", "codebase_of", "need"]

# What a spec begins with -> the package that it names.
CODEBASES = ("mmpose", "mmdet", "mmpretrain", "mmseg", "mmagic")


def codebase_of(spec: str) -> str:
    """The package that a spec names, ``mmpose`` for ``mmpose:rtmpose-t...``; "" for any other spec."""
    head, colon, rest = spec.partition(":")
    return head if colon and rest and head in CODEBASES else ""


def need(package: str) -> None:
    """See that a package of OpenMMLab is installed, with mmengine below it.

    Raises:
        GraphForgeError: it is not; says how to get it.
    """
    for name in (package, "mmengine"):
        if importlib.util.find_spec(name) is None:
            raise GraphForgeError(
                f"{package} is not installed" if name == package else f"{package} needs {name}, which is not installed",
                "scripts/openmmlab.sh makes an environment that has mmpose and mmdet, .venv-openmmlab; run graphforge "
                "from there",
            )


def version_of(package: str) -> str:
    """The installed version of a package; "" where there is none."""
    for name in (package, f"onedl-{package}"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""
