"""`graphforge run`: pictures and arrays in; detections printed, drawn and put back on the picture's own pixels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graphforge.cli.main import run
from graphforge.errors import GraphForgeError

NETS = '''
import torch
from torch import nn

BOXES = [[2., 3., 10., 12.], [4., 4., 20., 20.], [0., 0., 0., 0.]]

class Padded(nn.Module):
    """Two boxes and a row of padding; the brighter the image, the higher the scores."""

    def forward(self, image):
        level = image.mean(dim=(1, 2, 3))
        boxes = torch.tensor(BOXES)[None] + 0 * level[:, None, None]
        scores = torch.tensor([0.9, 0.5, 0.0])[None] * level[:, None]
        labels = torch.tensor([1, 0, -1])[None].expand(image.shape[0], 3)
        return {"boxes": boxes, "scores": scores, "labels": labels, "num_dets": (labels >= 0).sum(1),
                "keypoints": boxes.reshape(-1, 3, 2, 2)}

class Listed(nn.Module):
    """A dict for each of two images, ragged, as torchvision's detectors return them."""

    def forward(self, image):
        level = image.mean(dim=(1, 2, 3))
        boxes = torch.tensor(BOXES)
        scores = torch.tensor([0.9, 0.5])
        labels = torch.tensor([1, 0])
        return [{"boxes": boxes[:2] + 0 * level[0], "scores": scores * level[0], "labels": labels},
                {"boxes": boxes[:1] + 0 * level[1], "scores": scores[:1] * level[1], "labels": labels[:1]}]

class Plain(nn.Module):
    def forward(self, image, shift):
        moved = image + shift[:, None, None]
        return {"first": moved.flatten(1)[:, :2], "second": image.amax(dim=(2, 3))}

class OfAList(nn.Module):
    """As torchvision's detectors are called: a list of images without a batch."""

    def forward(self, images):
        boxes = torch.tensor(BOXES)[:1]
        return [{"boxes": boxes + 0 * image.sum(), "scores": image.mean().reshape(1), "labels": torch.tensor([1])}
                for image in images]

def padded():
    return Padded().eval(), (torch.rand(2, 3, 24, 32),)

def listed():
    return Listed().eval(), (torch.rand(2, 1, 24, 32),)

def plain():
    return Plain().eval(), (torch.rand(1, 3, 4, 4), torch.rand(3))

def of_a_list():
    return OfAList().eval(), ([torch.rand(3, 24, 32), torch.rand(3, 24, 32)],)
