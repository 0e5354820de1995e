"""A bundle that somebody hostile made, given to every verb of the installed command: it is data, nothing of it runs.

Whatever could be executed makes a file, the canary, which must never appear.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import graphforge
from graphforge.cli.main import cli, run
from tests.cli.command import run_command

NET = "import torch\n\n\ndef build():\n    return torch.nn.Linear(3, 2).eval()\n"
X = ("--input", "x:2x3")


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest")
    model = torch.nn.Linear(3, 2)
    graphforge.compile(model, torch.randn(2, 3), dynamic_shapes="input:0=1..8", output=folder / "out")
    return folder / "out"


@pytest.fixture
def bundle(honest: Path, tmp_path: Path) -> Path:
    shutil.copytree(honest, tmp_path / "out")
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "labels.txt").write_text("a.png 1\n")
    return tmp_path / "out"


def _edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def _set_traps(bundle: Path) -> Path:
    """Everything that names code, or is code, in places where a reader might look for it."""
    canary = bundle.parent / "canary"
    touch = f"open({str(canary)!r}, 'w').close()\n\n\ndef build(*_, **__):\n    open({str(canary)!r}, 'w').close()\n"
    for name in ("build.py", "conftest.py", "numpy.py", "onnx.py", "sitecustomize.py", "graphforge.py", "__init__.py"):
        (bundle / name).write_text(touch)
    (bundle / "trap.py").write_text(touch)
    buffer = io.BytesIO()
    torch.save(_Touch(canary), buffer)
    (bundle / "weights.pth").write_bytes(buffer.getvalue())
    np.save(bundle / "data.npy", np.array(_Touch(canary), dtype=object), allow_pickle=True)

    def hostile(manifest: dict[str, Any]) -> None:
        manifest["model"] = {"spec": "os:mkdir", "kwargs": {"path": str(canary)}, "checkpoint": "out/weights.pth"}
        manifest["target"]["options"] = {"custom_ops": "trap.py", "plugins": ["./trap.so"]}
        manifest["custom_ops"] = manifest["substitutes"] = [str(bundle / "trap.py")]
        manifest["passes"][0]["spec"] = f"{bundle}/trap.py:build"
        manifest["passes"][0]["source"] = f"{bundle}/trap.py"
        manifest["capture"]["substitutions"] = [{"function": f"{bundle}/trap.py:build", "calls": 1}]
        manifest["notes"] = ["{{ ''.__class__.__mro__[1].__subclasses__() }}", "<script>alert(1)</script>", "[/bold]"]

    _edit(bundle, hostile)
    return canary


VERBS = {
    "profile": (0, "out", "--runs", "1", "--warmup", "0"),
    "profile beside the user's model": (0, "out", "net.py:build", "--runs", "1", "--warmup", "0"),
    "run": (0, "out", "--input", "x.npy"),
    "report": (0, "out"),
    "diff": (1, "net.py:build", *X, "--against", "out"),
    "diff of the bundle": (0, "out", "--against", "out"),
    "inspect": (0, "out"),
    "opset": (0, "out"),
    "lint": (1, "out", "--target", "magicmind"),
    "compile": (0, "out", "--input", "input:2x3", "-o", "again"),
    "optimize": (0, "out/model.onnx", "--input", "input:2x3"),
    "bisect": (0, "out", "--input", "input:2x3"),
    "doctor": (0,),
    "reduce": (0, "out/model.onnx", "--input", "input:2x3", "--no-reference"),
    "explain": (0, "out", "fold-constants", "--input", "input:2x3"),
    "publish": (1, "out/weights.pth", "published.pth"),
    "evaluate": (1, "out", "--data", "labels.txt", "--images", "pictures"),
    "pipeline": (1, "out", "out", "pictures/a.png"),
    "targets": (0, "onnx"),
    "passes": (0, "fold-constants"),
    "presets": (0,),
}


# A process for each costs seconds, and these share what they do with those above them.
IN_THIS_PROCESS = frozenset("doctor reduce explain publish evaluate pipeline targets passes presets".split())


@pytest.mark.parametrize("name", VERBS)
def test_nothing_that_a_bundle_names_is_run(
    bundle: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = _set_traps(bundle)
    code, *arguments = VERBS[name]
    line = [name.split(" ")[0], *map(str, arguments)]
    if name in IN_THIS_PROCESS:
        monkeypatch.chdir(bundle.parent)
        ended, told = run(line), capsys.readouterr().err
    else:
        done = run_command(*line, cwd=bundle.parent)
        ended, told = done.code, done.stderr
    assert ended == code, told
    assert "Traceback" not in told
    assert not canary.exists()


@pytest.mark.parametrize("spec", ["os:mkdir", "trap.py:build", "torch.hub:load", "timm:resnet18"])
def test_profile_shows_the_model_that_a_manifest_names_and_leaves_it_out(
    bundle: Path, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = _set_traps(bundle)
    _edit(bundle, lambda manifest: manifest["model"].update(spec=spec))
    assert run(["profile", str(bundle), "--runs", "1", "--warmup", "0"]) == 0
    assert "eager is left out: give the model that it was compiled from to measure it as well; the manifest records "
    assert repr(spec) in capsys.readouterr().out
    assert not canary.exists()


def test_every_verb_is_tried_on_a_hostile_bundle() -> None:
    import click

    tried = {name.split(" ")[0] for name in VERBS}
    assert tried == set(cli.list_commands(click.Context(cli)))


_OUT_OF_IT: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a link": ("model.onnx", lambda place: place.symlink_to("../elsewhere.onnx"), "outside its folder"),
    "a link to a link": ("model.onnx", lambda place: _twice(place), "outside its folder"),
    "a link in place of the manifest": ("manifest.json", lambda place: place.symlink_to("../m.json"), "outside its"),
    "links in a circle": ("model.onnx", lambda place: place.symlink_to("model.onnx"), "links run in a circle"),
    "a pipe": ("model.onnx", lambda place: os.mkfifo(place), "is not a file but a pipe"),
    "a pipe in place of the manifest": ("manifest.json", lambda place: os.mkfifo(place), "is not a file but a pipe"),
    "a device": ("model.onnx", lambda place: place.symlink_to("/dev/zero"), "outside its folder"),
    "a folder": ("model.onnx", lambda place: place.mkdir(), "model.onnx"),
    "a folder in place of the manifest": ("manifest.json", lambda place: place.mkdir(), "manifest.json"),
}


def _twice(place: Path) -> None:
    place.symlink_to("b")
    (place.parent / "b").symlink_to("../elsewhere.onnx")


@pytest.mark.parametrize("kind", _OUT_OF_IT)
def test_what_leads_out_of_a_bundle_is_not_followed(
    bundle: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.parent)
    name, make, message = _OUT_OF_IT[kind]
    shutil.copy("out/model.onnx", "elsewhere.onnx")
    shutil.copy("out/manifest.json", "m.json")
    (bundle / name).unlink()
    make(bundle / name)
    for arguments in (
        ["profile", "out", "--runs", "1"],
        ["run", "out", "--input", "x.npy"],
        ["inspect", "out"],
        ["report", "out"],
        ["diff", "net.py:build", *X, "--against", "out"],
    ):
        code, told = run(arguments), capsys.readouterr().err
        if kind == "a folder" and arguments[0] == "report":
            assert code == 0  # it has no graph to show, and shows the rest
            continue
        assert code in (1, 2)
        # what has no manifest is not taken for a bundle by the verbs that take models of other kinds
        assert message in told or (name == "manifest.json" and "cannot read model 'out'" in told), told


def test_a_folder_of_the_users_may_be_a_link(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle.parent / "link").symlink_to(bundle)
    (bundle / "weights.onnx").symlink_to("model.onnx")  # inside it is its own business
    assert run(["profile", f"{bundle.parent}/link", "--runs", "1", "--warmup", "0"]) == 0
    assert run(["inspect", f"{bundle.parent}/link"]) == 0


def _drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest.pop(key)


def _put(*path_and_value: Any) -> Callable[[dict[str, Any]], Any]:
    *path, last, value = path_and_value

    def change(manifest: Any) -> None:
        for key in path:
            manifest = manifest[key]
        manifest[last] = value

    return change


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no target": (_drop("target"), "the whole: 'target' is missing"),
    "target without name": (_put("target", {}), "target: 'name' is missing"),
    "no inputs": (_drop("inputs"), "the whole: 'inputs' is missing"),
    "files are numbers": (_put("files", [1]), "files[0]: expected the name of a file in the folder, got 1"),
    "files are nothing": (_put("files", None), "files: expected a list, got null"),
    "a file outside": (_put("files", ["../net.py"]), "files[0]: expected the name of a file in the folder"),
    "an absolute file": (_put("files", ["/etc/x.onnx"]), "files[0]: expected the name of a file in the folder"),
    "a drive": (_put("files", ["c:x.onnx"]), "files[0]: expected the name of a file in the folder"),
    "input without dtype": (lambda m: m["inputs"][0].pop("dtype"), "inputs[0]: 'dtype' is missing"),
    "unknown dtype": (_put("inputs", 0, "dtype", "float33"), "inputs[0].dtype: expected an element type"),
    "dtype of numpy": (_put("inputs", 0, "dtype", "object"), "inputs[0].dtype: expected an element type"),
    "shape of text": (_put("inputs", 0, "shape", ["a"]), 'inputs[0].shape[0]: expected a size, got "a"'),
    "negative size": (_put("inputs", 0, "shape", [-1, 3]), "inputs[0].shape[0]: expected a size, got -1"),
    "boolean size": (_put("inputs", 0, "shape", [True, 3]), "inputs[0].shape[0]: expected a size, got true"),
    "axis of text": (_put("inputs", 0, "dynamic", {"a": {"name": "a", "low": 1, "high": 2, "step": 1}}), "not an axis"),
    "axis too high": (
        _put("inputs", 0, "dynamic", {"9": {"name": "a", "low": 1, "high": 2, "step": 1}}),
        "not an axis",
    ),
    "axis of many digits": (
        _put("inputs", 0, "dynamic", {"9" * 5000: {"name": "a", "low": 1, "high": 2, "step": 1}}),
        "not an axis",
    ),
    "empty range": (_put("inputs", 0, "dynamic", "0", "low", 9), "there is no size in this range"),
    "step of zero": (_put("inputs", 0, "dynamic", "0", "step", 0), "there is no size in this range"),
    "seconds of text": (_put("steps", 0, "seconds", "1"), "steps[0].seconds: expected a number"),
    "seconds without end": (_put("steps", 0, "seconds", float("nan")), "steps[0].seconds: expected a number"),
    "trial without outputs": (lambda m: m["verification"]["trials"][0].pop("outputs"), "'outputs' is missing"),
    "passed by words": (_put("verification", "passed", "yes"), "verification.passed: expected true or false"),
    "passed against nothing": (lambda m: m["verification"].pop("reference"), "does not say against what"),
    "failed against nothing": (_put("verification", {"passed": False}), "does not say against what"),
    "operators of text": (_put("operators", {"Add": "many"}), "operators.Add: expected a whole number"),
    "notes are one": (_put("notes", "a note"), "notes: expected a list"),
    "half a character": (_put("notes", ["\ud800"]), "surrogates not allowed"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_manifest_is_one_sentence_for_every_verb(
    bundle: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = DAMAGE[kind]
    _edit(bundle, change)
    for arguments in (
        ["profile", str(bundle), "--runs", "1"],
        ["report", str(bundle)],
        ["run", str(bundle), "--input", str(bundle.parent / "x.npy")],
        ["diff", f"{bundle.parent}/net.py:build", *X, "--against", str(bundle)],
    ):
        assert run(arguments) == 1
        told = capsys.readouterr().err
        assert "manifest.json' is not the manifest of a bundle: " in told
        assert message in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "the whole: expected an object"),
        (b"\xff\xfe", "is not the manifest of a bundle"),
        (b'{"a": ' + b"[" * 100_000, "is not the manifest of a bundle"),
        (b'{"schema": 99}', "has schema 99, and this graphforge reads up to"),
    ],
)
def test_what_is_no_manifest_at_all(
    bundle: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "manifest.json").write_bytes(content)
    for verb in ("profile", "report"):
        assert run([verb, str(bundle)]) == 1
        assert message in capsys.readouterr().err
