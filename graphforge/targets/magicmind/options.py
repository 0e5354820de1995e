"""What a user can ask of the MagicMind target."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from graphforge.errors import UsageError, argument
from graphforge.targets.options import as_choice, as_list, option
from graphforge.targets.target import TargetOptions

__all__ = ["ARCHS", "OPSET", "PRECISIONS", "Arch", "MagicMindOptions", "read_options"]

# The importer refuses 13 and above ("'onnx.Unsqueeze' op requires a single operand"); every public sample of a model
# exported by PyTorch is at 11.
OPSET = 11
# MagicMind's own default; it is also the only one whose arithmetic a check in ONNX Runtime speaks for.
DEFAULT_PRECISION = "force_float32"
PRECISIONS = {
    "force_float32": "everything in float32",
    "force_float16": "everything in float16",
    "qint8_mixed_float16": "convolutions and products in int8, the rest in float16; needs calibration",
    "qint8_mixed_float32": "convolutions and products in int8, the rest in float32; needs calibration",
    "qint16_mixed_float16": "convolutions and products in int16, the rest in float16; needs calibration",
    "qint16_mixed_float32": "convolutions and products in int16, the rest in float32; needs calibration",
}
# MLU370 (S4, X4, X8), MLU590, and the CE3226 edge chip.
ARCHS = ("mtp_372", "mtp_592", "tp_322")


@dataclass(frozen=True, slots=True)
class Arch:
    """A chip, with the cluster counts to allow; none means MagicMind chooses."""

    name: str
    clusters: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.name + (f":{'+'.join(map(str, self.clusters))}" if self.clusters else "")


def _archs(value: object) -> tuple[Arch, ...]:
    """``mtp_372,mtp_592`` or, with cluster counts, ``mtp_372:6+8``."""
    archs = []
    for text in as_list(value):
        match = re.fullmatch(r"(\w+)(?::(\d+(?:\+\d+)*))?", text)
        if match is None:
            raise ValueError(f"cannot read arch {text!r}", "write mtp_372 or, with cluster counts, mtp_372:6+8")
        name = as_choice("arch", match[1], ARCHS)
        clusters = tuple(int(count) for count in (match[2] or "").split("+") if count)
        if 0 in clusters:
            raise ValueError(f"arch {text!r}: a cluster count is at least 1")
        archs.append(Arch(name, clusters))
    names = [arch.name for arch in archs]
    if not archs or len(set(names)) != len(names):
        raise ValueError(f"archs must be named, each once, got {value!r}", f"known: {', '.join(ARCHS)}")
    return tuple(archs)


def _numbers(value: object) -> tuple[float, ...]:
    items = value if isinstance(value, list | tuple) else as_list(value)
    numbers = tuple(float(item) for item in items)
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"expected finite numbers with commas between, got {value!r}")
    return numbers


@dataclass(frozen=True, slots=True)
class MagicMindOptions:
    """What is asked, in the words of MagicMind's own configuration; the help of each field stands beside it."""

    precision: str = option(DEFAULT_PRECISION, values=PRECISIONS, help="arithmetic on the MLU")
    archs: tuple[Arch, ...] = option(
        (Arch("mtp_372"),),
        form="mtp_372,mtp_592,tp_322, with cluster counts mtp_372:6+8",
        read=_archs,
        help="chips to build for: MLU370, MLU590, CE3226",
    )
    calibration: str | Mapping[str, Any] | None = option(
        None,
        form="DIR, FILE.npz, or arrays by input name (from Python)",
        help="normalised inputs; the qint precisions need them",
    )
    calibration_algorithm: Literal["linear", "eqnm"] = option("linear", help="how ranges are made of calibration data")
    weight_quant_granularity: Literal["per_tensor", "per_axis"] = option(
        "per_tensor", help="scales of quantised weights: one, or one per channel"
    )
    activation_quant_algo: Literal["symmetric", "asymmetric"] = option(
        "symmetric", help="how activations are quantised"
    )
    computation_preference: Literal["auto", "fast", "high_precision"] = option(
        "auto", help="what MagicMind prefers where it has several kernels"
    )
    conv_scale_fold: bool = option(False, help="fold mul and add after a convolution into its weights")
    cross_compile_toolchain_path: str = option(
        "", help="the aarch64 compiler that tp_322 needs, on the machine that builds"
    )
    cut: tuple[str, ...] = option(
        (),
        form="value, node or module names, with commas",
        help="where to cut the model; what is behind becomes tail.onnx, for the host",
    )
    pins: tuple[str, ...] | None = option(
        None,
        form="node names, with commas",
        help="nodes kept in float32 under reduced precision; NonMaxSuppression, TopK, Sqrt and Exp unless asked",
    )
    reference_inputs: Mapping[str, Any] | None = option(
        None,
        form="arrays by input name (from Python)",
        help="inputs of the stored reference; seeded random ones unless given",
    )
    pixel_mean: tuple[float, ...] | None = option(
        None,
        form="123.675,116.28,103.53",
        read=_numbers,
        help="the MLU takes bytes of pixels and normalises them by this and pixel_std before the first convolution",
    )
    pixel_std: tuple[float, ...] | None = option(
        None, form="58.395,57.12,57.375", read=_numbers, help="see pixel_mean; std, not its square"
    )
    input_layout: Literal["nchw", "nhwc"] = option("nchw", help="layout in which the MLU takes pictures")
    custom_ranges: tuple[float, ...] | None = option(
        None,
        form="LOW,HIGH",
        read=_numbers,
        help="one made-up range for every value in place of calibration: it builds and can be timed, and its results "
        "mean nothing",
    )

    @property
    def is_quantized(self) -> bool:
        """Whether convolutions and products run in integers, which takes calibration."""
        return self.precision.startswith("qint")


