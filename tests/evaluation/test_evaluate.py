"""`graphforge evaluate`: figures that are pycocotools' and scikit-image's called by hand, eager beside the bundle."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import graphforge
from graphforge.cli.main import run
from graphforge.errors import GraphForgeError, UsageError
from graphforge.evaluation.coco import BOX_FIGURES, KEYPOINT_FIGURES
from graphforge.evaluation.metric import Seen
from graphforge.evaluation.pictures import ssim
from graphforge.runtime import PoseDetector
from scripts.gallery.digits import canvas
from scripts.gallery.figures import Figure, limbs, picture
from scripts.gallery.save_canvases import coco_of

GALLERY = Path(__file__).resolve().parents[2] / "scripts" / "gallery"

NETS = '''
import torch
from torch import nn

class Reddest(nn.Module):
    """Scores of six labels: how much of red, green, blue, then three that never win."""

    def forward(self, image):
        colours = image.mean((2, 3))
        return torch.cat([colours, colours - 2], 1)

class Parts(nn.Module):
    """Scores of pixels at half the size: dark, or bright."""

    def forward(self, image):
        bright = nn.functional.avg_pool2d(image.mean(1, keepdim=True), 2)
        return {"scores": torch.cat([0.5 - bright, bright - 0.5], 1)}

class Softer(nn.Module):
    def forward(self, image):
        return nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)

def reddest():
    return Reddest().eval(), (torch.rand(1, 3, 8, 8),)

def parts():
    return Parts().eval(), (torch.rand(1, 3, 32, 32),)

def softer():
    return Softer().eval(), (torch.rand(1, 3, 40, 40),)
'''

PLAIN = '[[preprocess]]\nstep = "resize"\n[[preprocess]]\nstep = "scale"\nby = 0.00392156862745098\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles, pictures and what is known of them, to be read only."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "nets.py").write_text(NETS)
    (folder / "plain.toml").write_text(PLAIN)
    for name in ("reddest", "parts", "softer"):
        graphforge.compile(f"{folder / 'nets.py'}:{name}", preprocess=folder / "plain.toml", output=folder / name)
    graphforge.compile(
        f"{GALLERY / 'digits.py'}:detector", preprocess=GALLERY / "digits.toml", output=folder / "digits"
    )
    graphforge.compile(
        f"{GALLERY / 'figures.py'}:pose",
        preprocess=GALLERY / "figures_pose.toml",
        dynamic_shapes="image:0=1..4",
        output=folder / "pose",
    )
    (folder / "canvases").mkdir()
    for number in range(50):
        pixels = np.rint(canvas(number).image[0].numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "canvases" / f"canvas_{number:04d}.png")
    (folder / "digits.json").write_text(json.dumps(coco_of({number: canvas(number) for number in range(50)})))
    _write_figures(folder)
    return folder


def _write_figures(folder: Path) -> None:
    """Ten pictures of two figures, annotated a little off, so that precision is neither 0 nor 1."""
    (folder / "figures").mkdir()
    random = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    known: list[dict[str, Any]] = []
    for number in range(1, 11):
        pair: list[Figure] = [
            (random.uniform(40, 120), random.uniform(50, 140), 1.0),
            (250, 100, random.uniform(0.7, 1)),
        ]
        Image.fromarray(picture(pair)).save(folder / "figures" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 320, "height": 192})
        for figure in pair:
            points = limbs(figure) + random.normal(0, 2.5, (5, 2))
            low, high = limbs(figure).min(0) - 5, limbs(figure).max(0) + 5
            known.append(
                {
                    "id": len(known) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": float(np.prod(high - low)),
                    "iscrowd": 0,
                    "num_keypoints": 5,
                    "keypoints": np.concatenate([points, np.full((5, 1), 2)], 1).reshape(-1).tolist(),
                }
            )
    names = {"categories": [{"id": 1, "name": "figure"}], "images": images, "annotations": known}
    (folder / "figures.json").write_text(json.dumps(names))


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def _by_pycocotools(path: str, results: Sequence[Mapping[str, Any]], kind: str, sigmas: Any = None) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        evaluation = COCOeval(truth, truth.loadRes(list(results)), kind)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


# -- figures -----------------------------------------------------------------------------------------------------------


def test_boxes_on_fifty_canvases_are_pycocotools_by_hand(folder: Path) -> None:
    report = graphforge.evaluate("digits", f"{GALLERY / 'digits.py'}:detector", data="digits.json", images="canvases")
    eager, bundle = report.sides
    assert list(bundle.figures) == BOX_FIGURES
    assert bundle.figures == eager.figures
    assert report.samples == 50
    session = onnxruntime.InferenceSession(str(folder / "digits" / "model.onnx"))
    names = [value.name for value in session.get_outputs()]
    results = []
    for number in range(50):
        pixels = np.asarray(Image.open(folder / "canvases" / f"canvas_{number:04d}.png"))
        feed = {session.get_inputs()[0].name: pixels[None, None].astype(np.float32) / np.float32(255)}
        found = dict(zip(names, session.run(None, feed), strict=True))
        boxes, scores, labels = (next(found[name] for name in names if name.endswith(end)) for end in _ENDS)
        for (left, top, right, bottom), score, label in zip(boxes.astype(float), scores, labels, strict=True):
            box = [left, top, right - left, bottom - top]
            results.append({"image_id": number, "category_id": int(label) + 1, "score": float(score), "bbox": box})
    assert list(bundle.figures.values()) == _by_pycocotools("digits.json", results, "bbox")
    assert 0.8 < bundle.figures["AP"] < 0.9


_ENDS = ("boxes", "scores", "labels")


def test_keypoints_are_pycocotools_by_hand(folder: Path) -> None:
    report = graphforge.evaluate(
        "pose", f"{GALLERY / 'figures.py'}:pose", data="figures.json", images="figures", batch=4
    )
    eager, bundle = report.sides
    assert report.metric == "keypoints"
    assert list(bundle.figures) == KEYPOINT_FIGURES
    assert bundle.figures == eager.figures
    pose = PoseDetector("pose")
    results = []
    for one in json.loads((folder / "figures.json").read_text())["annotations"]:
        left, top, wide, high = one["bbox"]
        found = pose(f"figures/{one['image_id']}.png", [[left, top, min(left + wide, 319), min(top + high, 191)]])
        assert found.keypoints is not None
        assert found.keypoint_scores is not None
        sure = found.keypoint_scores[0]
        points = np.concatenate([found.keypoints[0], sure[:, None]], 1).reshape(-1)
        score = float(sure[sure > 0.2].mean())
        results.append({"image_id": one["image_id"], "category_id": 1, "score": score, "keypoints": points.tolist()})
    by_hand = _by_pycocotools("figures.json", results, "keypoints", [0.05] * 5)
    np.testing.assert_allclose(list(bundle.figures.values()), by_hand, rtol=0, atol=1e-12)
    assert 0.3 < bundle.figures["AP"] < 0.95


def test_keypoints_in_a_detectors_boxes(folder: Path) -> None:
    """The annotated boxes as a detector's, each twice: doubles fall away; a picture without boxes counts as missed."""
    known = json.loads((folder / "figures.json").read_text())["annotations"]
    found = [
        {"image_id": one["image_id"], "category_id": 1, "bbox": one["bbox"], "score": score}
        for one in known
        for score in (0.9, 0.5)
    ]
    (folder / "boxes.json").write_text(json.dumps(found))
    given: dict[str, Any] = {"data": "figures.json", "images": "figures", "samples": 3, "batch": 4}
    report = graphforge.evaluate("pose", boxes="boxes.json", **given)
    assert report.samples == 12
    assert report.sides[0].figures == graphforge.evaluate("pose", **given).sides[0].figures
    whole = report.sides[0].figures["AR"]
    (folder / "boxes.json").write_text(json.dumps([one for one in found if one["image_id"] != 2]))
    (side,) = graphforge.evaluate("pose", boxes="boxes.json", **given).sides
    assert side.figures["AR"] < 0.9 * whole  # of three pictures with two figures each, one has no box
    (folder / "boxes.json").write_text(json.dumps([{**found[0], "category_id": 5}]))
    with pytest.raises(GraphForgeError, match=r"boxes\[0\].category_id is 5, which 'figures.json' lacks"):
        graphforge.evaluate("pose", boxes="boxes.json", **given)
    with pytest.raises(UsageError, match="is for bundles that look at boxes"):
        graphforge.evaluate("digits", data="digits.json", images="canvases", boxes="boxes.json")


