"""MagicMind as a target: opset 11, the configuration, and the scripts that build and check it where an MLU is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.runners.runner import Runner
from graphforge.targets.magicmind.options import OPSET, MagicMindOptions, read_options
from graphforge.targets.options import options_for
from graphforge.targets.target import EmitResult, TargetOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from graphforge.spec import ShapeSpec
    from graphforge.targets.magicmind.cut import Cut
    from graphforge.targets.magicmind.pixels import Fed
    from graphforge.transform import Pass

__all__ = ["MagicMindTarget"]


class MagicMindTarget:
    """Bundles for Cambricon MLUs."""

    name = "magicmind"
    makes = "MagicMind bundle for Cambricon MLUs"
    options = MagicMindOptions
    tables = ("magicmind",)

    def available(self) -> str | None:
        """Always: writing a bundle needs nothing of Cambricon's."""
        return None

    def pipeline(self, options: TargetOptions) -> list[Pass]:
        """From CANONICAL to opset 11 with constants that fit 32 bits."""
        from graphforge.passes.clamp_nms_limit import ClampNmsLimit
        from graphforge.passes.clamp_slice_bounds import ClampSliceBounds
        from graphforge.passes.compute_where_kernels_are import ComputeWhereKernelsAre
        from graphforge.passes.eliminate_dead_code import EliminateDeadCode
        from graphforge.passes.legalise_opset import LegaliseOpset
        from graphforge.targets.onnx.target import RUNTIME
        from graphforge.targets.semantic import semantic_passes

        read_options(options)
        # The constants that these leave behind unused would still be converted to 32 bits.
        return [
            *semantic_passes(options, outputs="padded"),
            # which element types an MLU takes is not public; ONNX Runtime makes the reference and checks the file
            ComputeWhereKernelsAre(RUNTIME),
            LegaliseOpset(opset=OPSET),
            ComputeWhereKernelsAre(RUNTIME),
            ClampSliceBounds(),
            ClampNmsLimit(),
            EliminateDeadCode(),
        ]

    def emit(self, model: ir.Model, folder: Path, options: TargetOptions, shapes: ShapeSpec) -> EmitResult:
        """Write the bundle, then lint it as a whole and refuse what the linter calls an error."""
        import onnx_ir

        from graphforge.targets.magicmind.calibration import read_calibration, write_calibration
        from graphforge.targets.magicmind.config import build_config
        from graphforge.targets.magicmind.cut import TAIL
        from graphforge.targets.magicmind.lint import Severity, lint, refuse_errors, summarise
        from graphforge.targets.magicmind.manifest import PROVEN, bundle_manifest
        from graphforge.targets.magicmind.pixels import fed_inputs
        from graphforge.targets.magicmind.reference import write_reference
        from graphforge.targets.onnx import OnnxTarget
        from graphforge.targets.onnx.write import write_onnx

        wanted = read_options(options)
        # Everything that can be refused from the outside comes before the long steps.
        calibration = None if wanted.calibration is None else read_calibration(wanted.calibration, shapes)

        tail_files: list[str] = []
        if wanted.cut:
            cut = _cut(model, wanted.cut)
            tail_files = write_onnx(cut.tail, folder / TAIL)
            model = cut.front
        fed = fed_inputs(model, wanted)
        config = build_config(wanted, shapes, operators={node.op_type for node in model.graph.all_nodes()}, fed=fed)
        onnx = OnnxTarget()
        onnx_files = onnx.emit(model, folder, options_for(onnx, opset=OPSET), shapes).files
        onnx_file = folder / onnx_files[0]
        refuse_errors(lint(onnx_file))
        written = onnx_ir.load(onnx_file)
        config_file = folder / "build_config.json"
        _write_json(config_file, config)
        streams: list[dict[str, Any]] | None = None
        calibration_files: list[str] = []
        if calibration is not None:
            streams, calibration_files = write_calibration(calibration, folder, shapes)
        reference, reference_files = write_reference(onnx_file, written, folder, wanted, shapes, calibration, fed=fed)
        manifest = bundle_manifest(
            model=written,
            onnx_file=onnx_file,
            config_file=config_file,
            options=wanted,
            shapes=shapes,
            calibration=streams,
            reference=reference,
            tail=TAIL if tail_files else None,
            fed=fed,
        )
        _write_json(folder / "bundle.json", manifest)
        lists = [name for name in calibration_files if name.endswith(".txt")]
        scripts = _write_scripts(folder, wanted, shapes, lists, fed)

        findings = lint(folder)
        refuse_errors(findings)
        rest = [finding for finding in findings if finding.severity is not Severity.ERROR]
        return EmitResult(
            files=(
                *onnx_files,
                *tail_files,
                config_file.name,
                "bundle.json",
                *scripts,
                *calibration_files,
                *reference_files,
            ),
            facts={
                "opset": OPSET,
                "precision": wanted.precision,
                "config": config,
                "pins": manifest["pins"],
                "cut": manifest["cut"],
                "proven": PROVEN,
                "findings": [
                    {"rule": finding.rule, "severity": finding.severity.value, "message": finding.message}
                    for finding in rest
                ],
            },
            notes=(
                f"{PROVEN}; on a machine with one: python3 build_mm.py && python3 run_mm.py",
                *_about_precision(wanted.precision),
                *_about_feeding(model, fed),
                *_about_ranges(wanted),
                *_about_cut(manifest["cut"]),
                *(calibration.notes if calibration is not None else ()),
                *summarise(finding for finding in rest if finding.severity is Severity.WARNING),
            ),
        )

    def runner(self, folder: Path) -> Runner | None:
        """ONNX Runtime on model.onnx (and the tail): what is in the bundle, not what MagicMind makes of it."""
        from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
        from graphforge.targets.magicmind.cut import TAIL, CutRunner

        if (folder / TAIL).is_file():
            whole: Runner = CutRunner(folder / "model.onnx", folder / TAIL)
            return whole
        runner: Runner = OnnxRuntimeRunner(folder / "model.onnx", name="ONNX Runtime, not an MLU")
        return runner

    def runs_here(self, folder: Path | None = None) -> str | None:
        """Never: MagicMind runs on an MLU, by the scripts in the bundle."""
        return "it needs an MLU and MagicMind; ONNX Runtime runs the ONNX file in the bundle instead"


