"""What NMS costs in ONNX Runtime, native and in plain operators, beside the eager reference; one thread, interleaved.

    scripts/bench nms
    scripts/bench nms --candidates 1000 5000 --repeats 30

Boxes of 10 to 80 pixels anywhere on an image of 1000, most of which are kept; ``objects``: 60 objects, each found over
and over, as detectors do; ``chain``: the worst case of the iteration, each box suppresses the next.  Every cell is the
fastest of the repeats, in milliseconds: what other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from graphforge.ops.multiclass_nms import multiclass_nms
from graphforge.passes.lower_nms import LowerNms
from tests.ops.nms_cases import Multiclass, boxes_like

FORMS = {
    "native": LowerNms(),
    "portable": LowerNms(form="portable"),
    "portable, fixed shapes": LowerNms(form="portable", fixed_shapes=True),
}


def inputs(count: int, kind: str) -> dict[str, np.ndarray]:
    """One image."""
    random = np.random.default_rng(0)
    if kind == "chain":
        boxes = boxes_like(random, count, "chain")
        scores = np.linspace(1, 0.1, count, dtype=np.float32)
    elif kind == "objects":
        which = random.integers(0, 60, count)
        center = random.uniform(0, 1000, (60, 2))[which] + random.normal(0, 4, (count, 2))
        half = random.uniform(20, 80, (60, 2))[which] * random.uniform(0.8, 1.2, (count, 2))
        boxes = np.concatenate([center - half, center + half], axis=1).astype(np.float32)
        scores = random.uniform(0, 1, count).astype(np.float32)
    else:
        corner = random.uniform(0, 1000, (count, 2))
        boxes = np.concatenate([corner, corner + random.uniform(10, 80, (count, 2))], axis=1).astype(np.float32)
        scores = random.uniform(0, 1, count).astype(np.float32)
    feeds = {"boxes": boxes[None], "scores": scores[None]}
    if kind.endswith("classes"):
        feeds["class_ids"] = random.integers(0, 80, (1, count))
    return feeds


def torchvision_nms(feeds: dict[str, np.ndarray]) -> Callable[[], object] | None:
    """torchvision's own kernel, where its compiled library loads."""
    from graphforge.frontend.torchvision_fix import TorchvisionState, torchvision_state

    if torchvision_state() is not TorchvisionState.WORKING:
        return None
    from torchvision.ops import batched_nms, nms

    boxes, scores = torch.from_numpy(feeds["boxes"][0]), torch.from_numpy(feeds["scores"][0])
    if "class_ids" not in feeds:
        return lambda: nms(boxes, scores, 0.5)
    ids = torch.from_numpy(feeds["class_ids"][0])
    return lambda: batched_nms(boxes, scores, ids, 0.5)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    attributes: dict[str, Any] = {"iou_threshold": 0.5, "keep_top_k": 100}
    print("| candidates | " + " | ".join(FORMS) + " | reference (plain torch) | torchvision |")
    print("|---|" + "---|" * (len(FORMS) + 2))
    for count in options.candidates:
        for kind in ("objects", "one class", "80 classes", "chain"):
            feeds = inputs(count, kind)
            calls: dict[str, Callable[[], object]] = {}
            for name, lowering in FORMS.items():
                if lowering.fixed_shapes and kind == "chain" and count > 2000:
                    continue  # as many rounds over the whole matrix as boxes: a minute
                made = Multiclass(lowering, attributes, False, "class_ids" in feeds, dims=(1, count, 1))
                made.session.run(None, feeds)
                calls[name] = functools.partial(made.session.run, None, feeds)
            tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
            calls["reference"] = functools.partial(
                multiclass_nms,
                tensors["boxes"],
                tensors["scores"],
                tensors.get("class_ids"),
                None,
                **attributes,
            )
            own = torchvision_nms(feeds)
            if own is not None:
                calls["torchvision"] = own
            seconds: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(options.repeats):
                for name, call in calls.items():
                    started = time.perf_counter()
                    call()
                    seconds[name].append(time.perf_counter() - started)
            cells = [
                f"{min(seconds[name]) * 1e3:.1f}" if name in seconds else "-"
                for name in (*FORMS, "reference", "torchvision")
            ]
            print(f"| {count}, {kind} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
