"""Reading: calibration data in its forms, and what is refused of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.ranges.reading import feeds_of
from graphforge.ranges.samples import samples_for
from graphforge.spec import DimRange, ShapeSpec, TensorSpec

IMAGE = ShapeSpec((TensorSpec("x", (2, 3, 4, 4)),))


def test_slices_are_joined_to_the_batch_of_the_example(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(5, 3, 4, 4))
    np.savez(tmp_path / "c.npz", x=data)
    feeds = feeds_of(tmp_path / "c.npz", IMAGE)
    assert [feed["x"].shape for feed in feeds] == [(2, 3, 4, 4)] * 2  # the fifth makes no whole batch
    assert feeds[1]["x"].dtype == np.float32
    assert np.array_equal(feeds[1]["x"], data[2:4].astype(np.float32))


def test_a_folder_of_arrays_by_input(tmp_path: Path) -> None:
    spec = ShapeSpec((TensorSpec("ids", (1, 4), "int64", {1: DimRange("T", 2, 8)}), TensorSpec("w", (1, 2))))
    for name, arrays in {"ids": [np.ones((1, 3)), np.ones((1, 8))], "w": [np.ones((1, 2))] * 2}.items():
        (tmp_path / name).mkdir()
        for number, array in enumerate(arrays):
            np.save(tmp_path / name / f"{number}.npy", array.astype(np.int32) if name == "ids" else array)
    feeds = feeds_of(tmp_path, spec)
    assert [feed["ids"].shape for feed in feeds] == [(1, 3), (1, 8)]
    assert feeds[0]["ids"].dtype == np.int64


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"y": np.ones((2, 3, 4, 4))}, "the inputs are: x"),
        ({}, "missing for input x"),
        ({"x": np.zeros((2, 3, 4, 4))}, "nothing but zeros"),
        ({"x": np.full((2, 3, 4, 4), np.nan)}, "NaN or Inf"),
        ({"x": np.ones((2, 3, 5, 4))}, "size 5 on axis 2, expected 4"),
        ({"x": np.ones((2, 3, 4, 4), np.int64)}, "expected floats"),
        ({"x": np.ones((1, 3, 4, 4))}, "less than one batch of 2"),
    ],
)
def test_what_cannot_be_calibrated_with_is_refused(data: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(GraphForgeError, match=told):
        feeds_of(data, IMAGE)


def test_without_data_the_example_comes_first_and_it_is_said() -> None:
    example = {"x": np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)}
    samples = samples_for(IMAGE, example)
    assert samples.feeds[0]["x"] is example["x"]
    assert len(samples.feeds) == 4
    assert "no calibration data was given" in samples.source
    few = samples_for(IMAGE, example, calibration={"x": np.ones((6, 3, 4, 4))})
    assert few.given
    assert few.notes == ("only 3 feeds of calibration data: ranges may be too narrow",)


def test_bad_data_is_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    import torch

    with pytest.raises(GraphForgeError, match="does not exist"):
        graphforge.compile(
            torch.nn.ReLU(), torch.ones(2), calibration=tmp_path / "none.npz", output=tmp_path / "bundle"
        )
    assert not (tmp_path / "bundle").exists()


def test_a_file_that_is_no_archive_is_told_without_advice_to_read_it_unsafely(tmp_path: Path) -> None:
    (tmp_path / "c.npz").write_text("hello\n")
    with pytest.raises(GraphForgeError, match=r"'.*c\.npz' is not a \.npz archive") as told:
        feeds_of(tmp_path / "c.npz", IMAGE)
    assert "pickle" not in str(told.value)
