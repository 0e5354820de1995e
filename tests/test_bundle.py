"""The bundle's folder takes its place when all is well."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from graphforge.bundle import staging


def test_a_bundle_is_as_open_as_any_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask belongs to all threads: setting it to read it opens what another one creates meanwhile."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        with staging(tmp_path / "out") as staged:
            (staged / "manifest.json").write_text("{}")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
