"""`graphforge evaluate` on fifty pictures, beside the framework's own inference with pycocotools called by hand.

    scripts/bench openmmlab_accuracy                  # boxes of RTMDet-nano, keypoints of RTMPose-t; five minutes
    scripts/bench openmmlab_accuracy --only rtmdet    # models whose config's name contains this text

Eager must be equal to the last bit to what ``inference_detector`` or ``inference_topdown`` finds on the same files, put
into COCO's form and given to pycocotools; the bundle must be equal to both in the four digits that ``evaluate`` prints
(two boxes whose scores are within rounding of each other may change places, which moves the seventh).
Further columns are the same network compiled in half precision and in int8, its ranges measured on eight of the
pictures: the table of precisions that Cambricon's sample has.  The pictures are windows of photos that installed
packages bring.  Weights are random, so annotations are made of what the framework finds: boxes moved by up to a tenth
of their size, keypoints by up to a twentieth, some left out and some invented: figures lie between none and all.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openmmlab_stock import PHOTOS, in_environment, photo, stock_model

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "out" / "bench" / "openmmlab_accuracy"
MODELS = ["mmdet:rtmdet_nano_320-8xb32_coco-person", "mmpose:rtmpose-t_8xb256-420e_coco-256x192"]
PRECISIONS = ("fp16", "int8")
COUNT = 50
# A box that scores this much becomes an annotation; so many a picture at most.
SURE, MOST = 0.3, 8
# Logits of random weights spread over some 20 on photos; of a tenth of them no sigmoid is 1.
_LESS = 0.1


def main() -> None:
    only = in_environment(__file__, __doc__)
    warnings.simplefilter("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    pictures = _pictures()
    equal = [_evaluated(spec, pictures) for spec in MODELS if only in spec]
    sys.exit(0 if all(equal) else 1)


def _pictures() -> list[Path]:
    """Windows of the photos, always the same."""
    import numpy as np
    from PIL import Image

    folder = FOLDER / "images"
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    photos = [np.asarray(Image.open(photo(name)).convert("RGB")) for name in PHOTOS]
    made = []
    for number in range(COUNT):
        pixels = photos[number % len(photos)]
        high, wide = (int(random.integers(side // 2, side)) for side in pixels.shape[:2])
        top, left = (int(random.integers(side - own)) for side, own in zip(pixels.shape, (high, wide), strict=False))
        made.append(folder / f"{number + 1:03}.png")
        Image.fromarray(pixels[top : top + high, left : left + wide]).save(made[-1])
    return made


def _evaluated(spec: str, pictures: Sequence[Path]) -> bool:
    """Print the table of a model; whether the first three columns are the same."""
    import graphforge
    from graphforge.cli.main import run

    codebase, _, config = spec.partition(":")
    checkpoint = FOLDER / f"{config}.pth"
    model = stock_model(codebase, config, pictures, checkpoint)
    if codebase == "mmdet":
        _unsaturate(model, checkpoint)
    data = FOLDER / f"{config}.json"
    found = _boxes(model, pictures) if codebase == "mmdet" else None
    _annotate(data, model, pictures, found)
    bundle = FOLDER / config
    # not verified: figures are compared here, and half precision of random weights is often undecided
    made = graphforge.compile(f"{spec},{checkpoint}", verify=False, output=bundle)
    own = {"input": _prepared(made.manifest["preprocess"], pictures[:8])}
    also: list[str] = []
    for precision in PRECISIONS:
        also += ["--also", f"{bundle}-{precision}"]
        given = own if precision == "int8" else None
        graphforge.compile(
            f"{spec},{checkpoint}", verify=False, output=also[-1], precision=precision, calibration=given
        )
    asked = ["--data", str(data), "--images", str(pictures[0].parent), "--json"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = run(["evaluate", str(bundle), f"{spec},{checkpoint}", *also, *asked])
    if code:
        print(f"{config}: graphforge evaluate ended with {code}")
        return False
    sides = [side["figures"] for side in json.loads(printed.getvalue())["sides"]]
    by_hand = _by_hand(data, found or _poses(model, data), "bbox" if codebase == "mmdet" else "keypoints")
    print(f"\n{config}, {COUNT} pictures\n\n| figure | eager | bundle | by hand | {' | '.join(PRECISIONS)} |")
    print("|---|---|---|---|" + "---|" * len(PRECISIONS))
    equal = True
    for name, own_figure in zip(sides[0], by_hand, strict=True):
        eager, bundled, *others = (side[name] for side in sides)
        equal &= eager == own_figure and f"{bundled:.4f}" == f"{eager:.4f}"
        reduced = " | ".join(f"{figure:.4f}" for figure in others)
        print(f"| {name} | {eager!r} | {bundled!r} | {own_figure!r} | {reduced} |", flush=True)
    print(f"\n{'equal' if equal else 'NOT EQUAL'}", flush=True)
    return equal


def _prepared(steps: Any, pictures: Sequence[Path]) -> Any:
    """Pictures as the network takes them."""
    import numpy as np
    from PIL import Image

    from graphforge.runtime.preprocess import prepared, steps_of

    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in pictures]
    return np.stack([prepared(steps_of(steps), one)[0] for one in pixels])


def _unsaturate(model: Any, checkpoint: Path) -> None:
    """Scores that are 1 to the last digit are equal, and which of equals suppresses the other is arbitrary."""
    import torch

    for layer in model.bbox_head.rtm_cls:
        layer.weight.data.mul_(_LESS)
        layer.bias.data.mul_(_LESS)
    torch.save({"state_dict": model.state_dict()}, checkpoint)


def _boxes(model: Any, pictures: Sequence[Path]) -> list[dict[str, Any]]:
    """What MMDetection's own inference finds, in COCO's form."""
    inference = importlib.import_module("mmdet.apis").inference_detector
    results = []
    for number, path in enumerate(pictures, 1):
        configuration, model.cfg = model.cfg, copy.deepcopy(model.cfg)  # which inference changes
        found = inference(model, str(path)).pred_instances
        model.cfg = configuration
        for (left, top, right, bottom), score in zip(found.bboxes.tolist(), found.scores.tolist(), strict=True):
            box = [left, top, right - left, bottom - top]
            results.append({"image_id": number, "category_id": 1, "score": score, "bbox": box})
    return results


def _poses(model: Any, data: Path) -> list[dict[str, Any]]:
    """What MMPose's own inference finds in the annotated boxes, in COCO's form, scored as its CocoMetric does."""
    import numpy as np

    inference = importlib.import_module("mmpose.apis").inference_topdown
    truth = json.loads(data.read_text())
    results = []
    for image in truth["images"]:
        own = [one["bbox"] for one in truth["annotations"] if one["image_id"] == image["id"]]
        boxes = np.array([[left, top, left + wide, top + high] for left, top, wide, high in own], np.float32)
        for sample in inference(model, str(FOLDER / "images" / image["file_name"]), boxes):
            points, sure = sample.pred_instances.keypoints[0], sample.pred_instances.keypoint_scores[0]
            counted = sure[sure > 0.2]
            score = float(counted.mean()) if len(counted) else 0.0
            flat = np.concatenate([points, sure[:, None]], 1).astype(float).ravel().tolist()
            results.append({"image_id": image["id"], "category_id": 1, "score": score, "keypoints": flat})
    return results


def _annotate(data: Path, model: Any, pictures: Sequence[Path], found: Sequence[dict[str, Any]] | None) -> None:
    """Annotations near to what the model finds; where it looks at boxes, in two windows of each picture."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(1)
    images: list[dict[str, Any]] = []
    known: list[dict[str, Any]] = []
    for number, path in enumerate(pictures, 1):
        width, height = Image.open(path).size
        images.append({"id": number, "file_name": path.name, "width": width, "height": height})
        if found is None:
            boxes = [[left * width, 0.1 * height, 0.45 * width, 0.8 * height] for left in (0.05, 0.5)]
        else:
            sure = [one["bbox"] for one in found if one["image_id"] == number and one["score"] > SURE]
            boxes = [box for box in sure[:MOST] if random.random() < 0.8] + [[0.0, 0.0, width / 2, height / 2]]
        for box in boxes:
            left, top, wide, high = np.array(box)
            if found is not None:
                left, top = (np.array([left, top]) + random.uniform(-0.1, 0.1, 2) * [wide, high]).tolist()
            known.append(
                {
                    "id": len(known) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [float(left), float(top), float(wide), float(high)],
                    "area": float(wide * high),
                    "iscrowd": 0,
                }
            )
            if found is None:
                known[-1] |= {"num_keypoints": 17, "keypoints": [2.0] * 51}
    truth = {"images": images, "annotations": known, "categories": [{"id": 1, "name": "person"}]}
    data.write_text(json.dumps(truth))
    if found is None:
        for one, pose in zip(known, _poses(model, data), strict=True):
            points = np.reshape(pose["keypoints"], (17, 3))
            points[:, :2] += random.uniform(-0.05, 0.05, (17, 2)) * one["bbox"][2:]
            points[:, 2] = 2
            one["keypoints"] = points.ravel().tolist()
        data.write_text(json.dumps(truth))


def _by_hand(data: Path, results: Sequence[dict[str, Any]], kind: str) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it tells its progress
        truth = COCO(str(data))
        evaluation = COCOeval(truth, truth.loadRes(list(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(figure) for figure in evaluation.stats]


if __name__ == "__main__":
    main()
