"""MagicMind bundles of whole models: compiled, linted, their scripts run unchanged on the stand-in, which is no MLU."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import graphforge
from graphforge.runners.eager import EagerRunner
from graphforge.runners.padding import unpadded
from graphforge.spec import DimRange
from graphforge.targets.magicmind.lint import Severity, lint
from tests.e2e.matrix import Made

__all__ = ["STAND_IN", "BundleEntry", "BundleRow", "run_bundle"]

STAND_IN = Path(__file__).resolve().parents[1] / "targets" / "magicmind_stub"
_SAMPLES = 8
_DISTANCE = re.compile(r"distance (\S+) limit")


@dataclass(frozen=True)
class BundleEntry:
    """One model.

    Attributes:
        name: as listed.
        make: (module, args, kwargs).
        dynamic: input name -> axis -> range.
        options: target options.
        calibration: samples for the qint precisions by input name; None draws random ones.
        nms: as ``compile`` takes it.
    """

    name: str
    make: Callable[[], Made]
    dynamic: Mapping[str, Mapping[int, DimRange | tuple[int, ...]]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    nms: str | None = None


@dataclass(frozen=True)
class BundleRow:
    """What came of one bundle.

    Attributes:
        name: the model.
        precision: MagicMind's word for the arithmetic.
        nodes: nodes of model.onnx.
        verified: largest relative difference of model.onnx and eager over every size that was tried.
        sizes: how many sets of inputs that were.
        errors: the linter's errors.
        warnings: the rules of the linter's warnings.
        dim_range: what build_config.json promises, None when all dims are fixed.
        built: the exit code of build_mm.py.
        ran: the exit code of run_mm.py.
        distance: largest distance of run_mm.py's outputs from the stored ones, as it printed it.
        eager: largest distance of the stored outputs from eager on the stored inputs.
        python: the Python that ran the scripts.
        said: what the scripts said when one of them failed.
        seconds: of all of it.
    """

    name: str
    precision: str
    nodes: int
    verified: float
    sizes: int
    errors: int
    warnings: tuple[str, ...]
    dim_range: Mapping[str, Any] | None
    built: int
    ran: int
    distance: float
    eager: float
    python: str
    said: str
    seconds: float

    @property
    def passed(self) -> bool:
        """No error anywhere, and the stored outputs are what eager computes."""
        return not self.errors and self.built == self.ran == 0 and self.eager < 1e-4


def run_bundle(entry: BundleEntry, precision: str, folder: Path, *, python: str) -> BundleRow:
    """Compile the bundle, lint it, read its scripts as Python 3.7, run them on the stand-in, compare with eager."""
    started = time.perf_counter()
    module, args, kwargs = entry.make()
    options = dict(entry.options)
    if precision.startswith("qint"):
        options["calibration"] = entry.calibration or _calibration(module, args, kwargs)
    bundle = graphforge.compile(
        module,
        args or None,
        kwargs=kwargs,
        dynamic_shapes=entry.dynamic,
        target="magicmind",
        precision=precision,
        target_options=options,
        nms=entry.nms,
        output=folder,
    )
    findings = lint(folder)
    for name in ("build_mm.py", "run_mm.py"):
        ast.parse((folder / name).read_text(encoding="utf-8"), feature_version=(3, 7))
    built, said = _script(python, folder / "build_mm.py")
    ran, printed = _script(python, folder / "run_mm.py") if built == 0 else (-1, "")
    distances = [float(text) for text in _DISTANCE.findall(printed)]
    config = json.loads((folder / "build_config.json").read_text())
    verification = bundle.manifest["verification"]
    return BundleRow(
        entry.name,
        precision,
        bundle.manifest["nodes"],
        verification["max_rel"],
        len(verification["trials"]),
        sum(finding.severity is Severity.ERROR for finding in findings),
        tuple(sorted({finding.rule for finding in findings if finding.severity is Severity.WARNING})),
        config.get("dim_range"),
        built,
        ran,
        max(distances, default=float("inf")),
        _distance_from_eager(module, args, kwargs, bundle),
        _version(python),
        "" if built == ran == 0 else said + printed,
        time.perf_counter() - started,
    )


def _calibration(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Random samples, normalised floats, of the example's size: enough to drive the calibrator, not to be accurate."""
    example = EagerRunner.of(module, args, kwargs).example()
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal((_SAMPLES * array.shape[0], *array.shape[1:])).astype(np.float32)
        for name, array in example.items()
    }


def _script(python: str, script: Path) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(STAND_IN), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, str(script)], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    return done.returncode, done.stdout + done.stderr


def _version(python: str) -> str:
    command = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _distance_from_eager(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], bundle: graphforge.Bundle
) -> float:
    described = json.loads((bundle.path / "bundle.json").read_text())
    eager = EagerRunner.of(module, args, kwargs)
    inputs, outputs = ([entry["name"] for entry in described[what]] for what in ("inputs", "outputs"))
    worst = 0.0
    for case in described["reference"]["cases"]:
        feeds = {name: np.load(bundle.path / file) for name, file in zip(inputs, case["inputs"], strict=True)}
        stored = {name: np.load(bundle.path / file) for name, file in zip(outputs, case["outputs"], strict=True)}
        stored = unpadded(stored, bundle.manifest["padding"])
        for name, wanted in eager.run(feeds).items():
            if stored[name].shape != wanted.shape:
                return float("inf")
            difference = float(np.linalg.norm(stored[name].astype(np.float64) - wanted))
            worst = max(worst, difference / max(float(np.linalg.norm(wanted)), 1e-12))
    return worst