'''


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled bundles and some files to feed them, to be read only."""
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "nets.py").write_text(NETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("padded", "listed", "plain", "of_a_list"):
            dynamic = ("--dynamic", "image:0=1..4,2=8..64/8") if name == "padded" else ()
            assert run(["compile", f"nets.py:{name}", *dynamic, "-o", f"out/{name}", "--json"]) == 0
    Image.new("RGB", (320, 240), (255, 255, 255)).save(folder / "white.png")
    Image.new("RGB", (64, 48), (153, 153, 153)).save(folder / "grey.png")
    (folder / "names.txt").write_text("cat\ndog\n")
    (folder / "broken.png").write_text("not a picture")
    np.save(folder / "shift.npy", np.zeros(3, np.float32))
    np.savez(folder / "both.npz", image=np.full((1, 3, 4, 4), 2, np.float32), shift=np.ones(3, np.float32))
    np.savez(folder / "wide.npz", image=np.zeros((1, 3, 4, 4), np.float64), shift=np.ones(3, np.float32))
    np.savez(folder / "image.npz", image=np.random.default_rng(0).random((2, 3, 24, 32), np.float32))
    return folder


@pytest.fixture
def folder(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(bundles, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert run(["run", *arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_boxes_are_in_the_pictures_pixels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The picture is promised only multiples of 8 rows up to 64, and 32 columns: 240x320 goes in as 64x32."""
    document = _json(capsys, "out/padded", "--input", "white.png", "--labels", "names.txt")
    (call,) = document["runs"]
    (image,) = call["images"]
    assert call["outputs"][0]["shape"] == [1, 3, 4]  # a batch of one: as many as there are pictures
    assert image["size"] == [320, 240]
    dog, cat = image["detections"]
    assert (dog["label"], dog["name"], cat["name"]) == (1, "dog", "cat")
    assert dog["score"] == pytest.approx(0.9)
    np.testing.assert_allclose(dog["box"], [20.0, 3 * 240 / 64, 100.0, 12 * 240 / 64], rtol=1e-6)
    np.testing.assert_allclose(dog["keypoints"], [dog["box"][:2], dog["box"][2:]])


def test_pictures_beyond_the_batch_take_several_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`listed` takes two images a run: the fourth place is filled up and nothing of it is shown."""
    inputs = [word for name in ("white.png", "grey.png", "white.png") for word in ("--input", name)]
    document = _json(capsys, "out/listed", *inputs)
    counts = [[len(image["detections"]) for image in call["images"]] for call in document["runs"]]
    assert counts == [[2, 1], [2]]
    second = document["runs"][0]["images"][1]
    assert second["input"] == "grey.png"
    assert second["detections"][0]["score"] == pytest.approx(0.9 * 153 / 255)


def test_list_of_images_takes_a_picture_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = [word for name in ("white.png", "grey.png", "grey.png") for word in ("--input", name)]
    document = _json(capsys, "out/of_a_list", *inputs, "--draw", "seen.png")
    scores = [[image["detections"][0]["score"] for image in call["images"]] for call in document["runs"]]
    assert [len(call) for call in scores] == [2, 1]
    np.testing.assert_allclose([*scores[0], *scores[1]], [1, 0.6, 0.6], rtol=1e-5)
    assert document["runs"][0]["images"][0]["detections"][0]["box"] == pytest.approx([20, 30, 100, 120])
    names = [item["name"] for item in json.loads((folder / "out/of_a_list/manifest.json").read_text())["inputs"]]
    swapped = _json(capsys, "out/of_a_list", "--input", f"{names[1]}=white.png", "--input", f"{names[0]}=grey.png")
    (call,) = swapped["runs"]
    assert [image["input"] for image in call["images"]] == ["grey.png", "white.png"]
    assert [image["detections"][0]["score"] for image in call["images"]] == pytest.approx([0.6, 1], rel=1e-5)


def test_score_hides_what_is_lower(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "out/listed", "--input", "white.png", "--input", "grey.png", "--score", "0.6"]) == 0
    printed = capsys.readouterr().out
    assert "white.png 320x240: 1 of 2 detections score more than 0.6" in printed
    assert "grey.png 64x48: 0 of 1 detections score more than 0.6" in printed
    assert "run by onnxruntime" in printed


def test_pixels_are_prepared_as_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def prepared(*more: str) -> list[float]:
        arguments = ("out/plain", "--input", "image=grey.png", "--input", "shift=shift.npy", *more)
        (call,) = _json(capsys, *arguments)["runs"]
        facts = next(item for item in call["outputs"] if item["name"] == "second")
        assert facts["shape"] == [1, 3]
        return [facts["min"], facts["max"]]

    assert prepared() == pytest.approx([0.6, 0.6])
    assert prepared("--scale", "255") == pytest.approx([153.0, 153.0])
    assert prepared("--mean", "0.1,0.2,0.3", "--std", "0.5") == pytest.approx([0.6, 1.0])


def test_pictures_of_sixteen_bits_and_turned_ones_are_read_as_they_look(folder: Path) -> None:
    from graphforge.runtime.files import read_picture

    Image.fromarray(np.asarray([[0, 257 * 100, 65535]], np.uint16)).save(folder / "deep.png")
    np.testing.assert_array_equal(np.asarray(read_picture(folder / "deep.png", grey=True)), [[0, 100, 255]])
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (40, 20)).save(folder / "turned.jpg", exif=turned)
    assert read_picture(folder / "turned.jpg", grey=False).size == (20, 40)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(folder / "floats.tif")
    with pytest.raises(GraphForgeError, match="holds floats"):
        read_picture(folder / "floats.tif", grey=False)


def test_other_outputs_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "out/plain", "--input", "both.npz"]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "first" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["first", "float32", "1x2", "3", "3", "3"]


def test_drawing_marks_box_and_keypoint_at_the_pictures_size(folder: Path) -> None:
    assert run(["run", "out/padded", "--input", "white.png", "--draw", "seen.png", "--labels", "names.txt"]) == 0
    seen = Image.open(folder / "seen.png")
    assert seen.size == (640, 480)  # magnified twice, a whole number, so that its labels can be read
    pixels = np.asarray(seen.convert("RGB")).astype(int)
    corner = pixels[round(12 * 240 / 64 * 2), 200]  # dog's right lower keypoint lies on its box's corner
    assert corner.max() - corner.min() > 100
    assert (pixels[400:, 450:] == 255).all()  # and nothing where nothing was found


def test_arrays_are_drawn_on_themselves(folder: Path) -> None:
    assert run(["run", "out/padded", "--input", "image.npz", "--draw", "seen.jpg"]) == 0
    with Image.open(folder / "seen.jpg") as seen:
        assert seen.format == "JPEG"
        assert seen.width > 2 * 32  # two images side by side


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message", "note"),
    [
        (["nowhere", "--input", "white.png"], 1, "'nowhere' does not exist", "a bundle is a folder made by"),
        (["out", "--input", "white.png"], 1, "'out' is not a bundle", "a bundle is a folder made by"),
        (["out/padded"], 2, "missing option '--input'", "see `graphforge run --help`"),
        (["out/padded", "--input", "gone.png"], 2, "input file 'gone.png' does not exist", "the path is taken from"),
        (["out/padded", "--input", "broken.png"], 1, "picture 'broken.png' cannot be read", "open it in a viewer"),
        (["out/padded", "--input", "names.txt"], 2, "cannot read input file 'names.txt'", "expected .npz, .npy or a"),
        (
            ["out/padded", "--input", "img=white.png"],
            2,
            "the bundle has no input 'img'",
            "its inputs are: image (1..4)x",
        ),
        (["out/plain", "--input", "shift=grey.png"], 2, "input 'shift' takes no picture: it is 3 float32", ""),
        (["out/plain", "--input", "grey.png"], 2, "no data for input shift", "its inputs are: image 1x3x4x4 float32"),
        (["out/plain", "--input", "shift.npy"], 2, "which input is 'shift.npy'?", "say --input image=shift.npy"),
        (
            ["out/plain", "--input", "wide.npz"],
            2,
            "input 'image': expected 1x3x4x4 float32, got 1x3x4x4 float64",
            "prepare the data",
        ),
        (["out/plain", "--input", "both.npz", "--mean", "1"], 2, "--scale, --mean and --std are for pictures", ""),
        (["out/padded", "--input", "white.png", "--mean", "a,b"], 2, "cannot read --mean 'a,b'", "write it as --mean"),
        (["out/padded", "--input", "white.png", "--std", "1,2"], 2, "--std has 2 numbers, but the input has 3", ""),
        (["out/padded", "--input", "white.png", "--std", "0"], 2, "--std holds a zero", ""),
        (["out/padded", "--input", "white.png", "--labels", "no.txt"], 1, "labels 'no.txt' cannot be read", "expected"),
        (["out/padded", "--input", "white.png", "--draw", "a.txt"], 2, "--draw 'a.txt': unknown kind of picture", ""),
        (["out/padded", "--input", "white.png", "--draw", "no/a.png"], 1, "cannot write 'no/a.png': there is no", ""),
        (["out/plain", "--input", "both.npz", "--draw", "a.png"], 1, "the outputs are no detections", ""),
    ],
)
def test_refusal_is_told_with_a_way_out(
    arguments: list[str], code: int, message: str, note: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert run(["run", *arguments]) == code
    captured = capsys.readouterr()
    first, *notes = captured.err.splitlines()
    assert first.startswith(f"error: {message}")
    assert any(line.startswith(f"  note: {note}") for line in notes), captured.err
    assert sorted(folder.rglob("*")) == before


def test_unwritable_drawing_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of the kernel's, which not even root may write to."""
    assert run(["run", "out/padded", "--input", "white.png", "--draw", "/proc/seen.png"]) == 1
    assert "error: cannot write '/proc/seen.png'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["run", "--input", "white.png"], ["evaluate", "--data", "c.json", "--images", "."]])
def test_a_file_in_place_of_a_bundle_is_told(verb: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "out" / "padded" / "model.onnx", folder / "bare.onnx")
    (folder / "c.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert run([verb[0], "bare.onnx", *verb[1:]]) == 1
    assert "'bare.onnx' is an ONNX file of no bundle" in capsys.readouterr().err
    assert run([verb[0], "out/padded/model.onnx", *verb[1:]]) == 1
    assert "note: give the bundle: out/padded" in capsys.readouterr().err


def test_damaged_bundles_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = folder / "out" / "padded" / "manifest.json"
    text = manifest.read_text()
    (folder / "out" / "padded" / "model.onnx").unlink()
    assert run(["run", "out/padded", "--input", "white.png"]) == 1
    assert "error: bundle 'out/padded' lacks its file 'model.onnx'" in capsys.readouterr().err
    manifest.write_text(text[:100])
    assert run(["run", "out/padded", "--input", "white.png"]) == 1
    assert "is not the manifest of a bundle" in capsys.readouterr().err
    manifest.rename(manifest.with_name("manifest.unverified.json"))
    assert run(["run", "out/padded", "--input", "white.png"]) == 1
    assert "error: bundle 'out/padded' failed verification" in capsys.readouterr().err


def test_target_that_cannot_run_here_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphforge.targets.onnx.target import OnnxTarget

    monkeypatch.setattr(OnnxTarget, "runner", lambda self, folder: None)
    monkeypatch.setattr(OnnxTarget, "runs_here", lambda self, folder: "no such device")
    assert run(["run", "out/padded", "--input", "white.png"]) == 1
    said = capsys.readouterr().err
    assert "error: a bundle for onnx cannot be run on this machine" in said
    assert "note: no such device" in said
