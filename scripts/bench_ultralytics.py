"""YOLO11 of ultralytics, cold from its yaml files: raw, and with its own suppression behind it, at a batch of 1 to 4.

    scripts/bench ultralytics                             # detect, segment, pose, obb; raw, ragged, padded
    scripts/bench ultralytics --packages FOLDER           # where ultralytics was installed with pip's --target
    scripts/bench ultralytics --only segment --size 128

Weights are random; a file counts as right when verification passed.  ultralytics is not among this project's packages:
it is licensed under the AGPL, and brings an OpenCV of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_FILES = {
    "detect": "yolo11n.yaml",
    "segment": "yolo11n-seg.yaml",
    "pose": "yolo11n-pose.yaml",
    "obb": "yolo11n-obb.yaml",
}
_FORMS = ("raw", "ragged", "padded")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, help="folder with ultralytics and what it needs")
    parser.add_argument("--only", default="", help="tasks and forms whose name contains this text: segment, obb/padded")
    parser.add_argument("--size", type=int, default=64, help="height and width of the pictures")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.packages is not None:
        sys.path.insert(0, str(options.packages.resolve()))
    warnings.simplefilter("ignore")
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    try:
        import ultralytics  # type: ignore[import-not-found]
    except ImportError:
        raise SystemExit(
            "ultralytics is not installed: pip install --target FOLDER --no-deps ultralytics ultralytics-thop "
            "opencv-python-headless polars polars-runtime-32 psutil, then --packages FOLDER"
        ) from None
    print(f"ultralytics {ultralytics.__version__}, {options.size} pixels, batch 1..4")
    print()
    print("| task | form | verdict | trials | nodes | largest relative difference | CPU s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    wrong = 0
    for task in _FILES:
        for form in _FORMS:
            if options.only in f"{task}/{form}":
                row, right = _row(task, form, options.size)
                wrong += not right
                print(row, flush=True)
    raise SystemExit(bool(wrong))


def _row(task: str, form: str, size: int) -> tuple[str, bool]:
    import torch

    import graphforge
    from graphforge.errors import GraphForgeError
    from graphforge.spec import DimRange

    model = _model(task, suppressed=form != "raw")
    shapes = {"x": {0: DimRange("batch", 1, 4)}}
    more: dict[str, Any] = {} if form == "raw" else {"outputs": form}
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = graphforge.compile(
                model, (torch.rand(2, 3, size, size),), dynamic_shapes=shapes, output=Path(folder) / "b", **more
            )
        except GraphForgeError as error:
            return f"| {task} | {form} | {error.message} | | | | {time.process_time() - started:.0f} |", False
    found = bundle.manifest["verification"]
    cells = (
        task,
        form,
        found["verdict"],
        len(found["trials"]),
        bundle.manifest["nodes"],
        f"{found['max_rel']:.0e}",
        f"{time.process_time() - started:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |", True


def _model(task: str, *, suppressed: bool) -> Any:
    """A network that no call has warmed up, alone or with ``non_max_suppression`` behind it."""
    import torch
    from ultralytics import YOLO
    from ultralytics.utils.nms import non_max_suppression  # type: ignore[import-not-found]

    torch.manual_seed(0)
    network: Any = YOLO(_FILES[task]).model
    classes = network.model[-1].nc

    class Detector(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> Any:
            found = self.network(x)
            found = found[0] if isinstance(found, tuple | list) else found
            if not suppressed:
                return found
            found = found[0] if isinstance(found, tuple | list) else found  # the other is of prototypes
            return non_max_suppression(
                found, conf_thres=1e-4, iou_thres=0.5, max_det=20, nc=classes, rotated=task == "obb"
            )

    return Detector().eval()


if __name__ == "__main__":
    main()
