"""What needs a GPU: TensorRT plans are built, run, compared with eager PyTorch and timed beside it.

    scripts/gpu_check                      all networks, in float32, float16 and int8
    scripts/gpu_check --models resnet18    some of them
    scripts/gpu_check --write FILE.md      the table as a file, too

Every network runs in a process of its own, so that one that dies takes nothing along.  Where there is no GPU, or where
no flavour of TensorRT takes the one at hand, it says what was answered, claims nothing and exits with 0.  Wherever
TensorRT's packages lie, PYTHONPATH may name that folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from graphforge.errors import GraphForgeError  # noqa: E402  (the checkout this script lies in, installed or not)
from graphforge.targets.tensorrt.flavour import FLAVOURS, gpu_problem  # noqa: E402

MODELS = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "swin_t", "vit_b_16", "simcc", "lstm")
PRECISIONS = ("fp32", "fp16", "int8")
# Asked for in this order: the GPU at hand, then older ones whose plans it may take.
CAPABILITIES = ("CURRENT", "SM89", "SM86", "SM80", "SM120")
SECONDS = 240  # for one network


def main() -> int:
    """Print the table; the exit code is 1 when a plan that runs is wrong or a process dies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="names, with commas between")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--seconds", type=float, default=440, help="begin no further network after this time")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument(
        "--one", nargs=4, metavar=("MODEL", "PRECISION", "FLAVOUR", "CAPABILITY"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_check(*options.one)))
        return 0
    problem = gpu_problem()
    if problem is not None:
        print(f"nothing was run: {problem}")
        print("what could not be checked: that plans load, that their results are eager's, how fast they are")
        return 0
    lines = [f"GPU check: {_about_the_machine()}", ""]
    print(lines[0], flush=True)
    chosen, answers = _first_that_works()
    lines += [f"- {answer}" for answer in answers]
    failed = 0
    if chosen is None:
        lines += ["", "No flavour of TensorRT takes this GPU: no plan was run, nothing is claimed."]
        print(lines[-1])
    else:
        heads = "network|precision|plan MB|build s|off by (share of max)|plan ms|eager ms|torch.compile ms|verdict"
        head = "| " + heads.replace("|", " | ") + " |"
        lines += ["", head, "|---" * 9 + "|"]
        print(head, flush=True)
        start = time.monotonic()
        for model in options.models.split(","):
            for precision in options.precisions.split(","):
                if time.monotonic() - start > options.seconds:
                    lines.append(f"| {model} | {precision} | | | | | | | not reached in {options.seconds:.0f} s |")
                    continue
                row = _in_a_process(model, precision, *chosen)
                failed += row["verdict"] not in ("right", "refused")
                lines.append(_line(model, precision, row))
                print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")
    return int(failed > 0)


def _about_the_machine() -> str:
    import torch

    driver = Path("/proc/driver/nvidia/version")
    found = re.search(r"\d+\.\d+(?:\.\d+)?", driver.read_text()) if driver.exists() else None
    release = found[0] if found is not None else "unknown"
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "a GPU that this torch does not use"
    capability = "SM{}{}".format(*torch.cuda.get_device_capability()) if torch.cuda.is_available() else ""
    return f"{name} {capability}, driver {release}, torch {torch.__version__}, Python {platform.python_version()}"


def _first_that_works() -> tuple[tuple[str, str] | None, list[str]]:
    """The flavour and compute capability whose plan of a tiny network runs here, and what the others answered."""
    answers: list[str] = []
    for flavour in FLAVOURS.values():
        if not flavour.installed():
            answers.append(f"{flavour.title}: not installed")
            continue
        for capability in CAPABILITIES if flavour.builds_without_gpu else ("",):
            row = _in_a_process("tiny", "fp32", flavour.name, capability)
            answers.append(
                f"{flavour.title} {row.get('version', '')} {capability}: {row['verdict']} {row.get('why', '')}".strip()
            )
            print(answers[-1], flush=True)
            if row["verdict"] == "right":
                return (flavour.name, capability), answers
    return None, answers


