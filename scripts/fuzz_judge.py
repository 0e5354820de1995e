"""Compile a random program or graph and judge the file by runs of our own: eager PyTorch and ONNX Runtime."""

from __future__ import annotations

import importlib.util
import inspect
import json
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch._C import DisableTorchFunction
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from scripts.fuzz_graphs import Graph

__all__ = ["compile_graph", "compile_program"]

# What is left when nothing amplifies rounding, as a share of the largest magnitude: some units in the last place.
_FLOOR: dict[type[np.floating[Any]], float] = {np.float64: 1e-11, np.float32: 2e-5, np.float16: 2e-2}
_AMPLIFIED = 10  # times what a unit in the last place of the inputs does


def compile_program(source: str, seed: int) -> dict[str, Any]:
    """The outcome of one PyTorch program, as keywords of Outcome."""
    import graphforge

    rng = random.Random(seed)
    opset = rng.choice((None, None, None, 11, 13, 17, 18, 21))
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "program.py"
        file.write_text(source)
        names = _load(file)
        module, inputs = names.case()

        def compiled(verify: bool) -> Path:
            where = Path(place) / f"bundle_{verify}"
            graphforge.compile(
                names.case()[0],
                inputs,
                dynamic_shapes=names.DYNAMIC or None,
                opset=opset,
                verify=verify,
                output=where,
            )
            return where / "model.onnx"

        return _outcome(compiled, lambda path: _judge(path, module, names.others(), inputs))


def _outcome(compiled: Callable[[bool], Path], judge: Callable[[Path], str]) -> dict[str, Any]:
    """Compile, and judge whatever file there is, one that verification threw away or left undecided, too."""
    from graphforge.errors import GraphForgeError, InternalError, UndecidedError, VerificationError

    try:
        complaint = judge(compiled(True))
    except InternalError as error:
        return {"verdict": "died", "reason": f"internal error: {error}".splitlines()[0]}
    except GraphForgeError as error:
        told: dict[str, Any] = {"verdict": "refused", "reason": error.message.splitlines()[0]}
        if isinstance(error, UndecidedError):
            told["verdict"] = "undecided"
        if not isinstance(error, VerificationError):
            return told
        try:
            return told | {"file_was_right": not judge(compiled(False))}
        except Exception:  # no file, or one that the runtime does not load
            return told
    except Exception as error:
        return {"verdict": "died", "reason": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"verdict": "wrong" if complaint else "right", "reason": complaint}


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("program", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _judge(path: Path, module: torch.nn.Module, others: Sequence[Any], example: Any) -> str:
    """Where the file departs from eager at any size, with optimisations off or on; "" where it does not."""
    names = list(inspect.signature(module.forward).parameters)
    calls = [dict(zip(names, [value.numpy() for value in inputs], strict=True)) for inputs in (example, *others)]
    return _compare(path, _eager(module), calls)


def _compare(path: Path, reference: Callable[[list[np.ndarray]], list[np.ndarray]], calls: Any) -> str:
    sessions = {f"optimisations {word}": _session(path, on) for word, on in (("off", False), ("on", True))}
    notes = " ".join(json.loads((path.parent / "manifest.json").read_text())["notes"])
    told = max([_FLOOR[np.dtype(name).type] for name in re.findall(r"computed in (float\d+)", notes)], default=0.0)
    for feeds in calls:
        wanted, allowed = _measured(reference, list(feeds.values()), told)
        for name, session in sessions.items():
            needed = {entry.name: feeds[entry.name] for entry in session.get_inputs()}
            shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in feeds.items())
            try:
                got = session.run(None, needed)
            except Exception as error:
                return f"{name}, {shapes}: {str(error).splitlines()[0][:160]}"
            complaint = _differs(got, wanted, allowed)
            if complaint:
                return f"{name}, {shapes}: {complaint}"
    return ""


