"""What is found on each picture of a batch, in one set of tensors: padded rows, and how many of them are real.

A list of results, one for each picture, fixes the batch; rows padded to one number leave it open.  The reference is
the framework's own predict, picture by picture; `../substitutes/openmmlab_rows.py` has the same for the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphforge.errors import GraphForgeError, argument

__all__ = ["FIELDS", "Batched", "most_rows", "rows_of_each"]

# What may be found -> what padding is filled with.
FIELDS = {"boxes": 0, "scores": 0, "labels": -1, "keypoints": 0, "keypoint_scores": 0}
# Rows of a picture where the config does not say how many are kept.
_MOST = 100


def most_rows(model: Any) -> int:
    """How many rows a picture has: ``max_per_img`` of the config's ``test_cfg``, or 100."""
    said = (getattr(model, "test_cfg", None) or {}).get("max_per_img", 0)
    return int(said) if said and said > 0 else _MOST


class Batched(nn.Module):
    """A detector or a one-stage pose model for any batch.

    Args:
        decoded: the module that decodes the results of each picture.
    """

    def __init__(self, decoded: nn.Module) -> None:
        super().__init__()
        self.decoded = decoded
        self._most = most_rows(decoded.model)

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        return rows_of_each(self.decoded, input, self._most)


def rows_of_each(decoded: Any, input: Tensor, most: int) -> dict[str, Tensor]:
    """The best so many rows of each picture, filled up, and ``num_dets``; the framework's own predict."""
    found = decoded(input)
    if any(name.startswith("masks") for name in found):
        raise GraphForgeError(
            "masks of a batch are not decoded as one", f"results picture by picture: {argument('decode', 'full')}"
        )
    count = input.shape[0]
    pictures = [[f"{name}_{number}" if count > 1 else name for name in FIELDS] for number in range(count)]
    rows: dict[str, Tensor] = {}
    for place, (name, filler) in enumerate(FIELDS.items()):
        own = [found[names[place]] for names in pictures if names[place] in found]
        if own:
            rows[name] = torch.stack([_filled(one[:most], most, filler) for one in own])
    boxes = [found[names[0]] for names in pictures]
    return {**rows, "num_dets": torch.tensor([min(len(one), most) for one in boxes], dtype=torch.int64)}


def _filled(rows: Tensor, most: int, filler: int) -> Tensor:
    return torch.cat([rows, rows.new_full([most - len(rows), *rows.shape[1:]], filler)])
