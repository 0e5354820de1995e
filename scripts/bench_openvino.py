"""OpenVINO: the zoo and the gallery's detectors verified in it, and latency beside its own reading of the stock export.

    scripts/bench openvino                    # all models, table at the end
    scripts/bench openvino --only resnet      # models whose name contains the text
    scripts/bench openvino --table            # only print the table of what was measured before
    scripts/bench openvino --pose             # RTMPose's shape in three precisions, OpenVINO and ONNX Runtime in turn

Both sides are OpenVINO's own files, run by OpenVINO with the same settings (float32, one thread), in turn: what differs
is the ONNX that they were made of.  Each model has a process of its own, and what was measured is not measured again.
`operators` are those that OpenVINO runs after its own optimization: where both sides have as many, a ratio beside 1 is
noise.
"""

from __future__ import annotations

import argparse
import functools
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
    parser.add_argument("--pose", action="store_true", help="only RTMPose's shape, in three precisions")
    parser.add_argument("--worker", nargs=2, metavar=("MODEL", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _worker(options.worker[0], Path(options.worker[1]))
        return
    if options.pose:
        _pose()
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
    runs = {"graphforge": _session(folder / "bundle" / "model.xml", feeds), "stock": theirs}
    return {
        **result,
        "milliseconds": _interleaved({tool: run for tool, (run, _) in runs.items()}),
        "operators": {tool: count for tool, (_, count) in runs.items()},
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


def _session(path: Path, feeds: dict[str, Any], *, hint: str = "f32") -> tuple[Callable[[], Any], int]:
    """A call of the model in OpenVINO, and how many operators it runs; inputs go by their order where names differ."""
    from graphforge.targets.openvino.manifest import config_of
    from graphforge.targets.openvino.vendor import core, load

    if path.suffix == ".onnx":  # its own conversion of that file
        load().save_model(core().read_model(str(path)), str(path.with_suffix(".xml")), compress_to_fp16=False)
        path = path.with_suffix(".xml")
    runtime = core()
    config = {**config_of(hint), "INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": False}
    compiled = runtime.compile_model(runtime.read_model(str(path)), "CPU", config)
    known = [set(port.names) for port in compiled.inputs]
    by_name = all(any(name in names for name in feeds) for names in known)
    given = list(feeds.values()) if not by_name else [next(feeds[n] for n in feeds if n in names) for names in known]
    request = compiled.create_infer_request()
    return lambda: request.infer(given, share_inputs=True), len(compiled.get_runtime_model().get_ops())


def _interleaved(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    times: dict[str, list[float]] = {tool: [] for tool in runs}
    for run in runs.values():
        run()
    begun = time.perf_counter()
    for round_ in range(ROUNDS):
        # who runs first in a round finds the other's data in the caches: in turn
        for tool, run in list(runs.items())[:: 1 if round_ % 2 else -1]:
            start = time.process_time()
            run()
            times[tool].append(time.process_time() - start)
        if time.perf_counter() - begun > SECONDS and round_ > 4:
            break
    # processor time, since whoever waits for a processor is not slow; the low quartile
    return {tool: round(sorted(values)[len(values) // 4] * 1e3, 4) for tool, values in times.items()}


# -- RTMPose's shape ---------------------------------------------------------------------------------------------------


def _pose() -> None:
    """Time and accuracy of each precision in both runtimes, all files in turn; keypoints are the peaks of SimCC."""
    warnings.simplefilter("ignore")
    import torch

    import graphforge
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
    from tests.e2e.nets import RTMPose, calm

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    size = (256, 192)
    module = calm(RTMPose(17, size, 64, 256))
    # coarse noise made smooth, as pictures are
    pictures = torch.nn.functional.interpolate(torch.randn(24, 3, 16, 12), size, mode="bicubic")
    with torch.no_grad():
        wanted = [[part.numpy() for part in module(picture[None])] for picture in pictures[8:]]
    runs: dict[str, Callable[[], Any]] = {}
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for target, precision in [(t, p) for p in ("fp32", "bf16", "int8") for t in ("onnx", "openvino")]:
            folder = Path(scratch) / f"{target}-{precision}"
            graphforge.compile(
                module,
                (pictures[:1],),
                target=target,
                precision=None if precision == "fp32" else precision,
                calibration=None if precision == "fp32" else {"image": pictures[:8].numpy()},
                output=folder,
                verify=False,
            )
            feeds = [{"image": picture[None].numpy()} for picture in pictures[8:]]
            if target == "onnx":
                runner = OnnxRuntimeRunner(folder / "model.onnx", threads=THREADS)
                found = [list(runner.run(one).values()) for one in feeds]
                runs[folder.name] = functools.partial(runner.session.run, None, feeds[0])
                held = (folder / "model.onnx").stat().st_size
            else:
                found = _found_by_openvino(folder / "model.xml", feeds)
                runs[folder.name] = _session(folder / "model.xml", feeds[0])[0]
                if precision == "fp32":  # its plugin's own way
                    hinted = f"{folder.name.removesuffix('fp32')}bf16 by hint"
                    runs[hinted] = _session(folder / "model.xml", feeds[0], hint="bf16")[0]
                    of_hint = _found_by_openvino(folder / "model.xml", feeds, hint="bf16")
                    rows[hinted] = [f"{(folder / 'model.bin').stat().st_size / 1e6:.1f}", *_accuracy(wanted, of_hint)]
                held = (folder / "model.bin").stat().st_size
            rows[folder.name] = [f"{held / 1e6:.1f}", *_accuracy(wanted, found)]
        times = _interleaved(runs)
    heads = "runtime|precision|MB|signal to noise|keypoints at the same place|mean distance, px|ms|of fp32"
    print(f"| {heads.replace('|', ' | ')} |")
    print("|---|---|---|---|---|---|---|---|")
    for name, cells in rows.items():
        target, _, precision = name.partition("-")
        runtime = "OpenVINO" if target == "openvino" else "ONNX Runtime"
        share = times[name] / times[f"{target}-fp32"]
        print(f"| {' | '.join([runtime, precision, *cells, f'{times[name]:.2f}', f'{share:.2f}'])} |")


def _found_by_openvino(file: Path, feeds: list[dict[str, Any]], *, hint: str = "f32") -> list[list[Any]]:
    import numpy as np

    found = [_session(file, one, hint=hint)[0]() for one in feeds]
    return [[np.array(one[at]) for at in range(2)] for one in found]


def _accuracy(wanted: list[list[Any]], found: list[list[Any]]) -> list[str]:
    import numpy as np

    pairs = [
        (w, f.astype(np.float64)) for one, two in zip(wanted, found, strict=True) for w, f in zip(one, two, strict=True)
    ]
    noise = sum(float(((w - f) ** 2).sum()) for w, f in pairs)
    signal = sum(float((w.astype(np.float64) ** 2).sum()) for w, _ in pairs)
    off = np.concatenate([np.abs(w.argmax(-1) - f.argmax(-1)).ravel() / 2 for w, f in pairs])  # SimCC has half pixels
    decibel = 10 * math.log10(signal / max(noise, 1e-30))
    return [f"{decibel:.0f} dB", f"{(off == 0).mean():.1%}", f"{off.mean():.2f}"]


# -- the table ---------------------------------------------------------------------------------------------------------


def _table(results: list[dict[str, Any]]) -> None:
    heads = "model|verified|max rel|trials|ms|stock's, ms|ratio|operators"
    print(f"| {heads.replace('|', ' | ')} |\n|{'---|' * 8}")
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
            " / ".join(map(str, result["operators"].values())) if "operators" in result else "-",
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
