"""Make `import torchvision` work beside a torch its compiled library does not fit.

torchvision's wheel links CUDA libraries; beside a CPU-only torch they cannot be loaded, its operators stay undefined
and `import torchvision` dies with "operator torchvision::nms does not exist".  Here the missing operators are defined
first, with kernels in plain torch, so that its models import, run in eager mode and are captured with one node per
operator, exactly as with the compiled library.  Where torchvision works as it is, nothing is touched.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from pathlib import Path

from graphforge.errors import GraphForgeError

__all__ = ["TorchvisionState", "ensure_torchvision", "torchvision_state"]


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
        extension = import_module("torchvision.extension")
        # by module name: the attribute `torchvision.ops.roi_align` is the function
        roi_align = import_module("torchvision.ops.roi_align")
    except (ImportError, RuntimeError) as error:
        raise GraphForgeError(
            f"torchvision does not import: {error}", "install the torchvision that belongs to this torch"
        ) from error
    if state is TorchvisionState.REPAIRED:
        for module in (extension, roi_align):  # asked at every call: are the operators there?
            vars(module)["_has_ops"] = _they_are_there
    return state


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
