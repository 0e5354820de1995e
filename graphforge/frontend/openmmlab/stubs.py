"""What OpenMMLab's packages import and a machine may lack: the compiled operators of mmcv.

The lite build of mmcv has no ``mmcv._ext``, and then nothing that imports ``mmcv.ops`` can be imported at all: every
detector, most pose heads.  A module that stands in for it raises when an operator is called.  Suppression is the one
that inference calls; it is there, by torchvision's kernel.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib import metadata
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from graphforge.errors import GraphForgeError

__all__ = ["leave_out_what_is_too_old", "stand_in_for_compiled_operators"]


class _Operators(ModuleType):
    """``mmcv._ext`` where mmcv was installed without its compiled operators."""

    __file__ = __file__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> Any:
            raise GraphForgeError(
                f"the model calls mmcv's compiled operator {name!r}, and the lite build of mmcv has none",
                "install the full build of mmcv, or declare a substitute for the function that calls it",
            )

        return missing


def stand_in_for_compiled_operators() -> bool:
    """Let ``mmcv.ops`` be imported where its compiled half is missing; tells whether it was."""
    if "mmcv._ext" in sys.modules:
        return isinstance(sys.modules["mmcv._ext"], _Operators)
    if importlib.util.find_spec("mmcv") is None or importlib.util.find_spec("mmcv._ext") is not None:
        return False
    stub = _Operators("mmcv._ext")
    stub.__spec__ = ModuleSpec("mmcv._ext", None)
    stub.nms = _nms  # type: ignore[attr-defined]
    sys.modules["mmcv._ext"] = stub
    return True


def leave_out_what_is_too_old() -> None:
    """Let MMPreTrain be imported beside transformers 5, whose names its models of text and pictures do not know.

    They are left out as MMPreTrain itself leaves them out where transformers is missing: who builds one is told.
    MMDetection imports MMPreTrain, too, where it is installed.
    """
    if importlib.util.find_spec("mmpretrain") is None:
        return
    try:
        known = int(metadata.version("transformers").partition(".")[0]) < 5
    except (metadata.PackageNotFoundError, ValueError):
        return
    if not known:
        dependency: Any = importlib.import_module("mmpretrain.utils.dependency")
        dependency.WITH_MULTIMODAL = False


def _nms(boxes: Any, scores: Any, iou_threshold: float, offset: int) -> Any:
    """Greedy suppression as mmcv's kernel does it, for boxes whose last pixel does not count (``offset`` 0)."""
    import numpy as np
    import torchvision

    if offset != 0:
        raise GraphForgeError("mmcv's nms with offset=1 needs mmcv's compiled operators", "use offset=0, the default")
    # mmcv's kernel compares with its threshold as float32
    return torchvision.ops.nms(boxes, scores, float(np.float32(iou_threshold)))
