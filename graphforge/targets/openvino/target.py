"""OpenVINO as a target: ONNX in the forms that it computes rightly, its own format made of that, its own execution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphforge.errors import GraphForgeError
from graphforge.runners.runner import Runner
from graphforge.targets.openvino.options import RUNTIME, OpenVINOOptions, opset_for
from graphforge.targets.options import options_for
from graphforge.targets.target import EmitResult, TargetOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.spec import ShapeSpec
    from graphforge.transform import Pass

__all__ = ["OpenVINOTarget"]

_ONNX, _XML = "model.onnx", "model.xml"


class OpenVINOTarget:
    """``model.xml`` and ``model.bin`` for OpenVINO, on processors, graphics and NPUs of Intel and on ARM."""

    name = "openvino"
    makes = "OpenVINO model"
    options = OpenVINOOptions
    tables = (RUNTIME,)

    def available(self) -> str | None:
        """None where the package is installed, else how to get it."""
        from graphforge.targets.openvino.vendor import core

        try:
            core()
        except GraphForgeError as error:
            return "; ".join([error.message, *error.notes])
        return None

    def pipeline(self, options: TargetOptions) -> list[Pass]:
        """From CANONICAL to what the frontend reads and the plugin for processors computes rightly."""
        from graphforge.passes.compute_where_kernels_are import ComputeWhereKernelsAre
        from graphforge.passes.eliminate_dead_code import EliminateDeadCode
        from graphforge.passes.fold_constants import FoldConstants
        from graphforge.passes.legalise_opset import LegaliseOpset
        from graphforge.targets.precision import PRODUCTS, precision_passes
        from graphforge.targets.semantic import semantic_passes

        kernels = ComputeWhereKernelsAre(RUNTIME)
        legalise = LegaliseOpset(opset=opset_for(options), runtime=RUNTIME)
        # twice: the older form of an operator may compute in types that the newer one does not
        precise = precision_passes(options, RUNTIME, operators=PRODUCTS)
        return [*semantic_passes(options), kernels, legalise, kernels, FoldConstants(), *precise, EliminateDeadCode()]

    def emit(self, model: ir.Model, folder: Path, options: TargetOptions, shapes: ShapeSpec) -> EmitResult:
        """Write model.onnx, model.xml and model.bin made of it, and openvino.json about how they are run."""
        from graphforge.targets.onnx import OnnxTarget
        from graphforge.targets.openvino.convert import convert
        from graphforge.targets.openvino.manifest import config_of, write_sidecar

        own: OpenVINOOptions = options.own
        # Names are given and the opset is set on the model itself: from here on it is what the file says.
        onnx = OnnxTarget(file=_ONNX)
        written = onnx.emit(model, folder, options_for(onnx, opset=opset_for(options)), shapes)
        outputs = tuple(str(value.name) for value in model.graph.outputs)
        made = convert(folder / _ONNX, folder / _XML, outputs, fp16_weights=own.fp16_weights)
        sidecar = write_sidecar(
            folder,
            {
                "format": 1,
                "version": made.version,
                "model": {"file": _XML, "weights": "float16" if own.fp16_weights else "as typed"},
                "hint": own.hint,
                "config": config_of(own.hint),
                "inputs": list(made.inputs),
                "outputs": list(made.outputs),
            },
        )
        return EmitResult(
            files=(_XML, "model.bin", *written.files, sidecar),
            facts={
                **written.facts,
                "version": made.version,
                "config": config_of(own.hint),
                "fp16_weights": own.fp16_weights,
                "operators": made.operators,
            },
        )

    def runner(self, folder: Path) -> Runner | None:
        """OpenVINO on the model."""
        from graphforge.targets.openvino.runner import OpenVINORunner

        if self.available() is not None:
            return None
        runner: Runner = OpenVINORunner(folder)
        return runner

    def graph_runner(self, folder: Path, model: bytes) -> Runner:
        """OpenVINO on an ONNX graph, as it runs the model of the bundle: for a look at the values inside."""
        from graphforge.targets.openvino.runner import OpenVINOGraphRunner

        return OpenVINOGraphRunner(folder, model)

    def runs_here(self, folder: Path | None = None) -> str | None:
        """None where the package is installed: it brings a plugin for every processor."""
        return self.available()
