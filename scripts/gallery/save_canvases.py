"""Write some validation canvases as pictures, for `graphforge run`.

.venv/bin/python scripts/gallery/save_canvases.py out/canvases --count 50 --coco out/digits.json
graphforge run out/digits $(printf -- '--input %s ' out/canvases/*.png) --draw out/seen.png
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.gallery.digits import BATCH3, CANVAS, Canvas, canvas


def main() -> None:
    """Write the canvases and tell which digits are on each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", nargs="*", type=int, default=list(BATCH3), help="those of detector_batch3, if none")
    parser.add_argument("--count", type=int, help="the first so many canvases, in place of numbers")
    parser.add_argument("--coco", type=Path, metavar="FILE", help="write what is on them, in COCO's form")
    options = parser.parse_args()
    numbers = options.numbers if options.count is None else range(options.count)
    options.folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        page = canvas(number)
        path = options.folder / f"canvas_{number:04d}.png"
        Image.fromarray(np.rint(page.image[0].numpy() * 255).astype(np.uint8)).save(path)
        print(f"{path}: {' '.join(map(str, page.labels.tolist()))}")
    if options.coco is not None:
        options.coco.write_text(json.dumps(coco_of({number: canvas(number) for number in numbers})))


def coco_of(pages: Mapping[int, Canvas]) -> dict[str, Any]:
    """What is on canvases in COCO's form; category 1 is the digit 0, and so on."""
    known = [
        {"image_id": number, "category_id": int(label) + 1, "iscrowd": 0, **_sides(box.tolist())}
        for number, page in pages.items()
        for box, label in zip(page.boxes, page.labels, strict=True)
    ]
    return {
        "info": {},
        "images": [
            {"id": number, "file_name": f"canvas_{number:04d}.png", "width": CANVAS, "height": CANVAS}
            for number in pages
        ],
        "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
        "annotations": [{"id": at, **one} for at, one in enumerate(known, start=1)],
    }


def _sides(box: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}


if __name__ == "__main__":
    main()
