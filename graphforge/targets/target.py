"""The contract every target fulfils, designed against all of them: ONNX files, TensorRT plans, MagicMind bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.runners.runner import Runner
    from graphforge.spec import ShapeSpec
    from graphforge.transform import Pass

__all__ = ["EmitResult", "Target", "TargetOptions"]


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What the user asked of the target.

    Attributes:
        opset: opset of the default domain to deliver; None lets the target choose.
        precision: the target's name for the arithmetic (``fp32``, ``force_float16``, ...); None is its default.
        extra: options only this target knows (``compute_capabilities``, ``archs``, ...); unknown keys are an error.
        outputs: ``ragged`` (sizes depend on data, as eager returns them) or ``padded`` (fixed, with a count); None lets
            the target choose.
        nms: ``native`` (NonMaxSuppression) or ``portable`` (plain tensor algebra); None lets the target choose.
    """

    opset: int | None = None
    precision: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    outputs: str | None = None
    nms: str | None = None


@dataclass(frozen=True, slots=True)
class EmitResult:
    """What a target wrote.

    Attributes:
        files: paths relative to the bundle folder; the first one is the main artifact.
        facts: what belongs in the manifest (opset, IR version, flavour, profiles, ...), JSON-able.
        notes: what the user should be told, one line each.
    """

    files: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Target(Protocol):
    """One place a model can go to.  Implementations import their vendor inside these methods only."""

    name: str

    def available(self) -> str | None:
        """None when it works here, else the reason with the way out."""
        ...

    def pipeline(self, options: TargetOptions) -> list[Pass]:
        """The passes from CANONICAL to LEGAL[this target], in order."""
        ...

    def emit(self, model: ir.Model, folder: Path, options: TargetOptions, shapes: ShapeSpec) -> EmitResult:
        """Write the artifact into ``folder`` (an empty staging folder that the caller renames when all is well)."""
        ...

    def runner(self, folder: Path) -> Runner | None:
        """A runner for what ``emit`` wrote; None when this machine cannot execute it (the notes say why)."""
        ...
