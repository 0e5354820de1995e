"""Models of OpenMMLab by one command each: compiled decoded, verified against the stock predict, compared in pixels.

    scripts/bench openmmlab                     # all of them, in .venv-openmmlab; most of an hour on two cores
    scripts/bench openmmlab --only rtmpose      # those whose config's name contains this
    scripts/bench openmmlab --table             # only print what was found before
    scripts/bench openmmlab --whole             # CPU seconds of the whole command for RTMPose-m; two minutes

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
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "out" / "bench" / "openmmlab"
PYTHON = ROOT / ".venv-openmmlab" / "bin" / "python"

# dense models are compiled at this size, whatever their config's
SIDE = 160
# how a model is compiled; with a dynamic batch, what is found on each picture comes as padded rows
RAGGED, PADDED, BATCH = "ragged", "padded", "batch 1..4"
# the forms of a model, and the side of its input where that is not the config's
TOP_DOWN, DENSE, GROUPED = ((BATCH,), None), ((RAGGED, PADDED, BATCH), SIDE), ((BATCH,), SIDE)
Row: TypeAlias = tuple[str, str]
MODELS: list[tuple[str, tuple[tuple[str, ...], int | None]]] = [
    ("mmpose:rtmpose-t_8xb256-420e_coco-256x192", TOP_DOWN),
    ("mmpose:rtmpose-s_8xb256-420e_coco-256x192", TOP_DOWN),
    ("mmpose:rtmpose-m_8xb256-420e_coco-256x192", TOP_DOWN),
    ("mmpose:rtmpose-l_8xb256-420e_coco-256x192", TOP_DOWN),
    ("mmpose:rtmpose-m_8xb64-270e_coco-wholebody-256x192", TOP_DOWN),
    ("mmpose:rtmpose-m_8xb64-210e_ap10k-256x256", TOP_DOWN),
    ("mmdet:rtmdet_nano_320-8xb32_coco-person", DENSE),
    ("mmdet:rtmdet_m_640-8xb32_coco-person", DENSE),
    ("mmpose:yoloxpose_s_8xb32-300e_coco-640", DENSE),
    ("mmpose:rtmo-s_8xb32-600e_coco-640x640", DENSE),
    ("mmpose:td-hm_hrnet-w32_8xb64-210e_coco-256x192", TOP_DOWN),
    ("mmpose:ae_hrnet-w32_8xb24-300e_coco-512x512", GROUPED),
    ("mmpose:ae_res50_512x512", GROUPED),
    ("mmpose:ae_mobilenetv2_512x512", GROUPED),
    ("mmpose:td-hm_mspn50_8xb32-210e_coco-256x192", TOP_DOWN),
    ("mmpose:td-hm_litehrnet-18_8xb64-210e_coco-256x192", TOP_DOWN),
    ("mmpose:td-hm_hourglass52_8xb32-210e_coco-256x256", TOP_DOWN),
    ("mmpose:simcc_res50_8xb64-210e_coco-256x192", TOP_DOWN),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models whose config's name contains this text")
    parser.add_argument("--form", default="", help="only forms whose name contains this text")
    parser.add_argument("--fresh", action="store_true", help="do again what was done before")
    parser.add_argument("--table", action="store_true", help="print the table of earlier results and stop")
    parser.add_argument("--whole", action="store_true", help="time the whole command for RTMPose-m, and stop")
    parser.add_argument("--timeout", type=int, default=1200, help="seconds that a model may take")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work_through(json.loads(options.worker), options.timeout)
        return
    if not PYTHON.exists():
        sys.exit("bench: scripts/openmmlab.sh makes the environment that this needs, .venv-openmmlab")
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.whole:
        _whole_command()
        return
    wanted = [
        (spec, form) for spec, (forms, _) in MODELS for form in forms if options.only in spec and options.form in form
    ]
    todo = [row for row in wanted if options.fresh or not _result_of(*row).exists()]
    if todo and not options.table:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [str(PYTHON), __file__, "--worker", json.dumps(todo), "--timeout", str(options.timeout)]
        subprocess.run(command, env=environment, cwd=ROOT, check=True)
    _table([json.loads(out.read_text()) for row in wanted if (out := _result_of(*row)).exists()])


_WHOLE = "mmpose:rtmpose-m_8xb256-420e_coco-256x192"
# What MMPose's own inference of this model imports.
_IMPORTING = """
from graphforge.frontend.openmmlab.load import import_codebase
import_codebase("mmpose")
import mmpose.apis, mmdet.models
"""
_SAVING = f"""
import sys, torch, graphforge
torch.save({{"state_dict": graphforge.load_model("{_WHOLE}").module.model.state_dict()}}, sys.argv[1])
"""


def _whole_command() -> None:
    """Importing the framework and the whole command in turn, each in a process of its own: user and system seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def used(*command: str | Path) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(list(map(str, command)), env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    checkpoint = RESULTS / "rtmpose-m.pth"
    used(PYTHON, "-c", _SAVING, checkpoint)
    command = PYTHON.parent / "graphforge"
    asked = ("compile", f"{_WHOLE},{checkpoint}", "--dynamic", "input:0=1..4", "-o", RESULTS / "bundles" / "whole")
    print("| importing the framework, CPU s | the whole command | beyond it |")
    print("|---|---|---|")
    for _ in range(3):
        importing = used(PYTHON, "-c", _IMPORTING)
        whole = used(command, *asked)
        print(f"| {importing:.1f} | {whole:.1f} | {whole - importing:.1f} |", flush=True)


def _result_of(spec: str, form: str) -> Path:
    return RESULTS / f"{spec.replace(':', '__')}__{form.replace(' ', '_')}.json"


def _work_through(rows: Sequence[Row], timeout: int) -> None:
    """Each row in a process of its own that is split off here, so that the framework is imported once."""
    from graphforge.frontend.openmmlab.load import import_codebase

    for codebase in sorted({spec.partition(":")[0] for spec, _ in rows}):
        import_codebase(codebase)
    for spec, form in rows:
        out = _result_of(spec, form)
        out.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            code = 1
            try:
                _compiled(spec, form, out)
                code = 0
            except Exception as error:
                _write(out, spec, form, "broke", f"{type(error).__name__}: {error}")
            finally:
                os._exit(code)
        ended = _waited(child, timeout)
        if not out.exists():
            _write(out, spec, form, "broke", ended)
        print(spec, form, json.loads(out.read_text())["verdict"], flush=True)


def _waited(child: int, timeout: int) -> str:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return f"the process ended with {os.waitstatus_to_exitcode(status)}"
        time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"more than {timeout} s"


def _write(out: Path, spec: str, form: str, verdict: str, reason: str) -> None:
    out.write_text(json.dumps({"spec": spec, "form": form, "verdict": verdict, "reason": reason[:2000]}))


def _compiled(spec: str, form: str, out: Path) -> None:
    import torch

    import graphforge

    torch.set_num_threads(1)
    _, side = dict(MODELS)[spec]
    loaded = graphforge.load_model(spec, decode="batch" if form == BATCH else None)
    begun, used = time.perf_counter(), _cpu()
    inputs = None if side is None else f"input:{2 if form == BATCH else 1}x3x{side}x{side}"
    try:
        bundle = graphforge.compile(
            loaded,
            inputs,
            dynamic_shapes="input:0=1..4" if form == BATCH else None,
            outputs=PADDED if form == PADDED else RAGGED,
            output=RESULTS / "bundles" / out.stem,
            accept_undecided=True,
        )
    except graphforge.GraphForgeError as error:
        _write(out, spec, form, "refused", str(error))
        return
    steps = {step["name"]: step["seconds"] for step in bundle.manifest["steps"]}
    found = {
        "spec": spec,
        "form": form,
        "verdict": bundle.manifest["verification"]["verdict"],
        "seconds": time.perf_counter() - begun,
        "capture": steps["capture"],
        "compile": sum(steps.values()) - steps["capture"] - steps.get("verify", 0),
        "cpu": _cpu() - used,
        "nodes": bundle.manifest["nodes"],
    }
    found["pixels"], found["rows"] = _pixels(loaded, bundle, 3 if form == BATCH else 1)
    out.write_text(json.dumps(found))


def _cpu() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime + resource.getrusage(resource.RUSAGE_SELF).ru_stime


def _pixels(loaded: Any, bundle: Any, batch: int) -> tuple[float, int]:
    """The largest difference of places over three pictures, and how many rows were compared."""
    import numpy as np
    import torch

    worst, rows = 0.0, 0
    shape = [batch, *bundle.manifest["inputs"][0]["shape"][1:]]
    for seed in range(3 // batch):
        given = torch.randn(shape, generator=torch.Generator().manual_seed(10 + seed))
        with torch.no_grad():
            eager = {name: one.numpy() for name, one in loaded.module(given).items()}
        came = bundle.run({"input": given.numpy()}).outputs
        if "candidates" in eager:
            worst, rows = _of_candidates(eager, came, worst, rows)
            continue
        if "boxes" not in eager:
            off = np.abs(eager["keypoints"].astype(np.float64) - came["keypoints"]).max(axis=-1).ravel()
            worst, rows = max(worst, float(off.max())), rows + len(off)
            continue
        for expected, own in zip(_rows(eager), _rows(came), strict=True):
            if len(own) != len(expected):
                return float("inf"), rows
            # equal scores may stand in either order: each row against the nearest of the other side's
            apart = np.abs(expected[:, None].astype(np.float64) - own[None]).max(axis=-1)
            worst, rows = max([worst, *map(float, apart.min(axis=1, initial=np.inf))]), rows + len(own)
    return worst, rows


def _of_candidates(eager: Any, came: Any, worst: float, rows: int) -> tuple[float, int]:
    """The candidates of each keypoint of each picture as a set: equal scores stand in any order.

    Left out is what scores nought (suppression put it there), and what scores no more than the last one that was
    taken: which of its equals that is, is arbitrary.
    """
    import numpy as np

    count = eager["candidates"].shape[-2]
    places = [side["candidates"].astype(np.float64).reshape(-1, count, 2) for side in (eager, came)]
    scores = [side["candidate_scores"].astype(np.float64).reshape(-1, count) for side in (eager, came)]
    for expected, own, sure, own_sure in zip(*places, *scores, strict=True):
        counted = sure > max(0.0, float(sure.min()))
        # in one unit of score as far as in a million pixels: a neighbour of another score is not the same candidate
        apart = np.maximum(
            np.abs(expected[counted, None] - own[None]).max(axis=-1),
            1e6 * np.maximum(np.abs(sure[counted, None] - own_sure[None]) - 1e-5, 0),
        )
        worst, rows = max([worst, *map(float, apart.min(axis=1))]), rows + int(np.count_nonzero(counted))
    return worst, rows


def _rows(outputs: Any) -> list[Any]:
    """Boxes of each picture, its keypoints beside them, without what is padding."""
    import numpy as np

    boxes = outputs["boxes"]
    pictures = boxes if boxes.ndim == 3 else boxes[None]
    points = outputs["keypoints"].reshape(*pictures.shape[:2], -1) if "keypoints" in outputs else pictures[..., :0]
    counts = np.ravel(outputs["num_dets"]) if "num_dets" in outputs else [pictures.shape[1]] * len(pictures)
    together = np.concatenate([pictures, points], axis=-1)
    return [rows[:count] for rows, count in zip(together, counts, strict=True)]


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
