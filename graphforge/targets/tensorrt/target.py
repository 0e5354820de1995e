"""TensorRT as a target: legalise to an opset it reads, write ONNX, build a plan from that file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphforge.errors import GraphForgeError
from graphforge.runners.runner import Runner
from graphforge.targets.options import options_for
from graphforge.targets.target import EmitResult, TargetOptions
from graphforge.targets.tensorrt.flavour import choose_flavour, gpu_problem
from graphforge.targets.tensorrt.options import TensorRTOptions, read_options

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.spec import ShapeSpec
    from graphforge.transform import Pass

__all__ = ["TensorRTTarget"]


class TensorRTTarget:
    """Plans for NVIDIA GPUs."""

    name = "tensorrt"
    makes = "TensorRT plan"
    options = TensorRTOptions
    tables = ("tensorrt",)

    def available(self) -> str | None:
        """None when plans can be built here, else the reason with the way out."""
        try:
            flavour = choose_flavour()
            flavour.load()
        except GraphForgeError as error:
            return "; ".join([error.message, *error.notes])
        problem = gpu_problem()
        if problem is not None and not flavour.builds_without_gpu:
            return f"{flavour.title} builds only where its GPU is: {problem}"
        return None

    def pipeline(self, options: TargetOptions) -> list[Pass]:
        """From CANONICAL to what the parser reads."""
        from graphforge.passes.compute_where_kernels_are import ComputeWhereKernelsAre
        from graphforge.passes.eliminate_dead_code import EliminateDeadCode
        from graphforge.passes.fold_constants import FoldConstants
        from graphforge.passes.legalise_opset import LegaliseOpset
        from graphforge.passes.move_transpose_behind_matmul import MoveTransposeBehindMatmul
        from graphforge.passes.reduce_bools_as_integers import ReduceBoolsAsIntegers
        from graphforge.passes.split_top_k import SplitTopK
        from graphforge.targets.onnx.target import RUNTIME
        from graphforge.targets.precision import PRODUCTS, precision_passes
        from graphforge.targets.semantic import semantic_passes

        wanted = read_options(options)
        roi_align = "portable" if wanted.flavour.name == "tensorrt_rtx" else "native"  # RTX has none
        return [
            # it has no NMS kernel, and fixed shapes only
            *semantic_passes(options, outputs="padded", nms="portable", fixed_shapes=True, roi_align=roi_align),
            # which other element types its kernels take is not documented; this file is what ONNX Runtime checks.
            # Halves go by its own table: what ONNX Runtime lacks there, the runner casts in a copy
            ComputeWhereKernelsAre(RUNTIME, halves=False),
            LegaliseOpset(opset=wanted.opset, runtime=self.name),
            ComputeWhereKernelsAre(RUNTIME, halves=False),
            ComputeWhereKernelsAre(self.name),
            ReduceBoolsAsIntegers(),
            SplitTopK(),
            FoldConstants(),
            # its integers are symmetric, and it adds biases in float
            *precision_passes(
                options, self.name, operators=PRODUCTS, activations="int8", weights="int8", results=False, biases=False
            ),
            MoveTransposeBehindMatmul(),
            EliminateDeadCode(),
        ]

    def emit(self, model: ir.Model, folder: Path, options: TargetOptions, shapes: ShapeSpec) -> EmitResult:
        """Write model.onnx, model.plan built from it, and plan.json about both."""
        from graphforge.targets.onnx import OnnxTarget
        from graphforge.targets.tensorrt.agreement import check_agreement, refuse_half_types
        from graphforge.targets.tensorrt.build import build_plan
        from graphforge.targets.tensorrt.manifest import plan_manifest, write_plan_manifest

        wanted = read_options(options)
        onnx_file, plan_file = folder / "model.onnx", folder / "model.plan"
        if wanted.precision == "fp32":
            refuse_half_types(model)
        # Names are given and the opset is set on the model itself: from here on it is what the file says.
        onnx = OnnxTarget()
        onnx_result = onnx.emit(model, folder, options_for(onnx, opset=wanted.opset), shapes)

        built = build_plan(onnx_file, plan_file, wanted, shapes)
        notes = check_agreement(model, built)
        manifest = plan_manifest(onnx_file=onnx_file, model=model, plan_file=plan_file, built=built, options=wanted)
        write_plan_manifest(folder, manifest)
        problem = self.runs_here(folder)  # loads the plan by what its manifest says
        manifest["checked"] = "the plan" if problem is None else "model.onnx"
        sidecar = write_plan_manifest(folder, manifest)
        notes.append(_about_running(problem))
        if set(built.work.multiplications) - {"FLOAT"}:
            notes.append(f"multiplications of convolutions and products: {built.work}")
        if wanted.weight_stripped:
            notes.append(f"{plan_file.name} has no weights: refit it from {onnx_file.name} before it runs")
        if wanted.tf32:
            notes.append(
                "TF32 is allowed in float32 products (TensorRT's default); target option tf32=false forbids it"
            )
        return EmitResult(
            files=(plan_file.name, *onnx_result.files, sidecar),
            facts={
                **manifest,
                "layers": built.layers,
                "seconds": {"parse": round(built.parse_seconds, 3), "build": round(built.build_seconds, 3)},
                "vendor_warnings": list(built.warnings),
            },
            notes=(*notes, *(f"{wanted.flavour.title} warns: {text}" for text in built.warnings)),
        )

    def runner(self, folder: Path) -> Runner | None:
        """The plan on this machine's GPU; where none takes it, ONNX Runtime on the very file it was built from.

        Which of the two it is stands in the runner's name, in emit's notes and in plan.json.
        """
        from graphforge.targets.tensorrt.runner import TensorRTRunner, onnx_of_plan

        try:
            runner: Runner = TensorRTRunner(folder)
        except GraphForgeError:
            runner = onnx_of_plan(folder / "model.onnx")
        return runner

    def runs_here(self, folder: Path | None = None) -> str | None:
        """None when plans run here, the one in ``folder`` where it is given; else the reason."""
        if folder is None:
            problem = self.available() or gpu_problem()
            return problem and f"{problem}; ONNX Runtime runs the ONNX file beside the plan instead"
        from graphforge.targets.tensorrt.runner import TensorRTRunner

        try:
            TensorRTRunner(folder).close()
        except GraphForgeError as error:
            return "; ".join([error.message, *error.notes])
        return None


def _about_running(problem: str | None) -> str:
    if problem is None:
        return "the plan loads on this machine's GPU"
    return f"{problem}; what is checked is model.onnx, the very file the plan was built from"
