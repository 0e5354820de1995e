"""Files in float16 and int8: which layer costs the outputs most, checked by keeping each layer in float32 in turn.

    scripts/bench reduced                      three networks in float16, three in int8
    scripts/bench reduced --only scale_norm

`graphforge diff` names the layer to keep.  The check makes the file anew with one layer kept, for every layer, and
measures the outputs: the layer named should be the one, or next to it, that gains most.

The float16 files are GraphForge's, calibrated on data that is quieter than what comes, with and without the option
`pins`; their outputs are measured with each result rounded to float16, as the file says.  The int8 files are made by
ONNX Runtime's quantizer.
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
from graphforge.diagnosis import Artifact
from graphforge.diagnosis.precision import decibels, quality
from graphforge.prepare import example_feeds, prepare, reference_runner
from graphforge.runners.arrays import Array
from graphforge.runners.inputs import random_feeds
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from scripts.mutations.networks import built
from scripts.reduced_networks import LOUD

__all__ = ["NETWORKS", "in_float16", "in_int8"]

NETWORKS = ("digits_cnn", "digits_attention", "mobile_block")
_LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "LayerNormalization", "Gelu", "Softmax")


def in_float16(name: str) -> str:
    """One row of the table: a file of ours, and which of its layers, by module or value, gains what."""
    module, quiet, loud = LOUD[name]()
    prepared = prepare(module, (loud,))
    feeds = example_feeds(prepared)
    expected = reference_runner(prepared).run(feeds)
    with tempfile.TemporaryDirectory(prefix="graphforge-reduced-") as place:
        folder = Path(place)
        np.savez(folder / "quiet.npz", x=quiet.numpy())

        def compiled(keep: Sequence[str]) -> graphforge.Bundle:
            return graphforge.compile(
                module,
                (loud,),
                precision="fp16",
                calibration=folder / "quiet.npz",
                target_options={"pins": ",".join(keep)} if keep else {},
                verify=False,
                output=folder / "half",
            )

        def snr(keep: Sequence[str]) -> float:
            with OnnxRuntimeRunner(compiled(keep).path / "model.onnx", threads=1) as runner:
                artifact = Artifact(runner)
                found = artifact.run_rounded(artifact.feeds(feeds))
            return min(quality(expected[one], found[one]).snr for one in expected)

        plain = snr([])
        report = graphforge.diff(module, folder / "half", (loud,))
        layers = dict.fromkeys(layer.entry.call.path or layer.entry.name for layer in report.precision)
        kept = {layer: snr([layer]) for layer in layers}
        together = snr(report.keep)
    return _row(name, "float16", plain, report.keep, together, kept)


def _row(name: str, level: str, plain: float, named: Sequence[str], together: float, kept: Mapping[str, float]) -> str:
    best = sorted(kept, key=lambda layer: -kept[layer])
    place = f"{best.index(named[0]) + 1} of {len(best)}" if named else "-"
    return (
        f"| {name} | {level} | {decibels(plain)} | {', '.join(named) or '-'} | {decibels(together)} | "
        f"{best[0]} | {decibels(kept[best[0]])} | {place} |"
    )


def in_int8(name: str) -> str:
    """One row of the table: a file of ONNX Runtime's quantizer, and which of its nodes gains what."""
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

        def snr(kept: Sequence[str]) -> float:
            target = folder / "reduced.onnx"
            with contextlib.redirect_stderr(io.StringIO()):
                _int8(source, target, kept, calibration)
            with OnnxRuntimeRunner(target, threads=1) as runner:
                found = runner.run(feeds)
            return min(quality(expected[one], found[one]).snr for one in expected if expected[one].dtype.kind == "f")

        plain = snr([])
        report = graphforge.diff(module, folder / "reduced.onnx", inputs)
        kept = {layer: snr([layer]) for layer in layers}
        named = [layer for row in report.worth_keeping for layer in row.nodes if layer in kept]
        together = snr(named[:1])
    return _row(name, "int8", plain, named[:1], together, kept)


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
    print("| network | file | outputs | named | when kept | best layer alone | when kept | place of the first named |")
    print("|---|---|---|---|---|---|---|---|")
    wanted = chosen.only.split(",") if chosen.only else [*LOUD, *NETWORKS]
    for name in wanted:
        print(in_float16(name) if name in LOUD else in_int8(name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
