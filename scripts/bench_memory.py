"""Memory benchmark: compile a generated model of about 3 GB and state the whole process's peak beside its weights.

    scripts/bench memory [--layers 12] [--width 8192]

Two processes: one compiles up to the written file, the other verifies as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--worker", choices=("write", "verify"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _worker(options.layers, options.width, options.worker == "verify")
        return
    for worker, limit in (("write", 1.3), ("verify", 2.5)):
        command = [sys.executable, __file__, "--worker", worker]
        command += ["--layers", str(options.layers), "--width", str(options.width)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{worker}: failed\n{done.stderr[-2000:]}")
        facts = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"{worker:7} weights {facts['weights_gb']:.2f} GB, peak {facts['peak_gb']:.2f} GB "
            f"= {facts['peak_gb'] / facts['weights_gb']:.2f} x (limit {limit}), {facts['seconds']:.1f} s, "
            f"before compiling {facts['before_gb']:.2f} GB"
        )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def _worker(layers: int, width: int, verify: bool) -> None:
    sys.path.insert(0, str(ROOT))
    import torch

    import graphforge

    torch.manual_seed(0)
    module = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(layers))).eval()
    weights = sum(parameter.nbytes for parameter in module.parameters()) / 1024**3
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        graphforge.compile(module, torch.randn(1, width), verify=verify, output=Path(folder) / "bundle")
        seconds = time.perf_counter() - start
    print(json.dumps({"weights_gb": weights, "before_gb": before, "peak_gb": _peak(), "seconds": seconds}))


if __name__ == "__main__":
    main()
