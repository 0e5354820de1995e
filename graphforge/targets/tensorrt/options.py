"""What a user can ask of the TensorRT target, and the settings that a plan is built with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from graphforge.errors import UsageError, argument
from graphforge.targets.options import as_list, option
from graphforge.targets.precision import REDUCED, ReducedOptions
from graphforge.targets.target import TargetOptions
from graphforge.targets.tensorrt.flavour import OLDEST_OPSET, Flavour, choose_flavour, gpu_problem
from graphforge.targets.tensorrt.profile import Sizes

__all__ = ["DEFAULT_COMPUTE_CAPABILITIES", "BuildSettings", "TensorRTOptions", "read_options"]

# Ampere and Ada, the two the majority of RTX cards have.
DEFAULT_COMPUTE_CAPABILITIES = ("SM86", "SM89")


def _capabilities(value: object) -> tuple[str, ...]:
    names = []
    for text in as_list(value):
        match = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", text.strip().lower())
        if match is None and text.strip().lower() != "current":
            raise ValueError(
                f"compute capability {text!r} cannot be read",
                "write it as SM86 or 8.6, or current for this machine's GPU",
            )
        names.append("CURRENT" if match is None else f"SM{match[1]}{match[2]}")
    unique = tuple(dict.fromkeys(names))
    if not unique:
        raise ValueError("it is empty", "leave the option out for SM86 and SM89")
    if "CURRENT" in unique and len(unique) > 1:
        raise ValueError("compute capability 'current' cannot be combined with others")
    return unique


def _sizes(value: object) -> dict[str, int]:
    pairs = value.items() if isinstance(value, Mapping) else [text.partition("=")[::2] for text in as_list(value)]
    sizes = {}
    for name, size in pairs:
        if not (str(size).strip().isdecimal() and len(str(size)) < 20):
            raise ValueError(f"size {size!r} of dim {name!r} cannot be read", "write it as batch=4")
        sizes[str(name).strip()] = int(size)
    return sizes


def _profiles(value: object) -> tuple[Mapping[str, Sizes], ...]:
    """``batch=1;batch=2..8@4,width=320..640``, or the same as a list of mappings."""
    given = [value] if isinstance(value, Mapping) else value
    if isinstance(given, str):
        given = [dict(text.partition("=")[::2] for text in as_list(part)) for part in given.split(";") if part.strip()]
    if not isinstance(given, list | tuple) or not given or not all(isinstance(one, Mapping) and one for one in given):
        raise ValueError("profiles cannot be read", "write them as batch=1;batch=2..8@4, one between semicolons")
    return tuple({str(name).strip(): _range(str(name), sizes) for name, sizes in one.items()} for one in given)


def _range(name: str, value: object) -> Sizes:
    text = "..".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    match = re.fullmatch(r"\s*(\d+)\s*(?:\.\.\s*(\d+)\s*)?(?:(?:@|\.\.)\s*(\d+)\s*)?", text)
    if match is None:
        raise ValueError(
            f"sizes {value!r} of dim {name.strip()!r} cannot be read", "write 4, 2..8 or, fastest at 4, 2..8@4"
        )
    low, high, best = match[1], match[2] or match[1], match[3]
    if int(low) > int(high):
        raise ValueError(f"sizes {text.strip()!r} of dim {name.strip()!r} run backwards", f"write {high}..{low}")
    return Sizes(int(low), int(high), None if best is None else int(best))


@dataclass(frozen=True, slots=True)
class TensorRTOptions(ReducedOptions):
    """What is asked; the help of each field stands beside it."""

    precision: str = option(
        "as_typed",
        values={
            "as_typed": "the types that the graph has: networks are strongly typed, so lower precision is written into "
            "the graph (half weights and casts, or QuantizeLinear/DequantizeLinear pairs)",
            "fp32": "the same, and half types in the graph are refused",
            **REDUCED,
        },
        help="arithmetic of the plan",
    )
    flavour: Literal["auto", "tensorrt_rtx", "tensorrt"] = option(
        "auto", help="which TensorRT; auto is the first installed, TensorRT for RTX before TensorRT"
    )
    compute_capabilities: tuple[str, ...] | None = option(
        None,
        form="SM86,SM89,... or current",
        read=_capabilities,
        help="GPUs to build for, TensorRT for RTX only; SM86 and SM89 unless asked",
    )
    tf32: bool = option(
        True, help="inputs of float32 convolutions and products may be rounded to TF32, as TensorRT does by default"
    )
    optimization_level: Literal[0, 1, 2, 3, 4, 5] | None = option(
        None, help="effort of the builder; TensorRT's own default unless asked"
    )
    workspace: int | None = option(
        None, form="MIB", help="memory that layers may use beside weights and tensors, in MiB"
    )
    optimum: Mapping[str, int] | None = option(
        None,
        form="DIM=SIZE,...",
        read=_sizes,
        help="sizes of dynamic dims that the plan is fastest at; those of the example unless asked",
    )
    profiles: tuple[Mapping[str, Sizes], ...] | None = option(
        None,
        form="DIM=LOW..HIGH@BEST,...;...",
        read=_profiles,
        help="several profiles in one plan, each for some of the promised sizes and fastest at its own: "
        "batch=1;batch=2..8@4",
    )
    timing_cache: Path | None = option(
        None,
        form="FILE",
        help="kernels' timings, read where the file is there and written back, so that the next build of the like is "
        "quick; classic TensorRT only",
    )
    version_compatible: bool = option(False, help="a plan that later versions load too; classic TensorRT only")
    weight_stripped: bool = option(False, help="a plan for one GPU without its weights, to be refitted from model.onnx")


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What a plan is built with: the options, completed by what is installed.

    Attributes:
        flavour: which TensorRT.
        opset: opset of the default domain given to the parser.
        precision: ``as_typed`` (the types that the graph has), ``fp32`` (the same, half types refused), or what a pass
            writes into the graph.
        compute_capabilities: ``SM86``-like names; empty means the GPU of this machine.
        tf32: whether float32 convolutions and products may round their inputs to TF32 (its default).
        optimization_level: the builder's effort, 0 to 5; None is TensorRT's default.
        workspace: memory that layers may use, in MiB; None is TensorRT's default.
        optimum: sizes of dynamic dims, by name, that the plan is to be fastest at; those of the example for the others.
        version_compatible: whether later versions load the plan too.
        weight_stripped: whether the weights are left out.
        timing_cache: file of kernels' timings, read and written back.
        profiles: the dims that each of several profiles narrows; none is one profile for all that is promised.
    """

    flavour: Flavour
    opset: int
    precision: str
    compute_capabilities: tuple[str, ...]
    tf32: bool
    optimization_level: int | None
    workspace: int | None = None
    optimum: Mapping[str, int] = field(default_factory=dict)
    version_compatible: bool = False
    weight_stripped: bool = False
    profiles: tuple[Mapping[str, Sizes], ...] = ()
    timing_cache: Path | None = None


