"""How far an output may lie from the reference where nothing is known but its dtype, and what users allow.

This is what passes are checked with and what remains where rounding cannot be measured; the verdict on an artifact is
taken by evidence (``evidence.py``).

An element ``a`` of the artifact agrees with ``r`` of the reference when ``|a - r| <= scale * max|R| + rtol * |r| +
atol + underflow``, where ``max|R|`` is the largest finite magnitude in that output.  Scaling by the output judges a
network with outputs around 1e-5 as strictly as one with outputs around 1e3; a fixed ``atol=1e-3`` would accept anything
from the first.

Where the numbers come from: the rounding error of a whole network against its own float64 run, as a share of
max|output|: float32 at most 7e-7 (resnet18, hrnet, repvgg, vit, swin, convnext, levit, efficientvit, mobilenetv3),
float16 1.3e-3 and bfloat16 1.0e-2 (resnet18, repvgg, vit, swin, convnext); eager against ONNX Runtime in float32,
thirty architectures: 2e-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graphforge.errors import UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["EXACT", "Tolerance", "Tolerances", "as_tolerances", "for_model"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is allowed for one output.

    Attributes:
        scale: share of the output's largest magnitude that any element may be off.
        rtol: share of the element's own magnitude, on top (exp and division amplify the large elements' rounding).
        atol: absolute allowance, on top; 0 unless the user asks.
        underflow: absolute allowance for arithmetic at the very bottom of the format, where a processor may flush
            subnormal numbers to zero and precision is gone; not worth a word in tables.
        allow_nonfinite: NaN and Inf agree with the very same NaN and Inf at the same place; otherwise they never pass.
    """

    scale: float = 0.0
    rtol: float = 0.0
    atol: float = 0.0
    underflow: float = 0.0
    allow_nonfinite: bool = False

    def __post_init__(self) -> None:
        for name in ("scale", "rtol", "atol", "underflow"):
            number = getattr(self, name)
            if not 0 <= number < float("inf"):
                raise UsageError(f"tolerance {name}: expected a finite number >= 0, got {number}")

    @property
    def is_exact(self) -> bool:
        """Only equal elements pass."""
        return not (self.scale or self.rtol or self.atol)

    def describe(self) -> str:
        """``2e-05 of max|ref| + 5e-05 relative``."""
        if self.is_exact:
            text = "exact"
        else:
            parts = [(self.scale, "of max|ref|"), (self.rtol, "relative"), (self.atol, "absolute")]
            text = " + ".join(f"{number:g} {what}" for number, what in parts if number)
        return text + (", same NaN/Inf allowed" if self.allow_nonfinite else "")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "scale": self.scale,
            "rtol": self.rtol,
            "atol": self.atol,
            "underflow": self.underflow,
            "allow_nonfinite": self.allow_nonfinite,
        }


EXACT = Tolerance()