def read_options(options: TargetOptions) -> MagicMindOptions:
    """The target's own options, once they are known to go together.

    Raises:
        UsageError: an option contradicts another, or the opset is one that MagicMind does not take.
    """
    own: MagicMindOptions = options.own
    _check_opset(options.opset)
    _check_together(own)
    return own


def _check_opset(wanted: int | None) -> None:
    if wanted in (None, OPSET):
        return
    raise UsageError(
        f"opset {wanted} was asked for, but MagicMind's importer takes {OPSET}",
        "it refuses 13 and above; every public sample of a PyTorch export is at 11",
        f"leave {argument('opset')} out: the model is lowered to {OPSET}",
    )


def _check_together(read: MagicMindOptions) -> None:
    if (read.pixel_mean is None) != (read.pixel_std is None):
        raise UsageError("pixel_mean and pixel_std go together, and one of them is missing")
    if read.pixel_std is not None and min(read.pixel_std) <= 0:
        raise UsageError(f"pixel_std is {min(read.pixel_std):g}, expected more than 0")
    if read.custom_ranges is not None:
        _check_custom_ranges(read)
    if read.is_quantized and read.calibration is None and read.custom_ranges is None:
        raise UsageError(
            f"precision {read.precision} needs calibration data, and none is given",
            f"give normalised inputs, {argument('calibration', 'calib.npz')} (or a folder), or choose force_float16",
        )
    if read.calibration_algorithm == "eqnm" and read.activation_quant_algo != "symmetric":
        raise UsageError("calibration algorithm eqnm works with symmetric activations only")
    if any(arch.name == "tp_322" for arch in read.archs) and not read.cross_compile_toolchain_path:
        raise UsageError(
            "arch tp_322 needs cross_compile_toolchain_path: the aarch64 compiler on the machine that builds",
            "Cambricon's samples use gcc-linaro-6.2.1-2016.11-x86_64_aarch64-linux-gnu",
        )


def _check_custom_ranges(read: MagicMindOptions) -> None:
    ranges = read.custom_ranges or ()
    if len(ranges) != 2 or ranges[0] >= ranges[1]:
        raise UsageError(f"custom_ranges is {ranges}, expected a low and a high end, such as -1,1")
    if not read.is_quantized:
        raise UsageError(
            f"custom_ranges take the place of calibration, which precision {read.precision} has none of",
            "leave them out, or ask for a qint precision",
        )
    if read.calibration is not None:
        raise UsageError("calibration data and custom_ranges are both given", "leave one out")
