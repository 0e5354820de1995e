"""Photos that installed packages bring, and models of OpenMMLab as its own functions of inference take them.

Weights are random (no checkpoint can be downloaded here), calibrated on the photos so that scores are apart.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["PHOTOS", "in_environment", "photo", "stock_model"]

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-openmmlab" / "bin" / "python"

PHOTOS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
}


def in_environment(script: str, description: str | None) -> str:
    """Run a benchmark again by the Python of ``.venv-openmmlab`` and end; there, what its ``--only`` says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models whose config's name contains this text")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return str(options.only)
    if not PYTHON.exists():
        sys.exit("bench: scripts/openmmlab.sh makes the environment that this needs, .venv-openmmlab")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [str(PYTHON), script, "--worker", "--only", options.only]
    sys.exit(subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode)


def photo(name: str) -> Path:
    """The file of a photo."""
    package, file = PHOTOS[name]
    return Path(str(importlib.import_module(package).__file__)).parent / file


def stock_model(codebase: str, config: str, pictures: Sequence[Path], checkpoint: Path) -> Any:
    """The framework's model with weights whose results are apart on these pictures; they are saved as a checkpoint."""
    import numpy as np
    import torch
    from PIL import Image

    from graphforge.frontend.openmmlab.calibration import calibrate
    from graphforge.frontend.openmmlab.load import build_model
    from graphforge.frontend.openmmlab.preprocess import steps_of_config
    from graphforge.runtime.preprocess import prepared, steps_of

    torch.set_num_threads(1)
    built = build_model(codebase, config, None)
    model: Any = built.model
    model.cfg, model.dataset_meta = built.config, built.meta
    steps = steps_of([*steps_of_config(built.config), {"step": "layout"}, {"step": "dtype", "to": "float32"}])
    rows = [prepared(steps, np.asarray(Image.open(path).convert("RGB")))[0] for path in pictures]
    height, width = (max(row.shape[axis] for row in rows) for axis in (1, 2))
    together = np.zeros((len(rows), 3, height, width), np.float32)
    for number, row in enumerate(rows):
        together[number, :, : row.shape[1], : row.shape[2]] = row
    calibrate(built, torch.from_numpy(together))
    torch.save({"state_dict": model.state_dict()}, checkpoint)
    return model
