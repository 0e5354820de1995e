"""What a user can ask of the MagicMind target, read once from TargetOptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphforge.errors import UsageError
from graphforge.targets.options import as_bool, as_choice, as_list, check_known
from graphforge.targets.target import TargetOptions

__all__ = ["ARCHS", "OPSET", "PRECISIONS", "Arch", "MagicMindOptions", "read_options"]

_TARGET = "magicmind"
# The importer refuses 13 and above ("'onnx.Unsqueeze' op requires a single operand"); every public sample of a model
# exported by PyTorch is at 11.
OPSET = 11
# MagicMind's own default; it is also the only one whose arithmetic a check in ONNX Runtime speaks for.
DEFAULT_PRECISION = "force_float32"
PRECISIONS = (
    "force_float32",
    "force_float16",
    "qint8_mixed_float16",
    "qint8_mixed_float32",
    "qint16_mixed_float16",
    "qint16_mixed_float32",
)
# MLU370 (S4, X4, X8), MLU590, and the CE3226 edge chip.
ARCHS = ("mtp_372", "mtp_592", "tp_322")
DEFAULT_ARCHS = ("mtp_372",)
_KNOWN = (
    "archs",
    "calibration",
    "calibration_algorithm",
    "weight_quant_granularity",
    "activation_quant_algo",
    "computation_preference",
    "conv_scale_fold",
    "cross_compile_toolchain_path",
    "cut",
    "pins",
    "reference_inputs",
)


@dataclass(frozen=True, slots=True)
class Arch:
    """A chip, with the cluster counts to allow; none means MagicMind chooses."""

    name: str
    clusters: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MagicMindOptions:
    """The options in their final form; the words are those of MagicMind's configuration.

    Attributes:
        precision: one of ``PRECISIONS``.
        archs: the chips to build for.
        calibration: where the calibration data lies (folder or .npz), or the data by input name; None is none.
        calibration_algorithm: ``linear`` or ``eqnm``.
        weight_quant_granularity: ``per_tensor`` or ``per_axis``; qint precisions only.
        activation_quant_algo: ``symmetric`` or ``asymmetric``; qint precisions only.
        computation_preference: ``auto``, ``fast`` or ``high_precision``.
        conv_scale_fold: fold mul and add after a convolution into its weights.
        cross_compile_toolchain_path: the aarch64 compiler that tp_322 needs, on the machine that builds.
        cut: values, nodes or modules to cut the model at; () leaves it whole.
        pins: nodes kept in float32 under reduced precision; None lets the target choose.
        reference_inputs: feeds for the stored reference by input name; None makes seeded random ones.
    """

    precision: str
    archs: tuple[Arch, ...]
    calibration: str | Mapping[str, Any] | None
    calibration_algorithm: str
    weight_quant_granularity: str
    activation_quant_algo: str
    computation_preference: str
    conv_scale_fold: bool
    cross_compile_toolchain_path: str
    cut: tuple[str, ...]
    pins: tuple[str, ...] | None
    reference_inputs: Mapping[str, Any] | None

    @property
    def is_quantized(self) -> bool:
        """Whether convolutions and products run in integers, which takes calibration."""
        return self.precision.startswith("qint")


def read_options(options: TargetOptions) -> MagicMindOptions:
    """Check and complete the options.

    Raises:
        UsageError: an option is unknown, has a value it cannot have, or contradicts another.
    """
    extra = options.extra
    check_known(_TARGET, extra, _KNOWN)
    _check_opset(options.opset)

    def choice(name: str, *choices: str) -> str:
        return as_choice(_TARGET, name, extra.get(name, choices[0]), choices)

    read = MagicMindOptions(
        precision=_precision(options.precision),
        archs=_archs(extra.get("archs")),
        calibration=_calibration(extra.get("calibration")),
        calibration_algorithm=choice("calibration_algorithm", "linear", "eqnm"),
        weight_quant_granularity=choice("weight_quant_granularity", "per_tensor", "per_axis"),
        activation_quant_algo=choice("activation_quant_algo", "symmetric", "asymmetric"),
        computation_preference=choice("computation_preference", "auto", "fast", "high_precision"),
        conv_scale_fold=as_bool(_TARGET, "conv_scale_fold", extra.get("conv_scale_fold", False)),
        cross_compile_toolchain_path=str(extra.get("cross_compile_toolchain_path", "")),
        cut=tuple(as_list(extra["cut"])) if extra.get("cut") is not None else (),
        pins=None if extra.get("pins") is None else tuple(as_list(extra["pins"])),
        reference_inputs=extra.get("reference_inputs"),
    )
    _check_together(read)
    return read


def _check_opset(wanted: int | None) -> None:
    if wanted in (None, OPSET):
        return
    raise UsageError(
        f"opset {wanted} was asked for, but MagicMind's importer takes {OPSET}",
        "it refuses 13 and above; every public sample of a PyTorch export is at 11",
        f"leave --opset out: the model is lowered to {OPSET}",
    )


def _precision(wanted: str | None) -> str:
    if wanted is None:
        return DEFAULT_PRECISION
    return as_choice(_TARGET, "precision", wanted, PRECISIONS)


def _archs(value: object) -> tuple[Arch, ...]:
    """``mtp_372,mtp_592`` or, with cluster counts, ``mtp_372:6+8``."""
    if value is None:
        return tuple(Arch(name) for name in DEFAULT_ARCHS)
    archs = []
    for text in as_list(value):
        match = re.fullmatch(r"(\w+)(?::(\d+(?:\+\d+)*))?", text)
        if match is None:
            raise UsageError(f"cannot read arch {text!r}", "write mtp_372 or, with cluster counts, mtp_372:6+8")
        name = as_choice(_TARGET, "archs", match[1], ARCHS)
        clusters = tuple(int(count) for count in (match[2] or "").split("+") if count)
        if 0 in clusters:
            raise UsageError(f"arch {text!r}: a cluster count is at least 1")
        archs.append(Arch(name, clusters))
    names = [arch.name for arch in archs]
    if not archs or len(set(names)) != len(names):
        raise UsageError(f"archs must be named, each once, got {value!r}", f"known: {', '.join(ARCHS)}")
    return tuple(archs)


def _calibration(value: object) -> str | Mapping[str, Any] | None:
    if value is None or isinstance(value, Mapping):
        return value
    return str(value)


def _check_together(read: MagicMindOptions) -> None:
    if read.is_quantized and read.calibration is None:
        raise UsageError(
            f"precision {read.precision} needs calibration data, and none is given",
            "give --option calibration=DIR or FILE.npz with normalised inputs, or choose force_float16",
        )
    if read.calibration_algorithm == "eqnm" and read.activation_quant_algo != "symmetric":
        raise UsageError("calibration algorithm eqnm works with symmetric activations only")
    if any(arch.name == "tp_322" for arch in read.archs) and not read.cross_compile_toolchain_path:
        raise UsageError(
            "arch tp_322 needs cross_compile_toolchain_path: the aarch64 compiler on the machine that builds",
            "Cambricon's samples use gcc-linaro-6.2.1-2016.11-x86_64_aarch64-linux-gnu",
        )
