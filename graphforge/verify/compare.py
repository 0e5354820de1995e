"""Compare two arrays, reference and artifact: how far apart, where, and whether that is allowed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphforge.runners.arrays import Array, dtype_name
from graphforge.verify.tolerance import Tolerance

__all__ = ["OutputComparison", "compare_arrays"]

# Elements looked at in one go: three float64 temporaries of this size fit into a processor's own cache.
_CHUNK = 1 << 15
# Smaller bounds are not for arithmetic in single precision.
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """One output of one run, reference against artifact.

    Attributes:
        name: the output's name.
        dtype: dtype of the reference.
        shape: shape of the reference.
        max_abs: largest absolute difference; None when nothing could be compared.
        max_rel: ``max_abs`` as a share of the reference's largest magnitude.
        mean_abs: mean absolute difference.
        worst: index of the element that exceeds its allowance most (comes closest to it, when all pass).
        worst_reference: the reference's element there.
        worst_artifact: the artifact's element there.
        mismatched: how many elements are outside the tolerance.
        max_reference: largest finite magnitude in the reference.
        tolerance: what was allowed, in words.
        passed: it agrees.
        reason: why it does not, "" when it passed.
        note: what was done before comparing or makes it agree, "" when nothing was.
        undecided: it does not agree, and nothing proves it wrong either; the reason says why.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    max_abs: float | None = None
    max_rel: float | None = None
    mean_abs: float | None = None
    worst: tuple[int, ...] | None = None
    worst_reference: float | int | bool | None = None
    worst_artifact: float | int | bool | None = None
    mismatched: int = 0
    max_reference: float | None = None
    tolerance: str = ""
    passed: bool = True
    reason: str = ""
    note: str = ""
    undecided: bool = False

    @property
    def verdict(self) -> str:
        """``passed``, ``failed`` or ``undecided``."""
        return "passed" if self.passed else "undecided" if self.undecided else "failed"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; numbers that JSON cannot say (NaN, Inf) become text."""
        return {name: _plain(value) for name, value in asdict(self).items() if name != "undecided"} | {
            "verdict": self.verdict
        }


def compare_arrays(name: str, reference: Array, artifact: Array, tolerance: Tolerance) -> OutputComparison:
    """Compare one output; dtype and shape must be equal, integers and bools must be identical."""
    dtype, shape = dtype_name(reference), tuple(reference.shape)
    if artifact.shape != reference.shape:
        return OutputComparison(name, dtype, shape, passed=False, reason=_shape_reason(shape, tuple(artifact.shape)))
    if dtype_name(artifact) != dtype:
        return OutputComparison(
            name, dtype, shape, passed=False, reason=f"expected dtype {dtype}, got {dtype_name(artifact)}"
        )
    if reference.size == 0:
        return OutputComparison(
            name, dtype, shape, max_abs=0.0, max_rel=0.0, mean_abs=0.0, tolerance="empty", max_reference=0.0
        )
    if reference.dtype.kind in "OSU":
        return _compare_texts(name, reference, artifact)
    if reference.dtype.kind in "biu":
        return _compare_exactly(name, reference, artifact)
    if reference.dtype.kind == "c":
        real = reference.real.dtype
        ref, art = (np.ascontiguousarray(array).reshape(-1).view(real) for array in (reference, artifact))
        return _compare_floats(name, dtype, shape, ref, art, tolerance, (*shape, 2))
    return _compare_floats(name, dtype, shape, reference.reshape(-1), artifact.reshape(-1), tolerance, shape)


def _shape_reason(expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    if len(expected) != len(found):
        return f"expected shape {_by(expected)}, got {_by(found)}: {len(expected)} dims against {len(found)}"
    axes = [
        f"axis {axis}: {a} expected, {b} came"
        for axis, (a, b) in enumerate(zip(expected, found, strict=True))
        if a != b
    ]
    return f"expected shape {_by(expected)}, got {_by(found)} ({'; '.join(axes)})"


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _compare_texts(name: str, reference: Array, artifact: Array) -> OutputComparison:
    dtype, shape = dtype_name(reference), tuple(reference.shape)
    wrong = np.flatnonzero(reference.reshape(-1) != artifact.reshape(-1))
    if not wrong.size:
        return OutputComparison(name, dtype, shape, 0.0, 0.0, 0.0, tolerance="exact")
    return OutputComparison(
        name,
        dtype,
        shape,
        worst=_unravel(int(wrong[0]), shape),
        mismatched=int(wrong.size),
        tolerance="exact",
        passed=False,
        reason=f"{wrong.size} of {reference.size} texts differ",
    )


def _compare_exactly(name: str, reference: Array, artifact: Array) -> OutputComparison:
    dtype, shape = dtype_name(reference), tuple(reference.shape)
    ref, art = reference.reshape(-1), artifact.reshape(-1)
    wrong = np.flatnonzero(ref != art)
    largest = float(max(abs(int(ref.max())), abs(int(ref.min()))))
    if wrong.size == 0:
        return OutputComparison(
            name, dtype, shape, 0.0, 0.0, 0.0, max_reference=largest, tolerance="exact", passed=True
        )
    # float64 is exact up to 2**53, plenty to rank differences; the verdict above was taken on the integers themselves.
    apart = np.abs(ref[wrong].astype(np.float64) - art[wrong].astype(np.float64))
    place = int(wrong[int(apart.argmax())])
    max_abs = float(apart.max())
    return OutputComparison(
        name,
        dtype,
        shape,
        max_abs=max_abs,
        max_rel=max_abs / largest if largest else math.inf,
        mean_abs=float(apart.sum() / ref.size),
        worst=_unravel(place, shape),
        worst_reference=ref[place].item(),
        worst_artifact=art[place].item(),
        mismatched=int(wrong.size),
        max_reference=largest,
        tolerance="exact",
        passed=False,
        reason=f"{wrong.size} of {ref.size} elements differ ({dtype} must be exact)",
    )


def _compare_floats(
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    ref: Array,
    art: Array,
    tolerance: Tolerance,
    indexed: tuple[int, ...],
) -> OutputComparison:
    largest, strange_reference = _survey(ref)
    allowed_base = tolerance.scale * largest + tolerance.atol + tolerance.underflow
    max_abs = total = 0.0
    worst_ratio, place, mismatched = -1.0, 0, 0
    one_sided: int | None = None
    single = ref.dtype == art.dtype == np.float32 and allowed_base > _TINY
    for start in range(0, ref.size, _CHUNK):
        if single:  # in its own type: what lies as close together as here is subtracted without a loss
            with np.errstate(all="ignore"):
                near = np.subtract(art[start : start + _CHUNK], ref[start : start + _CHUNK])
            np.abs(near, out=near)
            furthest = float(near.max())
            if furthest <= allowed_base:  # nothing here is outside
                max_abs = max(max_abs, furthest)
                total += float(near.sum())
                if furthest > worst_ratio * allowed_base:  # it may come closer to it than what was seen before
                    bound = np.abs(ref[start : start + _CHUNK])
                    bound *= np.float32(tolerance.rtol)
                    bound += np.float32(allowed_base)
                    near /= bound
                    here = int(near.argmax())
                    if float(near[here]) > worst_ratio:
                        worst_ratio, place = float(near[here]), start + here
                continue
        r = ref[start : start + _CHUNK].astype(np.float64)
        a = art[start : start + _CHUNK].astype(np.float64)
        with np.errstate(invalid="ignore"):
            apart = np.subtract(a, r, out=a)
        np.abs(apart, out=apart)
        furthest = float(apart.max())
        if math.isfinite(furthest):
            max_abs = max(max_abs, furthest)
            total += float(apart.sum())
            if furthest <= min(1.0, worst_ratio) * allowed_base:
                continue
        else:
            a = art[start : start + _CHUNK].astype(np.float64)
            finite = np.isfinite(apart)
            same = (r == a) | (np.isnan(r) & np.isnan(a))
            apart = np.where(finite, apart, np.where(same, 0.0, np.inf))
            if one_sided is None and not (finite | same).all():
                one_sided = start + int((~(finite | same)).argmax())
            r = np.where(np.isfinite(r), r, 0.0)
            finite_apart = apart[np.isfinite(apart)]
            if finite_apart.size:
                max_abs = max(max_abs, float(finite_apart.max()))
                total += float(finite_apart.sum())
        allowed = allowed_base + tolerance.rtol * np.abs(r)
        mismatched += int(np.count_nonzero(apart > allowed))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(apart == 0, 0.0, apart / allowed)
        here = int(ratio.argmax())
        if float(ratio[here]) > worst_ratio:
            worst_ratio, place = float(ratio[here]), start + here
    if one_sided is not None:
        max_abs = math.inf
    reason = ""
    if strange_reference is not None and not tolerance.allow_nonfinite:
        where = list(_unravel(strange_reference, indexed))
        reason = (
            f"the reference itself gives {_number(ref[strange_reference])} at {where}: nothing can be proven against it"
        )
    elif one_sided is not None:
        where = list(_unravel(one_sided, indexed))
        reason = f"NaN or Inf differs at {where}: expected {_number(ref[one_sided])}, got {_number(art[one_sided])}"
    elif mismatched:
        where = list(_unravel(place, indexed))
        reason = (
            f"{mismatched} of {ref.size} elements are off by more than {tolerance.describe()}; "
            f"worst at {where}: expected {_number(ref[place])}, got {_number(art[place])}"
        )
    return OutputComparison(
        name,
        dtype,
        shape,
        max_abs=max_abs,
        max_rel=0.0 if max_abs == 0 else max_abs / largest if largest else math.inf,
        mean_abs=math.inf if one_sided is not None else total / ref.size,
        worst=_unravel(place, indexed),
        worst_reference=float(ref[place]),
        worst_artifact=float(art[place]),
        mismatched=mismatched,
        max_reference=largest,
        tolerance=tolerance.describe(),
        passed=not reason,
        reason=reason,
    )


def _survey(ref: Array) -> tuple[float, int | None]:
    """Largest finite magnitude of the reference, and its first place that is NaN or Inf."""
    if ref.dtype.itemsize >= 4:
        high, low = float(ref.max()), float(ref.min())  # NaN wherever there is one
        if math.isfinite(high) and math.isfinite(low):
            return max(abs(high), abs(low)), None
    largest, first = 0.0, None
    for start in range(0, ref.size, _CHUNK):
        r = ref[start : start + _CHUNK].astype(np.float64)
        finite = np.isfinite(r)
        if not finite.all():
            if first is None:
                first = start + int((~finite).argmax())
            r = r[finite]
        if r.size:
            largest = max(largest, float(np.abs(r).max()))
    return largest, first


def _unravel(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(place, shape))


def _number(value: Any) -> str:
    return f"{float(value):.7g}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return value
