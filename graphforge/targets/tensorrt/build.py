"""Build a serialised plan from an ONNX file; every failure names the node and where it came from."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError, argument
from graphforge.last_step import entering
from graphforge.runners.survey import is_doubted, try_first
from graphforge.spec import ShapeSpec
from graphforge.targets.tensorrt.blame import NodeIndex, complaints_of, culprits
from graphforge.targets.tensorrt.log import Log, collect_log, vendor_logger
from graphforge.targets.tensorrt.options import BuildSettings
from graphforge.targets.tensorrt.profile import InputRange, profiles_of
from graphforge.targets.tensorrt.work import MatrixWork, matrix_work

__all__ = ["BoundTensor", "BuiltPlan", "build_plan"]


@dataclass(frozen=True, slots=True)
class BoundTensor:
    """An input or output of the network as TensorRT sees it; -1 stands for a dynamic dim."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A plan on disk and what is known of it.

    Attributes:
        version: TensorRT's version.
        inputs: the network's inputs, in order.
        outputs: the network's outputs, in order.
        profiles: the shapes it was built for, by dynamic input; none for a static network.
        layers: layers of the network before TensorRT's optimisation.
        bytes: size of the plan file.
        parse_seconds: time the parser took.
        build_seconds: time the builder took.
        warnings: what TensorRT warned of, without doubles.
        work: the element types that its convolutions and products compute in.
    """

    version: str
    inputs: tuple[BoundTensor, ...]
    outputs: tuple[BoundTensor, ...]
    profiles: Sequence[Mapping[str, InputRange]]
    layers: int
    bytes: int
    parse_seconds: float
    build_seconds: float
    warnings: tuple[str, ...]
    work: MatrixWork


def build_plan(onnx_file: Path, plan_file: Path, options: BuildSettings, shapes: ShapeSpec) -> BuiltPlan:
    """Build ``plan_file`` from ``onnx_file``.

    Raises:
        GraphForgeError: TensorRT is missing, cannot start, refuses a node or disagrees with ``shapes``.
    """
    if is_doubted():
        given = str(onnx_file.absolute())
        trial = "graphforge.targets.tensorrt.trial"
        what = f"parse {onnx_file.name}"
        try_first(options.flavour.name, trial, what, onnx_file, onnx=given, flavour=options.flavour.name, stays=False)
    trt = options.flavour.load()
    with collect_log() as log:
        entering(trt.__name__, f"build a plan from {onnx_file.name}", onnx_file)
        builder = _builder(trt, options, log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, vendor_logger(trt))

        start = time.perf_counter()
        parsed = parser.parse_from_file(str(onnx_file))
        parse_seconds = time.perf_counter() - start
        if not parsed:
            raise _parse_error(trt, parser, onnx_file, options, log)

        inputs = tuple(_bound(network.get_input(i)) for i in range(network.num_inputs))
        outputs = tuple(_bound(network.get_output(i)) for i in range(network.num_outputs))
        _refuse_shape_inputs(network, onnx_file)
        _let_attention_decompose(trt, network)
        work = matrix_work(trt, network)
        sizes = {tensor.name: tensor.shape for tensor in inputs}
        profiles = profiles_of(shapes, sizes, options.optimum, options.profiles)
        config = _config(trt, builder, options, profiles, log)

        start = time.perf_counter()
        plan = builder.build_serialized_network(network, config)
        build_seconds = time.perf_counter() - start
        if plan is None:
            raise _build_error(onnx_file, options, log)
        if options.timing_cache is not None:
            _keep_timings(config, options.timing_cache)

    view = memoryview(plan)
    with plan_file.open("wb") as file:
        file.write(view)
    return BuiltPlan(
        version=str(trt.__version__),
        inputs=inputs,
        outputs=outputs,
        profiles=profiles,
        layers=int(network.num_layers),
        bytes=view.nbytes,
        parse_seconds=parse_seconds,
        build_seconds=build_seconds,
        warnings=tuple(dict.fromkeys(_readable(text) for text in log.warnings if not _is_expected(text))),
        work=work,
    )


def _builder(trt: Any, options: BuildSettings, log: Log) -> Any:
    try:
        return trt.Builder(vendor_logger(trt))
    except (TypeError, RuntimeError) as error:  # pybind11's words for a constructor that returned nothing
        raise GraphForgeError(
            f"{options.flavour.title} cannot start its builder here",
            *(_readable(text) for text in log.errors[:3]),
            "" if options.flavour.builds_without_gpu else "it builds only on a machine with an NVIDIA GPU and driver",
        ) from error


def _config(
    trt: Any, builder: Any, options: BuildSettings, profiles: Sequence[Mapping[str, InputRange]], log: Log
) -> Any:
    config = builder.create_builder_config()
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
    for wanted, flag in ((options.version_compatible, "VERSION_COMPATIBLE"), (options.weight_stripped, "STRIP_PLAN")):
        if wanted:
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if options.timing_cache is not None:
        _read_timings(config, options.timing_cache)
    if options.compute_capabilities:
        _set_compute_capabilities(trt, config, options, log)
    for profile in profiles:
        of_shapes = builder.create_optimization_profile()
        for name, shapes in profile.items():
            of_shapes.set_shape(name, shapes.minimum, shapes.optimum, shapes.maximum)
        if config.add_optimization_profile(of_shapes) < 0:
            raise GraphForgeError(
                f"{options.flavour.title} refuses the optimisation profile {dict(profile)}",
                *(_readable(text) for text in log.errors[:3]),
            )
    return config


def _read_timings(config: Any, file: Path) -> None:
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise GraphForgeError(
            f"the timings in {str(file)!r} are not of this GPU and version of TensorRT",
            "give a file of your own for each, or remove it",
        )


def _keep_timings(config: Any, file: Path) -> None:
    """In one step: a build that is stopped leaves the earlier file."""
    whole = file.with_name(f"{file.name}.part")
    try:
        whole.write_bytes(bytes(config.get_timing_cache().serialize()))
        whole.replace(file)
    except OSError as error:
        raise GraphForgeError(f"the timing cache {str(file)!r} cannot be written: {error.strerror}") from error


def _set_compute_capabilities(trt: Any, config: Any, options: BuildSettings, log: Log) -> None:
    known = {name: value for name, value in trt.ComputeCapability.__members__.items() if name != "NONE"}
    config.num_compute_capabilities = len(options.compute_capabilities)
    for position, name in enumerate(options.compute_capabilities):
        if name not in known:
            raise GraphForgeError(
                f"{options.flavour.title} {trt.__version__} has no compute capability {name}",
                f"it knows: {', '.join(known)}",
            )
        if not config.set_compute_capability(known[name], position):
            raise GraphForgeError(
                f"{options.flavour.title} refuses compute capability {name}",
                *(_readable(text) for text in log.errors[:3]),
                "CURRENT needs a GPU in this machine" if name == "CURRENT" else "",
            )


def _bound(tensor: Any) -> BoundTensor:
    return BoundTensor(tensor.name, str(tensor.dtype).rpartition(".")[2], tuple(int(size) for size in tensor.shape))


def _refuse_shape_inputs(network: Any, onnx_file: Path) -> None:
    for position in range(network.num_inputs):
        tensor = network.get_input(position)
        if tensor.is_shape_tensor:
            index = NodeIndex(onnx_file)
            raise GraphForgeError(
                f"the values of input {tensor.name!r} decide shapes inside the network",
                *(f"it is read by {index.describe(name)}" for name in index.readers(tensor.name)[:3]),
                "TensorRT wants the range of its values, which cannot be said here; make it a constant",
            )


def _let_attention_decompose(trt: Any, network: Any) -> None:
    """Attention without a fused kernel for its shapes and types becomes plain products instead of a failed build."""
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    for position in range(network.num_layers if kind is not None else 0):
        layer = network.get_layer(position)
        if layer.type == kind:
            layer.__class__ = trt.IAttentionInputLayer  # the vendor's way of getting at a layer's own properties
            layer.attention.decomposable = True


def _parse_error(trt: Any, parser: Any, onnx_file: Path, options: BuildSettings, log: Log) -> GraphForgeError:
    complaints = complaints_of(parser)
    index = NodeIndex(onnx_file)
    if any(not complaint.node for complaint in complaints):  # then the nodes are asked one by one
        named = [replace(complaint, node=name) for complaint in complaints for name in culprits(onnx_file, trt, index)]
        complaints = [*(one for one in complaints if one.node), *named] or complaints
    unsupported = sorted(
        {complaint.operator for complaint in complaints if complaint.unsupported and complaint.operator}
    )
    what = f"{options.flavour.title} cannot take the model"
    lacking = sorted({index.lacking(complaint.node) for complaint in complaints} - {""})
    if lacking:
        what += f": it has no {', '.join(lacking)}"
    elif unsupported:
        what += f": it does not support {', '.join(unsupported)}"
    notes = index.notes(complaints) or [_readable(text) for text in log.errors[:3]]
    way_out = f"replace it in a pass of your own ({argument('passes')}), or keep that part out of the model"
    return GraphForgeError(what, *notes, "compute in int32 or int64 there, in the model" if lacking else way_out)


def _build_error(onnx_file: Path, options: BuildSettings, log: Log) -> GraphForgeError:
    index = NodeIndex(onnx_file)
    without_kernel = re.compile(r"(\S+) has no runners that implement it")
    blamed = index.mentioned([match[1] for text in log.errors for match in without_kernel.finditer(text)])
    if blamed:
        operators = ", ".join(sorted({index.operator(name) for name in blamed}))
        way_out = f"replace it by operators it has kernels for, in a pass of your own ({argument('passes')})"
        if "NonMaxSuppression" in operators and options.flavour.name == "tensorrt_rtx":
            way_out = (
                f"write NMS in plain tensor operators, {argument('nms', 'portable')}, "
                f"or build with {argument('target_options', {'flavour': 'tensorrt'})}"
            )
        return GraphForgeError(
            f"{options.flavour.title} parses the model but has no kernel for {operators}",
            *(index.describe(name) for name in blamed),
            way_out,
        )
    ways_out = [way_out for said, way_out in _WAYS_OUT if any(said in text for text in log.errors)]
    return GraphForgeError(
        f"{options.flavour.title} cannot build a plan from the model",
        *(index.describe(name) for name in index.mentioned(log.errors)[:5]),
        *(f"it says: {_readable(text)}" for text in log.errors[:3]),
        *(ways_out or [f"replace it in a pass of your own ({argument('passes')}), or keep that part out of the model"]),
    )


# What the builder says -> what to do about it.
_WAYS_OUT = (
    (
        "K exceeds the maximum value",
        "ask for at most 3840, or give the axis a fixed size: then the best are taken in turns",
    ),
)


def _readable(text: str) -> str:
    """Its log line without source positions of the vendor's own code."""
    text = re.sub(r"\bIn \w+ at /_src/\S+|\bat /_src/[^\s)]+", "", " ".join(text.split()))
    return re.sub(r"\s+\)", ")", re.sub(r"^\[\S+::\d+\] ", "", text))


def _is_expected(text: str) -> bool:
    # int64 outputs stay int64: the caller is told so by the manifest's dtypes.
    return "has Int64 binding" in text


def describe_shape(dims: Sequence[int]) -> str:
    """``1x3x?x?``."""
    return "x".join("?" if size == -1 else str(size) for size in dims) or "scalar"
