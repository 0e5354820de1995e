"""The walk through a new model runs as it is written, in at most forty lines of the user's."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from PIL import Image

from graphforge.cli.main import run
from scripts.gallery.one_stage import save_pictures

ROOT = Path(__file__).resolve().parents[2]
WALK = (ROOT / "scripts" / "gallery" / "new_model.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", WALK, re.DOTALL))


def test_the_users_part_is_short() -> None:
    lines = [line for text in FILES.values() for line in text.splitlines() if line.strip()]
    assert len(lines) <= 40
    assert len(FILES) == 4
    assert f"{len(lines)} lines in four files of your own" in WALK


def test_the_walk_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    for name, text in FILES.items():
        Path(name).write_text(text)
    commands = re.findall(r"<!-- run -->\n```sh\n(.*?)```", WALK, re.DOTALL)
    lines = [line for block in commands for line in block.replace("\\\n", " ").splitlines()]
    assert [line.split()[0] for line in lines] == ["graphforge", "python", "graphforge", "graphforge", "python"]
    for line in lines:
        words = shlex.split(line)
        if words[0] == "graphforge":
            assert run(words[1:]) == 0, line
        elif "pytest" in line:  # its one test, in this process
            runpy.run_path(words[-1])["test_as_the_model_itself"]()
        else:
            save_pictures(Path(words[-1]))
    printed = capsys.readouterr().out
    figures = re.findall(r"^\W*(AP|AR)\W+(0\.\d+)\W+(0\.\d+)", printed, re.MULTILINE)
    assert [name for name, _, _ in figures] == ["AP", "AR"]
    assert all(eager == bundle and float(eager) > 0.3 for _, eager, bundle in figures)
    manifest = json.loads(Path("out/one_stage/manifest.json").read_text())
    assert (manifest["target"]["opset"], manifest["target"]["outputs"]) == (17, "padded")
    assert [one["function"] for one in manifest["capture"]["substitutions"]] == ["scripts.gallery.one_stage.nms"]
    assert Image.open("out/seen.png").size[0] >= 320


def test_without_the_rewrite_the_function_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["compile", str(ROOT / "scripts/gallery/one_stage.py") + ":build", "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "it leaves PyTorch for NumPy" in told
    assert "one_stage.py:31, in nms" in told


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", WALK))))
def test_link_leads_somewhere(target: str) -> None:
    assert (ROOT / "scripts" / "gallery" / target).exists()
