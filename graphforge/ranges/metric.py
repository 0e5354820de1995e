"""Metric: a function of the user's that says how good a model is, larger is better."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from graphforge.errors import UsageError
from graphforge.runners.arrays import Array
from graphforge.user_code import user_error
from graphforge.user_files import load_file

__all__ = ["Metric", "Run", "metric_of"]

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
Metric = Callable[[Run], float]


def metric_of(given: str | Path | Callable[..., float]) -> Metric:
    """The function itself, or the one that ``FILE.py:function`` names; what it raises is told as the user's.

    Raises:
        UsageError: the text has another form, or there is no such function.
        GraphForgeError: the file fails when it is run.
    """
    function = given if callable(given) else _loaded(str(given))

    def measured(run: Run) -> float:
        try:
            return float(function(run))
        except Exception as error:  # the user's code may raise anything
            raise user_error("the metric failed", error) from error

    return measured


def _loaded(text: str) -> Callable[..., float]:
    match = re.fullmatch(r"(.+\.py):([A-Za-z_]\w*)", text)
    if match is None:
        raise UsageError(f"cannot read metric {text!r}", "write it as FILE.py:function")
    path = Path(match[1])
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "the path is taken from the current folder")
    found = getattr(load_file(path, failed=f"{path} cannot be loaded"), match[2], None)
    if not callable(found):
        raise UsageError(f"{path} has no function {match[2]!r}")
    return found  # type: ignore[no-any-return]
