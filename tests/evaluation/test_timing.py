"""`graphforge profile --images`: latencies of bundles on pictures, alone and with what is around them, in turn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import graphforge
from graphforge.cli.main import run

NETS = """
import torch
from torch import nn

class Mean(nn.Module):
    def forward(self, image):
        return image.mean((2, 3))

class Work(nn.Module):
    '''Some hundred times as much.'''

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 32, 5, padding=2), *[nn.Conv2d(32, 32, 5, padding=2) for _ in range(4)]]
        self.layers = nn.Sequential(*layers)

    def forward(self, image):
        return self.layers(image).mean((2, 3))

def mean():
    return Mean().eval(), (torch.rand(1, 3, 32, 48),)

def work():
    return Work().eval(), (torch.rand(3, 3, 32, 48),)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles and some pictures, to be read only."""
    folder = tmp_path_factory.mktemp("timing")
    (folder / "nets.py").write_text(NETS)
    graphforge.compile(
        f"{folder / 'nets.py'}:mean",
        dynamic_shapes="image:0=1..4,2=32..64/32",
        preprocess=[{"step": "resize", "size": [48, 32]}],
        output=folder / "mean",
    )
    graphforge.compile(f"{folder / 'nets.py'}:work", preprocess=[{"step": "resize"}], output=folder / "work")
    (folder / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (60 + number, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_bundles_are_measured_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--images", "photos", "--iterations", "20", "--warmup", "3", "--threads", "1"]
    assert run(["profile", "mean", "--also", "work", *arguments, "--shape", "32x48", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"] == {"batch": 1, "iterations": 20, "warmup": 3, "threads": 1, "images": "photos"}
    mean, work = document["results"]
    assert (mean["name"], work["name"], mean["shape"]) == ("mean", "work", "32x48")
    assert work["model"]["median_ms"] > mean["model"]["median_ms"]
    for side in (mean, work):
        assert side["whole"]["mean_ms"] > side["model"]["mean_ms"]
        assert side["model"]["min_ms"] <= side["model"]["median_ms"] <= side["model"]["max_ms"]
        assert [one["runs"] for one in side["running"]] == list(range(2, 21, 2))
        assert side["running"][-1]["mean_ms"] == pytest.approx(side["model"]["mean_ms"])
        assert side["model"]["fps"] == pytest.approx(1e3 / side["model"]["mean_ms"])
    assert "work runs 3 pictures at a time, of which 1 count" in document["notes"]


def test_the_report_has_the_parts_of_mmdeploys_profiler(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "mean", "--images", "photos", "--runs", "5", "--batch", "4"]) == 0
    text = capsys.readouterr().out
    for part in ("batch size", "32x48", "iterations", "warmup", "median", "FPS", "with pre- and post-processing"):
        assert part in text


def test_a_shape_is_chosen_without_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "mean", "--shape", "64x48", "--runs", "3", "--warmup", "0", "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["inputs"] == {"image": [1, 3, 64, 48]}
    assert document["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "64"], "cannot read --shape '64'"),
        (["--shape", "40x48"], "input 'image' takes 32..64 in steps of 32 on axis 2, not 40"),
        (["--shape", "32x40"], "input 'image' takes 48 on axis 3, not 40"),
        (["--shape", "64x48", "--images", "photos"], "the pre-processing of mean makes 32x48"),
        (["--also", "work"], "--also is for measuring on pictures"),
        (["--images", "photos", "--batch", "5"], "--batch 5: mean takes 4 pictures at once"),
        (["--images", "photos", "--also", "mean"], "bundle 'mean' is given twice"),
        (["--images", "mean"], "'mean' contains no pictures"),
        (["--images", "gone"], "--images 'gone' is not a folder"),
        (["nets.py:mean", "--images", "photos"], "eager is not measured on pictures"),
    ],
)
def test_what_cannot_be_measured_is_told(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "mean", *arguments]) in (1, 2)
    assert words in " ".join(capsys.readouterr().err.split())
