"""Faces found by MTCNN's compiled stages, beside those that facenet-pytorch finds: a portrait, and a montage of many.

    .venv/bin/python scripts/gallery/faces.py [-o out/gallery/faces]

Compiles the four stages for every size of picture and every number of crops, verifies them, runs the whole detector
through ONNX Runtime and through facenet-pytorch itself, prints both tables and draws the pictures.  Ends with exit code
1 when a landmark is 1e-3 pixels from facenet-pytorch's or more, or one finds a face that the other does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.gallery.mtcnn import Stage, astronaut, find_faces, m_stage, o_stage, p_stage, r_stage

__all__ = ["NEAR", "compiled_stages", "differences", "drawn", "found_by_facenet", "montage"]

NEAR = 1e-3  # pixels

_SMALLEST = (
    13  # side of the last picture of the pyramid: a scale that gives less than 12 pixels ends it, and one is added
)

Picture = NDArray[np.uint8]


def compiled_stages(folder: Path, *, nms: str | None = None, verify: bool = True) -> dict[str, Stage]:
    """Compile the stages into bundles below a folder; what runs them, by name.

    Args:
        folder: where the bundles go.
        nms: ``native`` or ``portable``.
        verify: compare each with eager, at several sizes.
    """
    import graphforge
    from graphforge.spec import DimRange

    proposals, found, crops = DimRange("n", 1, 2048), DimRange("n", 1, 1024), DimRange("n", 1, 256)
    dynamic: dict[str, dict[str, dict[int, Any]]] = {
        "proposals": {"image": {2: (_SMALLEST, 640), 3: (_SMALLEST, 640)}},
        "merge": {name: {0: proposals} for name in ("boxes", "scores", "regressions")},
        "refine": {name: {0: found} for name in ("crops", "boxes")},
        "output": {name: {0: crops} for name in ("crops", "boxes")},
    }
    stages: dict[str, Stage] = {}
    for name, example in (("proposals", p_stage), ("merge", m_stage), ("refine", r_stage), ("output", o_stage)):
        module, inputs = example()
        bundle = graphforge.compile(
            module, inputs, dynamic_shapes=dynamic[name], nms=nms, verify=verify, output=folder / name
        )
        stages[name] = _Compiled(bundle.path, module)
    return stages


class _Compiled:
    """A bundle called like the module that it was compiled from."""

    def __init__(self, bundle: Path, module: nn.Module) -> None:
        import inspect

        from graphforge.runners.onnx_runtime import usable_cpus
        from graphforge.runners.session import new_session

        self.session = new_session(bundle / "model.onnx", threads=usable_cpus())
        self.inputs = list(inspect.signature(module.forward).parameters)
        # an output of an input's name has another in the file
        self.outputs = [output.name.removeprefix("output_") for output in self.session.get_outputs()]

    def __call__(self, *args: Tensor) -> Mapping[str, Tensor]:
        feeds = {name: tensor.numpy() for name, tensor in zip(self.inputs, args, strict=True)}
        results = self.session.run(None, feeds)
        return {name: torch.from_numpy(result) for name, result in zip(self.outputs, results, strict=True)}


def found_by_facenet(picture: Picture) -> dict[str, Tensor]:
    """What facenet-pytorch's own MTCNN finds, in the form of `find_faces`."""
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    import facenet_pytorch

    boxes, scores, keypoints = facenet_pytorch.MTCNN(keep_all=True).eval().detect(picture, landmarks=True)
    if boxes is None:
        return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "keypoints": torch.zeros(0, 5, 2)}
    return {
        name: torch.from_numpy(np.asarray(array, np.float32))
        for name, array in (("boxes", boxes), ("scores", scores), ("keypoints", keypoints))
    }


def montage() -> Picture:
    """The astronaut in three sizes, mirrored and dimmed, and 22 people of Labeled Faces in the Wild, [640, 960, 3]."""
    import skimage.data

    canvas = np.full((640, 960, 3), 96, np.uint8)
    portrait = Image.fromarray(astronaut())
    mirrored = portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for image, side, (x, y), brightness in (
        (portrait, 400, (0, 0), 1.0),
        (mirrored, 280, (400, 0), 0.6),
        (portrait, 160, (400, 280), 1.4),
    ):
        pixels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float32) * brightness
        canvas[y : y + side, x : x + side] = pixels.clip(0, 255).astype(np.uint8)
    below = [(20 + 118 * column, 424 + 108 * row) for row in range(2) for column in range(8)]
    beside = [(710 + 120 * column, 10 + 130 * row) for row in range(3) for column in range(2)]
    small = (skimage.data.lfw_subset() * 255).astype(np.uint8)  # the first hundred of them are faces
    for number, (x, y) in enumerate(below + beside):
        side = (72, 96)[number % 2]
        pixels = np.asarray(Image.fromarray(small[number]).resize((side, side), Image.Resampling.BICUBIC))
        canvas[y : y + side, x : x + side] = pixels[..., None]
    return canvas


def differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[float, float, float]:
    """The largest difference of a landmark and of a box in pixels, and of a probability; infinite if counts differ."""
    if len(found["scores"]) != len(expected["scores"]):
        return (float("inf"),) * 3
    landmark, box, score = (
        float((found[name] - expected[name]).abs().amax()) if len(found["scores"]) else 0.0
        for name in ("keypoints", "boxes", "scores")
    )
    return landmark, box, score


def drawn(picture: Picture, found: Mapping[str, Tensor]) -> Image.Image:
    """Boxes and landmarks on the picture."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for box, keypoints in zip(found["boxes"].tolist(), found["keypoints"].tolist(), strict=True):
        draw.rectangle(box, outline=(0, 255, 0), width=2)
        for x, y in keypoints:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(255, 0, 0))
    return image


def _table(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    lines = ["| face | found by | box | probability | first landmark | largest difference of a landmark |"]
    lines.append("|---|---|---|---|---|---|")
    for number in range(max(len(found["scores"]), len(expected["scores"]))):
        for label, side in (("facenet-pytorch", expected), ("compiled", found)):
            if number >= len(side["scores"]):
                continue
            box = ", ".join(f"{edge:.3f}" for edge in side["boxes"][number].tolist())
            eye = ", ".join(f"{place:.4f}" for place in side["keypoints"][number, 0].tolist())
            apart = ""
            if label == "compiled" and number < len(expected["scores"]):
                apart = f"{float((found['keypoints'][number] - expected['keypoints'][number]).abs().max()):.1e}"
            lines.append(f"| {number} | {label} | {box} | {float(side['scores'][number]):.7f} | {eye} | {apart} |")
    return lines


def main() -> int:
    """Print the tables, leave the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/gallery/faces"))
    parser.add_argument("--nms", choices=["native", "portable"])
    options = parser.parse_args()
    stages = compiled_stages(options.output, nms=options.nms)
    good = True
    for name, picture in (("astronaut", astronaut()), ("montage", montage())):
        found, expected = find_faces(stages, picture), found_by_facenet(picture)
        print(f"\n{name}\n", *_table(found, expected), sep="\n")
        landmark, box, score = differences(found, expected)
        print(
            f"\n{name}: facenet-pytorch finds {len(expected['scores'])}, the compiled stages {len(found['scores'])}; "
            f"largest difference of a landmark {landmark:.1e} pixels, of a box {box:.1e}, of a probability {score:.1e}"
        )
        good = good and landmark < NEAR
        path = options.output / f"{name}.png"
        drawn(picture, found).save(path)
        print(f"drawn: {path}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
