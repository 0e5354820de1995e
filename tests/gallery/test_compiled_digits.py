"""The digit detector compiled, in both output forms and both NMS lowerings: its mAP is eager's to the last digit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("sklearn")
pytest.importorskip("pycocotools")

import graphforge
from graphforge.cli.main import run
from graphforge.frontend.torchvision_fix import TorchvisionState, torchvision_state
from scripts.gallery import digits
from scripts.gallery.evaluate_digits import Precision, evaluate_bundle, evaluate_eager

pytestmark = pytest.mark.skipif(
    torchvision_state() is TorchvisionState.MISSING, reason="torchvision is not installed: its NMS is called"
)

Factory = Callable[[], tuple[digits.DigitDetector, tuple[torch.Tensor]]]

COUNT = 50  # not a multiple of three: the last batch is filled up


@pytest.fixture(scope="module")
def eager() -> Precision:
    return evaluate_eager(digits.trained(), COUNT)


@pytest.mark.parametrize(
    ("factory", "outputs", "nms"),
    [
        (digits.detector, "ragged", "native"),
        (digits.detector, "padded", "portable"),
        (digits.detector_batch3, "ragged", "portable"),
        (digits.detector_batch3, "padded", "native"),
    ],
)
def test_compiled_detector_is_as_precise_as_eager(
    factory: Factory, outputs: str, nms: str, eager: Precision, tmp_path: Path
) -> None:
    model, inputs = factory()
    bundle = graphforge.compile(model, inputs, outputs=outputs, nms=nms, output=tmp_path / "bundle")
    assert bundle.manifest["verification"]["passed"] is True
    assert ("NonMaxSuppression" in bundle.manifest["operators"]) == (nms == "native")
    assert ("num_dets" in [output["name"] for output in bundle.manifest["outputs"]]) == (outputs == "padded")
    assert evaluate_bundle(bundle.path, COUNT) == eager


def test_three_canvases_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture's bytes are not quite the canvas: what is compared is eager on the same bytes."""
    model, inputs = digits.detector()
    graphforge.compile(model, inputs, verify=False, output=tmp_path / "bundle")
    names = []
    for number in digits.BATCH3:
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(np.rint(digits.canvas(number).image[0].numpy() * 255).astype(np.uint8)).save(names[-1])
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    words = [word for name in names for word in ("--input", name)]
    assert run(["run", "bundle", *words, "--score", "0.5", "--draw", "seen.png", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    for call, name in zip(document["runs"], names, strict=True):
        pixels = np.asarray(Image.open(name), np.float32)[None, None] / np.float32(255)
        with torch.no_grad():
            (wanted,) = model(torch.from_numpy(pixels))
        sure = wanted["scores"] > 0.5
        (image,) = call["images"]
        assert [entry["label"] for entry in image["detections"]] == wanted["labels"][sure].tolist()
        boxes = np.asarray([entry["box"] for entry in image["detections"]])
        np.testing.assert_allclose(boxes, wanted["boxes"][sure].numpy(), atol=1e-3)
    assert Image.open(tmp_path / "seen.png").width > 3 * 448
