"""Write some validation canvases as pictures, for `graphforge run`.

.venv/bin/python scripts/gallery/save_canvases.py out/canvases
graphforge run out/digits $(printf -- '--input %s ' out/canvases/*.png) --draw out/seen.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.gallery.digits import BATCH3, canvas


def main() -> None:
    """Write the canvases and tell which digits are on each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", nargs="*", type=int, default=list(BATCH3), help="those of detector_batch3, if none")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for number in options.numbers:
        page = canvas(number)
        path = options.folder / f"canvas_{number:04d}.png"
        Image.fromarray(np.rint(page.image[0].numpy() * 255).astype(np.uint8)).save(path)
        print(f"{path}: {' '.join(map(str, page.labels.tolist()))}")


if __name__ == "__main__":
    main()
