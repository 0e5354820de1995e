"""TensorRT plans of the zoo and the gallery's detectors, built without a GPU, in four precisions, fixed and free batch.

    scripts/bench tensorrt                    # what is not measured yet, table at the end
    scripts/bench tensorrt --third 1          # every third model, from the first (2, 3: from the second, the third)
    scripts/bench tensorrt --only swin        # models whose name contains the text
    scripts/bench tensorrt --precisions fp32  # some of them
    scripts/bench tensorrt --table            # only print the table of what was measured before

Every plan is for SM86 and SM120.  A model has a process of its own, and each plan is written down when it is built:
what is stopped goes on where it was, and a process that dies costs the plan that it was at.  No plan is run: that takes
a GPU (scripts/gpu_check).  The share of matrix work is read from the parsed network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RESULTS = ROOT / "out" / "bench" / "tensorrt"
CAPABILITIES = "SM86,SM120"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
BATCHES = ("static", "dynamic")
# What a plan computes in where everything is as it was asked for.
_ASKED = {"fp16": "HALF", "bf16": "BF16", "int8": "INT8"}
SECONDS = 1800  # for one model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models whose name contains this text")
    parser.add_argument("--third", type=int, choices=(1, 2, 3), help="every third model, from this one")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="with commas between")
    parser.add_argument("--table", action="store_true", help="print the table of earlier results and stop")
    parser.add_argument("--fresh", action="store_true", help="build again what was built before")
    parser.add_argument("--worker", nargs=2, metavar=("MODEL", "PLANS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _worker(options.worker[0], options.worker[1].split(","))
        return
    names = [
        name for name in _every_name()[(options.third or 1) - 1 :: 3 if options.third else 1] if options.only in name
    ]
    wanted = options.precisions.split(",")
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not options.table:
        for name in names:
            plans = [f"{batch}-{precision}" for precision in wanted for batch in _batches_of(name)]
            _build(name, plans, fresh=options.fresh)
    _table([name for name in names if any(_out(name, f"{b}-{p}").exists() for b in BATCHES for p in wanted)], wanted)


def _every_name() -> list[str]:
    from scripts.bench_detectors import HEADS
    from scripts.zoo import ZOO

    return [*(entry.name for entry in ZOO), *(f"gallery/{head}" for head in HEADS)]


def _batches_of(name: str) -> tuple[str, ...]:
    from scripts.zoo import ZOO

    fixed = name.startswith("gallery/") or any(entry.name == name and not entry.dynamic for entry in ZOO)
    return BATCHES[:1] if fixed else BATCHES


def _out(name: str, plan: str) -> Path:
    return RESULTS / f"{name.replace('/', '__')}__{plan}.json"


def _build(name: str, plans: list[str], *, fresh: bool) -> None:
    from scripts.bench_zoo import _environment

    for plan in plans if fresh else ():
        _out(name, plan).unlink(missing_ok=True)
    while left := [plan for plan in plans if not _out(name, plan).exists()]:
        print(f"{name}: {', '.join(left)} ...", flush=True)
        command = [sys.executable, __file__, "--worker", name, ",".join(left)]
        try:
            code = subprocess.run(command, env=_environment(), cwd=ROOT, timeout=SECONDS, check=False).returncode
            ended = f"ended with code {code}"
        except subprocess.TimeoutExpired:
            ended = f"has no end in {SECONDS} s"
        at = next((plan for plan in left if not _out(name, plan).exists()), None)
        if at is not None:  # the one that it was at
            _out(name, at).write_text(json.dumps({"built": False, "error": f"the process {ended}"}))


# -- one model ---------------------------------------------------------------------------------------------------------


def _worker(name: str, plans: list[str]) -> None:
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    for plan in plans:
        batch, _, precision = plan.partition("-")
        with tempfile.TemporaryDirectory() as scratch:
            _out(name, plan).write_text(json.dumps(_built(name, batch, precision, Path(scratch)), indent=1))


def _built(name: str, batch: str, precision: str, folder: Path) -> dict[str, Any]:
    import graphforge
    from scripts.bench_zoo import _gf_dynamic

    if name.startswith("gallery/"):
        from scripts.gallery import torchvision_heads

        model, args = getattr(torchvision_heads, name.partition("/")[2])(1)
        how: dict[str, Any] = {}
    else:
        from scripts.zoo import build

        entry, model, args, kwargs = build(name)
        dynamic = _gf_dynamic(entry.dynamic) if batch == "dynamic" else None
        how = {"kwargs": kwargs, "dynamic_shapes": dynamic or None}
    start = time.perf_counter()
    try:
        bundle = graphforge.compile(
            model,
            args or None,
            target="tensorrt",
            precision=precision,
            target_options={"flavour": "tensorrt_rtx", "compute_capabilities": CAPABILITIES},
            output=folder / "bundle",
            verify=False,
            **how,
        )
    except Exception as error:  # what failed is the result
        return {"built": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    facts = bundle.manifest["artifact"]
    return {
        "built": True,
        "version": facts["version"],
        "layers": facts["layers"],
        "megabytes": facts["plan"]["bytes"] / 1e6,
        "build": facts["seconds"]["build"],
        "seconds": round(time.perf_counter() - start, 1),
        "work": facts["matrix_work"],
    }


# -- the table ---------------------------------------------------------------------------------------------------------


def _table(names: list[str], precisions: list[str]) -> None:
    """A row a model: MB of the plans, fixed and free batch; and what is computed in the type that was asked for."""
    shares = [precision for precision in precisions if precision in _ASKED]
    heads = ["model", "layers", *(f"{p}, MB" for p in precisions), *(f"work in {p}" for p in shares)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    tried, failed = 0, []
    for name in names:
        found = {}
        for precision in precisions:
            for batch in BATCHES:
                if _out(name, f"{batch}-{precision}").exists():
                    found[precision, batch] = json.loads(_out(name, f"{batch}-{precision}").read_text())
        tried += len(found)
        failed += [
            f"{name} {batch} {precision}: {one['error']}"
            for (precision, batch), one in found.items()
            if not one["built"]
        ]
        layers = next((str(one["layers"]) for one in found.values() if one["built"]), "-")
        sizes = [
            " / ".join(_size(found.get((p, batch))) for batch in BATCHES if (p, batch) in found) for p in precisions
        ]
        work = [_share(found.get((p, "static")) or found.get((p, "dynamic")), _ASKED[p]) for p in shares]
        print(f"| {' | '.join([name, layers, *(size or '-' for size in sizes), *work])} |")
    print(f"\n{tried - len(failed)} of {tried} plans built")
    for line in failed:
        print(" ".join(line.split())[:600])


def _size(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['megabytes']:.1f}" if row["built"] else "NO"


def _share(row: dict[str, Any] | None, dtype: str) -> str:
    return f"{row['work'].get(dtype, 0.0):.1%}" if row is not None and row["built"] else "-"


if __name__ == "__main__":
    main()
