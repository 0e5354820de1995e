"""`compile --preprocess` and `run`: the bundle says what becomes of a picture, and boxes come back through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graphforge.cli.inputs import array_sets_from_files
from graphforge.cli.main import run
from graphforge.errors import UsageError
from graphforge.runtime.preprocess import completed, prepared, read_preprocess
from graphforge.spec import parse_input

NETS = '''
import torch
from torch import nn

class Finder(nn.Module):
    """The box around what is red, where red comes last (BGR): a detector of one thing."""

    def forward(self, image):
        red = (image[:, 2] > 0.5) & (image[:, 0] < 0.1)
        rows, columns = red.any(2), red.any(1)
        height, width = image.shape[2:]
        y, x = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
        left = torch.where(columns, x, width).amin(1)
        right = torch.where(columns, x + 1, 0).amax(1)
        top = torch.where(rows, y, height).amin(1)
        bottom = torch.where(rows, y + 1, 0).amax(1)
        boxes = torch.stack([left, top, right, bottom], 1)[:, None].float()
        middle = (boxes[..., :2] + boxes[..., 2:]) / 2
        keypoints = torch.stack([boxes[..., :2], middle], 2)
        scores = red.float().amax((1, 2))[:, None]
        return {"boxes": boxes, "scores": scores, "labels": scores.long(), "keypoints": keypoints,
                "keypoint_scores": torch.cat([scores, scores], 1)[:, None]}

class Rows(nn.Module):
    def forward(self, image):
        return {"mean": image.mean((2, 3))}

def finder():
    return Finder().eval(), (torch.rand(1, 3, 64, 64),)

def rows():
    return Rows().eval(), (torch.rand(1, 3, 64, 64),)
'''

LETTERBOX = """
[[preprocess]]
step = "resize"
fit = "inside"
[[preprocess]]
step = "pad"
value = 114
where = "centre"
[[preprocess]]
step = "colour"
order = "bgr"
[[preprocess]]
step = "scale"
by = 0.00392156862745098

