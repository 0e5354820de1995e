"""The contract every target fulfils, designed against all of them: ONNX files, TensorRT plans, MagicMind bundles.

README.md of this folder shows a complete target; `contract.py` says what one that falls short of this lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.runners.runner import Runner
    from graphforge.spec import ShapeSpec
    from graphforge.transform import Pass

__all__ = ["EmitResult", "Target", "TargetOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """What is asked of a target, read and checked; `options_for` makes it.

    Attributes:
        own: the target's own options, precision included: an instance of the dataclass that it declares.
        opset: opset of the default domain to deliver; None lets the target choose.
        outputs: ``ragged`` (sizes depend on data, as eager returns them) or ``padded`` (fixed, with a count); None lets
            the target choose.
        nms: ``native`` (NonMaxSuppression) or ``portable`` (plain tensor algebra); None lets the target choose.
        asked: names of what the user gave, options and precision among them; the rest are defaults.
    """

    own: Any
    opset: int | None = None
    outputs: str | None = None
    nms: str | None = None
    asked: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """The arithmetic, always one that the target declares."""
        return str(self.own.precision)


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

    @property
    def name(self) -> str:
        """What users call it: the name of its entry point."""
        ...

    @property
    def makes(self) -> str:
        """What it makes, in a few words."""
        ...

    @property
    def options(self) -> type[Any]:
        """A frozen dataclass whose fields, made by `option`, are its options; ``precision`` is one of them."""
        ...

    @property
    def tables(self) -> Sequence[str]:
        """What says which operators it takes: runtimes of `support.py` by name, or paths of tables (``*.toml``)."""
        ...

    def available(self) -> str | None:
        """None when it can be compiled for here, else the reason with the way out."""
        ...

    def pipeline(self, options: TargetOptions) -> list[Pass]:
        """The passes from CANONICAL to LEGAL[this target], in order; refuses options that do not go together."""
        ...

    def emit(self, model: ir.Model, folder: Path, options: TargetOptions, shapes: ShapeSpec) -> EmitResult:
        """Write the artifact into ``folder`` (an empty staging folder that the caller renames when all is well)."""
        ...

    def runner(self, folder: Path) -> Runner | None:
        """What executes the artifact in ``folder``, or the nearest thing to it; None when nothing here can."""
        ...

    def runs_here(self, folder: Path | None = None) -> str | None:
        """None when this machine runs the artifact itself, else the reason, and what is run in its place.

        Args:
            folder: the bundle that is asked about; None asks about bundles in general.
        """
        ...
