"""Run a module while its values move by one unit in the last place: what rounding alone can make of its results.

Every operator that rounds hands out its result a step up or down, each element by the toss of a coin; operators that
add up many products get their operands so.  A step is one of the element type that this operator computes in, so that
a bfloat16 layer in a float32 model moves by bfloat16's steps.  What no runtime computes otherwise stays as it is:
moved and copied elements, comparisons, whole numbers.

The same run can settle choices otherwise that eager makes arbitrarily (the order of equal values) and records every
decision, so that the first one that turned out otherwise can be named.
"""

from __future__ import annotations

import enum
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphforge.verify.known import known_arithmetic
from graphforge.verify.operators import (
    BOUNDED_BELOW,
    CHOICES,
    CONTRACTIONS,
    EXACT,
    EXPONENTIALS,
    GATES,
    OF_FIXED_RANGE,
    REDUCTIONS,
)

__all__ = ["Decision", "Moved", "Ties", "turned"]


class Ties(enum.Enum):
    """Which of equal values comes first."""

    AS_EAGER = "as eager has it"
    FIRST = "the one with the lower index"
    LAST = "the one with the higher index"


@dataclass(frozen=True, slots=True)
class Decision:
    """A discrete result of an operator on floats: a comparison, an order, a rounding to whole numbers.

    Attributes:
        operator: its name in torch.
        source: ``file.py:line`` of the user's code, "" where there is none.
        result: what came out.
    """

    operator: str
    source: str
    result: torch.Tensor

    def describe(self) -> str:
        """``topk at model.py:41``."""
        return f"{self.operator} at {self.source}" if self.source else self.operator


# Steps are this share of eps: of a float32 between 1 and 2 it is three quarters of its last place, of one just below 2
# one and a half.
_STEP = 0.75
# Noise is drawn once and read from a random place on: drawing it anew for every operator costs more than the operators.
_POOL = 1 << 20
# Sizes of steps for which it is kept multiplied out.
_SCALED = 8
# With a dim they say where the element stood that they give.
_OF_AN_AXIS = ("max", "min", "median", "nanmedian")
# Tensors of fewer elements are not looked through for equal ones.
_FEW = 64
# Rows and columns that are looked at to see whether they hold equal numbers.
_LINES = 8
# Odd, and its bits are mixed: close numbers get signs of their own.
_MIXING = 2654435761
# Records of decisions that are kept, in elements.
_RECORDED = 1 << 26
# What moving an element costs beside a product with its sum, and what a call of an operator does.
_ELEMENT = 250
_CALL = 1_000_000
# Larger operands are not copied to be moved; their results are.
_LARGE = 1 << 26


# Operators that read between the pixels of a picture.
_RESIZED = (
    "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa"
).split()
# The share of its size by which a place is moved to see the slope: far above rounding, below a pixel of most pictures.
_SHIFT = 2.0**-13


