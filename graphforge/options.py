"""What the user asks of a compilation, and the plan it becomes before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.prepare import canonical_passes

if TYPE_CHECKING:
    from graphforge.declaring import GivenOperator, GivenSubstitution
    from graphforge.targets.target import Target, TargetOptions
    from graphforge.transform import Instrument, Pass

__all__ = ["CompileOptions", "Plan", "plan"]


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What the user asks of a compilation, whatever the model; the arguments of ``compile`` of the same names."""

    target: str | Target = "onnx"
    opset: int | None = None
    precision: str | None = None
    target_options: Mapping[str, Any] = field(default_factory=dict)
    calibration: str | Path | Mapping[str, Any] | None = None
    max_drop: float | None = None
    metric: str | Path | Callable[..., float] | None = None
    outputs: str | None = None
    nms: str | None = None
    preprocess: Any = None
    fold_preprocess: bool = False
    capture: str = "auto"
    substitutes: Sequence[GivenSubstitution] = ()
    custom_ops: Sequence[GivenOperator] = ()
    passes: Sequence[Pass] = ()
    pipeline: str | Sequence[Pass] | None = None
    check_passes: bool = False
    verify_each: bool = False
    instruments: Sequence[Instrument] = ()
    verify: bool = True
    keep_unverified: bool = False
    accept_undecided: bool = False
    allow_nonfinite: bool = False
    tolerances: Any = None
    seed: int = 0
    output: str | Path | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, settled before any work: the target, what is asked of it, and the passes in order."""

    target: Target
    options: TargetOptions
    canonical: tuple[Pass, ...]
    legalising: tuple[Pass, ...]

    @property
    def stages(self) -> dict[str, tuple[Pass, ...]]:
        """The passes of each stage, by its name, in order."""
        return {"canonicalise": self.canonical, f"legalise for {self.target.name}": self.legalising}

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data: each pass by name, options and the text that a pipeline reads back."""
        return {
            "target": self.target.name,
            "opset": self.options.opset,
            "precision": self.options.precision,
            "stages": {
                name: [{"name": item.name, "options": item.options(), "spec": item.spec()} for item in passes]
                for name, passes in self.stages.items()
            },
        }


def plan(options: CompileOptions) -> Plan:
    """Settle the target, what is asked of it, and the passes.

    Raises:
        UsageError: there is no such target, pass or option.
        GraphForgeError: the target does not work here.
    """
    from graphforge.targets import get_target, options_for
    from graphforge.targets.contract import asking, check_contract
    from graphforge.transform import Pass, PrintAfter
    from graphforge.verify.tolerance import as_tolerances

    as_tolerances(options.tolerances)  # what cannot be meant is told before any work
    if isinstance(options.passes, str | Pass):
        raise UsageError(
            f"passes: expected a list of passes, got {options.passes!r}", "put it into a list: passes=[...]"
        )
    if type(options.seed) is not int or options.seed < 0:
        raise UsageError(f"{argument('seed')}: expected a whole number >= 0, got {options.seed!r}")
    for name in (
        "verify",
        "fold_preprocess",
        "check_passes",
        "verify_each",
        "keep_unverified",
        "accept_undecided",
        "allow_nonfinite",
    ):
        if not isinstance(getattr(options, name), bool):
            raise UsageError(f"{name}: expected True or False, got {getattr(options, name)!r}")
    target = options.target
    if isinstance(target, str):
        target = get_target(target)
    else:
        check_contract(target)
    asked = options_for(
        target,
        opset=options.opset,
        precision=options.precision,
        own=_with_bound(target, _with_calibration(target, options), options),
        outputs=options.outputs,
        nms=options.nms,
    )
    with asking(target, "whether it works here"):
        missing = target.available()
    if missing is not None:
        raise GraphForgeError(f"target {target.name} does not work here: {missing}")
    with asking(target, "its passes"):
        legalising = tuple(target.pipeline(asked))
    planned = Plan(target, asked, tuple(canonical_passes(options.pipeline, options.passes)), legalising)
    for instrument in options.instruments:
        if not (callable(getattr(instrument, "before", None)) and callable(getattr(instrument, "after", None))):
            raise UsageError(
                f"{instrument!r} is not an instrument", "one has the methods before and after, as PrintAfter has"
            )
        if isinstance(instrument, PrintAfter):
            instrument.refuse_unknown([*planned.canonical, *planned.legalising])
    return planned


def _with_calibration(target: Target, options: CompileOptions) -> dict[str, Any]:
    """The target's options; one of them is the calibration data, where the target writes it into what it makes."""
    from graphforge.targets.options import declared_options

    own = dict(options.target_options)
    if options.calibration is None or all(one.name != "calibration" for one in declared_options(target)):
        return own
    if "calibration" in own:
        raise UsageError("calibration data is given twice: for the compilation and as an option of the target")
    data = options.calibration
    return {**own, "calibration": str(data) if isinstance(data, Path) else data}


def _with_bound(target: Target, own: dict[str, Any], options: CompileOptions) -> dict[str, Any]:
    """The target's options with the bound on what a lower precision may cost, which is one of them."""
    from graphforge.targets.options import declared_options
    from graphforge.targets.precision import REDUCED

    if options.max_drop is None:
        if options.metric is not None:
            raise UsageError(
                f"{argument('metric')} says how good a model is, and nothing asks for it",
                f"give the bound on its loss: {argument('max_drop', 0.5)}",
            )
        return own
    reduced = (*REDUCED, "auto")
    if all(one.name != "max_drop" for one in declared_options(target)) or options.precision not in reduced:
        raise UsageError(
            f"{argument('max_drop')} bounds what a reduced precision may cost, and "
            f"{options.precision or 'this precision'} on target {target.name!r} has nothing to choose",
            f"give {argument('precision', 'int8')}, fp16 or bf16 on target onnx, tensorrt or openvino",
        )
    return {**own, "max_drop": options.max_drop}
