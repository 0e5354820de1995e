"""What counts as equal, as the command line gives it: `--rtol` and `--atol`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from graphforge.verify.tolerance import Tolerances

__all__ = ["tolerance_options", "tolerances_of"]

C = TypeVar("C", bound=Callable[..., Any])


def tolerance_options(command: C) -> C:
    """Add `--rtol` and `--atol`."""
    for name, what in (("--atol", "absolute difference"), ("--rtol", "share of an element's own magnitude")):
        command = click.option(name, type=click.FloatRange(min=0), help=f"Loosen: allowed {what}.")(command)
    return command


def tolerances_of(rtol: float | None, atol: float | None) -> Tolerances | None:
    """The default tolerances, or looser ones with the flags that asked for them on record."""
    if rtol is None and atol is None:
        return None
    from graphforge.verify.tolerance import Tolerances

    asked = " ".join(f"--{name} {value:g}" for name, value in (("rtol", rtol), ("atol", atol)) if value is not None)
    return Tolerances().loosen(because=asked, rtol=rtol, atol=atol)