[dataset]
classes = ["nothing", "poppy"]
class_colours = [[0, 0, 0], [255, 255, 0]]
keypoints = ["corner", "middle"]
skeleton = [[0, 1]]
link_colours = [[0, 255, 255]]
keypoint_colours = [[255, 0, 255], [0, 0, 255]]
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled bundles and a picture of 200x100 with a red box at 120, 20, 160, 60; to be read only."""
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "nets.py").write_text(NETS)
    (folder / "letterbox.toml").write_text(LETTERBOX)
    (folder / "follow.toml").write_text(
        '[[preprocess]]\nstep = "resize"\nsize = [96, 96]\nfit = "inside"\n[[preprocess]]\nstep = "pad"\ndivisor = 32\n'
    )
    picture = np.full((100, 200, 3), 90, np.uint8)
    picture[20:60, 120:160] = 255, 0, 0
    Image.fromarray(picture).save(folder / "red.png")
    Image.new("RGB", (60, 90)).save(folder / "tall.png")
    Image.new("RGB", (600, 6)).save(folder / "strip.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, *more in (
            ("finder", "--preprocess", "letterbox.toml", "--input-file", "red.png"),
            ("rows", "--preprocess", "follow.toml", "--dynamic", "image:0=1..4,2=32..96/32,3=64..96/32"),
        ):
            assert run(["compile", f"nets.py:{name}", *more, "-o", f"out/{name}", "--json"]) == 0
        assert run(["compile", "nets.py:finder", "-o", "out/plain", "--json"]) == 0
    return folder


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert run(["run", *arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


@pytest.fixture(autouse=True)
def _here(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundles)


def test_boxes_and_points_come_back_through_the_letterbox(capsys: pytest.CaptureFixture[str]) -> None:
    document = _json(capsys, "out/finder", "--input", "red.png")
    (found,) = document["runs"][0]["images"][0]["detections"]
    assert found["name"] == "poppy"  # the bundle brings the names
    assert found["box"] == pytest.approx([120, 20, 160, 60], abs=3.2)  # one pixel of the input is 3.125
    assert found["keypoints"][1] == pytest.approx([140, 40], abs=3.2)
    assert found["keypoint_scores"] == [1.0, 1.0]
    assert document["notes"] == []


def test_the_manifest_holds_the_whole_list(bundles: Path) -> None:
    manifest = json.loads((bundles / "out/finder/manifest.json").read_text())
    assert [step["step"] for step in manifest["preprocess"]] == ["resize", "pad", "colour", "scale", "layout", "dtype"]
    assert manifest["preprocess"][0]["size"] == [64, 64]  # that of the input
    assert manifest["dataset"]["skeleton"] == [[0, 1]]


def test_a_picture_to_compile_with_goes_the_same_way() -> None:
    assert json.loads(Path("out/finder/manifest.json").read_text())["inputs"][0]["shape"] == [1, 3, 64, 64]
    tensor = parse_input("image:2x3x64x64")
    steps = completed(read_preprocess(Path("letterbox.toml"))[0], tensor)
    (came,) = array_sets_from_files([("", Path("red.png"))], (), own=tensor, steps_for=lambda _: steps)
    expected, _ = prepared(steps, np.asarray(Image.open("red.png")))
    np.testing.assert_array_equal(came["image"], np.stack([expected, expected]))
    follow = completed(read_preprocess(Path("follow.toml"))[0], tensor)
    with pytest.raises(UsageError, match=r"'strip\.png' becomes 3x32x96, and input 'image' takes 3x64x64"):
        array_sets_from_files([("", Path("strip.png"))], [tensor], steps_for=lambda _: follow)


def test_the_drawing_has_the_datasets_colours(tmp_path: Path) -> None:
    drawing = tmp_path / "seen.png"
    assert run(["run", "out/finder", "--input", "red.png", "--draw", str(drawing), "--json"]) == 0
    pixels = np.asarray(Image.open(drawing)).reshape(-1, 3)
    for colour in ([255, 255, 0], [0, 255, 255], [255, 0, 255], [0, 0, 255]):
        assert (pixels == colour).all(1).sum() > 5, colour


def test_without_a_list_a_note_says_what_was_taken_for_granted(capsys: pytest.CaptureFixture[str]) -> None:
    document = _json(capsys, "out/plain", "--input", "red.png")
    assert document["runs"][0]["images"][0]["detections"] == []  # red is first, and the model looks for it last
    (note,) = document["notes"]
    assert "stretched to 64x64, red first, between 0 and 1" in note
    assert run(["run", "out/plain", "--input", "red.png"]) == 0
    assert "the bundle has no pre-processing" in capsys.readouterr().out


def test_a_list_may_be_given_to_a_bundle_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    ours = _json(capsys, "out/plain", "--input", "red.png", "--preprocess", "letterbox.toml")
    theirs = _json(capsys, "out/finder", "--input", "red.png")
    assert (
        ours["runs"][0]["images"][0]["detections"][0]["box"] == theirs["runs"][0]["images"][0]["detections"][0]["box"]
    )
    assert ours["notes"] == []


def test_pictures_of_another_size_begin_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    """200x100 becomes 96x48, padded to 96x64; 60x90 becomes 64x96."""
    document = _json(
        capsys, "out/rows", *(part for name in ("red", "red", "tall") for part in ("--input", f"{name}.png"))
    )
    assert [call["outputs"][0]["shape"] for call in document["runs"]] == [[2, 3], [1, 3]]


def test_a_picture_that_becomes_no_size_of_the_bundle_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """96x1 padded to 96x32 is promised, 64x96 is, and the strip stood up is 1x96, padded to 32x96, which is not."""
    Image.open("strip.png").rotate(90, expand=True).save("pole.png")
    assert run(["run", "out/rows", "--input", "pole.png"]) == 2
    assert "'pole.png' becomes 3x96x32 float32, and input 'image' takes" in " ".join(capsys.readouterr().err.split())


def test_mean_beside_a_list_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "out/finder", "--input", "red.png", "--mean", "0.5"]) == 2
    assert "the bundle brings its pre-processing" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[preprocess]]\nstep = "letterbx"\n', "did you mean 'letterbox'?"),
        ('[[preprocess]]\nstep = "resize"\nsize = [32, 32]\n', "makes 3x32x32 float32 of a picture"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_before_anything_is_compiled(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.toml").write_text(text)
    arguments = ["compile", "nets.py:finder", "--preprocess", str(tmp_path / "list.toml"), "-o", str(tmp_path / "out")]
    assert run(arguments) == 1
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
