"""What arm's length costs: compile commands in a child, files from elsewhere tried first, the start of the children.

    scripts/bench apart [--rounds N] [--only PART] [--whole]

Everything is processor time, of a process and of all that it started: wall time on a machine with other work says
little.  A command's cost is that of its child's start and end, measured by itself, beside one run of the
command; `--whole` compares whole runs instead, with and without, in turn, which takes a quiet machine.  A file
from elsewhere is compiled from Python with and without in turn, within one process that has imported everything; the
least of the rounds of each.  The other process is started before, and that is told by itself.  Exit code 1 when the
geometric mean of either is above 3 %.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1.03
MODELS = (
    "torchvision:resnet18",
    "torchvision:mobilenet_v3_small",
    "torchvision:efficientnet_b0",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:densenet121",
    "timm:fastvit_t8",
    "timm:vit_tiny_patch16_224",
    "timm:convnext_atto",
    "timm:ghostnet_100",
)

_COMMAND = """
import sys
from graphforge.cli.main import run
from graphforge.cli.supervisor import supervised
arguments = sys.argv[2:]
sys.exit(supervised(run, arguments) if sys.argv[1] == "with" else run(arguments))
"""

_FROM_PYTHON = """
import os, sys, time
import graphforge
from graphforge import apart
from graphforge.runners import elsewhere, survey

known = survey.is_watched

def trust(all):
    # as within a command: nothing is at arm's length
    survey.is_watched = apart.is_watched = (lambda: True) if all else known

def seconds():
    # of this process, of its forks, and of the one that stays: its clock, as clock_getcpuclockid(3) makes it
    other = time.clock_gettime((~elsewhere._child._process.pid << 3) | 2)
    return time.process_time() + sum(os.times()[2:4]) + other

elsewhere._child.ask(do="forget", limit=60, left=[])
least = {}
for number in range(2 * int(sys.argv[3]) + 2):
    way = (number + number // 2) % 2
    trust(way == 0)
    before = seconds()
    graphforge.compile(sys.argv[1], output=sys.argv[2])
    if number > 1:  # the first of each imports
        least[way] = min(least.get(way, 1e9), seconds() - before)
print(least[0], least[1])
"""

_START = """
import os, sys, time
from graphforge.cli.supervisor import supervised
def child(arguments):
    os._exit(0)
wall, before = time.perf_counter(), os.times()
for _ in range(200):
    supervised(child, ["compile"])
wall, after = time.perf_counter() - wall, os.times()
print(wall / 200, sum(after[:4]) / 200 - sum(before[:4]) / 200)
"""

_WARM = """
import time
start = time.perf_counter()
from graphforge.runners.child import Child
with Child("graphforge.runners.elsewhere") as child:
    imported = time.perf_counter()
    child.ask(do="forget", limit=60, left=[])
    started = time.perf_counter()
    child.ask(do="forget", limit=60, left=[])
    print(started - imported, time.perf_counter() - started)
"""


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="models whose name has this in it")
    parser.add_argument("--whole", action="store_true", help="compare whole commands, with and without")
    options = parser.parse_args()
    wall, busy = (float(word) for word in _output(_START).split())
    print(f"start and end of a command's child: {wall * 1e3:.1f} ms, {busy * 1e3:.1f} ms of the CPU")
    first, then = (float(word) for word in _output(_WARM).split())
    print(
        f"start of the process that runs files for Python: {first:.2f} s, once; a job of nothing {then * 1e3:.1f} ms\n"
    )
    print("| model | command, CPU s | in a child | ratio | file, from Python, CPU s | at arm's length | ratio |")
    print("|---|---|---|---|---|---|---|")
    ratios: list[tuple[float, float]] = []
    for model in MODELS:
        if options.only not in model:
            continue
        with tempfile.TemporaryDirectory() as folder:
            compile_ = ["compile", model, "--input", "x:1x3x224x224", "-o", f"{folder}/out"]
            files = [f"{folder}/out/model.onnx", f"{folder}/again"]
            if options.whole:
                alone, child = _both(_COMMAND, compile_, options.rounds)
            else:
                call = [sys.executable, "-c", _COMMAND, "without", *compile_]
                alone = _seconds(call)
                child = alone + busy
            plain, tried = map(float, _output(_FROM_PYTHON, *files, str(options.rounds)).split())
        ratios.append((child / alone, tried / plain))
        print(
            f"| {model} | {alone:.2f} | {child:.2f} | {child / alone:.3f} "
            f"| {plain:.2f} | {tried:.2f} | {tried / plain:.3f} |",
            flush=True,
        )
    means = [math.exp(sum(map(math.log, column)) / len(ratios)) for column in zip(*ratios, strict=True)]
    print(f"| geometric mean | | | {means[0]:.3f} | | | {means[1]:.3f} |")
    return int(max(means) > LIMIT)


def _both(script: str, arguments: Sequence[str], rounds: int) -> tuple[float, float]:
    """The least seconds of the CPU without and with."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    for number in range(rounds):
        for way in ("without", "with") if number % 2 == 0 else ("with", "without"):
            found[way].append(_seconds([sys.executable, "-c", script, way, *arguments]))
    return min(found["without"]), min(found["with"])


def _seconds(command: Sequence[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_environment())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command[3:])}")
    return usage.ru_utime + usage.ru_stime


def _output(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=_environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


if __name__ == "__main__":
    sys.exit(main())
