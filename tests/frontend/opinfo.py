"""torch's own OpInfo samples as tests of our lowerings: capture one call cheaply, lower it, run it, compare with eager.

``torch.testing._internal.common_methods_invocations.op_db`` holds 700 operators with sample inputs for every dtype.
Each sample becomes a little program whose tensors are inputs and whose other arguments are constants.  It is traced
before dispatch (a few milliseconds, where ``torch.export`` takes fifty), so that composite operators arrive whole, as
they do from ``torch.export``.  ``test_opinfo.py`` runs a seeded part of the samples, ``scripts/bench_opinfo.py`` all.
"""

from __future__ import annotations

import random
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from operator import getitem
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree

from graphforge.errors import LoweringError
from graphforge.frontend import lower as lower_module
from graphforge.frontend.captured import Captured
from graphforge.frontend.rules import lowering_for
from graphforge.ir.detour import roundings_of_outputs
from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.spec import ShapeSpec, TensorSpec
from tests.frontend.helpers import TOLERANCES, assert_same, flat_tensors, run_model

__all__ = [
    "DTYPES",
    "Result",
    "Sample",
    "Status",
    "capture_call",
    "check",
    "entries",
    "operator_of",
    "samples",
    "single_call",
]

# float32 first: it is the dtype that every ordinary test run looks at.
DTYPES: tuple[torch.dtype, ...] = (
    torch.float32,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.bool,
    torch.uint8,
    torch.bfloat16,
)


class Status(Enum):
    """What came of one sample."""

    PASSED = "passed"
    WRONG = "wrong"  # runs, and differs from eager
    BROKEN = "broken"  # a lowering of ours fails by accident, or its result does not load or run
    REFUSED = "refused"  # a lowering of ours says that it cannot do this
    OUTSIDE = "outside"  # reaches an operator that has neither a rule of ours nor a decomposition
    UNUSABLE = "unusable"  # eager itself fails, or torch cannot trace the call


@dataclass(frozen=True, slots=True)
class Sample:
    """One call of one OpInfo entry."""

    entry: str
    dtype: torch.dtype
    index: int
    function: Callable[..., Any] = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """``entry dtype #index``."""
        return f"{self.entry} {str(self.dtype).removeprefix('torch.')} #{self.index}"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a sample: its status, why, and the operators whose rules of ours it went through."""

    status: Status
    reason: str = ""
    reached: frozenset[str] = frozenset()


class _Outside(Exception):
    """An operator without a rule of ours."""


def entries() -> dict[str, Any]:
    """The OpInfo entries by name (``div/floor_rounding``: name and variant)."""
    named: dict[str, Any] = {}
    for entry in op_db:
        name = f"{entry.name}/{entry.variant_test_name}" if entry.variant_test_name else entry.name
        if name.startswith("jiterator"):  # CUDA only
            continue
        named[name] = entry
    return named


def samples(name: str, entry: Any, dtype: torch.dtype, *, limit: int | None, seed: int = 0) -> list[Sample]:
    """The entry's samples for a dtype, a seeded choice of at most ``limit`` of them."""
    if not entry.supports_dtype(dtype, "cpu"):
        return []
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    with _quiet():
        try:
            made = list(entry.sample_inputs("cpu", dtype, requires_grad=False))
        except Exception as error:  # an entry whose samples need a device or a package that is not here
            if isinstance(error, RuntimeError | AssertionError | ImportError | ValueError | TypeError):
                return []
            raise
    chosen = list(enumerate(made))
    if limit is not None and len(chosen) > limit:
        # the same choice on every machine and in every order of tests
        picker = random.Random(zlib.crc32(f"{name} {dtype} {seed}".encode()))
        chosen = sorted(picker.sample(chosen, limit), key=lambda pair: pair[0])
    return [
        Sample(name, dtype, index, entry.op, (sample.input, *sample.args), sample.kwargs) for index, sample in chosen
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def _copied(tree: Any) -> Any:
    return _pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, tree)


