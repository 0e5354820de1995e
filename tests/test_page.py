"""The HTML report: every part is there, nothing is fetched, nothing from the manifest is taken for markup."""

from __future__ import annotations

import functools
import json
import shlex
import tempfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from graphforge.cli.main import run
from graphforge.diagnosis import Artifact, Diagnosis, diagnose
from graphforge.diagnosis.program import tape_of_program
from graphforge.diagnosis.report import COSTS
from graphforge.errors import GraphForgeError
from graphforge.ir import Origin, set_origins
from graphforge.ir.origin import write_origin_metadata
from graphforge.page import render_report, write_report
from graphforge.page.commands import commands_of
from graphforge.page.graph import graph_data
from graphforge.page.spread import BARS, spread_of
from graphforge.prepare import prepare, to_ir
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.verify import verify
from scripts.bench_page import large_page
from tests.verify import small

VOID = {"meta", "br", "link", "img", "input"}


class Outline(HTMLParser):
    """Checks that tags close in order, and gathers texts and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.texts.append(" ".join(data.split()))


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    assert found.open == []
    return found


def bundle(folder: Path, *, spoiled: bool = False) -> tuple[dict[str, Any], Diagnosis]:
    """A bundle as compile writes it, around the small network, with its layer-wise diff."""
    made, diff = _made(spoiled)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return json.loads(made["manifest.json"]), diff


@functools.cache
def _made(spoiled: bool) -> tuple[dict[str, bytes], Diagnosis]:
    with tempfile.TemporaryDirectory() as name:
        diff = _make(Path(name), spoiled=spoiled)
        return {file.name: file.read_bytes() for file in Path(name).iterdir()}, diff


def _make(folder: Path, *, spoiled: bool) -> Diagnosis:
    model = small.net()
    path = small.write_net(model, folder / "model.onnx")
    if spoiled:
        small.edit_initializer(path, "hw", (1, 2), 0.05)
    reference = small.eager(model, 2, 3, 8, 8)
    with OnnxRuntimeRunner(path, threads=1) as artifact:
        report = verify(reference, artifact, small.dynamic(reference, "x:0=1..8"), reference.example())
    manifest: dict[str, Any] = {
        "graphforge": "0.1.0",
        "model": {"spec": "net.py:build<script>alert(1)</script>"},
        "target": {"name": "onnx", "opset": None, "precision": None},
        "files": ["model.onnx"],
        "artifact": {"opset": 20, "ir_version": 10},
        "inputs": [
            {
                "name": "x",
                "shape": [2, 3, 8, 8],
                "dtype": "float32",
                "dynamic": {"0": {"name": "x_0", "low": 1, "high": 8, "step": 1}},
            }
        ],
        "outputs": [{"name": "logits", "shape": ["x_0", 5], "dtype": "float"}],
        "capture": {"method": "export", "failures": {}},
        "lowering": {
            "fallbacks": [{"operator": "aten.strange", "module": "head", "source": "net.py:7"}],
            "decomposed": {},
        },
        "passes": [
            {
                "name": "fold-batch-norm",
                "spec": "fold-batch-norm",
                "seconds": 0.01,
                "changes": 3,
                "nodes_before": 6,
                "nodes_after": 5,
                "notes": [],
            }
        ],
        "nodes": 5,
        "operators": {"Conv": 1},
        "steps": [{"name": "capture", "seconds": 1.5, "nodes": 9}, {"name": "verify", "seconds": 0.2}],
        "verification": report.to_dict(),
        "notes": ["a note"],
        "versions": {"torch": "2.13.0"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    prepared = prepare(model, reference.inputs.args)
    to_ir(prepared)
    assert prepared.captured is not None
    tape = tape_of_program(prepared.captured, reference, reference.example(), memory=1 << 20)
    return diagnose(tape, Artifact(OnnxRuntimeRunner(path)), reference.example())


def test_every_part_is_there_and_nothing_is_fetched(tmp_path: Path) -> None:
    _, diff = bundle(tmp_path)
    path = write_report(tmp_path, diff=diff)
    assert path == tmp_path / "report.html"
    found = outline(path.read_text())
    text = "\n".join(found.texts)
    for part in ("Verification", "Layer by layer", "Fallbacks", "Steps", "Passes", "Opset", "Notes"):
        assert part in found.texts
    for fact in (
        "agrees with eager on 5 sets of inputs",
        "fold-batch-norm",
        "aten.strange",
        "x_0=3",
        "body.bn",
        "a note",
    ):
        assert fact in text
    assert "needs opset" in text
    assert found.references == ["#after-graph"]
    assert not {"link", "img", "iframe"} & found.tags
    assert "http" not in path.read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["manifest.json", "model.onnx", "report.html"]


def test_a_failure_stands_first_and_the_first_departure_is_marked(tmp_path: Path) -> None:
    _, diff = bundle(tmp_path, spoiled=True)
    page = write_report(tmp_path, diff=diff).read_text()
    found = outline(page)
    assert any(text.startswith("does not agree with eager: wrong at head, ") for text in found.texts)
    assert any("output logits" in text for text in found.texts)
    assert page.count('class="first"') == 1
    assert "wrong here" in found.texts


def data_of(page: str) -> dict[str, Any]:
    """The graph that the page draws."""
    found: dict[str, Any] = json.loads(page.partition('id="graph-data">')[2].partition("</script>")[0])
    return found


def test_the_graph_knows_modules_lines_shapes_and_errors(tmp_path: Path) -> None:
    _, diff = bundle(tmp_path)
    page = write_report(tmp_path, diff=diff, seconds={"a node": 1e-6}).read_text()
    graph = data_of(page)
    model = onnx.load(tmp_path / "model.onnx")
    assert [node["op"] for node in graph["nodes"]] == [node.op_type for node in model.graph.node]
    conv = next(node for node in graph["nodes"] if node["op"] == "Conv")
    assert conv["path"][0] == "body"
    assert "small.py" in conv["from"][0]
    assert any("constant" in read for read in conv["reads"])
    assert all(max(node["in"], default=-1) < index for index, node in enumerate(graph["nodes"]))
    assert 0 <= max(row["error"] for row in graph["depth"]) < 1e-5
    assert 'id="picture"' in page
    assert "MIT" in page or "Permission is hereby granted" in page
    assert len(page) < 2_000_000


def test_a_file_that_was_changed_later_does_not_pass_for_verified(tmp_path: Path) -> None:
    manifest, _ = bundle(tmp_path)
    assert "agrees with eager" in render_report(manifest)
    (tmp_path / "spoiled").mkdir()
    _, diff = bundle(tmp_path / "spoiled", spoiled=True)
    page = render_report(manifest, diff=diff.to_dict())
    assert 'class="verdict failed"' in page
    assert "the file is another now" in page


def test_a_model_with_other_weights_blames_no_file(tmp_path: Path) -> None:
    manifest, diff = bundle(tmp_path)
    other = {**diff.to_dict(), "agrees": False, "causes": [], "weights": ["weights differ in 3 of 4 tensors"]}
    page = render_report(manifest, diff=other)
    assert 'class="verdict unknown">' in page
    assert "the model given now is another: weights differ in 3 of 4 tensors" in page


def test_a_wrong_value_has_its_error_in_the_graph(tmp_path: Path) -> None:
    _, diff = bundle(tmp_path, spoiled=True)
    graph = data_of(write_report(tmp_path, diff=diff).read_text())
    assert max(row["error"] for row in graph["depth"]) > 1e-3
    infinite = json.loads(json.dumps(diff.to_dict()))
    next(row for row in infinite["values"] if row["comparison"])["comparison"] |= {"max_rel": "inf", "passed": False}
    assert max(row["error"] for row in graph_data(tmp_path / "model.onnx", diff=infinite)["depth"]) == 1.0
    assert any((node["error"] or 0) > 1e-3 for node in graph["nodes"])


def test_the_place_stands_before_the_facts(tmp_path: Path) -> None:
    manifest, diff = bundle(tmp_path, spoiled=True)
    page = render_report(manifest, diff=diff.to_dict())
    parts = ("does not agree with eager", "Where it goes wrong", "output logits", "<dt>nodes</dt>")
    assert sorted(parts, key=page.index) == list(parts)


def test_a_node_shows_how_its_values_are_spread(tmp_path: Path) -> None:
    bundle(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    place = next(index for index, node in enumerate(model.graph.node) if node.op_type == "Conv")
    name = model.graph.node[place].output[0]
    reference, found = np.linspace(-1, 1, 100, dtype=np.float32), np.full(100, 0.5, np.float32)
    page = write_report(tmp_path, spreads={name: spread_of(reference, found) or {}}).read_text()
    node = data_of(page)["nodes"][place]
    (spread,) = node["values"]
    assert (spread["name"], spread["low"], spread["high"]) == (name, -1.0, 1.0)
    assert (spread["file"]["min"], spread["file"]["mean"], spread["reference"]["max"]) == (0.5, 0.5, 1.0)
    assert [bar != "0" for bar in spread["file"]["bars"]] == [i == BARS * 3 // 4 for i in range(BARS)]
    assert "0" not in spread["reference"]["bars"]


def test_what_has_no_spread() -> None:
    numbers = np.ones(3, np.float32)
    assert spread_of(numbers, np.full(3, np.nan, np.float32)) is None
    assert spread_of(np.zeros(0), numbers) is None
    assert spread_of(np.array(["a"]), numbers) is None
    some = spread_of(numbers, np.array([1, np.nan, np.inf], np.float32))
    assert some is not None
    assert some["file"]["strange"] == 2
    same = spread_of(numbers, numbers)
    assert same is not None
    assert same["file"]["bars"] == same["reference"]["bars"] == "z" + "0" * (BARS - 1)


def test_code_is_read_from_programs_only(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a secret\n")
    (tmp_path / "code.py").write_text("x = 1\ny = x + 1\n")
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([node], "one", ends[:1], ends[1:]))
    for number, file in enumerate(("secret.txt", "code.py")):
        held = ir.Node("", "Relu", [])
        called = (f"{tmp_path / 'code.py'}:1",) if number else ()
        set_origins(held, [Origin("m", "M", "aten.relu", str(tmp_path / file), 1 + number, callers=called)])
        write_origin_metadata(held)
        del model.graph.node[0].metadata_props[:]
        for key, value in held.metadata_props.items():
            model.graph.node[0].metadata_props.add(key=key, value=value)
        onnx.save(model, tmp_path / "one.onnx")
        (found,) = graph_data(tmp_path / "one.onnx")["nodes"]
        assert file in found["from"][0]
        assert found["lines"] == (["code.py:2: y = x + 1", "code.py:1: x = 1"] if number else [])


def test_inputs_and_outputs_stand_in_the_picture(tmp_path: Path) -> None:
    bundle(tmp_path)
    graph = data_of(write_report(tmp_path).read_text())
    (given,) = graph["inputs"]
    assert given["told"].startswith("x: float[")
    assert given["nodes"] == [0]
    ends = {made["told"].partition(":")[0]: graph["nodes"][made["nodes"][0]]["op"] for made in graph["outputs"]}
    assert ends == {"logits": "Gemm", "label": "ArgMax"}


def test_pictures_stand_in_the_page_with_words_for_who_does_not_see_them(tmp_path: Path) -> None:
    manifest, _ = bundle(tmp_path)
    page = render_report(manifest, pictures=[('a "cat" <b>', "png", b"123")], picture_notes=["stretched"])
    found = outline(page)
    assert "What it finds" in found.texts
    assert found.references == ["data:image/png;base64,MTIz"]
    assert 'alt="a &#34;cat&#34; &lt;b&gt;"' in page
    assert "stretched" in found.texts


def test_a_file_in_fewer_digits_has_a_table_of_what_each_layer_loses(tmp_path: Path) -> None:
    manifest, diff = bundle(tmp_path)
    layer = {
        "name": "conv2d",
        "module": "body",
        "operator": "aten.conv2d.default",
        "source": "net.py:3",
        "value": "somewhere",
        "nodes": [],
        "here": {"snr": 61.25, "cosine": 1.0, "max_abs": 0.0, "max_rel": 0.0, "ulp": 0.0},
        "own": {"snr": "inf", "cosine": 1.0, "max_abs": 0.0, "max_rel": 0.0, "ulp": 0.0},
        "costs": 25.0,
        "largest": 70000.0,
        "overflow": 0.015,
        "underflow": 0.0,
        "clipped": 0.0,
    }
    told = {
        **diff.to_dict(),
        "level": "float16",
        "keep": ["body"],
        "precision": [{**layer, "keep": True}, layer | {"keep": False}],
    }
    page = render_report(manifest, diff=told)
    assert page.count('<strong class="bad">keep</strong>') == 1
    cause = {
        "by": COSTS,
        "module": "body",
        "class": "Conv",
        "source": "net.py:3",
        "node": "Conv node 'c'",
        "note": "",
        "comparison": None,
    }
    page_of_it = render_report(manifest, diff={**told, "agrees": False, "causes": [cause]})
    assert "departs from the model with each result in float16, wrong at body" in page_of_it
    assert "Worth keeping in float32: body" in page
    assert "pins=body" in page
    texts = outline(page).texts
    assert "What float16 loses, by layer" in texts
    assert [text for text in ("61.2", "∞", "25.0", "7e+04", "1.5 % overflow") if text not in texts] == []
    assert "width: 75.0%" in page


def test_commands_are_those_that_were_given() -> None:
    manifest = {
        "model": {"spec": "net.py:build"},
        "target": {
            "name": "onnx",
            "precision": "int8",
            "outputs": None,
            "options": {"precision": "int8", "weights": "int7", "max_drop": 0.5, "ranges": "mse", "pins": ["a", "b"]},
            "asked": ["precision", "max_drop", "weights", "pins"],
            "decided_by": {"calibration": "calib.npz", "metric": None},
        },
        "passes": [{"source": "/home/me/own.py"}, {"source": ""}, {"source": "package.module"}],
        "verification": {"passed": False},
    }
    commands = dict(commands_of(manifest, Path("out")))
    asked = "--precision int8 --option weights=int7 --option pins=a,b --pass /home/me/own.py"
    decided = "--calibration calib.npz --max-drop 0.5 --metric METRIC"
    assert commands["compile it again"] == f"graphforge compile net.py:build {asked} {decided} --keep-unverified"
    assert commands["which pass and rewrite is wrong"] == f"graphforge bisect net.py:build {asked}"
    assert list(commands.values())[-1] == "graphforge report out net.py:build --pass /home/me/own.py"


def test_names_from_the_file_do_not_end_the_script(tmp_path: Path) -> None:
    bundle(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.node[0].name = "</script><script>alert(1)</script>"
    onnx.save(model, tmp_path / "model.onnx")
    page = write_report(tmp_path).read_text()
    outline(page)
    assert "<script>alert" not in page
    assert data_of(page)["nodes"][0]["name"] == "</script><script>alert(1)</script>"


def test_long_runs_are_folded(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], name=f"n{i}") for i in range(500)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("v0", "v500")]
    graph = helper.make_graph(nodes, "long", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "long.onnx")
    data = graph_data(tmp_path / "long.onnx")
    tops = Counter(node["path"][0] for node in data["nodes"])
    assert len(tops) == 13
    assert max(tops.values()) == 40
    assert data["nodes"][0]["gives"] == ["v1: float[2]"]


def test_a_large_network_is_a_small_page(tmp_path: Path) -> None:
    page = large_page(tmp_path, blocks=6)
    assert len(data_of(page.read_text())["nodes"]) == 600
    assert page.stat().st_size < 600_000  # ResNet-50 has 122 nodes


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.bn(self.conv(x)).relu().mean((2, 3))

def build():
    torch.manual_seed(0)
    return Net().eval()
"""


