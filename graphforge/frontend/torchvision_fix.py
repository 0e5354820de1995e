"""Make `import torchvision` work beside a torch its compiled library does not fit.

torchvision's wheel links CUDA libraries; beside a CPU-only torch they cannot be loaded, its operators stay undefined
and `import torchvision` dies with "operator torchvision::nms does not exist".  Here the missing operators are defined
first, with kernels in plain torch, so that its models import, run in eager mode and are captured with one node per
operator, exactly as with the compiled library.  Where torchvision works as it is, nothing is touched.

Files of the user's import torchvision themselves, or a package that does: `watch_torchvision` has the operators defined
at the moment when that import begins, and costs nothing where it never does.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from graphforge.errors import GraphForgeError

__all__ = ["TorchvisionState", "ensure_torchvision", "torchvision_state", "watch_torchvision"]


class TorchvisionState(Enum):
    """How torchvision stands on this machine."""

    MISSING = "not installed"
    WORKING = "works with its own compiled operators"
    REPAIRED = "works with operators in plain torch (its compiled library does not load beside this torch)"


# Every operator torchvision's Python code may name, as its compiled library declares them.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width,"
    " int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width)"
    " -> (Tensor, Tensor)",
    "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width,"
    " int sampling_ratio) -> (Tensor, Tensor)",
    "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width)"
    " -> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h,"
    " SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups,"
    " SymInt offset_groups, bool use_mask) -> Tensor",
    "box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
)

_kept_libraries: list[object] = []  # torch.library takes registrations back when their Library is collected


def torchvision_state() -> TorchvisionState:
    """How torchvision stands here, without importing it."""
    if importlib.util.find_spec("torchvision") is None:
        return TorchvisionState.MISSING
    if _kept_libraries or not _library_loads():
        return TorchvisionState.REPAIRED
    return TorchvisionState.WORKING


def ensure_torchvision() -> TorchvisionState:
    """Import torchvision, defining its operators first where its compiled library does not load.

    Returns:
        WORKING or REPAIRED.

    Raises:
        GraphForgeError: torchvision is not installed, or fails to import for another reason.
    """
    state = torchvision_state()
    if state is TorchvisionState.MISSING:
        raise GraphForgeError(
            "torchvision is not installed", "install it with: pip install 'graphforge-compiler[torchvision]'"
        )
    if state is TorchvisionState.REPAIRED and not _kept_libraries:
        _forget_failed_import()
        _define_operators()
    try:
        import_module("torchvision")
        if state is TorchvisionState.REPAIRED:
            _answer_for_operators()
    except (ImportError, RuntimeError) as error:
        raise GraphForgeError(
            f"torchvision does not import: {error}", "install the torchvision that belongs to this torch"
        ) from error
    return state


def watch_torchvision() -> None:
    """From now on in this process, an import of torchvision finds its operators defined, whoever imports it."""
    if not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())


class _Watcher:
    """Stands before Python's own finders and steps in once, where torchvision needs its operators."""

    def __init__(self) -> None:
        self.looking = False

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if self.looking or name != "torchvision":
            return None
        self.looking = True  # what is asked below looks for torchvision as well
        try:
            if torchvision_state() is not TorchvisionState.REPAIRED:
                return None
            if not _kept_libraries:
                _forget_failed_import()
                _define_operators()
            spec = PathFinder.find_spec(name, path, target)
        finally:
            self.looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Repaired(spec.loader)
        return spec


class _Repaired(Loader):
    """Loads torchvision as its own loader does, and has it answer afterwards that the operators are there."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self.loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__loader__"] = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _answer_for_operators()


def _answer_for_operators() -> None:
    # by module name: the attribute `torchvision.ops.roi_align` is the function
    for name in ("torchvision.extension", "torchvision.ops.roi_align"):  # asked at every call: are the operators there?
        vars(import_module(name))["_has_ops"] = _they_are_there


def _they_are_there() -> bool:
    return True


def _library_loads() -> bool:
    """Whether torchvision's compiled library fits this torch (loading it twice does no harm)."""
    import torch

    spec = importlib.util.find_spec("torchvision")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    libraries = [path for folder in folders for pattern in ("_C*.so", "_C*.pyd") for path in Path(folder).glob(pattern)]
    if not libraries:
        return hasattr(torch.ops.torchvision, "nms")
    try:
        torch.ops.load_library(str(libraries[0]))
    except (ImportError, OSError):
        return False
    return True


def _forget_failed_import() -> None:
    """Drop what an earlier, failed `import torchvision` left behind, so that the next one starts afresh."""
    if "torchvision" not in sys.modules:
        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]


def _define_operators() -> None:
    import torch

    from graphforge.ops import _torchvision_kernels as kernels

    library = torch.library.Library("torchvision", "FRAGMENT")
    _kept_libraries.append(library)
    kernel_by_name: dict[str, Callable[..., object]] = {
        "nms": kernels.nms,
        "roi_align": kernels.roi_align,
        "roi_pool": kernels.roi_pool,
        "ps_roi_align": kernels.ps_roi_align,
        "ps_roi_pool": kernels.ps_roi_pool,
        "deform_conv2d": kernels.deform_conv2d,
    }
    fake_by_name: dict[str, Callable[..., object]] = {
        "roi_align": kernels.roi_align_fake,
        "roi_pool": kernels.roi_pool_fake,
        "ps_roi_align": kernels.ps_roi_align_fake,
        "ps_roi_pool": kernels.ps_roi_pool_fake,
        "deform_conv2d": kernels.deform_conv2d_fake,
    }
    for schema in _SCHEMAS:
        name = schema[: schema.index("(")]
        library.define(schema)
        library.impl(name, kernel_by_name.get(name, kernels.refuse(name)), "CPU")
    for name, fake in fake_by_name.items():
        torch.library.register_fake(f"torchvision::{name}", fake, lib=library)
