"""MagicMind bundles of whole models: compiled, linted, their scripts run unchanged on the stand-in by an old Python.

    scripts/bench bundles [--match TEXT] [--python PATH] [--keep FOLDER]

--python names the interpreter for build_mm.py and run_mm.py (it needs numpy, onnx and onnxruntime for the stand-in);
by default $GRAPHFORGE_OLD_PYTHON, else this one.  Nothing here runs on an MLU.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from graphforge.spec import DimRange
from tests.e2e import nets
from tests.e2e.bundles import BundleEntry, BundleRow, run_bundle
from tests.e2e.matrix import Made

THREE = ("force_float32", "force_float16", "qint8_mixed_float16")


class HRNetPose(torch.nn.Module):
    """HRNet-W32 with one map for each of 17 keypoints, as the public sample has it: N, H and W are free."""

    layer1: torch.nn.Module
    transition1: torch.nn.ModuleList
    stage2: torch.nn.Module
    transition2: torch.nn.ModuleList
    stage3: torch.nn.Module
    transition3: torch.nn.ModuleList
    stage4: torch.nn.Module

    def __init__(self) -> None:
        super().__init__()
        from graphforge.frontend.load import load_model

        body: Any = load_model("timm:hrnet_w32").module
        self.stem = torch.nn.Sequential(body.conv1, body.bn1, body.act1, body.conv2, body.bn2, body.act2)
        for name in ("layer1", "transition1", "stage2", "transition2", "stage3", "transition3", "stage4"):
            setattr(self, name, getattr(body, name))
        self.keypoints = torch.nn.Conv2d(32, 17, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.layer1(self.stem(image))
        branches = self.stage2([transition(x) for transition in self.transition1])
        branches = self.stage3(_widened(branches, self.transition2))
        maps: torch.Tensor = self.keypoints(self.stage4(_widened(branches, self.transition3))[0])
        return maps


def _widened(branches: list[torch.Tensor], transitions: torch.nn.ModuleList) -> list[torch.Tensor]:
    """The branches, and one more made of the last."""
    return [
        transition(branches[-1]) if position >= len(branches) else transition(branches[position])
        for position, transition in enumerate(transitions)
    ]


def _resnet() -> Made:
    from graphforge.frontend.load import load_model

    module = load_model("torchvision:resnet50").module
    assert module is not None
    return nets.calm(module), (torch.randn(1, 3, 224, 224),), {}


def _hrnet() -> Made:
    return nets.calm(HRNetPose()), (torch.randn(1, 3, 128, 128),), {}


def _rtmpose() -> Made:
    torch.manual_seed(0)
    return nets.calm(nets.RTMPose(17, (256, 192), 96, 256)), (torch.randn(1, 3, 256, 192),), {}


def _srcnn() -> Made:
    torch.manual_seed(0)
    return nets.calm(nets.SRCNN()), (torch.randn(1, 3, 48, 64),), {}


def _digits(nms: str) -> BundleEntry:
    """The trained digit detector on canvases it was not trained on: random inputs would show no digit."""
    from scripts.gallery import digits

    def make() -> Made:
        model, inputs = digits.detector()
        return model.eval(), inputs, {}

    pages = digits.stacked(digits.canvases(9)).numpy()
    return BundleEntry(
        f"digit detector, {nms} NMS",
        make,
        options={"reference_inputs": {"images": pages[8:]}},
        calibration={"images": pages[:8]},
        nms=nms,
    )


BUNDLES: tuple[tuple[BundleEntry, tuple[str, ...]], ...] = (
    (BundleEntry("ResNet-50", _resnet, {"x": {0: (1, 8)}}), THREE),
    (
        BundleEntry(
            "HRNet-W32, N H W dynamic",
            _hrnet,
            {
                "image": {
                    0: DimRange("batch", 1, 64),
                    2: DimRange("height", 128, 2560, 32),
                    3: DimRange("width", 128, 2560, 32),
                }
            },
            {"computation_preference": "fast", "conv_scale_fold": True},
        ),
        THREE,
    ),
    (BundleEntry("RTMPose-shaped", _rtmpose, {"image": {0: (1, 8)}}), THREE),
    (_digits("native"), THREE),
    (_digits("portable"), ("force_float32",)),
    (
        BundleEntry("SRCNN, bicubic x3", _srcnn, {"image": {0: (1, 4), 2: (16, 128), 3: (16, 128)}}),
        THREE,
    ),
)


def table(rows: list[BundleRow]) -> str:
    """The result in Markdown."""
    lines = [
        "| model | precision | nodes | sizes tried | model.onnx and eager | lint errors | lint warnings "
        "| build_mm.py | run_mm.py | its distance | stored outputs and eager |",
        "|---" * 11 + "|",
    ]
    for row in rows:
        lines.append(
            f"| {row.name} | {row.precision} | {row.nodes} | {row.sizes} | {row.verified:.0e} | {row.errors} | "
            f"{', '.join(row.warnings) or 'none'} | exit {row.built} | exit {row.ran} | {row.distance:.0e} | "
            f"{row.eager:.0e} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--match", default="", help="only models whose name contains this")
    parser.add_argument("--python", default=os.environ.get("GRAPHFORGE_OLD_PYTHON", sys.executable))
    parser.add_argument("--keep", help="folder for the bundles; by default they are dropped")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for entry, precisions in BUNDLES:
            if options.match.lower() not in entry.name.lower():
                continue
            for precision in precisions:
                name = "".join(c if c.isalnum() else "-" for c in f"{entry.name}-{precision}".lower())
                row = run_bundle(entry, precision, Path(options.keep or scratch) / name, python=options.python)
                rows.append(row)
                verdict = "ok" if row.passed else "FAILED"
                print(
                    f"{row.name} {row.precision}: {verdict} ({row.seconds:.0f} s) dim_range {row.dim_range}", flush=True
                )
                if row.said:
                    print(row.said)
    if not rows:
        parser.error(f"no model's name contains {options.match!r}")
    print(f"\nscripts run by Python {rows[0].python} on the stand-in; nothing was run on an MLU\n\n{table(rows)}")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