def capture_call(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Captured, dict[str, torch.Tensor]]:
    """Trace one call before dispatch; returns the program and what to feed it."""
    leaves, tree = _pytree.tree_flatten((tuple(args), dict(kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def call(*given: torch.Tensor) -> list[Any]:
        following = iter(given)
        filled = [next(following) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        inner_args, inner_kwargs = _pytree.tree_unflatten(filled, tree)
        return [leaf for leaf in _pytree.tree_leaves(function(*inner_args, **inner_kwargs)) if leaf is not None]

    def traced(mode: Literal["fake", "real"]) -> torch.fx.GraphModule:
        return make_fx(call, pre_dispatch=True, tracing_mode=mode, _allow_non_fake_inputs=True)(*_copied(tensors))

    try:
        module = traced("fake")
    except Exception:  # an operator whose result's shape depends on data is traced on the data
        module = traced("real")
        _share_fake_mode(module)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    names = {node.name: f"x{position}" for position, node in enumerate(placeholders)}
    output = next(node for node in module.graph.nodes if node.op == "output")
    specs = tuple(
        TensorSpec(f"x{position}", tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for position, tensor in enumerate(tensors)
    )
    captured = Captured(
        graph_module=module,
        input_names=names,
        weights={},
        constants={},
        output_names=[f"y{position}" for position in range(len(output.args[0]))],
        shapes=ShapeSpec(specs),
        symbols={},
        method="trace",
    )
    return captured, {f"x{position}": tensor for position, tensor in enumerate(tensors)}


def operator_of(name: str) -> Callable[..., Any]:
    """The operator that a lowering is declared for, ``aten.add.Tensor``."""
    namespace, packet, overload = name.split(".")
    found: Callable[..., Any] = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    return found


def single_call(
    operator: Callable[..., Any], args: Sequence[Any], result: torch.Tensor, *, listed: bool
) -> tuple[Captured, dict[str, torch.Tensor]]:
    """A program of one call that this machine cannot trace; ``result`` shows what the call's first result looks like.

    Args:
        operator: the operator called.
        args: its arguments.
        result: a tensor of the first result's shape and dtype.
        listed: whether the operator has several results, of which the first is the program's.
    """
    mode = FakeTensorMode()
    graph = torch.fx.Graph()
    feeds: dict[str, torch.Tensor] = {}
    given: list[Any] = []
    for arg in args:
        if isinstance(arg, torch.Tensor):
            name = f"x{len(feeds)}"
            node = graph.placeholder(name)
            node.meta["val"] = mode.from_tensor(arg.contiguous())
            feeds[name] = arg
            given.append(node)
        else:
            given.append(arg)
    called = graph.call_function(operator, tuple(given))
    fake = mode.from_tensor(result.contiguous())
    called.meta["val"] = (fake,) if listed else fake
    if listed:
        called = graph.call_function(getitem, (called, 0))
        called.meta["val"] = fake
    graph.output((called,))
    specs = tuple(
        TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in feeds.items()
    )
    captured = Captured(
        graph_module=torch.fx.GraphModule(torch.nn.Module(), graph),
        input_names={name: name for name in feeds},
        weights={},
        constants={},
        output_names=["y0"],
        shapes=ShapeSpec(specs),
        symbols={},
        method="trace",
    )
    return captured, feeds


def _share_fake_mode(module: torch.fx.GraphModule) -> None:
    """Describe every value in one fake mode: a trace of real values describes each in a mode of its own."""
    mode = FakeTensorMode()

    def described(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        with mode:
            return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype)

    for node in module.graph.nodes:
        if "val" in node.meta:
            node.meta["val"] = _pytree.tree_map(described, node.meta["val"])


@contextmanager
def _recording(reached: set[str]) -> Iterator[None]:
    """Note every rule that lowering asks for; make the stock translation unavailable."""

    def recorded(target: str) -> Any:
        rule = lowering_for(target)
        if rule is not None:
            reached.add(target)
        return rule

    def refuse(op: Any, node: Any, target: Any, *_: Any) -> Any:
        raise _Outside(str(target))

    with (
        mock.patch.object(lower_module, "lowering_for", recorded),
        mock.patch("graphforge.frontend.stock.translate_call", refuse),
    ):
        yield


def check(sample: Sample) -> Result:
    """Lower one sample and compare it with eager."""
    with _quiet():
        try:
            expected = flat_tensors(sample.function(*_copied(sample.args), **_copied(dict(sample.kwargs))))
        except Exception as error:
            return Result(Status.UNUSABLE, f"eager: {_line(error)}")
        if not expected or not all(_plain(leaf) for leaf in [*expected, *_tensors(sample)]):
            return Result(Status.UNUSABLE, "no tensor of a dense, real dtype to compare")
        try:
            captured, feeds = capture_call(sample.function, sample.args, sample.kwargs)
        except Exception as error:
            return Result(Status.UNUSABLE, f"trace: {_line(error)}")
        reached: set[str] = set()
        with _recording(reached):
            try:
                lowered = lower_module.lower(captured)
            except _Outside as error:
                return Result(Status.OUTSIDE, str(error), frozenset(reached))
            except LoweringError as error:
                # for complex numbers the stock translation is not asked
                outside = "no lowering for complex numbers" in error.message
                return Result(Status.OUTSIDE if outside else Status.REFUSED, error.message, frozenset(reached))
            except Exception as error:
                return Result(Status.BROKEN, f"lowering: {_line(error)}", frozenset(reached))
        model = lowered.model
        wanted = {value.name for value in model.graph.inputs}
        try:
            actual = run_model(model, {name: tensor for name, tensor in feeds.items() if name in wanted})
        except Exception as error:
            return Result(Status.BROKEN, f"ONNX Runtime: {_line(error)}", frozenset(reached))
        if reached & _UNINITIALISED:
            expected = [torch.zeros_like(leaf) for leaf in expected]
            actual = [torch.zeros_like(leaf) for leaf in actual]
        # where doubles are computed in single precision the graph says so, and is held to what it says
        single = sample.dtype is torch.float64 and any(
            rounding.asked == "float64"
            for roundings in roundings_of_outputs(runnable(model)).values()
            for rounding in roundings
        )
        relative, absolute = TOLERANCES[torch.float32] if single else (None, None)
        try:
            assert_same(actual, expected, rtol=relative, atol=absolute)
        except AssertionError as error:
            digits = TOLERANCES[torch.float32 if single else sample.dtype][0] if sample.dtype in TOLERANCES else 0.0
            if not (
                _settled(sample, actual, expected)
                or _tied(sample, actual, expected)
                or _summed(sample, actual, expected, digits)
            ):
                return Result(Status.WRONG, _line(error), frozenset(reached))
    return Result(Status.PASSED, "", frozenset(reached))


# What these return is whatever memory held: only dtype and shape can be compared.
_UNINITIALISED = {
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.empty_permuted.default",
    "aten.empty_strided.default",
    "aten.new_empty.default",
    "aten.new_empty_strided.default",
}


def _settled(sample: Sample, actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    """Whether double precision finds our result as good as eager's: both round, and may round differently."""
    if not any(leaf.is_floating_point() for leaf in expected):
        return False
    widened = _pytree.tree_map(_doubled, (sample.args, dict(sample.kwargs)))
    try:
        exact = flat_tensors(sample.function(*widened[0], **widened[1]))
    except Exception:  # no double kernel: no judge
        return False
    for got, eager, truth in zip(actual, expected, exact, strict=True):
        found = got.double() if got.is_floating_point() else got
        if found.shape != eager.shape or truth.shape != eager.shape:
            return False
        if not eager.is_floating_point():
            if not torch.equal(found, eager):
                return False
            continue
        relative, absolute = TOLERANCES[eager.dtype]
        truth = truth.to(eager.dtype).double()  # infinity where the dtype has no such number
        ours, theirs = (found - truth).abs(), (eager.double() - truth).abs()
        fine = (ours <= absolute + relative * truth.abs()) | (ours <= theirs) | (found == truth)
        fine |= found.isnan() & eager.isnan()
        if not bool(fine.all()):
            return False
    return True


def _summed(sample: Sample, actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], relative: float) -> bool:
    """Whether sums of products agree to the digits of the largest: one that cancels keeps the error of its terms."""
    if not any(part in sample.entry for part in _SUMS):
        return False
    for got, want in zip(actual, expected, strict=True):
        if got.shape != want.shape or got.dtype != want.dtype or not want.is_floating_point() or not want.numel():
            return False
        if not bool(((got - want).abs() <= relative * want.abs().max()).all()):
            return False
    return True


# Entries whose elements are sums of many products, taken in another order by another library.
_SUMS = ("conv", "linear", "matmul", "mm", "bmm", "einsum", "tensordot", "inner", "multi_head", "attention", "bilinear")


# Entries that return places of values, of which torch promises no order among equals -> position of ``dim`` after x.
_TIES = {"kthvalue": 1, "mode": 0, "sort": 0, "topk": 1}


def _tied(sample: Sample, actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    """Whether values agree and our places hold those values."""
    position = _TIES.get(sample.entry)
    if position is None or sample.kwargs.get("stable") or not torch.equal(actual[0], expected[0]):
        return False
    source, *rest = sample.args
    dim = rest[position] if len(rest) > position else sample.kwargs.get("dim", -1)
    values, places = actual[0], actual[1]
    if values.dim() < source.dim():
        values, places = values.unsqueeze(dim), places.unsqueeze(dim)
    return places.shape == values.shape and torch.equal(source.gather(dim, places), values)


def _doubled(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        if leaf.is_complex():
            return leaf.to(torch.complex128)
        return leaf.double() if leaf.is_floating_point() else leaf.clone()
    if leaf in (torch.float16, torch.bfloat16, torch.float32):
        return torch.float64
    return leaf


def _tensors(sample: Sample) -> list[torch.Tensor]:
    leaves = _pytree.tree_leaves((sample.args, dict(sample.kwargs)))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _plain(tensor: torch.Tensor) -> bool:
    return (
        tensor.layout == torch.strided
        and not tensor.is_quantized
        and tensor.dtype in (*DTYPES, torch.int8, torch.int16, torch.complex64, torch.complex128)
    )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400]
