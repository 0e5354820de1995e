"""The two shell scripts of a bundle: a latency run with mm_run, and a build without Python."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from graphforge.spec import ShapeSpec
from graphforge.targets.magicmind.options import MagicMindOptions
from graphforge.targets.magicmind.pixels import Fed

__all__ = ["bench_script", "build_script"]

_HEAD = """#!/bin/bash
# {what}
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
"""


def bench_script(shapes: ShapeSpec, fed: Mapping[int, Fed] | None = None) -> str:
    """bench.sh: ``mm_run`` with the dims spelled out, which it needs for a model with dynamic dims; as they are fed."""
    fed = fed or {}
    dims = " ".join(
        _dims(fed[index].dims(tensor.shape) if index in fed else tensor.shape)
        for index, tensor in enumerate(shapes.inputs)
    )
    head = _HEAD.format(what="Throughput and latency by MagicMind's own mm_run: bench.sh [MODEL [DEVICE]]")
    return (
        head
        + f"""model="${{1:-model.magicmind}}"
device="${{2:-0}}"
mm_run="${{MM_RUN_PATH:-${{NEUWARE_HOME:-/usr/local/neuware}}/bin}}/mm_run"
"$mm_run" --magicmind_model "$model" --input_dims {dims} --devices "$device" --warmup 200 --iterations 1000
"""
    )


def build_script(options: MagicMindOptions, shapes: ShapeSpec, *, calibration_lists: Sequence[str]) -> str:
    """build_mm_cpp.sh: the same build by ``onnx_build``, the sample program of Cambricon's SDK; no Python needed.

    build_config.json overrides the other arguments there; the ones it cannot say stand on the command line.
    """
    head = _HEAD.format(
        what="The same build by onnx_build of the SDK (samples/magicmind/mm_build): build_mm_cpp.sh [MODEL]"
    )
    words = [
        "--onnx model.onnx",
        '--magicmind_model "$model"',
        f"--precision {options.precision}",
        f"--dynamic_shape {'true' if shapes.dims else 'false'}",
        "--input_dims " + " ".join(_dims(tensor.shape) for tensor in shapes.inputs),
        "--build_config build_config.json",
    ]
    if calibration_lists:
        words += [
            "--calibration true",
            f"--calibration_algo {options.calibration_algorithm}",
            "--file_list " + " ".join(shlex.quote(name) for name in calibration_lists),
            "--calibration_data_path calib",
        ]
    if options.cross_compile_toolchain_path:
        words.append(f"--toolchain_path {shlex.quote(options.cross_compile_toolchain_path)}")
    lines = " \\\n    ".join(words)
    return (
        head
        + f"""model="${{1:-model.magicmind}}"
onnx_build="${{ONNX_BUILD:-${{NEUWARE_HOME:-/usr/local/neuware}}/samples/magicmind/mm_build/build/onnx_build}}"
"$onnx_build" {lines}
"""
    )


def _dims(shape: Sequence[int]) -> str:
    return ",".join(str(size) for size in shape) or "_"
