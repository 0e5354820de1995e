"""ONNX as a target: legality is one opset version, emission is one file, ONNX Runtime runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graphforge.errors import UsageError
from graphforge.runners.runner import Runner
from graphforge.targets.options import option
from graphforge.targets.precision import REDUCED, ReducedOptions
from graphforge.targets.target import EmitResult, TargetOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.spec import ShapeSpec
    from graphforge.transform import Pass

__all__ = ["DEFAULT_OPSET", "OnnxOptions", "OnnxTarget"]

# What is delivered when nothing is asked for: see README.md of this folder for the measurement behind it.
DEFAULT_OPSET = 23
LOWEST_OPSET = 11
# The table of what runs the file.
RUNTIME = "onnxruntime"


@dataclass(frozen=True, slots=True)
class OnnxOptions(ReducedOptions):
    """The precision and what goes with it: what else an ONNX file can be is asked of every target alike."""

    precision: str = option(
        "as_typed",
        values={
            "as_typed": "every tensor in the type that the model has",
            **REDUCED,
            "auto": "the fastest of float32, float16 and int8 on this machine that loses at most max_drop, or 1",
        },
        help="arithmetic of the file",
    )
    weights: Literal["portable", "int8"] = option(
        "portable",
        help="weights under int8: all of their range, for processors with VNNI, or as much of it as every processor "
        "multiplies without loss",
    )


class OnnxTarget:
    """ONNX file for ONNX Runtime and every tool that reads ONNX.

    Args:
        file: name of the file.
        keep_names: nodes and values keep the names they have, and no origins are written: for a file made from another
            ONNX file, whose names people know; otherwise they are named after module paths.
    """

    name = "onnx"
    makes = "ONNX file"
    options = OnnxOptions
    tables = ("onnxruntime",)

    def __init__(self, *, file: str = "model.onnx", keep_names: bool = False) -> None:
        self.file = file
        self.keep_names = keep_names

    def available(self) -> str | None:
        """Always: writing ONNX needs nothing that GraphForge does not."""
        return None

    def opset(self, options: TargetOptions) -> int:
        """The opset to deliver: the one asked for, else the default or the newest that the installed runtime reads.

        Raises:
            UsageError: it lies outside what can be delivered.
        """
        from graphforge.ir import HOME_OPSET
        from graphforge.targets.tables import facts_of

        facts = facts_of(RUNTIME)
        opset = min(DEFAULT_OPSET, facts.newest_opset) if options.opset is None else options.opset
        if not LOWEST_OPSET <= opset <= HOME_OPSET:
            raise UsageError(
                f"opset {opset} cannot be delivered, expected {LOWEST_OPSET}..{HOME_OPSET}",
                f"graphs are written in opset {HOME_OPSET}, the newest that our rules know, and never raised above it "
                f"({facts.called} reads opsets up to {facts.newest_opset})"
                if opset > HOME_OPSET
                else "",
            )
        return opset

    def pipeline(self, options: TargetOptions) -> list[Pass]:
        """Compute where kernels are, lower the graph to the opset, fold what the lower forms compute of constants."""
        from graphforge.passes.compute_where_kernels_are import ComputeWhereKernelsAre
        from graphforge.passes.eliminate_dead_code import EliminateDeadCode
        from graphforge.passes.fold_constants import FoldConstants
        from graphforge.passes.legalise_opset import LegaliseOpset
        from graphforge.passes.merge_constants import MergeConstants
        from graphforge.passes.move_transpose_behind_matmul import MoveTransposeBehindMatmul
        from graphforge.passes.sink_dequantize import SinkDequantize
        from graphforge.targets.precision import precision_passes
        from graphforge.targets.semantic import semantic_passes

        legalise = LegaliseOpset(opset=self.opset(options), runtime=RUNTIME, exactly=options.opset is not None)
        # A file made from another keeps its element types.  Twice: older versions have kernels for less.
        kernels = () if self.keep_names else (ComputeWhereKernelsAre(RUNTIME),)
        loads = () if self.keep_names else (SinkDequantize(),)
        scales = () if self.keep_names else (MergeConstants(),)  # those of an attention that was written out
        safe = () if self.keep_names else (MoveTransposeBehindMatmul(),)
        precise = precision_passes(options, RUNTIME, weights=getattr(options.own, "weights", "portable"))
        return [
            *semantic_passes(options),
            *loads,
            *kernels,
            legalise,
            *kernels,
            FoldConstants(),
            *scales,
            # behind folding, which would widen weights in halves that the runtime reads through a cast
            *precise,
            *safe,
            EliminateDeadCode(),
        ]

    def emit(self, model: ir.Model, folder: Path, options: TargetOptions, shapes: ShapeSpec) -> EmitResult:
        """Write the file (and ``FILE.data`` above 1.9 GB of weights)."""
        from graphforge.ir.names import make_names_unique
        from graphforge.ir.versions import ir_version_for
        from graphforge.targets.onnx.naming import assign_names
        from graphforge.targets.onnx.write import write_onnx

        opset = self.opset(options)
        if options.opset is None:
            opset = min(opset, model.graph.opset_imports.get("", opset))  # the pipeline may have had to go lower
        model.graph.opset_imports[""] = opset
        model.ir_version = ir_version_for(opset)
        if self.keep_names:
            make_names_unique(model)
        else:
            assign_names(model)
        files = write_onnx(model, folder / self.file, origins=not self.keep_names)
        return EmitResult(tuple(files), {"opset": opset, "ir_version": model.ir_version})

    def runner(self, folder: Path) -> Runner | None:
        """ONNX Runtime on the file."""
        from graphforge.runners.custom_ops import runner_for

        runner: Runner = runner_for(folder / self.file)
        return runner

    def runs_here(self, folder: Path | None = None) -> str | None:
        """None: ONNX Runtime comes with GraphForge."""
        return None