def test_with_the_model_it_has_errors_times_and_rewrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    assert run(["compile", "net.py:build", "--input", "x:2x3x8x8", "--dynamic", "x:0=1..4", "-o", "out"]) == 0
    assert run(["report", "out", "net.py:build", "-o", "page.html"]) == 0
    page = Path("page.html").read_text()
    graph = data_of(page)
    conv = next(node for node in graph["nodes"] if node["op"] == "Conv")
    assert conv["error"] is not None
    assert conv["error"] < 1e-5
    assert any(node["seconds"] for node in graph["nodes"])
    done = [graph["rewrites"][number] for number in conv["rewrites"]]
    assert "fold-batch-norm" in [one["pass_name"] for one in done]
    assert any("BatchNormalization(" in line for one in done for line in one["before"])
    (spread,) = conv["values"]
    assert spread["file"]["max"] == pytest.approx(spread["reference"]["max"], rel=1e-5)
    assert any(line.startswith("net.py:") and "self.conv(x)" in line for line in conv["lines"])
    text = "\n".join(outline(page).texts)
    assert "Error along the depth of the network" in text
    (again,) = [line for line in text.splitlines() if line.startswith("graphforge compile ")]
    assert run([*shlex.split(again)[1:], "-o", "again"]) == 0


OWN = '''
from dataclasses import dataclass
from typing import ClassVar
from graphforge import Pass

@dataclass(frozen=True)
class Twice(Pass):
    """Turn every Relu into a Neg, which is wrong."""

    name: ClassVar[str] = "twice"

    def run(self, graph, rewriter):
        for node in list(graph):
            if node.op_type == "Relu":
                op = rewriter.builder(before=node)
                rewriter.replace(node, [op.Neg(node.inputs[0])])
'''


