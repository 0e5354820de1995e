"""Zoo benchmark: compile every model beside the stock exporter and the simplifiers, in one interleaved run per model.

    scripts/bench zoo                       # all models, table at the end
    scripts/bench zoo --only swin_t         # models whose name contains the text
    scripts/bench zoo --table               # only print the table of what was measured before

Each model has a process of its own, and each compilation a fork of it: its peak memory is that of the loaded model and
the one compilation, and no tool warms up another.  Times are medians of interleaved repetitions after a warm-up on a
tiny model, so that imports are not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "out" / "bench" / "zoo"
THREADS = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models whose name contains this text")
    parser.add_argument("--repeats", type=int, default=2, help="interleaved repetitions of the compile steps")
    parser.add_argument("--table", action="store_true", help="print the table of earlier results and stop")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--worker", nargs=2, metavar=("MODEL", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _worker(options.worker[0], Path(options.worker[1]), options.repeats)
        return
    sys.path.insert(0, str(ROOT))
    from scripts.zoo import ZOO

    names = [entry.name for entry in ZOO if options.only in entry.name]
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not options.table:
        for name in names:
            out = RESULTS / f"{name.replace('/', '__')}.json"
            if out.exists() and not options.fresh:
                continue
            print(f"{name} ...", flush=True)
            command = [sys.executable, __file__, "--worker", name, str(out), "--repeats", str(options.repeats)]
            code = subprocess.run(command, env=_environment(), cwd=ROOT, timeout=3600, check=False).returncode
            if code != 0 and not out.exists():
                out.write_text(json.dumps({"model": name, "error": f"worker ended with code {code}"}))
    _table(
        [
            json.loads(path.read_text())
            for path in (RESULTS / f"{n.replace('/', '__')}.json" for n in names)
            if path.exists()
        ]
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}


# -- one model ---------------------------------------------------------------------------------------------------------


def _worker(name: str, out: Path, repeats: int) -> None:
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(THREADS)
    from scripts.zoo import build

    entry, module, args, kwargs = build(name)
    result: dict[str, Any] = {"model": name, "dynamic": bool(entry.dynamic)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _warm_up(folder)
        result |= _compile_times(entry, module, args, kwargs, folder, repeats)
        out.write_text(json.dumps(result, indent=1))
        result["verification"] = _verified(entry, module, args, kwargs, folder)
        out.write_text(json.dumps(result, indent=1))
        files = _simplified(folder, result)
        result["nodes"] = {tool: _nodes(path) for tool, path in files.items()}
        result["latency_ms"] = _latency(files, folder / "feeds.npz")
    out.write_text(json.dumps(result, indent=1))


def _warm_up(folder: Path) -> None:
    import torch

    tiny = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    feed = (torch.randn(2, 3, 8, 8),)
    _graphforge(tiny, feed, {}, {}, folder / "tiny")
    _stock(tiny, feed, {}, None, folder / "tiny.onnx")


def _graphforge(module: Any, args: Any, kwargs: Any, dynamic: Any, out: Path, verify: bool = False) -> Any:
    import graphforge

    return graphforge.compile(
        module, args or None, kwargs=kwargs, dynamic_shapes=dynamic or None, verify=verify, output=out
    )


def _stock(module: Any, args: Any, kwargs: Any, dynamic: Any, path: Path) -> None:
    import contextlib
    import io

    import torch

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(module, args, str(path), kwargs=kwargs, dynamo=True, dynamic_shapes=dynamic, verbose=False)


def _torch_dynamic(module: Any, args: Any, kwargs: Any, dynamic: dict[str, dict[int, tuple[int, int]]]) -> Any:
    import torch

    if not dynamic:
        return None
    batch = torch.export.Dim("batch", min=1, max=4)
    return {name: dict.fromkeys(axes, batch) for name, axes in dynamic.items()}


def _gf_dynamic(dynamic: dict[str, dict[int, tuple[int, int]]]) -> Any:
    from graphforge.spec import DimRange

    return {n: {axis: DimRange("batch", *bounds) for axis, bounds in axes.items()} for n, axes in dynamic.items()}


def _compile_times(entry: Any, module: Any, args: Any, kwargs: Any, folder: Path, repeats: int) -> dict[str, Any]:
    import numpy as np

    from graphforge.call import input_tree

    tree = input_tree(module, args, kwargs)
    feeds: dict[str, Any] = {name: tensor.numpy() for name, tensor in tree.tensors.items()}
    np.savez(folder / "feeds.npz", **feeds)
    stock_dynamic = _torch_dynamic(module, args, kwargs, entry.dynamic)
    tools = {
        "capture": lambda: _capture(module, args, kwargs, stock_dynamic),
        "graphforge": lambda: _graphforge_facts(
            module, args, kwargs, _gf_dynamic(entry.dynamic), folder / "graphforge"
        ),
        "stock": lambda: _stock(module, args, kwargs, stock_dynamic, folder / "stock.onnx"),
    }
    seconds: dict[str, list[float]] = {tool: [] for tool in tools}
    peaks: dict[str, list[float]] = {tool: [] for tool in tools}
    found: dict[str, Any] = {}
    for _ in range(repeats):
        for tool, run in tools.items():
            outcome = _in_child(run, folder / f"{tool}.json")
            if "error" in outcome:
                found[f"{tool}_error"] = outcome["error"]
                continue
            seconds[tool].append(outcome["seconds"])
            peaks[tool].append(outcome["peak_mb"])
            if outcome["result"]:
                found[tool] = outcome["result"]
    return {
        **found,
        "seconds": {tool: statistics.median(times) if times else None for tool, times in seconds.items()},
        "peak_mb": {tool: max(values) if values else None for tool, values in peaks.items()},
    }


def _in_child(run: Callable[[], Any], out: Path) -> dict[str, Any]:
    """Run in a forked process, whose peak memory starts at what the loaded model takes; nothing warms up the next."""
    out.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            start = time.perf_counter()
            result = run()
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            out.write_text(json.dumps({"seconds": seconds, "peak_mb": peak, "result": result}))
        except BaseException as error:  # what failed is the result
            out.write_text(json.dumps({"error": f"{type(error).__name__}: {error}"[:2000]}))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    outcome: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"error": "the process died"}
    return outcome


def _capture(module: Any, args: Any, kwargs: Any, dynamic: Any) -> None:
    import torch

    torch.export.export(module, args, kwargs, dynamic_shapes=dynamic, strict=False)


def _graphforge_facts(module: Any, args: Any, kwargs: Any, dynamic: Any, out: Path) -> dict[str, Any]:
    manifest = _graphforge(module, args, kwargs, dynamic, out).manifest
    return {
        "steps": {step["name"]: step["seconds"] for step in manifest["steps"]},
        "fallbacks": manifest["lowering"]["fallbacks"],
        "decomposed": manifest["lowering"]["decomposed"],
        "method": manifest["capture"]["method"],
    }


def _verified(entry: Any, module: Any, args: Any, kwargs: Any, folder: Path) -> dict[str, Any]:
    """Verification at the example's batch and others; a model with a fixed batch is compiled a second time."""
    import torch
    from torch.utils import _pytree

    try:
        bundle = _graphforge(module, args, kwargs, _gf_dynamic(entry.dynamic), folder / "verified", verify=True)
        report = bundle.manifest["verification"]
        if not entry.dynamic:
            first = lambda leaf: leaf[:1].contiguous() if isinstance(leaf, torch.Tensor) else leaf  # noqa: E731
            one = _graphforge(
                module, _pytree.tree_map(first, args), _pytree.tree_map(first, kwargs), {}, folder / "one", verify=True
            )
            report = {**report, "second": one.manifest["verification"]}
    except Exception as error:  # what failed is the result
        return {"passed": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    return dict(report)


def _simplified(folder: Path, result: dict[str, Any]) -> dict[str, Path]:
    files = {"graphforge": folder / "graphforge" / "model.onnx", "stock": folder / "stock.onnx"}
    recipes = {
        "stock+onnxslim": "import onnxslim,sys; onnxslim.slim(sys.argv[1], sys.argv[2])",
        "stock+onnxsim": (
            "import onnx,onnxsim,sys; m,ok=onnxsim.simplify(sys.argv[1]); assert ok; onnx.save(m, sys.argv[2])"
        ),
    }
    for tool, code in recipes.items():
        if not files["stock"].exists():
            break
        path = folder / f"{tool}.onnx"
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code, str(files["stock"]), str(path)],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode == 0:
            files[tool] = path
            result["seconds"][tool] = time.perf_counter() - start
        else:
            result.setdefault("tool_errors", {})[tool] = done.stderr.strip().splitlines()[-1:] or [str(done.returncode)]
    return {tool: path for tool, path in files.items() if path.exists()}