def _about_feeding(model: ir.Model, fed: Mapping[int, Fed]) -> list[str]:
    notes = []
    for index, one in fed.items():
        what = "bytes of pixels, normalised on the MLU," if one.mean is not None else "floats"
        layout = "NHWC" if one.is_nhwc else "NCHW"
        notes.append(
            f"the MLU takes {what} in {layout} for input {model.graph.inputs[index].name!r}; "
            "model.onnx and calibration data stay normalised floats in NCHW"
        )
    return notes


def _about_ranges(options: MagicMindOptions) -> list[str]:
    if options.custom_ranges is None:
        return []
    return ["custom_ranges take the place of calibration: the build can be timed, its results mean nothing"]


def _about_precision(precision: str) -> list[str]:
    if precision == "force_float32":
        return []
    return [f"{precision} is applied when MagicMind builds: what is checked here is the model in float32"]


def _cut(model: ir.Model, places: tuple[str, ...]) -> Cut:
    """The model in two parts at opset 11, their values named as they will be in the files."""
    from graphforge.ir.versions import ir_version_for
    from graphforge.targets.magicmind.cut import cut_model
    from graphforge.targets.onnx.naming import assign_names

    model.ir_version = ir_version_for(OPSET)
    assign_names(model)
    return cut_model(model, places)


def _about_cut(cut: dict[str, Any] | None) -> list[str]:
    if cut is None:
        return []
    return [f"cut at {', '.join(cut['values'])}: {cut['tail']} computes the model's outputs from these, on the host"]


def _write_json(file: Path, data: Any) -> None:
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _write_scripts(
    folder: Path, options: Any, shapes: ShapeSpec, lists: list[str], fed: Mapping[int, Fed]
) -> list[str]:
    from importlib.resources import files

    from graphforge.targets.magicmind.shell import bench_script, build_script

    onboard = files("graphforge.targets.magicmind.onboard")
    texts = {
        "build_mm.py": onboard.joinpath("build_mm.py").read_text(encoding="utf-8"),
        "run_mm.py": onboard.joinpath("run_mm.py").read_text(encoding="utf-8"),
        "bench.sh": bench_script(shapes, fed),
        "build_mm_cpp.sh": build_script(options, shapes, calibration_lists=lists),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    return list(texts)
