"""OpenVINO itself, imported without its telemetry, and what it answers about this machine."""

from __future__ import annotations

import sys
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.last_step import entering

__all__ = ["PACKAGE", "core", "load", "told"]

PACKAGE = "openvino"
_TELEMETRY = "openvino_telemetry"
# Beginnings of lines that say nothing to a reader, and how many of the others are shown.
_EMPTY = ("Exception from ", "Check '", "FrontEnd API failed", "Summary:")
_LINES = 4


def load() -> Any:
    """The module ``openvino``.

    Where the package openvino-telemetry is installed, importing OpenVINO starts threads that report the import, and
    that hold the process at its end where there is no network.  OpenVINO has a stand-in for it, which is taken here.

    Raises:
        GraphForgeError: it is not installed, or cannot be imported.
    """
    if PACKAGE in sys.modules:
        return sys.modules[PACKAGE]
    without: Any = None
    known = _TELEMETRY in sys.modules
    if not known:
        sys.modules[_TELEMETRY] = without  # an import of it fails now
    entering(PACKAGE, "start")
    try:
        import openvino
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == PACKAGE
        raise GraphForgeError(
            "OpenVINO is not installed" if missing else f"OpenVINO cannot be imported: {error}",
            "pip install 'graphforge-compiler[openvino]'" if missing else "reinstall the package openvino",
        ) from None
    finally:
        if not known:
            sys.modules.pop(_TELEMETRY, None)
    return openvino


def core() -> Any:
    """A new ``openvino.Core``.

    Raises:
        GraphForgeError: OpenVINO is not installed, or does not start.
    """
    vendor = load()
    entering(PACKAGE, "start")
    try:
        return vendor.Core()
    except RuntimeError as error:
        raise GraphForgeError(f"OpenVINO does not start: {told(error)}") from None


def told(error: BaseException) -> str:
    """What OpenVINO says, on one line, without the places in its own source."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    found = [line for line in lines if line and not line.startswith(_EMPTY)]
    return "; ".join(line.rstrip(":;.") for line in found[:_LINES]) or type(error).__name__
