"""A pose model for targets whose devices are not here; `scripts/bench openmmlab_commands` has more of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("mmpose", reason="needs mmpose: scripts/openmmlab.sh makes the environment, scripts/test runs this")

import graphforge
from graphforge.frontend.load import LoadedModel

TINY = "mmpose:rtmpose-t_8xb256-420e_coco-256x192"


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return graphforge.load_model(TINY, kwargs={"model.test_cfg.flip_test": False})


@pytest.mark.parametrize(
    ("target", "precision", "needs", "file"),
    [
        ("magicmind", "force_float16", "graphforge", "build_mm.py"),
        ("tensorrt", None, "tensorrt_rtx", "model.plan"),
    ],
)
def test_decoded_for_other_targets(
    tiny: LoadedModel, tmp_path: Path, target: str, precision: str | None, needs: str, file: str
) -> None:
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    # what is built is checked by the bench; here that the decoding is in a form that the target takes
    bundle = graphforge.compile(
        tiny, dynamic_shapes="input:0=1..4", target=target, precision=precision, verify=False, output=tmp_path / "out"
    )
    assert (bundle.path / file).stat().st_size > 1000
    assert [one["name"] for one in bundle.manifest["outputs"]] == ["keypoints", "keypoint_scores"]
    assert bundle.manifest["preprocess"][0]["step"] == "crop-box"
