"""The commands of MMPose's and MMDeploy's documents as they are written here, and two of their models for every target.

    scripts/bench openmmlab_commands                    # all of it; half an hour on two cores
    scripts/bench openmmlab_commands --only pipeline    # commands that contain this text
    scripts/bench openmmlab_commands --table            # only print what was found before

The commands are read from graphforge/deploying/commands.md and run as they stand, in the folder
out/bench/openmmlab_commands, where this script puts what they take: checkpoints (random weights, calibrated, in the
form that mmengine's hook saves), photos of scikit-image's, a video of a crop that moves over one of them, and
annotations of people in COCO's form.  What was run before is not run again, unless --fresh says so.  All run in one
process, which imports torch and the frameworks once; CPU seconds are those of the command itself.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ROOT / "graphforge" / "deploying" / "commands.md"
FOLDER = ROOT / "out" / "bench" / "openmmlab_commands"
PYTHON = ROOT / ".venv-openmmlab" / "bin" / "python"

POSE = "mmpose:rtmpose-m_8xb256-420e_coco-256x192"
DETECTOR = "mmdet:rtmdet_nano_320-8xb32_coco-person"
BATCH, SIDES = "--dynamic input:0=1..4", "--dynamic input:2=128..320/32,3=128..320/32"
# what both are compiled for; RTMPose's head fixes its height and width, RTMDet takes any multiple of 32
TARGETS = [
    "",
    "--opset 11",
    "--target tensorrt",
    "--target openvino",
    "--target magicmind --precision force_float32",
    "--target magicmind --precision force_float16",
    "--target magicmind --precision qint8_mixed_float16 --calibration CALIBRATION",
]


def commands_of_document(text: str) -> list[str]:
    """The commands of the right column, in their order."""
    return re.findall(r"`(graphforge [a-z][^`]*)`", "\n".join(line for line in text.splitlines() if line[:1] == "|"))


def commands_for_targets() -> list[str]:
    """Both models for every target; sizes of the detector vary where its target is MagicMind or ONNX Runtime."""
    found = []
    for name, spec in (("pose", POSE), ("detector", DETECTOR)):
        for at, asked in enumerate(TARGETS):
            varies = BATCH if name == "pose" else SIDES if "magicmind" in asked else ""
            own = asked.replace("CALIBRATION", f"{name}.npz")
            found.append(" ".join(f"graphforge compile {spec} {varies} {own} -o targets/{name}-{at}".split()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="commands that contain this text; repeat for more"
    )
    parser.add_argument("--fresh", action="store_true", help="do again what was done before")
    parser.add_argument("--table", action="store_true", help="print the table of earlier results and stop")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    every = [*commands_of_document(COMMANDS.read_text()), *commands_for_targets()]
    only = options.only or [""]
    wanted = [one for one in every if any(text in one for text in only)]
    if options.worker:
        _work(wanted, fresh=options.fresh)
        return
    if not options.table:
        if not PYTHON.exists():
            sys.exit("bench: scripts/openmmlab.sh makes the environment that this needs, .venv-openmmlab")
        FOLDER.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        arguments = ["--worker", *(f"--only={text}" for text in only), *(["--fresh"] if options.fresh else [])]
        subprocess.run([str(PYTHON), __file__, *arguments], cwd=FOLDER, env=environment, check=False)
    done = _done()
    print("| command | exit code | CPU s | what came |")
    print("|---|---|---|---|")
    for command in wanted:
        one = done.get(command)
        if one is None:
            print(f"| `{command}` | not run | | |")
        else:
            print(f"| `{command}` | {one['code']} | {one['cpu']:.1f} | {one['came']} |")
    if any(done.get(command, {}).get("code") != 0 for command in wanted):
        sys.exit(1)


def _results() -> Path:
    return FOLDER / "results.json"


def _done() -> dict[str, dict[str, Any]]:
    return json.loads(_results().read_text()) if _results().exists() else {}


def _work(commands: list[str], *, fresh: bool) -> None:
    """Run them in this process, in this folder."""
    _prepare()
    from graphforge.cli.main import run

    for command in commands:
        done = _done()
        if command in done and not fresh:
            continue
        printed = io.StringIO()
        begun, used = time.perf_counter(), _cpu()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = run(shlex.split(command)[1:])
        text = printed.getvalue()
        log = Path("logs") / (re.sub(r"\W+", "_", command)[:150] + ".txt")
        log.parent.mkdir(exist_ok=True)
        log.write_text(text)
        found = {"code": code, "cpu": _cpu() - used, "seconds": time.perf_counter() - begun}
        done[command] = {**found, "came": _came(command, code, text)}
        _results().write_text(json.dumps(done, indent=1))
        print(code, f"{found['cpu']:.1f}", command, flush=True)


def _cpu() -> float:
    return sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _came(command: str, code: int, text: str) -> str:
    """A few words of what a command left or printed."""
    lines = [line.strip() for line in text.splitlines() if re.match(r"\w", line) and not line.startswith("note")]
    if code:
        return next((line for line in text.splitlines() if "error:" in line), "")[:160].replace("|", "/")
    output = re.search(r"-o (\S+)", command)
    if output is None or not (Path(output[1]) / "manifest.json").exists():
        return (lines[-1] if lines else "")[:100].replace("|", "/")
    manifest = json.loads((Path(output[1]) / "manifest.json").read_text())
    verification = manifest["verification"]
    names = ", ".join(one["name"] for one in manifest["outputs"])
    target = manifest["target"]
    precision = target.get("precision") or ""
    asked = f"{target['name']} {precision}".removesuffix(" as_typed").strip()
    opset = target["opset"] or manifest.get("artifact", {}).get("opset")
    asked += f", opset {opset}" if opset else ""
    words = verification.get("verdict") or f"not run: {verification.get('skipped', '')}"
    trials = len(verification.get("trials", ()))
    varies = [f"{one['name']} {axis}" for one in manifest["inputs"] for axis in one["dynamic"]]
    sizes = f"; varies: {', '.join(varies)}" if varies else ""
    return f"{asked}: {words} in {trials} trials; {manifest['nodes']} nodes; {names}{sizes}"


# -- what the commands take --------------------------------------------------------------------------------------------


def _prepare() -> None:
    if Path("person_keypoints.json").exists():
        return
    import numpy as np
    import skimage.data
    import torch
    from PIL import Image

    from graphforge.frontend.openmmlab.load import build_model
    from graphforge.runtime.video import VideoWriter

    for spec, file in ((POSE, "rtmpose_m.pth"), (DETECTOR, "rtmdet_nano.pth"), (POSE, "epoch_10.pth")):
        codebase, _, name = spec.partition(":")
        state = build_model(codebase, name, None).model.state_dict()
        trained = {"optimizer": {"state": [one.clone() for one in state.values()]}, "message_hub": {"log_scalars": {}}}
        more = trained if file == "epoch_10.pth" else {}
        torch.save({"meta": {"epoch": 10}, "state_dict": state, **more}, file)
    Path("test_images").mkdir(exist_ok=True)
    photos = {name: getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")}
    for name, pixels in photos.items():
        Image.fromarray(pixels).save(f"test_images/{name}.jpg", quality=95)
    Image.fromarray(photos["astronaut"]).save("human-pose.jpg", quality=95)
    with VideoWriter(Path("your_video.mp4"), 30.0) as writer:
        for number in range(30):
            writer.write(
                np.ascontiguousarray(photos["astronaut"][number : number + 384, 4 * number : 4 * number + 384])
            )
    config = Path("configs/mmpose")
    config.mkdir(parents=True, exist_ok=True)
    (config.parent / "_base_").mkdir(exist_ok=True)
    (config.parent / "_base_" / "onnx_config.py").write_text(
        "onnx_config = dict(type='onnx', export_params=True, keep_initializers_as_inputs=False, opset_version=11,\n"
        "    save_file='end2end.onnx', input_names=['input'], output_names=['output'], input_shape=None,\n"
        "    optimize=True)\n"
    )
    (config.parent / "_base_" / "onnxruntime.py").write_text("backend_config = dict(type='onnxruntime')\n")
    (config / "pose-detection_static.py").write_text(
        "_base_ = ['../_base_/onnx_config.py']\ncodebase_config = dict(type='mmpose', task='PoseDetection')\n"
    )
    (config / "pose-detection_simcc_onnxruntime_dynamic.py").write_text(
        "_base_ = ['./pose-detection_static.py', '../_base_/onnxruntime.py']\n"
        "onnx_config = dict(output_names=['simcc_x', 'simcc_y'],\n"
        "    dynamic_axes=dict(input={0: 'batch'}, simcc_x={0: 'batch'}, simcc_y={0: 'batch'}))\n"
    )
    _calibrate(photos)
    _annotate({name: (pixels.shape[1], pixels.shape[0]) for name, pixels in photos.items()})


def _calibrate(photos: dict[str, Any]) -> None:
    """The photos as each model takes them."""
    import numpy as np

    from graphforge.frontend.openmmlab.configs import find_config, read_config
    from graphforge.frontend.openmmlab.preprocess import steps_of_config
    from graphforge.runtime.preprocess import completed, prepared, steps_of
    from graphforge.spec import TensorSpec

    for spec, shape, file in (
        (POSE, (1, 3, 256, 192), "pose.npz"),
        (DETECTOR, (1, 3, 320, 320), "detector.npz"),
        ("", (1, 3, 512, 512), "calibration.npz"),
    ):
        codebase, _, name = spec.partition(":")
        if spec:
            plain = steps_of_config(read_config(find_config(codebase, name)))
        else:  # MMPose's bottom-up models, whose own resizing has no counterpart here
            scaled = {"step": "normalise", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
            plain = [{"step": "letterbox"}, scaled]
        steps = completed(steps_of(plain), TensorSpec("input", shape, "float32"))
        seen = [prepared(steps, one)[0] for pixels in photos.values() for one in (pixels, pixels[:, ::-1])]
        np.savez(file, input=np.stack(seen))


def _annotate(sizes: dict[str, tuple[int, int]]) -> None:
    """Two people a picture, at places that random weights will not find."""
    import numpy as np

    random = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    known: list[dict[str, Any]] = []
    for number, (name, (width, height)) in enumerate(sizes.items(), 1):
        images.append({"id": number, "file_name": f"{name}.jpg", "width": width, "height": height})
        for left in (0.1, 0.5):
            box = np.array([left * width, 0.1 * height, 0.4 * width, 0.8 * height])
            points = box[:2] + box[2:] * random.uniform(0.1, 0.9, (17, 2))
            known.append(
                {
                    "id": len(known) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": 0,
                    "num_keypoints": 17,
                    "keypoints": np.concatenate([points, np.full((17, 1), 2)], 1).ravel().tolist(),
                }
            )
    kinds = [{"id": 1, "name": "person"}]
    Path("person_keypoints.json").write_text(json.dumps({"images": images, "annotations": known, "categories": kinds}))


if __name__ == "__main__":
    main()