_BY_DTYPE: Mapping[str, Tolerance] = {
    # 1e-12 is 4,500 eps: room for other summation orders and other exp/erf, yet four orders below the 1e-8 that one
    # float32 constant leaking into a float64 network leaves behind.
    "float64": Tolerance(scale=1e-12, rtol=1e-11, underflow=1e-304),
    # Ten times the worst 2e-6 seen between eager and ONNX Runtime.  A tanh GELU in place of the erf one (off by 5e-4
    # on outputs up to 4) stays outside.  Underflow: a sum of 10,000 products, each flushed to zero below 1.2e-38.
    "float32": Tolerance(scale=2e-5, rtol=5e-5, underflow=1e-34),
    # Both sides round: twice the worst 1.3e-3, and twice again.
    "float16": Tolerance(scale=5e-3, rtol=2e-3),
    # Both sides round: twice the worst 1.0e-2, and twice again.
    "bfloat16": Tolerance(scale=4e-2, rtol=1.6e-2, underflow=1e-34),
}
# A unit in the last place of 1, by dtype.
_STEPS: Mapping[str, float] = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
_COMPONENT = {"complex64": "float32", "complex128": "float64"}


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Tolerances of a whole comparison: by dtype, with overrides by output name and a record of every loosening.

    Attributes:
        by_dtype: dtype name -> tolerance; integers and bools are exact whatever stands here.
        by_output: output name -> tolerance, stronger than ``by_dtype``.
        computed: output name -> dtype of the coarsest arithmetic on the way to it, where that is not its own.
        loosened: one line for each change away from the defaults, for the report and the manifest.
        depths: output name -> how many sums of products stand one behind the other on the way to it.
    """

    by_dtype: Mapping[str, Tolerance] = field(default_factory=lambda: dict(_BY_DTYPE))
    by_output: Mapping[str, Tolerance] = field(default_factory=dict)
    computed: Mapping[str, str] = field(default_factory=dict)
    loosened: tuple[str, ...] = ()
    depths: Mapping[str, int] = field(default_factory=dict)

    def of(self, output: str, dtype: str) -> Tolerance:
        """The tolerance of one output; exact for integers, bools and dtypes nobody listed."""
        by_dtype = self.by_dtype.get(_COMPONENT.get(dtype, dtype))
        if by_dtype is None:
            return EXACT
        if output in self.computed:
            by_dtype = _coarser(by_dtype, self.by_dtype[self.computed[output]])
        return self.by_output.get(output, by_dtype)

    def is_given(self, output: str, dtype: str) -> bool:
        """Whether somebody said what this output may be off; then that is what it may be off."""
        return output in self.by_output or self._differs(dtype)

    def is_stricter(self, output: str, dtype: str) -> bool:
        """Whether somebody asked for more than the default: what is off by more fails, whatever the reason."""
        default, given = _BY_DTYPE.get(_COMPONENT.get(dtype, dtype)), self.of(output, dtype)
        return default is not None and self.is_given(output, dtype) and max(given.scale, given.rtol) < default.scale

    def _differs(self, dtype: str) -> bool:
        name = _COMPONENT.get(dtype, dtype)
        own, default = self.by_dtype.get(name), _BY_DTYPE.get(name)
        if own is None or default is None:
            return False
        return (own.scale, own.rtol, own.atol) != (default.scale, default.rtol, default.atol)

    def computed_in(self, dtype: str, *, because: str, output: str | None = None) -> Tolerances:
        """Judge an output, or every float output, as if it were of ``dtype``: for arithmetic coarser than the outputs.

        Args:
            dtype: what is computed in.
            because: why, for the record.
            output: name of the output; None is all of them.
        """
        coarse = self.by_dtype.get(dtype)
        if coarse is None:
            raise UsageError(f"no tolerance is known for {dtype!r}", f"known: {', '.join(sorted(self.by_dtype))}")
        if output is not None:
            known = self.computed.get(output)
            if known is not None and _coarser(self.by_dtype[known], coarse) is not coarse:
                return self
            note = f"output {output} judged as {dtype} ({coarse.describe()}): {because}"
            return replace(self, computed={**self.computed, output: dtype}, loosened=(*self.loosened, note))
        changed = {name: _coarser(own, coarse) for name, own in self.by_dtype.items()}
        note = f"float outputs judged as {dtype} ({coarse.describe()}): {because}"
        return replace(self, by_dtype=changed, loosened=(*self.loosened, note))

    @property
    def coarsest_step(self) -> float:
        """The step at 1 of the coarsest type that some output is computed in, 0 where each is in its own."""
        return max((_STEPS.get(dtype, 0.0) for dtype in self.computed.values()), default=0.0)

    def loosen(
        self,
        *,
        because: str,
        output: str | None = None,
        scale: float | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        allow_nonfinite: bool | None = None,
    ) -> Tolerances:
        """Other numbers for one output, or for all float outputs; the change and its reason are recorded.

        Args:
            because: who asked, for example ``the metric allows it``.
            output: name of the output; None changes all float dtypes.
            scale: new share of max|ref|.
            rtol: new relative tolerance.
            atol: new absolute tolerance.
            allow_nonfinite: accept the same NaN/Inf at the same place.
        """
        given: dict[str, Any] = {
            name: number
            for name, number in (
                ("scale", scale),
                ("rtol", rtol),
                ("atol", atol),
                ("allow_nonfinite", allow_nonfinite),
            )
            if number is not None
        }
        if not given:
            return self
        where = f"output {output}" if output is not None else "all float outputs"
        note = f"{where}: {', '.join(f'{name}={number}' for name, number in given.items())} ({because})"
        loosened = (*self.loosened, note)
        if output is not None:
            base = self.by_output.get(output, self.by_dtype["float32"])
            return replace(self, by_output={**self.by_output, output: replace(base, **given)}, loosened=loosened)
        by_dtype = {dtype: replace(tolerance, **given) for dtype, tolerance in self.by_dtype.items()}
        return replace(self, by_dtype=by_dtype, loosened=loosened)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "by_dtype": {name: tolerance.to_dict() for name, tolerance in self.by_dtype.items()},
            "by_output": {name: tolerance.to_dict() for name, tolerance in self.by_output.items()},
            "computed_in": dict(self.computed),
            "loosened": list(self.loosened),
        }


# Other inputs than those that it was measured on move a quantised output by as much again, and by at least this share.
_QUANTISED = 2.0
_LEAST_QUANTISED = 0.01
# Who asked for it, in the record of what was loosened.
_BECAUSE = "the tolerances that were given"
# What may be said of an output; `underflow` is a property of the arithmetic and not for users.
_SETTINGS = ("scale", "rtol", "atol", "allow_nonfinite")


def as_tolerances(given: object) -> Tolerances | None:
    """What a user says of tolerances as `Tolerances`; None, the defaults, stays None.

    Args:
        given: a number is the share of an output's largest magnitude that any of its elements may be off, in place of
            the default scale and rtol.  A dict holds ``scale``, ``rtol``, ``atol`` or ``allow_nonfinite`` for all float
            outputs, or, by the name of an output, a number or such a dict.

    Raises:
        UsageError: it is something else, or a number is negative or not finite.
    """
    if given is None or isinstance(given, Tolerances):
        return given
    if isinstance(given, Mapping):
        result = Tolerances()
        whole = {key: value for key, value in given.items() if key in _SETTINGS}
        if whole:
            result = result.loosen(because=_BECAUSE, **_checked(whole, "tolerances"))
        for key, value in given.items():
            if key not in _SETTINGS:
                where = f"tolerances[{key!r}]"
                settings = _checked(value if isinstance(value, Mapping) else _share(value, where), where)
                result = result.loosen(because=_BECAUSE, output=str(key), **settings)
        return result
    return Tolerances().loosen(because=_BECAUSE, **_checked(_share(given, "tolerances"), "tolerances"))


def _share(given: object, where: str) -> Mapping[str, Any]:
    """A number alone: nothing else is allowed beside that share of the largest magnitude."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise UsageError(
            f"{where}: expected a number, a dict or Tolerances, got {type(given).__name__} {given!r}",
            "a number is the share of an output's largest magnitude that any element may be off, for example 1e-3",
            f"a dict holds {', '.join(_SETTINGS)}, or names of outputs",
        )
    return {"scale": float(given), "rtol": 0.0}


