"""The packages of OpenMMLab that a model spec may name, and what is said where one is missing."""

from __future__ import annotations

import importlib.util
from importlib import metadata

from graphforge.errors import GraphForgeError

__all__ = ["CODEBASES", "codebase_of", "need", "way_to_have"]

# What a spec begins with -> the package that it names.
CODEBASES = ("mmpose", "mmdet", "mmpretrain", "mmseg", "mmagic")
# Those that scripts/openmmlab.sh installs. MMDetection imports mmpretrain where it finds it, and slowly; mmagic needs
# diffusers and a dozen more.
_SET_UP = ("mmpose", "mmdet", "mmseg")


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
                way_to_have(package, package if name == package else "onedl-mmengine"),
            )


def way_to_have(codebase: str, missing: str) -> str:
    """How to get what a codebase lacks."""
    if codebase in _SET_UP:
        known = f"{', '.join(_SET_UP[:-1])} and {_SET_UP[-1]}"
        return (
            f"scripts/openmmlab.sh makes an environment that has {known}: scripts/openmmlab.sh graphforge compile ..."
        )
    return f"install it beside GraphForge: pip install --no-deps {missing}"


def version_of(package: str) -> str:
    """The installed version of a package; "" where there is none."""
    called = "mmsegmentation" if package == "mmseg" else package
    for name in (called, f"onedl-{called}"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""
