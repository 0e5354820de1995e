"""OpenVINO: the zoo and the gallery's detectors verified in it, and latency beside its own reading of the stock export.

    scripts/bench openvino                    # all models, table at the end
    scripts/bench openvino --only resnet      # models whose name contains the text
    scripts/bench openvino --table            # only print the table of what was measured before

Both sides are OpenVINO's own files, run by OpenVINO with the same settings (float32, one thread), in turn: what differs
is the ONNX that they were made of.  Each model has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RESULTS = ROOT / "out" / "bench" / "openvino"
THREADS = 1
ROUNDS = 40
SECONDS = 8.0
FORMS = ("ragged", "padded")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models whose name contains this text")
    parser.add_argument("--table", action="store_true", help="print the table of earlier results and stop")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--worker", nargs=2, metavar=("MODEL", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _worker(options.worker[0], Path(options.worker[1]))
        return
    from scripts.bench_detectors import HEADS
    from scripts.bench_zoo import _environment
    from scripts.zoo import ZOO

    every = [*(entry.name for entry in ZOO), *(f"gallery/{head}/{form}" for head in HEADS for form in FORMS)]
    names = [name for name in every if options.only in name]
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names:
        out = _out(name)
        if options.table or (out.exists() and not options.fresh):
            continue
        print(f"{name} ...", flush=True)
        command = [sys.executable, __file__, "--worker", name, str(out)]
        try:
            code = subprocess.run(command, env=_environment(), cwd=ROOT, timeout=1800, check=False).returncode
        except subprocess.TimeoutExpired:
            code = -1
        if code != 0 and not out.exists():
            out.write_text(json.dumps({"model": name, "error": f"worker ended with code {code}"}))
    _table([json.loads(_out(name).read_text()) for name in names if _out(name).exists()])


def _out(name: str) -> Path:
    return RESULTS / f"{name.replace('/', '__')}.json"


# -- one model ---------------------------------------------------------------------------------------------------------


def _worker(name: str, out: Path) -> None:
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        measure = _detector if name.startswith("gallery/") else _model
        out.write_text(json.dumps({"model": name, **measure(name, Path(scratch))}, indent=1))


def _detector(name: str, folder: Path) -> dict[str, Any]:
    from scripts.gallery import torchvision_heads

    _, head, form = name.split("/")
    model, inputs = getattr(torchvision_heads, head)(1)
    return _compiled(folder, model, inputs, outputs=form)


def _model(name: str, folder: Path) -> dict[str, Any]:
    from graphforge.call import input_tree
    from scripts.bench_zoo import _gf_dynamic, _stock, _torch_dynamic
    from scripts.zoo import build

    entry, module, args, kwargs = build(name)
    result = _compiled(folder, module, args or None, kwargs=kwargs, dynamic_shapes=_gf_dynamic(entry.dynamic) or None)
    if not result["passed"]:
        return result
    feeds = {name: tensor.numpy() for name, tensor in input_tree(module, args, kwargs).tensors.items()}
    try:
        _stock(module, args, kwargs, _torch_dynamic(module, args, kwargs, entry.dynamic), folder / "stock.onnx")
        theirs = _session(folder / "stock.onnx", feeds)
    except Exception as error:  # what failed is the result
        return {**result, "stock_error": f"{type(error).__name__}: {error}"[:300]}
    return {
        **result,
        "milliseconds": _interleaved({"graphforge": _session(folder / "bundle" / "model.xml", feeds), "stock": theirs}),
    }


def _compiled(folder: Path, model: Any, inputs: Any, **how: Any) -> dict[str, Any]:
    import graphforge

    start = time.perf_counter()
    try:
        bundle = graphforge.compile(model, inputs, target="openvino", output=folder / "bundle", **how)
    except Exception as error:  # what failed is the result
        return {"passed": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    verification = bundle.manifest["verification"]
    return {
        "passed": verification["passed"],
        "by": verification["artifact"],
        "max_rel": verification["max_rel"],
        "trials": len(verification["trials"]),
        "notes": [note for note in bundle.manifest["notes"] if "OpenVINO" in note],
        "seconds": round(time.perf_counter() - start, 1),
    }


def _session(path: Path, feeds: dict[str, Any]) -> Callable[[], Any]:
    """A call of the model in OpenVINO; inputs go by their order where names differ."""
    from graphforge.targets.openvino.manifest import config_of
    from graphforge.targets.openvino.vendor import core, load

    if path.suffix == ".onnx":  # its own conversion of that file
        load().save_model(core().read_model(str(path)), str(path.with_suffix(".xml")), compress_to_fp16=False)
        path = path.with_suffix(".xml")
    runtime = core()
    config = {**config_of("f32"), "INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": False}
    compiled = runtime.compile_model(runtime.read_model(str(path)), "CPU", config)
    known = [set(port.names) for port in compiled.inputs]
    by_name = all(any(name in names for name in feeds) for names in known)
    given = list(feeds.values()) if not by_name else [next(feeds[n] for n in feeds if n in names) for names in known]
    request = compiled.create_infer_request()
    return lambda: request.infer(given, share_inputs=True)


def _interleaved(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    times: dict[str, list[float]] = {tool: [] for tool in runs}
    for run in runs.values():
        run()
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        for tool, run in runs.items():
            start = time.process_time()
            run()
            times[tool].append(time.process_time() - start)
        if time.perf_counter() - begun > SECONDS and len(times["stock"]) > 4:
            break
    # processor time, since whoever waits for a processor is not slow; the low quartile
    return {tool: round(sorted(values)[len(values) // 4] * 1e3, 4) for tool, values in times.items()}


# -- the table ---------------------------------------------------------------------------------------------------------


def _table(results: list[dict[str, Any]]) -> None:
    print("| model | verified | max rel | trials | ms | stock's, ms | ratio |\n|---|---|---|---|---|---|---|")
    ratios = []
    for result in results:
        times = result.get("milliseconds", {})
        ratio = times["graphforge"] / times["stock"] if times else None
        ratios += [ratio] if ratio else []
        worst = result.get("max_rel")
        cells = [
            result["model"],
            "yes" if result.get("passed") else f"NO: {result.get('error', '')[:120]}",
            f"{worst:.1e}" if isinstance(worst, int | float) else str(worst or "-"),
            str(result.get("trials", "-")),
            f"{times['graphforge']:.2f}" if times else "-",
            f"{times['stock']:.2f}" if times else result.get("stock_error", "-")[:60],
            f"{ratio:.2f}" if ratio else "-",
        ]
        print(f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |")
    passed = sum(bool(result.get("passed")) for result in results)
    print(f"\n{passed} of {len(results)} verified in OpenVINO")
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(
            f"processor time over that of the stock exporter's file: geometric mean {mean:.3f}, "
            f"worst {max(ratios):.3f}, {len(ratios)} models"
        )


if __name__ == "__main__":
    main()