def _session(path: Path, optimised: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _measured(
    call: Callable[[list[np.ndarray]], list[np.ndarray]], inputs: list[np.ndarray], told: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What a reference gives, and by how much each element of another run may be off.

    The allowance is some times what values that are off in the last place do, and a floor by the lowest precision that
    is seen at inputs and outputs, or that the bundle says it computes in (`told`, that floor).  An index or a truth
    that such values change may be anything.  Each set of nudges is followed by its opposite, so that a value beside a
    threshold is seen on either side of it.
    """
    wanted = call(inputs)
    coarsest = max((float(np.finfo(dtype).eps) for dtype, floor in _FLOOR.items() if told >= floor), default=0.0)
    spread = [np.zeros(value.shape) for value in wanted]
    for seed, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
        draws = np.random.default_rng(1 + seed)
        nudged = [
            (value * (1 + sign * _nudge(draws.random(value.shape)) * np.finfo(value.dtype).eps)).astype(value.dtype)
            if value.dtype.kind == "f"
            else value
            for value in inputs
        ]
        with _Nudged(seed, sign, coarsest):
            others = call(nudged)
        for position, other in enumerate(others):
            if other.shape != wanted[position].shape:
                spread[position] = np.full(wanted[position].shape, np.inf)
                continue
            with np.errstate(all="ignore"):
                off = np.abs(other.astype(np.float64) - wanted[position].astype(np.float64))
            spread[position] = np.maximum(spread[position], np.nan_to_num(off, nan=np.inf))
    seen = [_FLOOR[value.dtype.type] for value in (*inputs, *wanted) if value.dtype.kind == "f"]
    lowest = max([*seen, told])
    allowed = []
    for value, off in zip(wanted, spread, strict=True):
        if value.dtype.kind == "f":
            finite = np.abs(value[np.isfinite(value)].astype(np.float64))
            allowed.append(_AMPLIFIED * off + lowest * max(1e-3, float(finite.max(initial=0.0))))
        else:
            allowed.append(np.where(off > 0, np.inf, 0.0))
    return wanted, allowed


def _nudge(drawn: Any) -> Any:
    """One to two units up or down, from numbers drawn between 0 and 1."""
    return (drawn - 0.5) * 2 + (drawn >= 0.5) * 2 - 1


class _Nudged(TorchFunctionMode):
    """Every float that a function of torch gives is off in the last place, as in a runtime with kernels of its own.

    A result that shares its memory with an argument (a view, a write in place) stays as it is.  `sign` turns all
    nudges around; `coarsest` is the last place of the type that the bundle says it computes in, where that is coarser.
    """

    def __init__(self, seed: int, sign: int, coarsest: float) -> None:
        super().__init__()
        self.draws = torch.Generator().manual_seed(seed)
        self.sign, self.coarsest = sign, coarsest

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, torch.Tensor) or not result.is_floating_point() or not result.numel():
            return result
        given = {one.untyped_storage().data_ptr() for one in tree_leaves(args) if isinstance(one, torch.Tensor)}
        if result.untyped_storage().data_ptr() in given:
            return result
        with DisableTorchFunction():
            last = max(torch.finfo(result.dtype).eps, self.coarsest)
            off = self.sign * last * _nudge(torch.rand(result.shape, generator=self.draws, dtype=torch.float64))
            return result.copy_(result.double() * (1 + off))


def _eager(module: torch.nn.Module) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    def call(values: list[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            result = module(*[torch.from_numpy(value.copy()) for value in values])
        return [leaf.numpy() for leaf in (result if isinstance(result, tuple) else (result,))]

    return call


def _differs(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray], allowed: Sequence[np.ndarray]) -> str:
    if len(got) != len(wanted):
        return f"{len(got)} outputs, expected {len(wanted)}"
    for number, (a, b, room) in enumerate(zip(got, wanted, allowed, strict=True)):
        if np.isinf(room).any() and a.shape != b.shape:
            continue  # how many there are hangs on rounding
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {number}: {a.dtype} {a.shape}, expected {b.dtype} {b.shape}"
        with np.errstate(all="ignore"):
            off = np.abs(a.astype(np.float64) - b.astype(np.float64))
        bad = ~((off <= room) | (a == b) | (np.isnan(a) & np.isnan(b) if a.dtype.kind == "f" else False))
        if bad.any():
            return f"output {number}: {bad.sum()} of {bad.size} elements, worst off by {off[bad].max():.3g}"
    return ""


def _judge_graph(path: Path, graph: Graph) -> str:
    """Where the new file departs from the old one, which runs without the runtime's optimisations."""
    session = graph.session()
    names = [entry.name for entry in session.get_inputs()]

    def call(values: list[np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(None, dict(zip(names, values, strict=True)))
        return found

    return _compare(path, call, [{name: feeds[name] for name in names} for feeds in graph.feeds()])


def compile_graph(graph: Graph, seed: int) -> dict[str, Any]:
    """The outcome of one ONNX graph, as keywords of Outcome."""
    import onnx

    import graphforge

    rng = random.Random(seed)
    opset = rng.choice((None, None, 11, 13, 15, 17, 18, 20, 21))
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "graph.onnx"
        onnx.save(graph.model(), file)
        shapes = graph.spec()

        def compiled(verify: bool) -> Path:
            where = Path(place) / f"bundle_{verify}"
            graphforge.compile(
                file, shapes, dynamic_shapes=graph.dynamic() or None, opset=opset, verify=verify, output=where
            )
            return where / "model.onnx"

        return _outcome(compiled, lambda path: _judge_graph(path, graph))
