"""What the child of the tests of `runners/child.py` does; imports no more than that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from graphforge.runners.child import ARRAYS, do_jobs

__all__ = ["serve"]


def serve() -> None:
    """Answer jobs until there are no more."""
    do_jobs(_work)


def _work(job: Mapping[str, Any]) -> Mapping[str, Any]:
    if job["do"] == "abort":
        os.abort()
    if job["do"] == "raise":
        raise FileNotFoundError("no such file")
    return {"pid": os.getpid(), ARRAYS: job.get(ARRAYS, {})}
