"""Random inputs resemble the example and repeat themselves."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from graphforge.errors import UsageError
from graphforge.runners.inputs import check_feeds, random_array, random_feeds
from graphforge.spec import ShapeSpec, TensorSpec, parse_dynamic

RNG = np.random.default_rng(0)


def test_floats_have_the_examples_mean_deviation_and_range() -> None:
    image = RNG.uniform(0, 255, (3, 64, 64)).astype(np.float32)
    drawn = random_array(image, (4, 3, 64, 64), np.random.default_rng(1))
    assert drawn.dtype == np.float32
    assert abs(drawn.mean() - image.mean()) < 3
    assert image.min() <= drawn.min() < 30 < 200 < drawn.max() <= image.max()


def test_indices_stay_in_the_examples_range() -> None:
    ids = np.array([[7, 900, 31]], np.int64)
    drawn = random_array(ids, (50, 3), np.random.default_rng(1))
    assert drawn.dtype == np.int64
    assert (drawn.min(), drawn.max()) >= (7, 31)
    assert drawn.max() <= 900
    assert len(np.unique(drawn)) > 20


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", "bool", "float16", "float64", "complex64"])
def test_dtype_is_kept(dtype: str) -> None:
    like = np.array([0, 1, 1, 0]).astype(dtype)
    assert random_array(like, (3, 2), np.random.default_rng(0)).dtype == np.dtype(dtype)


def test_rows_in_order_stay_in_order_where_some_values_are_equal() -> None:
    rows = np.array([[0, 2, 2, 4.5], [1, 1, 3, 7]], np.float32)
    drawn = random_array(rows, (20, 9), np.random.default_rng(1))
    assert (np.diff(drawn, axis=-1) >= 0).all()
    chance = np.array([0, 0, 0, 0, 1.5], np.float32)
    assert (np.diff(random_array(chance, (20, 9), np.random.default_rng(1)), axis=-1) < 0).any()


def test_masks_of_zero_and_one_stay_masks() -> None:
    mask = np.array([1, 1, 0, 0], np.float32)
    drawn = random_array(mask, (1000,), np.random.default_rng(0))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert set(np.unique(random_array(np.ones(3, bool), (9,), RNG))) == {True}


def test_all_zeros_say_nothing() -> None:
    drawn = random_array(np.zeros((1, 3), np.float32), (100, 3), np.random.default_rng(0))
    assert 0.8 < drawn.std() < 1.2


def test_bfloat16() -> None:
    like = RNG.standard_normal(100).astype(ml_dtypes.bfloat16)
    assert random_array(like, (7,), RNG).dtype == like.dtype


def test_feeds_repeat_with_the_seed_and_differ_between_inputs_and_sizes() -> None:
    spec = ShapeSpec((TensorSpec("a", (2, 4)), TensorSpec("b", (2, 4)))).with_dynamic(parse_dynamic(["a:0=1..8"]))
    first = random_feeds(spec, {"a_0": 2}, seed=3)
    again = random_feeds(spec, {"a_0": 2}, seed=3)
    assert np.array_equal(first["a"], again["a"])
    assert not np.array_equal(first["a"], first["b"])
    assert not np.array_equal(first["a"], random_feeds(spec, {"a_0": 2}, seed=4)["a"])
    larger = random_feeds(spec, {"a_0": 5}, seed=3)
    assert larger["a"].shape == (5, 4)
    assert not np.array_equal(larger["a"][:2], first["a"])


def test_data_that_does_not_fit_is_refused() -> None:
    spec = ShapeSpec((TensorSpec("x", (2, 4)),))
    with pytest.raises(UsageError, match="no data for input x"):
        check_feeds(spec, {})
    with pytest.raises(UsageError, match="expected shape"):
        check_feeds(spec, {"x": np.zeros((2, 5), np.float32)})
    with pytest.raises(UsageError, match="expected dtype float32, got float64"):
        check_feeds(spec, {"x": np.zeros((2, 4))})
