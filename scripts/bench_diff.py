"""What `diff` costs: CPU time beside one eager run and one load and run of the file, and the peak of memory.

scripts/bench diff                      ResNet-50, Swin-T, the digit detector, and a model with 2 GB of activations
scripts/bench diff --only swin_tiny
"""

from __future__ import annotations

import argparse
import gc
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

import graphforge
from graphforge.diagnosis import MEMORY, Artifact, diagnose
from graphforge.prepare import example_feeds, load, prepare, reference_runner
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.runners.recorded import read_manifest
from graphforge.verbs.diff import reference_values

__all__ = ["MODELS", "measured"]


def _timm(name: str, size: int) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    module = load(f"timm:{name}").module
    assert module is not None
    return module.eval(), (torch.randn(1, 3, size, size),)


def _detector() -> tuple[nn.Module, tuple[Any, ...]]:
    from scripts.gallery import digits

    model, inputs = digits.detector()
    return model.eval(), inputs


def _activations() -> tuple[nn.Module, tuple[Any, ...]]:
    """Sixty convolutions over a large picture: 0.2 MB of weights, 2 GB of activations."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1)]
    for _ in range(59):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers).eval(), (torch.randn(1, 3, 736, 736),)


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]] = {
    "resnet50": lambda: _timm("resnet50", 224),
    "swin_tiny": lambda: _timm("swin_tiny_patch4_window7_224", 224),
    "digit_detector": _detector,
    "activations": _activations,
}


def measured(name: str, *, spoiled: bool, memory: int) -> str:
    """One row of the table; to be run in a process of its own, for the peak of its memory."""
    module, inputs = MODELS[name]()
    with tempfile.TemporaryDirectory(prefix="graphforge-diff-") as folder:
        bundle = graphforge.compile(module, inputs, verify=False, output=Path(folder) / "bundle")
        if spoiled:
            _spoil(bundle.path / "model.onnx")
        prepared = prepare(module, inputs)
        feeds = example_feeds(prepared)
        reference = reference_runner(prepared)
        reference.run(feeds)
        eager = _cpu(lambda: reference.run(feeds))
        file = _cpu(lambda: _once(bundle.path / "model.onnx", feeds))
        gc.collect()
        before = _peak()
        start = time.process_time()
        values = reference_values(prepared, read_manifest(bundle.path), memory // 3)
        tape = values.tape_of(feeds)
        taped = time.process_time() - start
        artifact = Artifact(OnnxRuntimeRunner(bundle.path / "model.onnx"))
        report = diagnose(tape, artifact, feeds, memory=memory // 3, twin=values.twin)
        spent = time.process_time() - start
        spilled = tape.values.spilled
        tape.close()
    found = sum(row.status != "merged" for row in report.rows)
    return (
        f"| {name}{' (one fault)' if spoiled else ''} | {found} | {eager:.2f} | {file:.2f} | {taped:.2f} | "
        f"{spent - taped:.2f} | {(spent - taped) / (eager + file):.1f} | {before:.2f} | {_peak():.2f} | "
        f"{spilled / 1e9:.2f} | {'agrees' if report.agrees else 'named' if report.causes else 'not named'} |"
    )


def _cpu(action: Callable[[], Any]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _once(path: Path, feeds: Any) -> None:
    with OnnxRuntimeRunner(path) as runner:
        runner.run(feeds)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _spoil(path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(path)
    weights = {tensor.name for tensor in proto.graph.initializer}
    layers = [one for one in proto.graph.node if one.op_type in ("Conv", "Gemm", "MatMul") and one.input[1] in weights]
    node = layers[0]
    (tensor,) = [one for one in proto.graph.initializer if one.name == node.input[1]]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(tensor) * 1.5), tensor.name))
    onnx.save(proto, path)


HEAD = (
    "| model | values | eager | load and run | capture and reference | comparison | share of (eager + load and run) "
    "| peak before, GB | peak, GB | on disk, GB | |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, each row from a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="models, separated by commas; all of them otherwise")
    parser.add_argument("--memory", type=int, default=MEMORY, help="bytes of values held at once (1 GiB)")
    parser.add_argument("--row", help="measure this one here, healthy or 'NAME,fault'")
    chosen = parser.parse_args(arguments)
    if chosen.row:
        name, _, fault = chosen.row.partition(",")
        print(measured(name, spoiled=bool(fault), memory=chosen.memory))
        return 0
    print(HEAD, flush=True)
    for name in chosen.only.split(",") if chosen.only else MODELS:
        for row in (name, f"{name},fault"):
            command = [sys.executable, __file__, "--row", row, "--memory", str(chosen.memory)]
            subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
