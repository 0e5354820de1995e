"""A checkpoint made fit to hand out: the weights alone, with a part of its own hash and the date in its name."""

from __future__ import annotations

import datetime
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.frontend.openmmlab.checkpoints import read_checkpoint, weights_of

__all__ = ["Published", "publish"]

# Of all that a checkpoint holds, what a model needs to be loaded again, and what tells what it is.
_KEPT = ("meta", "state_dict")
# Copies that MMDetection 2's hook kept among the weights.
_COPIES = "ema_"


@dataclass(frozen=True, slots=True)
class Published:
    """What was done.

    Attributes:
        path: the file that was written.
        before, after: bytes of the two files.
        dropped: keys of the checkpoint that were left out.
        weights: ``ema`` or ``plain``.
    """

    path: Path
    before: int
    after: int
    dropped: tuple[str, ...]
    weights: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "path": str(self.path),
            "before": self.before,
            "after": self.after,
            "dropped": list(self.dropped),
            "weights": self.weights,
        }


def publish(source: Path, wanted: Path, *, weights: str = "auto", trust_pickle: bool = False) -> Published:
    """Write a checkpoint without optimizer, schedule, log and copies of its weights.

    Args:
        source: the checkpoint.
        wanted: the file to write; ``-HASH_DATE`` comes before its ending.
        weights: ``ema``, ``plain``, or ``auto`` for what the framework itself loads.
        trust_pickle: whether the checkpoint may run code when it is read.

    Raises:
        GraphForgeError: the checkpoint cannot be read, or the file cannot be written.
    """
    import torch

    read = read_checkpoint(source, trust_pickle=trust_pickle)
    state, word = weights_of(read, weights, source)
    kept: dict[str, Any] = {"state_dict": state}
    if "state_dict" in read and "meta" in read:
        kept["meta"] = read["meta"]
    inside = read.get("state_dict", read)
    copies = [f"{_COPIES}*"] if any(str(key).startswith(_COPIES) for key in inside) else []
    dropped = [str(key) for key in read if key not in _KEPT] if "state_dict" in read else []
    ending = wanted.suffix or ".pth"
    aside = wanted.parent / f".{wanted.name}.{os.getpid()}.new"
    try:
        try:
            # by its name, torch would put that into the file, and the hash is to be of the weights
            with aside.open("wb") as file:
                torch.save(kept, file)
            digest = hashlib.sha256(aside.read_bytes()).hexdigest()
            today = datetime.datetime.now(tz=datetime.UTC).strftime("%Y%m%d")
            path = wanted.with_name(f"{wanted.name.removesuffix(ending)}-{digest[:8]}_{today}{ending}")
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise GraphForgeError(f"cannot write {str(wanted)!r}: {error.strerror or error}") from None
    return Published(path, source.stat().st_size, path.stat().st_size, (*dropped, *copies), word)
