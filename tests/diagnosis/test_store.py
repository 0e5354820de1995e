"""Arrays beyond the budget lie in files and read back the same; views of one memory are counted once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphforge.diagnosis.store import Store


def test_what_is_over_the_budget_is_mapped_from_a_file() -> None:
    store: Store[str] = Store(80_000)
    arrays = {name: np.random.default_rng(at).random(8192).astype(np.float32) for at, name in enumerate("abcd")}
    for name, array in arrays.items():
        store.put(name, array)
    assert store.held == 2 * 32_768
    assert store.spilled == 2 * 32_768
    assert not isinstance(store["b"], np.memmap)
    assert isinstance(store["c"], np.memmap)
    for name, array in arrays.items():
        np.testing.assert_array_equal(store[name], array)
    folder = Path(str(store["c"].filename)).parent
    store.close()
    assert not folder.exists()


def test_transposed_and_empty_arrays_come_back_as_they_were() -> None:
    store: Store[str] = Store(0)
    wide = np.arange(12_000, dtype=np.int64).reshape(40, 300).T
    store.put("wide", wide)
    store.put("empty", np.empty((0, 3), np.float32))
    np.testing.assert_array_equal(store["wide"], wide)
    assert store["empty"].shape == (0, 3)


def test_views_of_one_memory_are_counted_once() -> None:
    store: Store[str] = Store(1 << 20)
    base = np.zeros(8192, np.float32)
    store.put("base", base, owner=7)
    store.put("view", base.reshape(2, -1), owner=7)
    assert store.held == base.nbytes