def _checked(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key, value in settings.items():
        if key not in _SETTINGS:
            raise UsageError(f"{where}: there is no {key!r}", f"there are: {', '.join(_SETTINGS)}")
        if key == "allow_nonfinite":
            fits = isinstance(value, bool)
        else:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
        if not fits:
            wanted = "True or False" if key == "allow_nonfinite" else "a finite number >= 0"
            raise UsageError(f"{where}: {key} is {value!r}, expected {wanted}")
    return dict(settings)


def for_model(tolerances: Tolerances | None, model: ir.Model) -> Tolerances:
    """What fits a model that computes some of its outputs with fewer digits than they have; the record says which."""
    from graphforge.ir.detour import roundings_of_outputs
    from graphforge.passes.qdq import QUANTISED
    from graphforge.verify.depth import depths_of_outputs

    fitting = replace(tolerances or Tolerances(), depths=depths_of_outputs(model))
    for output, roundings in roundings_of_outputs(model).items():
        for rounding in roundings:
            if rounding.computed in fitting.by_dtype:
                fitting = fitting.computed_in(rounding.computed, because=str(rounding), output=output)
    quantised = model.meta.get(QUANTISED)
    for output, share in {} if quantised is None else quantised.worst.items():
        because = f"quantising was measured to move it by {share:.2g} of its largest magnitude"
        fitting = fitting.loosen(because=because, output=output, scale=_QUANTISED * share + _LEAST_QUANTISED)
    return fitting


def _coarser(one: Tolerance, other: Tolerance) -> Tolerance:
    return other if (one.scale, one.rtol) < (other.scale, other.rtol) else one
