"""Compile time beside another revision of GraphForge: the same models, in turn, in processes of their own.

    scripts/bench revision main~20                  ten models, five rounds, compiling alone
    scripts/bench revision ../checkout --verify     beside a checkout that lies elsewhere, verification included

What is compared is the processor time of `graphforge.compile` (one thread), the least of the rounds: wall time on a
machine with other work says little.  Both sides run with this checkout's scripts/zoo.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = (
    "torchvision/resnet50",
    "torchvision/mobilenet_v3_large",
    "torchvision/efficientnet_b0",
    "torchvision/swin_t",
    "torchvision/vit_b_16",
    "timm/hrnet_w18",
    "timm/fastvit_t8",
    "transformers/bert",
    "transformers/llama",
    "transformers/segformer",
)

# Compiles one model twice and tells of the second time: the first pays for imports and torch's own warming up.
_CHILD = """
import gc, sys, tempfile, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import graphforge
from zoo import build
verify = sys.argv[3] == "verify"
for _ in range(2):
    entry, module, args, kwargs = build(sys.argv[2])
    gc.collect()  # where the first compile's garbage is collected is chance
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        graphforge.compile(
            module, args, kwargs=kwargs, dynamic_shapes=entry.dynamic, output=folder + "/bundle", verify=verify
        )
        seconds = time.process_time() - start
print(seconds)
"""


def main() -> int:
    """Print the table; exit code 1 when the geometric mean is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="a git revision, or the folder of a checkout")
    parser.add_argument("--models", default=",".join(MODELS), help="names of scripts/zoo.py, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--verify", action="store_true", help="verification included")
    parser.add_argument("--limit", type=float, default=1.02, help="of the geometric mean of new / old")
    parser.add_argument("--json", metavar="FILE", help="write the seconds there, too")
    options = parser.parse_args()
    ratios = []
    found = {}
    with _checkout(options.revision) as other:
        print(f"{'model':34} {'old s':>8} {'new s':>8} {'new/old':>8}", flush=True)
        for model in options.models.split(","):
            seconds: dict[str, list[float]] = {"old": [], "new": []}
            for number in range(options.rounds):
                sides = [("old", other), ("new", ROOT)]
                for side, root in sides if number % 2 == 0 else reversed(sides):
                    seconds[side].append(_seconds(root, model, options.verify))
            old, new = min(seconds["old"]), min(seconds["new"])
            ratios.append(new / old)
            found[model] = seconds
            print(f"{model:34} {old:8.2f} {new:8.2f} {new / old:8.3f}", flush=True)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"geometric mean {mean:.3f}, worst {max(ratios):.3f}, limit of the mean {options.limit}")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return int(mean > options.limit)


def _seconds(root: Path, model: str, verify: bool) -> float:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", _CHILD, str(ROOT / "scripts"), model, "verify" if verify else "alone"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{model} with the code in {root} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


@contextmanager
def _checkout(revision: str) -> Iterator[Path]:
    """The folder of a checkout, or a temporary one of a revision."""
    if Path(revision).is_dir():
        yield Path(revision).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="revision-") as name:
        folder = Path(name) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=False)


if __name__ == "__main__":
    sys.exit(main())