def _nodes(path: Path) -> dict[str, int]:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    contrib = sum(1 for node in graph.node if node.domain not in ("", "ai.onnx"))
    return {"all": len(graph.node), "contrib": contrib}


def _latency(files: dict[str, Path], feeds_path: Path) -> dict[str, float | str]:
    import numpy as np

    from graphforge.runners.session import new_session

    feeds = dict(np.load(feeds_path))
    sessions: dict[str, Any] = {}
    result: dict[str, float | str] = {}
    for tool, path in files.items():
        try:
            sessions[tool] = new_session(path, threads=THREADS, spinning=True)
        except Exception as error:  # ONNX Runtime raises types of its own
            result[tool] = f"fails to load: {str(error)[:200]}"
    times: dict[str, list[float]] = {tool: [] for tool in sessions}

    def once(tool: str) -> float:
        names = [item.name for item in sessions[tool].get_inputs()]
        given = dict(zip(names, feeds.values(), strict=False)) if set(names) != set(feeds) else feeds
        start = time.perf_counter()
        sessions[tool].run(None, given)
        return time.perf_counter() - start

    for tool in sessions:
        once(tool)
    begun = time.perf_counter()
    order = list(sessions)
    for round_number in range(60):
        for tool in order[round_number % len(order) :] + order[: round_number % len(order)]:
            times[tool].append(once(tool))
        if round_number >= 8 and time.perf_counter() - begun > 12:
            break
    # the low quartile: what the machine does when nobody else wants it
    return {**result, **{tool: round(sorted(values)[len(values) // 4] * 1e3, 4) for tool, values in times.items()}}


# -- the table ---------------------------------------------------------------------------------------------------------


def _table(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="zoo: GraphForge (gf) beside torch.onnx.export (dynamo, default), + onnxslim, + onnxsim")
    for column in (
        "model", "ok", "capture s", "gf s", "stock s", "gf/stock", "gf/capture", "peak MB gf/stock",
        "nodes gf/stock/slim/sim", "fallbacks", "max rel diff", "ms gf/stock/slim/sim", "gf/best",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "model" else "right")
    ratios: dict[str, list[float]] = {"gf/stock": [], "gf/capture": [], "latency": []}
    for result in results:
        table.add_row(*_row(result, ratios))
    console = Console(width=230)
    console.print(table)
    for name, values in ratios.items():
        if values:
            mean = math.exp(sum(map(math.log, values)) / len(values))
            console.print(f"{name}: geometric mean {mean:.3f}, worst {max(values):.3f} over {len(values)} models")
    passed = sum(1 for result in results if _passed(result))
    with_fallbacks = sum(1 for result in results if result.get("graphforge", {}).get("fallbacks"))
    console.print(f"verified: {passed} of {len(results)}; models with fallbacks: {with_fallbacks}")


def _passed(result: dict[str, Any]) -> bool:
    report = result.get("verification", {})
    return bool(report.get("passed")) and bool(report.get("second", {"passed": True}).get("passed"))


def _ratio(a: Any, b: Any, into: list[float] | None = None) -> str:
    if not isinstance(a, int | float) or not isinstance(b, int | float) or not b:
        return "-"
    if into is not None:
        into.append(a / b)
    return f"{a / b:.2f}"


def _number(value: Any, form: str = "{:.1f}") -> str:
    return form.format(value) if isinstance(value, int | float) else "-" if value is None else "fails"


def _row(result: dict[str, Any], ratios: dict[str, list[float]]) -> list[str]:
    seconds = result.get("seconds", {})
    nodes = result.get("nodes", {})
    latency = result.get("latency_ms", {})
    peak = result.get("peak_mb", {})
    tools = ("graphforge", "stock", "stock+onnxslim", "stock+onnxsim")
    best = min((latency[tool] for tool in tools[1:] if isinstance(latency.get(tool), int | float)), default=None)
    worst = result.get("verification", {}).get("max_rel")
    return [
        result["model"],
        "yes" if _passed(result) else "NO",
        _number(seconds.get("capture"), "{:.2f}"),
        _number(seconds.get("graphforge"), "{:.2f}"),
        _number(seconds.get("stock"), "{:.2f}"),
        _ratio(seconds.get("graphforge"), seconds.get("stock"), ratios["gf/stock"]),
        _ratio(seconds.get("graphforge"), seconds.get("capture"), ratios["gf/capture"]),
        f"{_number(peak.get('graphforge'), '{:.0f}')}/{_number(peak.get('stock'), '{:.0f}')}",
        "/".join(
            (f"{nodes[tool]['all']}" + ("*" if nodes[tool]["contrib"] else "")) if tool in nodes else "-"
            for tool in tools
        ),
        str(len(result.get("graphforge", {}).get("fallbacks", []))),
        _number(worst, "{:.1e}"),
        "/".join(_number(latency.get(tool)) for tool in tools),
        _ratio(latency.get("graphforge"), best, ratios["latency"]),
    ]


if __name__ == "__main__":
    main()
