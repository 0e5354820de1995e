"""Photos through `graphforge run` and through OpenMMLab's own inference, and what eager's own rounding does to each.

    scripts/bench openmmlab_photos                  # three models on six photos; ten minutes on two cores
    scripts/bench openmmlab_photos --only rtmdet    # models whose config's name contains this text

Photos are those that scikit-image, scikit-learn and matplotlib bring.  Weights are random (no checkpoint can be
downloaded here), calibrated on these photos so that scores are apart.  For each photo: how many elements of the
prepared tensor differ from the framework's (and the largest difference), the largest difference in pixels of the photo
over boxes above 0.3 and keypoints, and beside it what the framework itself gives in float64 in place of float32, which
is the size of its own rounding there.  A row is as close as it can be told to be where the first is within 1e-3 px or
within twice the second.
"""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openmmlab_stock import PHOTOS, in_environment, photo, stock_model

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "out" / "bench" / "openmmlab_photos"
MODELS = [
    "mmdet:rtmdet_nano_320-8xb32_coco-person",
    "mmpose:rtmpose-t_8xb256-420e_coco-256x192",
    "mmpose:yoloxpose_tiny_4xb64-300e_coco-416",
]
SHOWN = 0.3  # what `run` shows
LIMIT = 1e-3


def main() -> None:
    only = in_environment(__file__, __doc__)
    warnings.simplefilter("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    print("| model | photo | rows | tensor elements that differ | px | float32 beside float64 in eager, px | |")
    print("|---|---|---|---|---|---|---|")
    wrong = [one for spec in MODELS if only in spec for one in _compared(spec)]
    sys.exit(1 if any(wrong) else 0)


def _compared(spec: str) -> list[bool]:
    import numpy as np

    import graphforge

    codebase, _, config = spec.partition(":")
    pictures = {name: photo(name) for name in PHOTOS}
    checkpoint = FOLDER / f"{config}.pth"
    model = stock_model(codebase, config, list(pictures.values()), checkpoint)
    exact = copy.deepcopy(model).double()
    bundle = graphforge.compile(f"{spec},{checkpoint}", verify=False, output=FOLDER / config)
    wrong = []
    for name, path in pictures.items():
        seen = _preprocessed(model)
        expected = _stock_result(codebase, config, model, path)
        in_digits = _stock_result(codebase, config, exact, path)
        came = graphforge.run(bundle, [("", path)], draw=FOLDER / f"{config}_{name}.png").to_dict()
        own = _result_of(_detections(came))
        tensor = _own_tensor(bundle, path)
        theirs = seen[0].numpy()[0]
        differ = int(np.count_nonzero(theirs != tensor)) if theirs.shape == tensor.shape else -1
        largest = float(np.abs(theirs - tensor).max()) if differ > 0 else 0.0
        px, rows = _apart(expected, own)
        rounding, _ = _apart(expected, in_digits)
        good = px <= LIMIT or px <= 2 * rounding
        wrong.append(not good)
        word = "within 1e-3" if px <= LIMIT else "within eager's own rounding" if good else "OFF"
        differs = f"{differ} of {tensor.size}" + (f", by {largest:.1e}" if differ > 0 else "")
        print(f"| {config} | {name} | {rows} | {differs} | {px:.1e} | {rounding:.1e} | {word} |", flush=True)
    return wrong


def _preprocessed(model: Any) -> list[Any]:
    """What the framework's own preprocessor hands its network, from now on."""
    seen: list[Any] = []
    preprocessor = model.data_preprocessor
    plain = getattr(preprocessor, "plain_forward", preprocessor.forward)
    preprocessor.plain_forward = plain

    def forward(data: Any, training: bool = False) -> Any:
        made = plain(data, training)
        seen.append(made["inputs"].clone())
        return made

    preprocessor.forward = forward
    return seen


def _stock_result(codebase: str, config: str, model: Any, path: Path) -> dict[str, Any]:
    """The framework's own inference; a model in float64 takes what its preprocessor makes in float32."""
    import torch

    if next(model.parameters()).dtype == torch.float64:
        preprocessor = model.data_preprocessor
        plain = type(preprocessor).forward

        def widened(data: Any, training: bool = False) -> Any:
            made = plain(preprocessor.float(), data, training)
            return {**made, "inputs": made["inputs"].double()}

        preprocessor.forward = widened
    if codebase == "mmdet":
        configuration, model.cfg = model.cfg, copy.deepcopy(model.cfg)  # which inference changes
        found = importlib.import_module("mmdet.apis").inference_detector(model, str(path)).pred_instances
        model.cfg = configuration
        return _shown({"boxes": found.bboxes.numpy(), "scores": found.scores.numpy()})
    apis: Any = importlib.import_module("mmpose.apis")
    if "rtmpose" in config:
        found = apis.inference_topdown(model, str(path))[0].pred_instances
        return {"keypoints": found.keypoints}
    found = apis.inference_bottomup(model, str(path))[0].pred_instances
    return _shown({"boxes": found.bboxes, "keypoints": found.keypoints, "scores": found.bbox_scores})


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    keep = result["scores"] > SHOWN
    return {name: rows[keep] for name, rows in result.items() if name != "scores"}


def _detections(came: Any) -> list[dict[str, Any]]:
    if isinstance(came, dict) and "detections" in came:
        return list(came["detections"])
    inside = came.values() if isinstance(came, dict) else came if isinstance(came, list | tuple) else ()
    return next((found for one in inside if (found := _detections(one))), [])


def _result_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    import numpy as np

    result = {"boxes": np.array([one["box"] for one in found if "box" in one]).reshape(-1, 4)}
    if found and "keypoints" in found[0]:
        result["keypoints"] = np.array([one["keypoints"] for one in found])[..., :2]
    return result


def _own_tensor(bundle: Any, path: Path) -> Any:
    import numpy as np
    from PIL import Image

    from graphforge.runtime.preprocess import prepared, steps_of

    return prepared(steps_of(bundle.manifest["preprocess"]), np.asarray(Image.open(path).convert("RGB")))[0]


def _apart(expected: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[float, int]:
    """The largest difference of places, each row beside the nearest of the other side, and the count of rows."""
    import numpy as np

    names = [name for name in expected if name in own]
    first, second = (
        np.concatenate([np.asarray(side[name], np.float64).reshape(len(side[name]), -1) for name in names], 1)
        if len(side[names[0]])
        else np.zeros((0, 0))
        for side in (expected, own)
    )
    if len(first) != len(second) or not len(first):
        return float("inf") if len(first) != len(second) else 0.0, len(first)
    nearest = np.abs(first[:, None] - second[None]).max(-1).min(1, initial=np.inf)
    return float(nearest.max(initial=0.0)), len(first)


if __name__ == "__main__":
    main()
