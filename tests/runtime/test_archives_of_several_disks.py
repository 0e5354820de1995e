"""An archive that says it goes on on another disk: Python's reader raises when it is asked whether it is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphforge.errors import GraphForgeError
from graphforge.frontend.load import load_model
from graphforge.runtime.files import arrays_of_file

# The record that tells where the end of a large archive is, on the second of two disks.
_ELSEWHERE = b"PK\x06\x07" + (0).to_bytes(4, "little") + (0).to_bytes(8, "little") + (2).to_bytes(4, "little")


def _on_two_disks(path: Path) -> Path:
    np.savez(path.with_name("whole.npz"), x=np.ones(3))
    whole = path.with_name("whole.npz").read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    path.write_bytes(whole[:end] + _ELSEWHERE + whole[end:])
    return path


def test_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="is not a TorchScript file"):
        load_model(str(_on_two_disks(tmp_path / "m.pt")))


def test_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="multiple disks"):
        arrays_of_file("x", _on_two_disks(tmp_path / "arrays.npz"), otherwise="x")