def read_options(options: TargetOptions) -> BuildSettings:
    """Complete the options by what is installed.

    Raises:
        UsageError: they do not go together, or not with what is installed.
        GraphForgeError: no flavour is installed.
    """
    own: TensorRTOptions = options.own
    flavour = choose_flavour(own.flavour)
    capabilities = _compute_capabilities(own.compute_capabilities, flavour)
    if own.version_compatible and flavour.name == "tensorrt_rtx":
        raise UsageError(
            f"{flavour.title} builds no version-compatible plans: it has no lean runtime",
            f"leave version_compatible out, or build with {argument('target_options', {'flavour': 'tensorrt'})}",
        )
    if own.timing_cache is not None and flavour.name == "tensorrt_rtx":
        raise UsageError(
            f"{flavour.title} times no kernels when it builds, so there is nothing to keep in a timing cache",
            f"leave timing_cache out, or build with {argument('target_options', {'flavour': 'tensorrt'})}",
        )
    if own.weight_stripped and len(capabilities) > 1:
        raise UsageError(
            f"a plan without its weights is built for one GPU, and {', '.join(capabilities)} are asked for",
            f"name one: {argument('target_options', {'compute_capabilities': capabilities[0]})}",
        )
    without_gpu = gpu_problem() if own.weight_stripped else None
    if without_gpu is not None:
        raise UsageError(
            f"a plan without its weights is built only where a GPU is: {without_gpu}", "leave weight_stripped out here"
        )
    return BuildSettings(
        flavour=flavour,
        opset=_opset(options.opset, flavour),
        precision=own.precision,
        compute_capabilities=capabilities,
        tf32=own.tf32,
        optimization_level=own.optimization_level,
        workspace=own.workspace,
        optimum=own.optimum or {},
        version_compatible=own.version_compatible,
        weight_stripped=own.weight_stripped,
        profiles=own.profiles or (),
        timing_cache=own.timing_cache,
    )


def _opset(wanted: int | None, flavour: Flavour) -> int:
    newest = flavour.newest_opset()
    if wanted is None:
        return newest
    if OLDEST_OPSET <= wanted <= newest:
        return wanted
    raise UsageError(
        f"opset {wanted} was asked for, but the parser of {flavour.title} reads {OLDEST_OPSET} to {newest}",
        f"leave {argument('opset')} out to get {newest}",
    )


def _compute_capabilities(asked: tuple[str, ...] | None, flavour: Flavour) -> tuple[str, ...]:
    if asked is None:
        return DEFAULT_COMPUTE_CAPABILITIES if flavour.builds_without_gpu else ()
    if not flavour.builds_without_gpu:
        raise UsageError(
            f"{flavour.title} builds for the GPU it runs on; compute_capabilities cannot be chosen",
            f"leave the option out, or build with {argument('target_options', {'flavour': 'tensorrt_rtx'})}",
        )
    return asked