class Moved(TorchDispatchMode):
    """While it is on, results of operators that round are a step off.

    Args:
        seed: of the coin.
        steps: how many units in the last place; 0 moves nothing and records only.
        ties: how equal values are ordered.
        apart: compute layers that oneDNN has whole (LSTM, GRU) step by step, so that they move inside too.
        eps: the least step of any element type: that of the type in which the artifact computes what is float32 here.

    Attributes:
        decisions: what was decided, in order.
        tied: descriptions of the operators where equal values stood in an arbitrary order that mattered.
        known: what the artifact's runtime is known to compute otherwise, where nothing is moved.
        work: what was computed, in units of one product and one sum, to move an element and to call an operator
            reckoned in; the same on every machine.
    """

    def __init__(
        self, *, seed: int, steps: float = 1.0, ties: Ties = Ties.AS_EAGER, apart: bool = False, eps: float = 0.0
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps = steps
        self.apart = apart
        self.eps = eps
        self.ties = ties
        self.decisions: list[Decision] = []
        self.tied: dict[str, None] = {}
        self.known: dict[str, None] = {}
        self._random = random.Random(seed)
        coin = torch.Generator().manual_seed(seed)
        pool = torch.randint(0, 2, (_POOL,), generator=coin, dtype=torch.int8).float().mul_(2).sub_(1)
        self._pool = pool.repeat(2)  # what starts late in it and is no longer than it is read in one piece
        self._scaled: dict[tuple[float, torch.dtype], torch.Tensor] = {}
        self._recorded = 0
        self.work = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """In force; the fast path of transformers, a layer in one call that leaves nothing to move inside, is off."""
        fast, whole = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        torch._C._set_mkldnn_enabled(whole and not self.apart)
        try:
            with self:
                yield
        finally:
            torch._C._set_mkldnn_enabled(whole)
            torch.backends.mha.set_fastpath_enabled(fast)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        space, _, name = func._schema.name.partition("::")
        plain = name.rstrip("_") if not name.startswith("__") else name
        if plain in CHOICES and space == "aten" and self.ties is not Ties.AS_EAGER:
            result = self._chosen(func, plain, args, kwargs)
        else:
            if self.steps and plain in CONTRACTIONS:
                args = self._moved_operands(func, args)
            result = func(*args, **kwargs)
        if self.steps and _rounds(func, space, plain):
            result = self._moved_results(func, plain, args, result, kwargs)
        self.work += _work(func, args, kwargs, result)
        self._record(func, plain, args, result)
        if not self.steps and self.ties is Ties.AS_EAGER and (told := known_arithmetic(plain, args, result)):
            self.known[f"{_source() or plain}: {told}"] = None
        return result

    # -- moving --------------------------------------------------------------------------------------------------------

    def _moved_operands(self, func: Any, args: Sequence[Any]) -> list[Any]:
        """Every operand a step off; those that the operator writes to stay the very ones."""
        written = [
            argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments
        ]

        def moved(value: Any) -> Any:
            return self._off(value) if _is_float(value) and value.numel() <= _LARGE else value

        return [
            value
            if position < len(written) and written[position]
            else [moved(item) for item in value]
            if isinstance(value, list | tuple) and any(isinstance(item, torch.Tensor) for item in value)
            else moved(value)
            for position, value in enumerate(args)
        ]

    def _moved_results(self, func: Any, name: str, args: Sequence[Any], result: Any, kwargs: Mapping[str, Any]) -> Any:
        floor: float | torch.Tensor = 0.0
        more = _sums(name, args, result)
        own, inexact = False, None
        if name in OF_FIXED_RANGE:
            # what computes in fewer digits computes these in more and rounds the result, but for logarithms
            floor, own = 1.0, "log" not in name
        elif name.startswith("_fft") and isinstance(result, torch.Tensor) and result.numel():
            # matrix products for each axis, as runtimes compute it, add up to nearly the largest element on the way to
            # the others
            floor = torch.view_as_real(result).abs().amax() / 2 if result.is_complex() else result.abs().amax() / 2
        elif name in _RESIZED:
            floor = _by_places(func, args, kwargs, result)
            inexact = floor > 0 if isinstance(floor, torch.Tensor) else None  # the half of two pixels is one of these
        elif name in GATES and args and isinstance(args[0], torch.Tensor) and not func._schema.is_mutable:
            floor = args[0].float().abs().mul(0.25)
            floor = floor.clamp(max=1.0) if name in BOUNDED_BELOW else floor
        elif name in EXPONENTIALS and _is_float(result):
            lowest = func(args[0].new_full((), -math.inf), *args[1:], **kwargs)
            floor = torch.where(result < 0, result - lowest, 0.0).float()
        if func._schema.is_mutable:
            if _is_float(result):
                result.copy_(self._off(result, floor, more, own))
            return result
        if isinstance(result, torch.Tensor):
            return self._off(result, floor, more, own, inexact) if _is_float(result) else result
        if isinstance(result, list | tuple):
            return type(result)(self._off(item, floor, more, own) if _is_float(item) else item for item in result)
        return result

    def _off(
        self,
        value: torch.Tensor,
        floor: float | torch.Tensor = 0.0,
        more: float = 1.0,
        own: bool = False,
        inexact: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """A step off, or ``more``, up or down, and never past zero; equal elements of many in one direction.

        It is at least a step of numbers of ``floor``'s size; with ``own``, of the value's own element type for those.
        Whole numbers stay, but for those that are ``inexact``.
        """
        if value.is_complex():
            parts = torch.view_as_real(value.resolve_conj()).contiguous()
            return torch.view_as_complex(self._off(parts, floor, more, own))
        wide = value if value.dtype in (torch.float32, torch.float64) else value.float()
        step = max(torch.finfo(value.dtype).eps, self.eps) * _STEP * self.steps * more
        start = self._random.randrange(_POOL)
        alike = _repeats(wide) or _repeats_in_lines(wide, -1)
        if isinstance(floor, float) and not floor and not alike:
            off = wide * self._factors(wide, start, step)
        elif isinstance(floor, float) and not floor:
            off = wide * self._signs(wide, start, alike=alike).mul_(step).add_(1.0)
        else:
            signs = self._signs(wide, start, alike=alike)
            size = wide.abs()
            if own:
                floor *= torch.finfo(value.dtype).eps / max(torch.finfo(value.dtype).eps, self.eps)
            off = wide + torch.clamp(size, min=floor) * signs.mul_(step)
            off = torch.where(off * wide < 0, wide * 0.5, off)  # a probability stays one
            if isinstance(floor, float):
                off = torch.where(size <= 1, off.clamp(-1.0, 1.0), off)
        if _has_whole(wide, value.dtype):
            exact = _is_whole(wide, value.dtype)
            exact = exact if inexact is None else exact & ~inexact
            off = torch.where(exact | ~torch.isfinite(off), wide, off)
        return off.to(value.dtype)

    def _signs(self, value: torch.Tensor, start: int, *, alike: bool) -> torch.Tensor:
        """Up or down for each element, to be written to; ``alike`` gives equal elements the same."""
        if alike:
            bits = value.contiguous().view(torch.int32 if value.dtype == torch.float32 else torch.int64).long()
            places = ((bits * _MIXING + (bits >> 29)) >> 16).add_(start) % _POOL
            pool = self._pool.to(value.device)
            # half a step or one and a half: what all elements do alike would else cancel at once in the next operator
            return (pool[places] * (1 + pool[(places + 17) % _POOL] / 2)).to(value.dtype)
        signs = _read(self._pool, start, value)
        return signs if signs.data_ptr() != self._pool.data_ptr() + 4 * start else signs.clone()

    def _factors(self, value: torch.Tensor, start: int, step: float) -> torch.Tensor:
        """One and a step more or less, to be read only: made once for steps of a size, for most operators take one."""
        if (step, value.dtype) not in self._scaled:
            self._scaled[step, value.dtype] = self._pool.to(value.dtype, copy=True).mul_(step).add_(1.0)
            if len(self._scaled) > _SCALED:
                del self._scaled[next(iter(self._scaled))]
        return _read(self._scaled[step, value.dtype], start, value)

    # -- choosing ------------------------------------------------------------------------------------------------------

    def _chosen(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The operator with its ties settled by position."""
        result = func(*args, **kwargs)
        given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
        x, dim = given["self"], given.get("dim", -1)
        indexed = name in ("topk", "sort", "kthvalue") or (name in _OF_AN_AXIS and isinstance(result, tuple))
        if not indexed and name not in ("argmax", "argmin"):
            return result
        if not isinstance(dim, int) and dim is not None:
            return result
        if x.dim() == 0 or x.numel() == 0 or x.is_complex() or (x.is_floating_point() and torch.isnan(x).any()):
            return result
        flat = dim is None
        axis: int = 0 if dim is None else dim
        data = x.reshape(-1) if flat else x
        largest = {"topk": given.get("largest", True), "sort": given.get("descending", False)}.get(
            name, name in ("max", "argmax")
        )
        count = {"topk": given.get("k", 1), "sort": data.shape[axis]}.get(name, 1)
        turned_round = data.flip(axis) if self.ties is Ties.LAST else data
        place = {"kthvalue": given.get("k", 1) - 1, "median": (data.shape[axis] - 1) // 2}.get(
            name.removeprefix("nan"), 0
        )
        order = torch.sort(turned_round, dim=axis, descending=largest, stable=True).indices.narrow(axis, place, count)
        if self.ties is Ties.LAST:
            order = data.shape[axis] - 1 - order
        was = result[1] if indexed else result
        if name in ("topk", "sort"):
            chosen = order
        elif flat:
            chosen = order.reshape(was.shape)
        else:
            chosen = order if was.dim() == data.dim() else order.squeeze(axis)
        if chosen.shape != was.shape:
            return result
        if not torch.equal(chosen, was):
            self.tied[f"{name} at {source}" if (source := _source()) else name] = None
        if not indexed:
            return chosen
        values = torch.gather(data, axis, order)
        values = values if values.shape == result[0].shape else values.squeeze(axis)
        kind = type(result)
        return kind((values, chosen)) if kind is not tuple else (values, chosen)

    # -- recording -----------------------------------------------------------------------------------------------------

    def _record(self, func: Any, name: str, args: Sequence[Any], result: Any) -> None:
        if self._recorded > _RECORDED or func._schema.is_mutable or "pool" in name:
            return
        found = [
            value
            for value in (result if isinstance(result, list | tuple) else [result])
            if isinstance(value, torch.Tensor) and not value.dtype.is_complex
            if not value.dtype.is_floating_point or name in ("floor", "ceil", "round", "trunc")
        ]
        if not found or not any(_is_float(value) for value in _pytree.tree_leaves(args)):
            return
        for value in found:
            self._recorded += value.numel()
            self.decisions.append(Decision(name, _source(), value.detach().clone()))


def _work(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int:
    """What an operator computes: the products that torch counts for it, and its elements."""
    from torch.utils.flop_counter import flop_registry

    counted = flop_registry.get(func.overloadpacket)
    elements = sum(leaf.numel() for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor))
    products = int(counted(*args, **kwargs, out_val=result)) // 2 if counted is not None else 0
    return products + _ELEMENT * elements + _CALL


def turned(before: Sequence[Decision], after: Sequence[Decision]) -> tuple[Decision, int, int] | None:
    """The first decision that came out otherwise, how many of its elements did, and how many there are."""
    for one, other in zip(before, after, strict=False):
        if one.operator != other.operator or one.source != other.source:
            return None  # the two took different ways, and an earlier decision, which is not recorded, made them
        if one.result.shape != other.result.shape:
            return one, abs(one.result.numel() - other.result.numel()), one.result.numel()
        if not torch.equal(one.result, other.result):
            return one, int((one.result != other.result).sum()), one.result.numel()
    return None


def _rounds(func: Any, space: str, name: str) -> bool:
    if space in ("prim", "prims", "graphforge") or name in EXACT:
        return False
    schema = func._schema
    if schema.is_mutable:
        return True
    return not any(returned.alias_info is not None for returned in schema.returns)


def _by_places(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: torch.Tensor) -> float | torch.Tensor:
    """What a resized picture changes by when every place that is read moves by its own size, along either axis.

    The places are computed: (i + 0.5) / scale - 0.5 by one runtime, (i + 0.5) * (1 / scale) - 0.5 by another.  Around
    the thousandth pixel their rounding is that of a thousand, times the slope of the picture there.
    """
    given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | dict(kwargs)
    scales = [argument.name for argument in func._schema.arguments if argument.name.startswith("scales")]
    if given.get("align_corners") or func._schema.is_mutable:  # a scale is not asked for then
        return 0.0
    change = torch.zeros_like(result, dtype=torch.float32)
    for scale, old, new in zip(scales, given["self"].shape[2:], given["output_size"], strict=True):
        moved = func(**{**given, scale: (given.get(scale) or new / max(1, old)) * (1 + _SHIFT)})
        change += (moved.float() - result.float()).abs()
    return change / _SHIFT


def _sums(name: str, args: Sequence[Any], result: Any) -> float:
    """How many steps adding up takes, for so many terms.

    The root of their number, over sixteen where products are added in blocks.  Equal terms round in one direction: n of
    them added one after the other are off by n / 16 units in the last place.  Whole axes of numbers on a grid (pixels)
    round in one direction: ONNX Runtime's sum of 65,536 of them is off by 140 units in the last place.
    """
    terms = 1
    if name in REDUCTIONS and isinstance(result, torch.Tensor) and isinstance(args[0], torch.Tensor):
        return max(1.0, math.sqrt(args[0].numel() / max(1, result.numel())) / 8)
    elif (
        "norm" in name and isinstance(result, tuple | list) and len(result) > 1 and isinstance(result[1], torch.Tensor)
    ):
        # a layer that normalises: what it adds up goes into its mean and its deviation, which its result hangs on less;
        # one that has learnt them (BatchNorm in eval) hands out empty ones, and adds up nothing
        means = result[1].numel()
        return max(1.0, math.sqrt(result[0].numel() / means) / 32) if means else 1.0
    elif name.startswith("_fft") and len(args) > 1:
        # matrix products, one for each axis: every element is a sum over all of them
        return max(1.0, math.sqrt(math.prod(args[0].shape[axis] for axis in args[1])) / 32)
    elif name in ("mm", "bmm", "mv", "dot", "linear", "matmul"):
        terms = args[0].shape[-1] if args[0].dim() else 1
    elif name in ("addmm", "baddbmm", "addmv"):
        terms = args[1].shape[-1]
    elif "conv" in name and len(args) > 1 and isinstance(args[1], torch.Tensor) and args[1].dim() > 1:
        terms = args[1].numel() // max(1, args[1].shape[0])
    if terms >= 16 and _of_equal_terms(name, args):
        return max(1.0, terms / 16)
    return max(1.0, math.sqrt(terms) / 16)


def _of_equal_terms(name: str, args: Sequence[Any]) -> bool:
    """Whether the products that are added up to one element are equal numbers, whatever stands in other rows."""
    factors = args[1:3] if name in ("addmm", "baddbmm", "addmv") else args[:2]
    if name not in CONTRACTIONS or not all(isinstance(one, torch.Tensor) for one in factors):
        return False
    if "conv" in name:
        return all(_repeats(one) for one in factors)
    rows, others = factors
    along = -1 if name == "linear" or others.dim() < 2 else -2
    return _repeats_in_lines(rows, -1) and _repeats_in_lines(others, along)


def _read(pool: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    """A part of the pool in the form of a tensor, from its beginning again where it ends."""
    count = like.numel()
    times = -(-(start + count) // len(pool))
    whole = pool if times == 1 else pool.repeat(times)
    return whole[start : start + count].view(like.shape).to(like.device, like.dtype)


def _repeats_in_lines(value: torch.Tensor, axis: int) -> bool:
    """Whether in most of a few lines along an axis most elements stand many times."""
    if not value.dim() or value.shape[axis] < _FEW:
        return False
    if value.dim() > 2:
        value = value.reshape(-1, *value.shape[-2:])
        value = value[:: max(1, len(value) // _LINES)][:_LINES]
    lines = value.movedim(axis, -1).reshape(-1, value.shape[axis])
    repeating = _lines_that_repeat(lines[:: max(1, len(lines) // _LINES)][:_LINES])
    return sum(repeating) * 2 > len(repeating)


def _repeats(value: torch.Tensor) -> bool:
    """Whether most elements stand there many times: what is made of equal numbers rounds the same way.

    Tosses of a coin for each would cancel in the next sum, where the runtime's rounding adds up.
    """
    return value.numel() >= _FEW and _lines_that_repeat(value.reshape(1, -1))[0]


def _lines_that_repeat(lines: torch.Tensor) -> list[bool]:
    """For each line, by some of its elements: numbers that are not zero stand there eight times and more each."""
    sample = np.sort(_looked_at(lines[:, :: max(1, lines.shape[1] // 512)]), axis=1)
    counts = np.count_nonzero(sample, axis=1)
    kinds = 1 + np.count_nonzero(sample[:, 1:] != sample[:, :-1], axis=1) - (counts < sample.shape[1])
    return [bool(one) for one in (counts >= _FEW) & (kinds * 8 <= counts)]


def _looked_at(some: torch.Tensor) -> Any:
    """A few elements outside torch, whose calls cost more than such a look."""
    return some.detach().to("cpu", some.dtype if some.dtype == torch.float64 else torch.float32).numpy()


def _is_float(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and (value.dtype.is_floating_point or value.dtype.is_complex)
        and value.dtype.itemsize > 1
        and value.layout == torch.strided
    )


def _has_whole(value: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether some of the elements, looked at here and there, are whole; zeros do not move anyway."""
    flat = value.reshape(-1)
    sample = _looked_at(flat[:: max(1, flat.numel() // 512)])
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((_is_whole(sample, dtype) & (sample != 0) | ~np.isfinite(sample)).any())


def _is_whole(value: Any, dtype: torch.dtype) -> Any:
    """Numbers that arithmetic on grids, masks and counts gives, which every runtime computes exactly.

    The numbers are torch's or numpy's.
    """
    size = abs(value)
    if dtype in (torch.float32, torch.float64):
        grid = value * 256
        return (
            ((size <= 2048) & (grid == grid.round())) | ((size <= 1 << 20) & (value == value.round())) | (size > 1e30)
        )
    return ((size <= 16) & (value == value.round())) | (size > 1e4)


_OURS = Path(__file__).resolve().parent.parent


def _source() -> str:
    """The innermost line of the stack that is neither torch's nor ours."""
    frame: Any = sys._getframe(1)
    torch_folder = str(Path(torch.__file__).parent)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((torch_folder, str(_OURS), "<")) and "/polygraphy/" not in name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
