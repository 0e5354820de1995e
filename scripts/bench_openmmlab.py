"""Models of OpenMMLab by one command each: compiled decoded, verified against the stock predict, compared in pixels.

    scripts/bench openmmlab                     # all of them, in .venv-openmmlab; most of an hour on two cores
    scripts/bench openmmlab --only rtmpose      # those whose config's name contains this
    scripts/bench openmmlab --table             # only print what was found before

Weights are random and calibrated (no checkpoint can be downloaded here), so the table says that the models compile and
agree, and nothing of their accuracy.  Seconds, of CPU too, are those of the compilation with its verification;
importing the framework and building the model come before.  Pixels are the largest difference over three pictures of
noise, rows of detections matched by their nearest boxes.  Results are kept in out/bench/openmmlab.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "out" / "bench" / "openmmlab"
PYTHON = ROOT / ".venv-openmmlab" / "bin" / "python"

BATCH = "input:0=1..4"
# dense models are compiled at this size, whatever their config's
SMALL = "size=160"
# config, dynamic dims or a size, forms of the outputs
MODELS: list[tuple[str, str, tuple[str, ...]]] = [
    ("mmpose:rtmpose-t_8xb256-420e_coco-256x192", BATCH, ("ragged",)),
    ("mmpose:rtmpose-s_8xb256-420e_coco-256x192", BATCH, ("ragged",)),
    ("mmpose:rtmpose-m_8xb256-420e_coco-256x192", BATCH, ("ragged",)),
    ("mmpose:rtmpose-l_8xb256-420e_coco-256x192", BATCH, ("ragged",)),
    ("mmpose:rtmpose-m_8xb64-270e_coco-wholebody-256x192", BATCH, ("ragged",)),
    ("mmpose:rtmpose-m_8xb64-210e_ap10k-256x256", BATCH, ("ragged",)),
    ("mmdet:rtmdet_nano_320-8xb32_coco-person", SMALL, ("ragged", "padded")),
    ("mmdet:rtmdet_m_640-8xb32_coco-person", SMALL, ("ragged", "padded")),
    ("mmpose:yoloxpose_s_8xb32-300e_coco-640", SMALL, ("ragged", "padded")),
    ("mmpose:rtmo-s_8xb32-600e_coco-640x640", SMALL, ("ragged", "padded")),
    ("mmpose:td-hm_hrnet-w32_8xb64-210e_coco-256x192", BATCH, ("ragged",)),
    ("mmpose:ae_hrnet-w32_8xb24-300e_coco-512x512", SMALL, ("ragged",)),
    ("mmpose:ae_res50_512x512", SMALL, ("ragged",)),
    ("mmpose:ae_mobilenetv2_512x512", SMALL, ("ragged",)),
    ("mmpose:td-hm_mspn50_8xb32-210e_coco-256x192", BATCH, ("ragged",)),
    ("mmpose:td-hm_litehrnet-18_8xb64-210e_coco-256x192", BATCH, ("ragged",)),
    ("mmpose:td-hm_hourglass52_8xb32-210e_coco-256x256", BATCH, ("ragged",)),
    ("mmpose:simcc_res50_8xb64-210e_coco-256x192", BATCH, ("ragged",)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models whose config's name contains this text")
    parser.add_argument("--form", default="", help="only this form of the outputs")
    parser.add_argument("--fresh", action="store_true", help="do again what was done before")
    parser.add_argument("--table", action="store_true", help="print the table of earlier results and stop")
    parser.add_argument("--timeout", type=int, default=1200, help="seconds that a model may take")
    parser.add_argument("--worker", nargs=4, metavar=("SPEC", "DYNAMIC", "FORM", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        spec, dynamic, form, out = options.worker
        _worker(spec, dynamic, form, Path(out))
        return
    if not PYTHON.exists():
        sys.exit("bench: scripts/openmmlab.sh makes the environment that this needs, .venv-openmmlab")
    RESULTS.mkdir(parents=True, exist_ok=True)
    wanted = [
        (spec, dynamic, form)
        for spec, dynamic, forms in MODELS
        for form in forms
        if options.only in spec and options.form in form
    ]
    for spec, dynamic, form in [] if options.table else wanted:
        out = _result_of(spec, form)
        if not out.exists() or options.fresh:
            _run(spec, dynamic, form, out, options.timeout)
            print(spec, form, json.loads(out.read_text())["verdict"], flush=True)
    _table([json.loads(out.read_text()) for spec, _, form in wanted if (out := _result_of(spec, form)).exists()])


def _result_of(spec: str, form: str) -> Path:
    return RESULTS / f"{spec.replace(':', '__')}__{form}.json"


def _run(spec: str, dynamic: str, form: str, out: Path, timeout: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [str(PYTHON), __file__, "--worker", spec, dynamic, form, str(out)]
    out.unlink(missing_ok=True)
    ending = ""
    try:
        done = subprocess.run(
            command, env=environment, cwd=ROOT, timeout=timeout, check=False, capture_output=True, text=True
        )
        ending = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        ending = f"more than {timeout} s"
    if not out.exists():
        out.write_text(json.dumps({"spec": spec, "form": form, "verdict": "broke", "reason": ending[:300]}))


def _worker(spec: str, dynamic: str, form: str, out: Path) -> None:
    import torch

    import graphforge

    torch.set_num_threads(1)
    loaded = graphforge.load_model(spec)
    begun, used = time.perf_counter(), _cpu()
    found: dict[str, Any] = {"spec": spec, "form": form, "reason": ""}
    folder = RESULTS / "bundles" / out.stem
    try:
        sized = dynamic.startswith("size=")
        side = dynamic.removeprefix("size=")
        bundle = graphforge.compile(
            loaded,
            f"input:1x3x{side}x{side}" if sized else None,
            dynamic_shapes=None if sized else dynamic,
            outputs=form,
            output=folder,
            accept_undecided=True,
        )
    except graphforge.GraphForgeError as error:
        found |= {"verdict": "refused", "reason": str(error)[:2000], "cpu": _cpu() - used}
        out.write_text(json.dumps(found))
        return
    steps = {step["name"]: step["seconds"] for step in bundle.manifest["steps"]}
    found |= {
        "verdict": bundle.manifest["verification"]["verdict"],
        "seconds": time.perf_counter() - begun,
        "capture": steps["capture"],
        "compile": sum(steps.values()) - steps["capture"] - steps.get("verify", 0),
        "cpu": _cpu() - used,
        "nodes": bundle.manifest["nodes"],
    }
    found["pixels"], found["rows"] = _pixels(loaded, bundle)
    out.write_text(json.dumps(found))


def _cpu() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime + resource.getrusage(resource.RUSAGE_SELF).ru_stime


def _pixels(loaded: Any, bundle: Any) -> tuple[float, int]:
    """The largest difference of places over three inputs, and how many rows were compared."""
    import numpy as np
    import torch

    worst, rows = 0.0, 0
    shape = [1, *bundle.manifest["inputs"][0]["shape"][1:]]
    for seed in range(3):
        given = torch.randn(shape, generator=torch.Generator().manual_seed(10 + seed))
        with torch.no_grad():
            eager = {name: one.numpy() for name, one in loaded.module(given).items()}
        came = bundle.run({"input": given.numpy()}).outputs
        name = next(one for one in ("boxes", "keypoints", "candidates") if one in eager)
        expected, own = (one[name].astype(np.float64) for one in (eager, came))
        if name == "boxes":
            own = own.reshape(-1, 4)
            if "num_dets" in came:
                own = own[: int(np.ravel(came["num_dets"])[0])]
            if len(own) != len(expected):
                return float("inf"), rows
            # equal scores may stand in either order: each row against the nearest of the other side's
            apart = np.abs(expected[:, None] - own[None]).max(axis=-1)
            off = apart.min(axis=1) if len(expected) else np.zeros(1)
        else:
            off = np.abs(expected - own).max(axis=-1).ravel()
            if name == "candidates":  # places of what suppression left at nought are arbitrary
                off = off[eager["candidate_scores"].ravel() > 0]
        worst, rows = max(worst, float(off.max())), rows + len(off)
    return worst, rows


def _table(found: list[dict[str, Any]]) -> None:
    print("| model | outputs | verdict | nodes | capture s | compile s | all s | CPU s | px | rows |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for one in found:
        name = one["spec"].partition(":")[2]
        if "nodes" not in one:
            print(f"| {name} | {one['form']} | {one['verdict']}: {one['reason'].splitlines()[0][:120]} |" + " |" * 7)
            continue
        numbers = f"{one['nodes']} | {one['capture']:.1f} | {one['compile']:.1f} | {one['seconds']:.0f}"
        print(
            f"| {name} | {one['form']} | {one['verdict']} | {numbers} | {one['cpu']:.0f} | {one['pixels']:.1e} "
            f"| {one['rows']} |"
        )


if __name__ == "__main__":
    main()
