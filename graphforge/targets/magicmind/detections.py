"""Which outputs of a bundle are detections, and how far those of a lower precision may be from the reference.

In a lower precision scores move, so that rows change places and a box at the threshold comes or goes: detections are
compared as detections, by label and overlap.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["detections_in"]

_FIELDS = {"boxes": "boxes", "scores": "scores", "labels": "labels", "num_dets": "count", "dets": "dets"}
_NAME = re.compile(rf"(?P<prefix>.*?)(?P<field>{'|'.join(_FIELDS)}|masks|keypoints_scores|keypoints)")
# Least overlap, most difference of scores, and share of the detections that may be missing or too many.  They are ours.
_LIMITS = {
    "force_float32": (0.99, 1e-3, 0.0),
    "force_float16": (0.9, 0.02, 0.02),
    "qint16": (0.8, 0.05, 0.05),
    "qint8": (0.5, 0.2, 0.1),
}


def detections_in(outputs: Sequence[str], precision: str) -> dict[str, Any] | None:
    """What run_mm.py needs to compare detections; None where no output is one.

    Args:
        outputs: names in order: ``boxes``, ``scores``, ``labels``, ``num_dets``, or ``dets`` with the score as fifth
            column and ``labels``; a prefix may stand before them.
        precision: of the bundle.
    """
    groups: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(outputs):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        group = groups.setdefault(match["prefix"], {"rows": []})
        if match["field"] in _FIELDS:
            group[_FIELDS[match["field"]]] = index
        else:
            group["rows"].append(index)  # they follow the boxes, whose order may change
    found = [group for group in groups.values() if {"boxes", "scores"} <= group.keys() or "dets" in group]
    if not found:
        return None
    counts = [group for group in groups.values() if group not in found and "count" in group]
    if len(found) == len(counts) == 1:  # one count, whatever stands before the names of the others
        found[0].setdefault("count", counts[0]["count"])
    kind = next(name for name in _LIMITS if precision.startswith(name))
    overlap, score, share = _LIMITS[kind]
    return {"groups": found, "overlap": overlap, "score": score, "share": share}
