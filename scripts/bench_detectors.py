"""Latency of compiled detectors beside the TorchScript exporter's files and eager torchvision, interleaved in one run.

    scripts/bench detectors                 # the six torchvision detectors of the gallery
    scripts/bench detectors --only ssd

Every file runs in ONNX Runtime with one thread on the gallery's picture.  Where torchvision's compiled library does not
load, eager suppresses boxes in plain torch (see frontend/torchvision_fix.py); the table says so.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

HEADS = ("ssd", "retinanet", "fcos", "faster_rcnn", "mask_rcnn", "keypoint_rcnn")
FORMS = (("ragged", "native"), ("padded", "native"), ("ragged", "portable"), ("padded", "portable"))
ROUNDS = 40
SECONDS = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="heads whose name contains this text")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    rows = [_measure(name) for name in HEADS if options.only in name]
    folder = ROOT / "out" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "detectors.json").write_text(json.dumps(rows, indent=1))
    _table(rows)


def _measure(name: str) -> dict[str, Any]:
    import onnx
    import torch

    import graphforge
    from scripts.gallery import torchvision_heads

    model, inputs = getattr(torchvision_heads, name)(1)
    row: dict[str, Any] = {"head": name, "nodes": {}, "milliseconds": {}}
    runs: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        files: dict[str, Path] = {}
        for outputs, nms in FORMS:
            form = f"{outputs} {nms}"
            print(f"{name}: {form} ...", flush=True)
            bundle = graphforge.compile(model, inputs, outputs=outputs, nms=nms, output=Path(scratch) / form)
            files[form] = bundle.path / "model.onnx"
        print(f"{name}: TorchScript exporter ...", flush=True)
        stock = Path(scratch) / "torchscript.onnx"
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                torch.onnx.export(model, inputs, str(stock), dynamo=False, opset_version=17)
            files["torchscript"] = stock
        except Exception as error:  # what failed is the result
            row["torchscript_error"] = f"{type(error).__name__}: {error}"[:300]
        for form, path in files.items():
            row["nodes"][form] = sum(1 for _ in _all_nodes(onnx.load(path).graph))
            runs[form] = _session(path, inputs)
        runs["eager"] = lambda: model(*inputs)
        row["milliseconds"] = _interleaved(runs)
    return row


def _all_nodes(graph: Any) -> Any:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _all_nodes(body)


def _session(path: Path, inputs: Any) -> Callable[[], Any]:
    from torch.utils import _pytree

    from graphforge.runners.session import new_session

    session = new_session(path, spinning=True)
    names = [value.name for value in session.get_inputs()]
    feeds = dict(zip(names, (leaf.numpy() for leaf in _pytree.tree_leaves(inputs)), strict=True))
    return lambda: session.run(None, feeds)


def _interleaved(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    begun = time.perf_counter()
    order = list(runs)
    for at in range(ROUNDS):
        for name in order[at % len(order) :] + order[: at % len(order)]:
            start = time.perf_counter()
            runs[name]()
            times[name].append(time.perf_counter() - start)
        if at >= 8 and time.perf_counter() - begun > SECONDS:
            break
    return {name: round(statistics.median(values) * 1e3, 3) for name, values in times.items()}


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from graphforge.frontend.torchvision_fix import torchvision_state

    forms = [f"{outputs} {nms}" for outputs, nms in FORMS]
    table = Table(title=f"milliseconds, one thread; torchvision {torchvision_state().value}")
    for column in ("head", *forms, "TorchScript", "eager", "best native / best other", "nodes ours / TorchScript"):
        table.add_column(column, justify="left" if column == "head" else "right")
    for row in rows:
        times, nodes = row["milliseconds"], row["nodes"]
        other = min(times[name] for name in ("torchscript", "eager") if name in times)
        native = min(times["ragged native"], times["padded native"])
        table.add_row(
            row["head"],
            *(f"{times[form]:.1f}" for form in forms),
            f"{times['torchscript']:.1f}" if "torchscript" in times else "fails",
            f"{times['eager']:.1f}",
            f"{native / other:.2f}",
            f"{nodes['ragged native']} / {nodes.get('torchscript', '-')}",
        )
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
