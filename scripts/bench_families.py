"""Families of models: each compiled with dynamic batch (and length, for text) in a process of its own.

    scripts/bench families                               # all of them; takes hours
    scripts/bench families --sample 40 --seed 1          # a seeded choice
    scripts/bench families --only transformers/ --timeout 120
    scripts/bench families --table                       # only print what was found before

A family is right when its artifact was verified at the promised sizes.  Beside it stands the stock exporter on the same
model, judged by ONNX Runtime against PyTorch at the example's sizes and at the smallest batch and length.
Results are kept in out/bench/families; a family that was done before is left out unless --fresh is given.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# How many times its CPU seconds a family may take by the clock, beside whatever else the machine does.
_WAITING = 30
RESULTS = ROOT / "out" / "bench" / "families"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="families whose name contains this text")
    parser.add_argument("--sample", type=int, help="so many of them, by a seeded choice")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--timeout", type=int, default=300, help="seconds of CPU that a family may take")
    parser.add_argument("--no-stock", action="store_true", help="leave the stock exporter out")
    parser.add_argument("--fresh", action="store_true", help="do again what was done before")
    parser.add_argument("--table", action="store_true", help="print the table of earlier results and stop")
    parser.add_argument("--worker", nargs=2, metavar=("FAMILY", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")
    if options.worker:
        # of CPU: how busy the machine is says nothing of a model
        resource.setrlimit(resource.RLIMIT_CPU, (options.timeout, options.timeout + 5))
        _worker(options.worker[0], Path(options.worker[1]), stock=not options.no_stock)
        return
    from scripts.families import catalogue

    names = [name for name in catalogue() if options.only in name]
    if options.sample is not None and options.sample < len(names):
        names = sorted(random.Random(options.seed).sample(names, options.sample))
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in [] if options.table else names:
        out = _result_of(name)
        if out.exists() and not options.fresh:
            continue
        started = time.perf_counter()
        _run(name, out, options)
        found = json.loads(out.read_text())
        print(
            f"{name:44} {found['status']:14} {time.perf_counter() - started:5.0f} s  {found['reason'][:90]}", flush=True
        )
    _table([json.loads(path.read_text()) for path in map(_result_of, names) if path.exists()])


def _result_of(name: str) -> Path:
    return RESULTS / f"{name.replace('/', '__')}.json"


def _run(name: str, out: Path, options: argparse.Namespace) -> None:
    out.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--worker", name, str(out), "--timeout", str(options.timeout)]
    command += ["--no-stock"] * options.no_stock
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    late, ending = "timeout", f"no end after {options.timeout} s of CPU"
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            timeout=options.timeout * _WAITING,
            check=False,
            capture_output=True,
            text=True,
        )
        status = late if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL) else "crashed"
        if status != late:
            last = (done.stderr.strip().splitlines() or ["?"])[-1]
            ending = f"the process ended with {done.returncode}: {last[:200]}"
    except subprocess.TimeoutExpired:  # it waits for something
        status = late
    if not out.exists():
        _write(out, name, status, ending)
    elif status == "timeout":  # ours is there, the stock exporter did not end
        found = json.loads(out.read_text())
        out.write_text(json.dumps({**found, "stock": "timeout", "stock_reason": ending}))


def _write(out: Path, name: str, status: str, reason: str, **more: Any) -> None:
    out.write_text(json.dumps({"family": name, "status": status, "reason": reason, **more}))


# -- one family --------------------------------------------------------------------------------------------------------


def _worker(name: str, out: Path, *, stock: bool) -> None:
    import graphforge
    from graphforge.errors import GraphForgeError
    from graphforge.spec import DimRange
    from scripts.families import NotApplicable, build

    try:
        family = build(name)
    except NotApplicable as error:
        _write(out, name, "not applicable", str(error))
        return
    dims: dict[str, DimRange] = {}
    dynamic = {
        input_name: {axis: dims.setdefault(dim[0], DimRange(*dim)) for axis, dim in axes.items()}
        for input_name, axes in family.dynamic.items()
    }
    keywords = family.inputs if isinstance(family.inputs, dict) else None
    positional = None if keywords is not None else family.inputs
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = graphforge.compile(
                family.model, positional, kwargs=keywords, dynamic_shapes=dynamic, output=Path(folder) / "bundle"
            )
        except GraphForgeError as error:
            kind = type(error).__name__
            status = {"VerificationError": "not verified", "InternalError": "internal error"}.get(kind, "refused")
            _write(out, name, status, error.message, notes=[note[:400] for note in error.notes[:6]])
        except Exception as error:  # whatever escapes is a fault of ours
            _write(out, name, "crashed", f"{type(error).__name__}: {error}"[:300])
        else:
            _write(out, name, "verified", "", notes=bundle.manifest["notes"], nodes=bundle.manifest["nodes"])
    if stock:
        verdict, reason = _stock(build(name), family.dynamic)
        out.write_text(json.dumps({**json.loads(out.read_text()), "stock": verdict, "stock_reason": reason}))


def _stock(family: Any, dynamic: Mapping[str, Mapping[int, tuple[str, int, int]]]) -> tuple[str, str]:
    """What torch.onnx makes of it: ``right``, ``wrong``, ``fails`` or ``does not run``, and why."""
    import contextlib
    import io

    import torch

    dims = {
        dim[0]: torch.export.Dim(dim[0], min=dim[1], max=dim[2]) for axes in dynamic.values() for dim in axes.values()
    }
    shapes = {name: {axis: dims[dim[0]] for axis, dim in axes.items()} for name, axes in dynamic.items()}
    named = isinstance(family.inputs, dict)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = str(Path(folder) / "stock.onnx")
        try:
            torch.onnx.export(
                family.model,
                () if named else family.inputs,
                file,
                kwargs=family.inputs if named else None,
                dynamo=True,
                dynamic_shapes=shapes if named else tuple(shapes.values()),
                verbose=False,
            )
        except Exception as error:  # the exporter raises whatever there is
            return "fails", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        try:
            return _compared(family, file, dynamic)
        except Exception as error:  # ONNX Runtime's own exceptions have no public base
            return "does not run", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _compared(family: Any, file: str, dynamic: Mapping[str, Mapping[int, tuple[str, int, int]]]) -> tuple[str, str]:
    import numpy as np
    import onnxruntime
    import torch
    from torch.utils import _pytree

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    given = family.inputs if isinstance(family.inputs, dict) else dict(zip(dynamic, family.inputs, strict=True))
    smaller = {
        name: tensor[
            tuple(
                slice(0, dynamic[name][axis][1]) if axis in dynamic.get(name, {}) else slice(None)
                for axis in range(tensor.dim())
            )
        ]
        for name, tensor in given.items()
    }
    for call in (given, smaller):
        with torch.no_grad():
            result = family.model(**call) if isinstance(family.inputs, dict) else family.model(*call.values())
        wanted = [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        feeds = {one.name: call[one.name].numpy() for one in session.get_inputs() if one.name in call}
        if len(feeds) < len(session.get_inputs()):
            feeds = {one.name: tensor.numpy() for one, tensor in zip(session.get_inputs(), call.values(), strict=False)}
        got = session.run(None, feeds)
        for place, (found, want) in enumerate(zip(got, wanted, strict=False)):
            expected = want.numpy()
            if np.shape(found) != expected.shape:
                return "wrong", f"output {place}: shape {np.shape(found)}, expected {expected.shape}"
            allowed = 1e-3 * max(1e-6, float(np.abs(expected).max(initial=0)))
            if not np.allclose(found, expected, rtol=1e-3, atol=allowed, equal_nan=True):
                return "wrong", f"output {place} differs by {np.abs(np.asarray(found, float) - expected).max():.3g}"
    return "right", ""


# -- the table ---------------------------------------------------------------------------------------------------------


def _table(results: list[dict[str, Any]]) -> None:
    print()
    print("| library | families | applicable | verified | share | stock right |")
    print("|---|---|---|---|---|---|")
    for library in ("timm", "torchvision", "transformers"):
        mine = [one for one in results if one["family"].startswith(f"{library}/")]
        able = [one for one in mine if one["status"] != "not applicable"]
        good = sum(one["status"] == "verified" for one in able)
        stock = Counter(one.get("stock", "not tried") for one in able)
        share = f"{100 * good / len(able):.1f} %" if able else "-"
        print(f"| {library} | {len(mine)} | {len(able)} | {good} | {share} | {stock['right']} |")
    print()
    failed = [one for one in results if one["status"] not in ("verified", "not applicable")]
    for one in failed:
        stock = one.get("stock", "not tried")
        print(f"- `{one['family']}`: {one['status']}: {one['reason'][:200]} (stock: {stock})")


if __name__ == "__main__":
    main()
