"""What a user can ask of the TensorRT target, read once from TargetOptions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphforge.errors import UsageError
from graphforge.targets.options import as_bool, as_choice, as_list, check_known
from graphforge.targets.target import TargetOptions
from graphforge.targets.tensorrt.flavour import FLAVOURS, OLDEST_OPSET, Flavour, choose_flavour

__all__ = ["DEFAULT_COMPUTE_CAPABILITIES", "TensorRTOptions", "read_options"]

_TARGET = "tensorrt"
_KNOWN = ("flavour", "compute_capabilities", "tf32", "optimization_level")
_PRECISIONS = ("as_typed", "fp32")
# Ampere and Ada, the two the majority of RTX cards have.
DEFAULT_COMPUTE_CAPABILITIES = ("SM86", "SM89")


@dataclass(frozen=True, slots=True)
class TensorRTOptions:
    """The options in their final form.

    Attributes:
        flavour: which TensorRT.
        opset: opset of the default domain given to the parser.
        precision: ``as_typed`` (the types that the graph has) or ``fp32`` (the same, half types refused).
        compute_capabilities: ``SM86``-like names; empty means the GPU of this machine.
        tf32: whether float32 convolutions and products may round their inputs to TF32 (its default).
        optimization_level: the builder's effort, 0 to 5; None is TensorRT's default.
    """

    flavour: Flavour
    opset: int
    precision: str
    compute_capabilities: tuple[str, ...]
    tf32: bool
    optimization_level: int | None


def read_options(options: TargetOptions) -> TensorRTOptions:
    """Check and complete the options.

    Raises:
        UsageError: an option is unknown, or has a value it cannot have.
        GraphForgeError: no flavour is installed.
    """
    extra = options.extra
    check_known(_TARGET, extra, _KNOWN)
    wanted = as_choice(_TARGET, "flavour", extra.get("flavour", "auto"), ("auto", *FLAVOURS))
    flavour = choose_flavour(wanted)
    return TensorRTOptions(
        flavour=flavour,
        opset=_opset(options.opset, flavour),
        precision=_precision(options.precision),
        compute_capabilities=_compute_capabilities(extra.get("compute_capabilities"), flavour),
        tf32=as_bool(_TARGET, "tf32", extra.get("tf32", True)),
        optimization_level=_level(extra.get("optimization_level")),
    )


def _opset(wanted: int | None, flavour: Flavour) -> int:
    newest = flavour.newest_opset()
    if wanted is None:
        return newest
    if OLDEST_OPSET <= wanted <= newest:
        return wanted
    raise UsageError(
        f"opset {wanted} was asked for, but the parser of {flavour.title} reads {OLDEST_OPSET} to {newest}",
        f"leave --opset out to get {newest}",
    )


def _precision(wanted: str | None) -> str:
    if wanted is None:
        return "as_typed"
    if wanted in _PRECISIONS:
        return wanted
    raise UsageError(
        f"target {_TARGET!r}: unknown precision {wanted!r}; known: {', '.join(_PRECISIONS)}",
        "TensorRT networks are strongly typed: lower precision is written into the graph "
        "(half weights and casts, or QuantizeLinear/DequantizeLinear pairs), then built as_typed",
    )


def _compute_capabilities(value: object, flavour: Flavour) -> tuple[str, ...]:
    if value is None:
        return DEFAULT_COMPUTE_CAPABILITIES if flavour.builds_without_gpu else ()
    if not flavour.builds_without_gpu:
        raise UsageError(
            f"{flavour.title} builds for the GPU it runs on; compute_capabilities cannot be chosen",
            "leave the option out, or build with --option flavour=tensorrt_rtx",
        )
    names = []
    for text in as_list(value):
        match = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", text.strip().lower())
        if match is None and text.strip().lower() != "current":
            raise UsageError(
                f"compute capability {text!r} cannot be read",
                "write it as SM86 or 8.6, or current for this machine's GPU",
            )
        names.append("CURRENT" if match is None else f"SM{match[1]}{match[2]}")
    unique = tuple(dict.fromkeys(names))
    if not unique:
        raise UsageError("compute_capabilities is empty", "leave the option out for SM86 and SM89")
    if "CURRENT" in unique and len(unique) > 1:
        raise UsageError("compute capability 'current' cannot be combined with others")
    return unique


def _level(value: object) -> int | None:
    if value is None:
        return None
    text = str(value)
    if text in ("0", "1", "2", "3", "4", "5"):
        return int(text)
    raise UsageError(f"target {_TARGET!r}, option 'optimization_level': expected 0 to 5, got {value!r}")
