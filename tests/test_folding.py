"""`--fold-preprocess`: the steps of pixels in the graph, bytes in; results are those of the bundle without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import graphforge
from graphforge.cli.main import run
from graphforge.errors import GraphForgeError
from graphforge.folding import BytesIn
from graphforge.runtime import Colour, Normalise, Scale

FULL = [
    {"step": "resize", "size": [24, 16]},
    {"step": "colour", "order": "bgr"},
    {"step": "scale", "by": 1 / 255},
    {"step": "normalise", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]},
]


class Sums(torch.nn.Module):
    """Sums of each channel, so that no order of colours and no mean passes for another."""

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sums": picture.flatten(2).mean(2), "corner": picture[:, :, 0, 0]}


class LastAxis(torch.nn.Module):
    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return picture.flatten(1, 2).mean(1)


def _compiled(steps: list[dict[str, Any]], output: Path, *, fold: bool, last: bool = False) -> graphforge.Bundle:
    model, example = (LastAxis(), torch.rand(1, 16, 24, 3)) if last else (Sums(), torch.rand(1, 3, 16, 24))
    return graphforge.compile(
        model.eval(),
        (example,),
        dynamic_shapes={"picture": {0: (1, 4)}},
        preprocess=steps,
        fold_preprocess=fold,
        output=output,
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        (FULL, False),
        (FULL[:2], False),
        ([FULL[0], FULL[2]], False),
        ([FULL[0], {"step": "normalise", "mean": 127.5, "std": 58.0}], False),
        ([*FULL, {"step": "layout", "order": "nhwc"}], True),
        ([FULL[1], FULL[0], FULL[3]], False),  # colours stay in front of what moves pixels
    ],
)
def test_results_are_those_of_the_bundle_without(
    steps: list[dict[str, Any]], last: bool, photo: Path, tmp_path: Path
) -> None:
    plain = _compiled(steps, tmp_path / "plain", fold=False, last=last)
    folded = _compiled(steps, tmp_path / "folded", fold=True, last=last)
    assert folded.manifest["inputs"][0]["dtype"] == "uint8"
    assert folded.manifest["inputs"][0]["name"] == "picture"
    assert folded.manifest["folded"] == plain.manifest["preprocess"]
    assert folded.manifest["preprocess"][-1] == {"step": "dtype", "to": "uint8"}
    before, after = plain.run(photo), folded.run(photo)
    assert list(before) == list(after)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, atol=2e-6)


def test_the_way_there_and_back() -> None:
    steps = [Colour("bgr"), Scale(1 / 255), Normalise((0.4, 0.5, 0.6), 0.25)]
    model = BytesIn(Sums(), "picture", steps, torch.float32, 1)
    picture = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    assert torch.equal(model.bytes_of(model.pixels(picture)), picture)


def test_half_precision_and_keywords() -> None:
    class Taken(torch.nn.Module):
        def forward(self, shift: torch.Tensor, *, image: torch.Tensor) -> torch.Tensor:
            return image.mean((2, 3)) + shift

    model = BytesIn(Taken(), "image", [Scale(2.0)], torch.float16, 1)
    out = model(torch.ones(1), image=torch.full((1, 3, 2, 2), 5, dtype=torch.uint8))
    assert out.dtype == torch.float32  # float16 plus a float32 shift
    assert torch.equal(out, torch.full((1, 3), 11.0))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], "there is no pre-processing to put into the graph"),
        ([FULL[0]], "nothing of the pre-processing can be moved"),
        ([FULL[2], FULL[0], FULL[3]], "do not leave bytes"),
    ],
)
def test_what_cannot_be_moved_is_refused(steps: list[dict[str, Any]], words: str, tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match=words):
        _compiled(steps, tmp_path / "out", fold=True)
    assert not (tmp_path / "out").exists()


def test_from_the_command_line(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return x.mean((2, 3))\n\n"
        "def build():\n    return Net().eval(), (torch.rand(1, 3, 8, 8),)\n"
    )
    Path("list.toml").write_text(
        '[[preprocess]]\nstep = "resize"\n[[preprocess]]\nstep = "normalise"\nmean = 100\nstd = 50\n'
    )
    command = ["compile", "net.py:build", "--preprocess", "list.toml", "--fold-preprocess", "-o", "out", "--json"]
    assert run(command) == 0
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert any("input x takes bytes: normalise in the graph" in note for note in manifest["notes"])
    capsys.readouterr()
    assert run(["profile", "out", "net.py:build"]) == 2
    assert "part of its pre-processing in its graph" in capsys.readouterr().err
