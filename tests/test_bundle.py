"""The bundle's folder takes its place when all is well."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from graphforge.bundle import staging
from graphforge.errors import GraphForgeError
from graphforge.runners.recorded import manifest_fault


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


def test_an_earlier_bundle_stays_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("earlier")
    move = os.replace

    def refuse(source: Path, destination: Path) -> None:
        if "graphforge-old-" not in f"{source}{destination}":
            raise OSError(28, "No space left on device")
        move(source, destination)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr("graphforge.staging._exchanged", lambda *_: False)  # where the system has no such thing
    with pytest.raises(GraphForgeError, match="No space left"), staging(tmp_path / "out") as staged:
        (staged / "manifest.json").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "manifest.json").read_text() == "earlier"


def test_threads_that_write_to_one_folder_leave_one_bundle(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    ready = threading.Barrier(8)

    def work(text: str) -> None:
        try:
            with staging(tmp_path / "out") as staged:
                (staged / "manifest.json").write_text(text)
                ready.wait()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("opset", "fault"), [(18, ""), (None, ""), ("18", "18"), (0, "0"), (10**30, "1000"), (True, "t")]
)
def test_a_manifest_names_an_opset_or_none(opset: object, fault: str) -> None:
    manifest = {"target": {"name": "onnx"}, "files": [], "inputs": [], "artifact": {"opset": opset}}
    told = manifest_fault(manifest)
    assert ("artifact.opset: expected an opset" in told and fault in told) if fault else told == ""
