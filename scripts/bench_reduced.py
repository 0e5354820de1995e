"""Files in float16 and int8: which layer costs the outputs most, checked by keeping each layer in float32 in turn.

    scripts/bench reduced                      three networks
    scripts/bench reduced --only digits_cnn

`graphforge diff` names the layer to keep.  The check makes the file anew with one layer kept, for every layer, and
measures the outputs: the layer named should be the one, or next to it, that gains most.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx

import graphforge
from graphforge.diagnosis.precision import quality
from graphforge.prepare import example_feeds, prepare, reference_runner
from graphforge.runners.arrays import Array
from graphforge.runners.inputs import random_feeds
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from scripts.mutations.networks import built

__all__ = ["LEVELS", "NETWORKS", "judged"]

NETWORKS = ("digits_cnn", "digits_attention", "mobile_block")
LEVELS = ("float16", "int8")
_LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "LayerNormalization", "Gelu", "Softmax")


def judged(name: str, level: str) -> str:
    """One row of the table."""
    module, inputs = built(name)
    prepared = prepare(module, inputs)
    feeds = example_feeds(prepared)
    expected = reference_runner(prepared).run(feeds)
    with tempfile.TemporaryDirectory(prefix="graphforge-reduced-") as place:
        folder = Path(place)
        graphforge.compile(module, inputs, verify=False, output=folder / "bundle")
        source = folder / "bundle/model.onnx"
        layers = [node.name for node in onnx.load(source).graph.node if node.op_type in _LAYERS]
        sizes = prepared.shapes.example_sizes()
        calibration = [feeds, *(random_feeds(prepared.shapes, sizes, feeds, seed=seed) for seed in (1, 2))]
        make = _half if level == "float16" else _int8

        def snr(kept: Sequence[str]) -> float:
            target = folder / "reduced.onnx"
            with contextlib.redirect_stderr(io.StringIO()):
                make(source, target, kept, calibration)
            with OnnxRuntimeRunner(target, threads=1, optimize=level == "int8") as runner:
                found = runner.run(feeds)
            return min(quality(expected[one], found[one]).snr for one in expected if expected[one].dtype.kind == "f")

        plain = snr([])
        report = graphforge.diff(module, folder / "reduced.onnx", inputs)
        gains = {layer: snr([layer]) - plain for layer in layers}
    best = sorted(gains, key=lambda layer: -gains[layer])
    named = [layer for row in report.worth_keeping for layer in row.nodes if layer in gains]
    first = named[0] if named else "-"
    rank = best.index(first) + 1 if named else 0
    return (
        f"| {name} | {level} | {plain:.1f} dB | {first} | {gains.get(first, 0.0):+.1f} dB | "
        f"{best[0]} | {gains[best[0]]:+.1f} dB | {rank} of {len(best)} |"
    )


def _half(source: Path, target: Path, kept: Sequence[str], calibration: Sequence[Mapping[str, Array]]) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load(source), keep_io_types=True, node_block_list=list(kept))
    onnx.save(half, target)


def _int8(source: Path, target: Path, kept: Sequence[str], calibration: Sequence[Mapping[str, Array]]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[Any] = iter([{n: np.asarray(a) for n, a in one.items()} for one in calibration])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    quantize_static(str(source), str(target), Reader(), nodes_to_exclude=list(kept), reduce_range=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="networks, separated by commas; all of them otherwise")
    chosen = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    print("| network | file | outputs | named | when kept | best of all layers | when kept | place of the named |")
    print("|---|---|---|---|---|---|---|---|")
    for name in chosen.only.split(",") if chosen.only else NETWORKS:
        for level in LEVELS:
            print(judged(name, level), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