def test_labels_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "colours").mkdir(exist_ok=True)
    lines = []
    for name, colour, label in (
        ("red one", (255, 0, 0), 0),
        ("green", (9, 200, 0), 1),
        ("blue", (0, 9, 250), 0),
        ("grey", (8, 8, 8), 5),
    ):
        Image.new("RGB", (10, 10), colour).save(folder / "colours" / f"{name}.png")
        lines.append(f"{name}.png {label}\n")
    (folder / "val.txt").write_text("".join(lines))
    assert run(["evaluate", "reddest", "--data", "val.txt", "--images", "colours", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    # red and green are right; blue's label 0 is third; grey's label 5 is the sixth of six that are level in pairs
    assert document["sides"][0]["figures"] == {"top-1": 0.5, "top-5": 0.75}
    assert run(["evaluate", "reddest", "--data", "val.txt", "--images", "colours", "--samples", "2"]) == 0
    assert "1.0000" in capsys.readouterr().out
    assert run(["evaluate", "reddest", "--data", "val.txt", "--images", "colours", "--samples", "1"]) == 0
    assert "top on 1 sample of val.txt\n" in capsys.readouterr().out


def test_pixels_of_classes_are_counted(folder: Path) -> None:
    """The left half is bright; the truth says so of the left quarter and the right half of the rest is not labelled."""
    for name in ("scenes", "classes"):
        (folder / name).mkdir(exist_ok=True)
    scene = np.zeros((64, 64, 3), np.uint8)
    scene[:, :32] = 255
    truth = np.zeros((64, 64), np.uint8)
    truth[:, :16] = 1
    truth[:, 48:] = 255
    Image.fromarray(scene).save(folder / "scenes" / "a.png")
    Image.fromarray(truth).save(folder / "classes" / "a.png")
    (side,) = graphforge.evaluate("parts", data="classes", images="scenes", metric="miou").sides
    dark, bright = 16 / 32, 16 / 32  # of 48 columns: 16 both bright, 16 both dark, 16 bright where it should be dark
    assert side.figures["IoU 0"] == pytest.approx(dark, abs=0.02)
    assert side.figures["IoU 1"] == pytest.approx(bright, abs=0.02)
    assert side.figures["mIoU"] == pytest.approx((side.figures["IoU 0"] + side.figures["IoU 1"]) / 2)
    assert side.figures["accuracy"] == pytest.approx(32 / 48, abs=0.02)


def test_restored_pictures_are_measured_as_scikit_image_does(folder: Path) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    for name in ("noisy", "clean"):
        (folder / name).mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :40]
    expected = []
    for number in range(3):
        clean = np.stack([120 + 100 * np.sin(rows / (3 + number)), 3 * columns + 0 * rows, 5 * rows], 2).clip(0, 255)
        noisy = (clean + random.normal(0, 20, clean.shape)).clip(0, 255)
        clean, noisy = clean.astype(np.uint8), noisy.astype(np.uint8)
        Image.fromarray(clean).save(folder / "clean" / f"{number}.png")
        Image.fromarray(noisy).save(folder / "noisy" / f"{number}.png")
        padded = np.pad(noisy.astype(float), ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
        softer = np.rint(np.nanmean(windows, axis=(3, 4))).astype(np.uint8)
        how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
        expected.append(
            (peak_signal_noise_ratio(clean, softer), structural_similarity(clean, softer, data_range=255, **how))
        )
    (side,) = graphforge.evaluate("softer", data="clean", images="noisy", metric="psnr").sides
    psnr, similar = np.mean(expected, axis=0)
    assert side.figures["PSNR"] == pytest.approx(psnr, abs=2e-3)  # a byte here and there rounds the other way
    assert side.figures["SSIM"] == pytest.approx(similar, abs=1e-4)
    one, other = random.integers(0, 256, (2, 30, 40, 3)).astype(float)
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    assert ssim(one, other) == pytest.approx(structural_similarity(one, other, data_range=255, **how), abs=1e-12)


OWN = """
import numpy as np

class Within:
    def record(self, seen):
        truth = np.reshape(seen.sample.truth["keypoints"], (-1, 3))
        apart = np.linalg.norm(seen.found.keypoints[0] - truth[:, :2], axis=1)
        return [int((apart < 5).sum()), len(truth)]

    def figures(self, records):
        hits, count = np.sum(records, axis=0)
        return {"within 5 px": hits / count}
"""


def test_a_metric_of_the_users_own_is_ten_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own.py").write_text(OWN)
    arguments = ["--data", "figures.json", "--images", "figures", "--metric", "own.py:Within", "--json"]
    assert run(["evaluate", "pose", *arguments]) == 0
    (side,) = json.loads(capsys.readouterr().out)["sides"]
    assert 0.6 < side["figures"]["within 5 px"] < 1


# -- going on ----------------------------------------------------------------------------------------------------------


class _Counting:
    """Counts what it is asked for, and fails at one of them."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[str] = []
        self.fails_at = fails_at

    def record(self, seen: Seen) -> Any:
        if len(self.asked) == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(seen.sample.name)
        return 1

    def figures(self, records: Sequence[Any]) -> Mapping[str, float]:
        return {"count": float(len(records))}


def test_a_run_that_ended_early_goes_on(folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": "digits.json", "images": "canvases", "samples": 8, "resume": tmp_path / "kept"}
    first = _Counting(fails_at=5)
    with pytest.raises(KeyboardInterrupt):
        graphforge.evaluate("digits", metric=first, **given)
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_text(kept.read_text() + '["canvas_0006.png", ')  # a line that the end of the process cut in two
    second = _Counting()
    (side,) = graphforge.evaluate("digits", metric=second, **given).sides
    assert len(first.asked) == 5
    assert second.asked == ["canvas_0005.png", "canvas_0006.png", "canvas_0007.png"]
    assert side.resumed == 5
    assert side.figures == {"count": 8.0}


def test_records_of_another_run_are_refused(folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"images": "canvases", "samples": 1, "resume": tmp_path / "kept", "metric": _Counting()}
    graphforge.evaluate("digits", data="digits.json", **given)
    (tmp_path / "other.json").write_text((folder / "digits.json").read_text())
    with pytest.raises(GraphForgeError, match="is of another run: data was"):
        graphforge.evaluate("digits", data=tmp_path / "other.json", **given)


# -- what cannot be done -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"annotations": [{"id": 1, "image_id": 0, "category_id": 77}]},
            r"annotations\[0\] is of category 77, which is not there",
        ),
        ({"annotations": [{"id": 1, "image_id": 99, "category_id": 1}]}, r"annotations\[0\] is of image 99"),
        (
            {"annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2]}]},
            r"expected \[left, top, width, height\]",
        ),
        ({"categories": [{"id": 1, "name": "seven"}]}, "has the category 'seven', which the bundle does not find"),
        ({"images": [{"id": 0, "file_name": "gone.png"}]}, "picture 'gone.png' is not in 'canvases'"),
        ({"images": [{"id": 0, "file_name": "../nets.py"}]}, "is not named by a path inside"),
        ({"images": []}, "lists no images"),
        ({"images": None}, "is not an annotation file of COCO's form: images: expected a list"),
    ],
)
def test_annotations_that_are_wrong_are_told(change: Mapping[str, Any], words: str, tmp_path: Path) -> None:
    plain = {
        "images": [{"id": 0, "file_name": "canvas_0000.png"}],
        "categories": [{"id": 1, "name": "1"}],
        "annotations": [],
    }
    (tmp_path / "wrong.json").write_text(json.dumps({**plain, **change}))
    with pytest.raises(GraphForgeError, match=words):
        graphforge.evaluate("digits", data=tmp_path / "wrong.json", images="canvases")


@pytest.mark.parametrize(
    ("bundle", "arguments", "words"),
    [
        ("digits", {"data": "digits.json", "metric": "top"}, "is for a text file of pictures and labels"),
        ("digits", {"data": "canvases"}, "say which"),
        ("digits", {"data": "digits.json", "metric": "nothere.py:X"}, "there is no such file"),
        ("digits", {"data": "digits.json", "metric": "nets.py:reddest"}, "is not a metric"),
        ("digits", {"data": "gone.json"}, "'gone.json' does not exist"),
        ("digits", {"data": "digits.json", "samples": 0}, "expected a whole number above 0"),
        ("digits", {"data": "digits.json", "batch": 0}, "batch: expected a whole number above 0"),
        ("pose", {"data": "digits.json", "metric": "bbox"}, "the bundle looks at boxes, and finds none"),
        ("reddest", {"data": "digits.json", "metric": "bbox"}, "the outputs are not what this metric looks at"),
    ],
)
def test_what_does_not_go_together_is_refused(bundle: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises((GraphForgeError, UsageError), match=words):
        graphforge.evaluate(bundle, **{"images": "canvases", **arguments})