def _in_a_process(model: str, precision: str, flavour: str, capability: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--one", model, precision, flavour, capability]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env={**os.environ})
    except subprocess.TimeoutExpired:
        return {"verdict": "hangs", "why": f"no end after {SECONDS} s"}
    if done.returncode != 0:
        return {"verdict": "dies", "why": f"exit {done.returncode}: {' '.join(done.stderr.split())[-300:]}"}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _line(model: str, precision: str, row: dict[str, Any]) -> str:
    def cell(key: str, form: str) -> str:
        return format(row[key], form) if row.get(key) is not None else ""

    cells = [model, precision, cell("megabytes", ".1f"), cell("build", ".1f"), cell("error", ".1e")]
    cells += [cell("plan_ms", ".2f"), cell("eager_ms", ".2f"), cell("compiled_ms", ".2f")]
    cells.append(f"{row['verdict']} {row.get('why', '')}".strip().replace("|", "/"))
    return "| " + " | ".join(cells) + " |"


def _check(name: str, precision: str, flavour: str, capability: str) -> dict[str, Any]:
    """Build, run, compare and time one network.  Inputs of batch 2 to 4, so that the profile is more than a point."""
    import numpy as np
    import torch

    import graphforge
    from graphforge.targets.tensorrt.runner import TensorRTRunner, onnx_of_plan

    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    module, example = _network(name)
    module = module.eval()
    given = {"flavour": flavour, "tf32": False} | ({"compute_capabilities": capability} if capability else {})
    half = precision == "fp16"  # the module itself is cast, so that eager computes the same
    typed = module.half() if half else module
    inputs = (example.half() if half else example,)
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        try:
            bundle = graphforge.compile(
                typed,
                inputs,
                dynamic_shapes=[{0: (1, 4)}],
                target="tensorrt",
                precision=None if precision in ("fp32", "fp16") else precision,
                target_options=given,
                output=Path(place) / "bundle",
                verify=False,
            )
        except GraphForgeError as error:
            return {"verdict": "refused", "why": " ".join([error.message, *error.notes])[:300]}
        seconds = time.perf_counter() - start
        plan = json.loads((bundle.path / "plan.json").read_text())
        row: dict[str, Any] = {
            "version": plan.get("version", ""),
            "megabytes": (bundle.path / "model.plan").stat().st_size / 1e6,
            "build": seconds,
        }
        try:
            runner = TensorRTRunner(bundle.path)
        except GraphForgeError as error:
            return row | {"verdict": "refused", "why": " ".join([error.message, *error.notes])[:300]}
        feed_name = plan["inputs"][0]["name"]
        exact = module.double()  # the reference: eager in float64 on the CPU
        worst = 0.0
        spread = 0.0
        costs = 0.0
        of_file = onnx_of_plan(bundle.path / "model.onnx")
        for batch in (1, 2, 4):
            x = torch.randn(batch, *example.shape[1:])
            x = x.half() if half else x
            got = runner.run({feed_name: x.numpy()})
            with torch.no_grad():
                wanted = _first(exact(x.double())).numpy()
            found = next(iter(got.values())).astype(np.float64)
            scale = max(float(np.abs(wanted).max()), 1e-30)
            worst = max(
                worst, float(np.abs(found - wanted).max()) / scale if found.shape == wanted.shape else float("inf")
            )
            on_gpu = (module.half() if half else module.float()).cuda()
            with torch.no_grad():
                eager = _first(on_gpu(x.cuda())).double().cpu().numpy()
            spread = max(spread, float(np.abs(eager - wanted).max()) / scale)
            if precision not in ("fp32", "fp16"):  # what the graph costs by itself, whoever runs it
                same = next(iter(of_file.run({feed_name: x.numpy()}).values())).astype(np.float64)
                costs = max(costs, float(np.abs(same - wanted).max()) / scale)
            exact = module.cpu().double()
        # Ten times what eager itself is off on this GPU in this type, and never less than some units in the last place.
        bound = max(10 * spread, 4e-3 if half else 2e-5, 1.5 * costs + 1e-2 if costs else 0.0)
        row |= {"error": worst, "verdict": "right" if worst <= bound else f"wrong (bound {bound:.1e})"}
        if name == "tiny":
            return row
        row |= _times(runner, feed_name, module.half() if half else module.float(), inputs[0])
        return row


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


def _times(runner: Any, feed_name: str, module: Any, example: Any) -> dict[str, float | None]:
    """Medians in milliseconds with everything on the GPU, the three in turn."""
    import torch

    module = module.cuda()
    x = example.cuda()

    def plan() -> None:
        runner._runner.infer({feed_name: x}, check_inputs=False, copy_outputs_to_host=False)

    def eager() -> None:
        module(x)

    contenders: dict[str, Callable[[], None]] = {"plan_ms": plan, "eager_ms": eager}
    try:
        compiled: Any = torch.compile(module)
        with torch.no_grad():
            compiled(x)
        contenders["compiled_ms"] = lambda: _discard(compiled(x))
    except Exception as error:  # whatever torch.compile says here, the other two are still worth knowing
        print(f"torch.compile: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.no_grad():
        for round_ in range(60):
            for name, run in contenders.items():
                torch.cuda.synchronize()
                start = time.perf_counter()
                run()
                torch.cuda.synchronize()
                if round_ >= 10:
                    seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(found) for name, found in seconds.items()}


def _discard(_: Any) -> None:
    return None


def _network(name: str) -> tuple[Any, Any]:
    import torch
    from torch import nn

    if name == "tiny":
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(2, 3, 8, 8)
    if name == "lstm":
        return nn.LSTM(32, 64, num_layers=2, bidirectional=True, batch_first=True), torch.randn(2, 50, 32)
    if name == "simcc":
        return _simcc(), torch.randn(2, 3, 256, 192)
    import torchvision

    return getattr(torchvision.models, name)(weights=None), torch.randn(2, 3, 224, 224)


def _simcc() -> Any:
    import torch
    from torch import nn

    class SimCC(nn.Module):
        """The shape of RTMPose: a backbone, ScaleNorm, a gated attention unit with squared ReLU, two classifiers."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(
                nn.Conv2d(3, 32, 3, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 3, 4, 1), nn.SiLU(), nn.Conv2d(64, 17, 7, 4, 3)
            )
            self.scale = nn.Parameter(torch.ones(1))
            self.mix = nn.Linear(48, 256)
            self.gate = nn.Linear(256, 2 * 512 + 128)
            self.out = nn.Linear(512, 256)
            self.x = nn.Linear(256, 384)
            self.y = nn.Linear(256, 512)

        def forward(self, image: Any) -> Any:
            points = self.mix(self.backbone(image).flatten(2))
            norm = points.norm(dim=-1, keepdim=True) * points.shape[-1] ** -0.5
            points = points / norm.clamp(min=1e-5) * self.scale
            u, v, base = nn.functional.silu(self.gate(points)).split([512, 512, 128], dim=-1)
            kernel = nn.functional.relu(base @ base.transpose(1, 2) / 128**0.5).square()
            points = points + self.out(u * (kernel @ v))
            return torch.cat([self.x(points), self.y(points)], dim=-1)

    return SimCC()


if __name__ == "__main__":
    sys.exit(main())