def test_a_pass_of_the_users_own_is_shown_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    Path("own.py").write_text(OWN)
    asked = ["compile", "net.py:build", "--input", "x:2x3x8x8", "--pass", "own.py:Twice", "--keep-unverified"]
    assert run([*asked, "-o", "out"]) == 1
    assert run(["report", "out", "net.py:build", "-o", "page.html"]) == 0
    texts = "\n".join(outline(Path("page.html").read_text()).texts)
    assert "The pass twice is none of GraphForge's, and its rewrites are not shown" in texts
    assert ": wrong at " in texts
    (again,) = [line for line in texts.splitlines() if line.startswith("graphforge report ")]
    assert run([*shlex.split(again)[1:], "-o", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "its rewrites are not shown" not in page
    assert "twice" in {rewrite["pass_name"] for rewrite in data_of(page)["rewrites"]}
    assert any(node["wrong"] for node in data_of(page)["nodes"])
    capsys.readouterr()
    assert run(["report", "out", "--pass", "own.py:Twice"]) == 2
    assert "--pass is about MODEL" in capsys.readouterr().err
    # what failed verification and was kept can be asked why, in the terminal, too
    asked = ["diff", "net.py:build", "--input", "x:2x3x8x8", "--against", "out"]
    assert run(asked) == 1
    assert "made by the pass twice" in capsys.readouterr().out
    assert run([*asked, "--atol", "1e6"]) == 0


def test_text_from_the_manifest_is_no_markup(tmp_path: Path) -> None:
    manifest, _ = bundle(tmp_path)
    assert "<script>" not in render_report(manifest)


def test_an_unverified_bundle_says_so(tmp_path: Path) -> None:
    manifest, _ = bundle(tmp_path)
    manifest["verification"] = {"passed": None, "skipped": "--no-verify"}
    found = outline(render_report(manifest))
    assert "not verified: --no-verify" in found.texts
    assert "Layer by layer" not in found.texts


def test_a_trial_that_did_not_run_shows_its_error(tmp_path: Path) -> None:
    manifest, _ = bundle(tmp_path)
    manifest["verification"]["trials"][1] |= {"outputs": [], "error": "onnxruntime failed to run: bad size"}
    assert "onnxruntime failed to run: bad size" in outline(render_report(manifest)).texts


def test_what_is_no_bundle_and_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="not a bundle"):
        write_report(tmp_path)
    bundle(tmp_path)
    with pytest.raises(GraphForgeError, match="cannot write"):
        write_report(tmp_path, tmp_path / "absent" / "report.html")


def test_a_page_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    from graphforge.verify.pages import write_page_to

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").write_text("x")
    with pytest.raises(GraphForgeError, match="cannot write"):
        write_page_to(tmp_path / "taken", "page", way_out="choose another")
    assert [one.name for one in tmp_path.iterdir()] == ["taken"]
