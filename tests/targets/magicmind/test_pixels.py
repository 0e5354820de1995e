"""Pictures fed as bytes in NHWC: what the configuration and the reference say, and what the scripts make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphforge.errors import GraphForgeError, UsageError
from graphforge.targets.magicmind.lint import Severity, lint
from graphforge.targets.magicmind.options import read_options
from graphforge.targets.magicmind.pixels import Fed
from graphforge.targets.magicmind.target import MagicMindTarget
from graphforge.targets.options import options_for
from tests.targets.magicmind.bundles import (
    OPSET,
    dynamic_bundle,
    edit_json,
    emit,
    quantised_bundle,
    run_scripts,
    static_bundle,
    two_inputs,
)
from tests.targets.models import CONV, Sketch, spec

PIXELS = {"pixel_mean": "123.5,116,103.5", "pixel_std": "58,57,57.5", "input_layout": "nhwc"}


def test_bytes_in_nhwc_go_through_the_scripts(tmp_path: Path) -> None:
    result = static_bundle(tmp_path, **PIXELS)
    config = json.loads((tmp_path / "build_config.json").read_text())
    assert config["insert_bn_before_firstnode"] == {
        "0": {"mean": [123.5, 116.0, 103.5], "var": [58.0**2, 57.0**2, 57.5**2]}
    }
    assert config["convert_input_layout"] == {"0": {"src": "NCHW", "dst": "NHWC"}}
    (entry,) = json.loads((tmp_path / "bundle.json").read_text())["inputs"]
    assert (entry["dtype"], entry["run_dtype"], entry["run_layout"], entry["dims"]) == (
        "FLOAT32",
        "UINT8",
        "NHWC",
        [1, 3, 16, 16],
    )
    stored = np.load(tmp_path / "reference/0/input_0.npy")
    assert (stored.dtype, stored.shape) == (np.uint8, (1, 16, 16, 3))
    assert np.ptp(stored) > 100
    assert "--input_dims 1,16,16,3 " in (tmp_path / "bench.sh").read_text()
    assert any("takes bytes of pixels, normalised on the MLU, in NHWC for input 'x'" in note for note in result.notes)
    assert [str(one) for one in lint(tmp_path) if one.severity is not Severity.NOTE] == []
    outcome = run_scripts(tmp_path)
    assert outcome.is_clean, outcome.output


@pytest.mark.parametrize(
    "edit",
    [
        lambda bundle, config: config["insert_bn_before_firstnode"]["0"].update(var=[58.0, 57.0, 57.5]),
        lambda bundle, config: config["insert_bn_before_firstnode"]["0"].update(mean=[103.5, 116.0, 123.5]),
        lambda bundle, config: config.pop("convert_input_layout"),
        lambda bundle, config: config.pop("insert_bn_before_firstnode"),
    ],
    ids=["std in place of its square", "blue first", "no layout", "no normalisation"],
)
def test_a_wrong_prologue_is_found_by_run_mm(edit: Any, tmp_path: Path) -> None:
    static_bundle(tmp_path, **PIXELS)
    edit_json(tmp_path, "build_config.json", lambda config: edit(None, config))
    assert not run_scripts(tmp_path).is_clean


def test_calibration_stays_normalised_and_reference_pictures_are_made_of_it(tmp_path: Path) -> None:
    quantised_bundle(tmp_path, **PIXELS)
    sample = np.load(tmp_path / "calib/0/0000.npy")
    assert (sample.dtype, sample.shape) == (np.float32, (1, 3, 16, 16))
    fed = Fed((123.5, 116.0, 103.5), (58.0, 57.0, 57.5), is_nhwc=True)
    stored = np.load(tmp_path / "reference/0/input_0.npy")
    assert np.array_equal(stored, fed.made_of(sample))
    inside = (stored > 0) & (stored < 255)
    off = np.abs(np.moveaxis(fed.read_back(stored) - sample, 1, -1))[inside]
    assert off.max() <= 0.5 / 57 + 1e-6  # half a pixel
    assert run_scripts(tmp_path).is_clean


def test_dynamic_sizes_keep_the_layout_of_the_file(tmp_path: Path) -> None:
    dynamic_bundle(tmp_path, input_layout="nhwc")
    config = json.loads((tmp_path / "build_config.json").read_text())
    assert config["dim_range"] == {"0": {"min": [1, 3, 16, 8], "max": [8, 3, 16, 64]}}
    assert "insert_bn_before_firstnode" not in config
    assert np.load(tmp_path / "reference/0/input_0.npy").shape == (2, 16, 16, 3)
    assert run_scripts(tmp_path).is_clean


def test_what_cannot_be_normalised_on_the_mlu_is_refused(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x = sketch.input("x", [1, 3, 8, 8])
    conv = sketch.op(CONV).Conv(x, sketch.weight("weight", 8, 3, 1, 1))
    model = sketch.model(y=conv, z=sketch.op(CONV).Relu(x))
    with pytest.raises(GraphForgeError, match=r"0 of the pictures \(x\) are read by convolutions alone"):
        emit(model, tmp_path / "a", spec("x", 1, 3, 8, 8), pixel_mean="127", pixel_std="128")
    model, shapes = two_inputs()
    with pytest.raises(GraphForgeError, match="no input of the model is a picture"):
        emit(model, tmp_path / "b", shapes, input_layout="nhwc")
    with pytest.raises(GraphForgeError, match="pixel_mean has 2 numbers, and input 'x' has 3 channels"):
        static_bundle(tmp_path / "c", pixel_mean="1,2", pixel_std="1,2")


def test_one_number_stands_for_every_channel(tmp_path: Path) -> None:
    static_bundle(tmp_path, pixel_mean="127.5", pixel_std="127.5")
    config = json.loads((tmp_path / "build_config.json").read_text())
    assert config["insert_bn_before_firstnode"]["0"]["mean"] == [127.5] * 3
    assert run_scripts(tmp_path).is_clean


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel_mean": "127"}, "go together"),
        ({"pixel_mean": "127", "pixel_std": "0"}, "expected more than 0"),
        ({"pixel_mean": "half", "pixel_std": "1"}, "half"),
        ({"custom_ranges": "-1,1"}, "has none of"),
        ({"custom_ranges": "1,-1", "precision": "qint8_mixed_float16"}, "a low and a high end"),
        (
            {"custom_ranges": "-1,1", "precision": "qint8_mixed_float16", "calibration": "calib.npz"},
            "are both given",
        ),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    own = dict(options)
    precision = own.pop("precision", None)
    with pytest.raises(UsageError, match=message):
        read_options(options_for(MagicMindTarget(), precision=precision, own=own))


def test_made_up_ranges_take_the_place_of_calibration(tmp_path: Path) -> None:
    result = static_bundle(tmp_path, precision="qint8_mixed_float16", custom_ranges="-2,2")
    config = json.loads((tmp_path / "build_config.json").read_text())
    assert config["custom_ranges"] == {"": {"max": [2.0], "min": [-2.0]}}
    assert not (tmp_path / "calib").exists()
    assert any("its results mean nothing" in note for note in result.notes)
    assert [one.rule for one in lint(tmp_path) if one.severity is Severity.WARNING] == ["C9"]
    assert run_scripts(tmp_path).is_clean
