"""What a bundle needs to be used: arrays and pictures in, results, detections and drawings out; no PyTorch.

    from graphforge.runtime import Detector, PoseDetector, Pipeline, PoseTracker

    people = Pipeline(Detector("out/rtmdet"), PoseDetector("out/rtmpose"))
    found = people("street.jpg")
    found.boxes, found.scores, found.keypoints

numpy, Pillow and onnxruntime are enough; OpenCV is taken where it is installed, and needed for videos.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphforge.runtime.dataset import Dataset as Dataset
    from graphforge.runtime.detections import Detections as Detections
    from graphforge.runtime.detector import Detector as Detector
    from graphforge.runtime.draw import drawn as drawn
    from graphforge.runtime.pipeline import Pipeline as Pipeline
    from graphforge.runtime.placement import Placement as Placement
    from graphforge.runtime.pose import PoseDetector as PoseDetector
    from graphforge.runtime.steps import CentreCrop as CentreCrop
    from graphforge.runtime.steps import Colour as Colour
    from graphforge.runtime.steps import CropBox as CropBox
    from graphforge.runtime.steps import Dtype as Dtype
    from graphforge.runtime.steps import Layout as Layout
    from graphforge.runtime.steps import Letterbox as Letterbox
    from graphforge.runtime.steps import Normalise as Normalise
    from graphforge.runtime.steps import Pad as Pad
    from graphforge.runtime.steps import Resize as Resize
    from graphforge.runtime.steps import Scale as Scale
    from graphforge.runtime.tracker import PoseTracker as PoseTracker
    from graphforge.runtime.video import frames_of as frames_of

_HOME = {
    "CentreCrop": "graphforge.runtime.steps",
    "Colour": "graphforge.runtime.steps",
    "CropBox": "graphforge.runtime.steps",
    "Dataset": "graphforge.runtime.dataset",
    "Detections": "graphforge.runtime.detections",
    "Detector": "graphforge.runtime.detector",
    "Dtype": "graphforge.runtime.steps",
    "Layout": "graphforge.runtime.steps",
    "Letterbox": "graphforge.runtime.steps",
    "Normalise": "graphforge.runtime.steps",
    "Pad": "graphforge.runtime.steps",
    "Pipeline": "graphforge.runtime.pipeline",
    "Placement": "graphforge.runtime.placement",
    "PoseDetector": "graphforge.runtime.pose",
    "PoseTracker": "graphforge.runtime.tracker",
    "Resize": "graphforge.runtime.steps",
    "Scale": "graphforge.runtime.steps",
    "drawn": "graphforge.runtime.draw",
    "frames_of": "graphforge.runtime.video",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
