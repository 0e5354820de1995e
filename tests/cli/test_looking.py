"""Looking at the passes of a compilation: `--dry-run`, `--explain`, `--time-passes`, `--print-after`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from graphforge.cli.main import run
from graphforge.passes import default_pipeline
from graphforge.transform import Pipeline

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(4)

    def forward(self, image):
        seen = self.bn(self.conv(image)).relu()
        return seen + image[:, :1]

def build():
    torch.manual_seed(0)
    return Net().eval()
"""
PASS = '''"""Never fires, and says why."""

from dataclasses import dataclass
from typing import Any, ClassVar

from graphforge import Pass, Rewriter
from graphforge.ir import Graph
from graphforge.transform import Match, NoMatch, Rule


class ReluAdd(Rule):
    def pattern(self, op: Any, x: Any, y: Any) -> Any:
        return op.Add(op.Relu(x, _name="relu"), y)

    def check(self, m: Match) -> Match | NoMatch:
        return m.no("it is Friday", m.relu)

    def rewrite(self, op: Any, m: Match) -> Any:
        return m.x


@dataclass(frozen=True)
class Fridays(Pass):
    name: ClassVar[str] = "fridays"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        rewriter.apply(ReluAdd(), graph)
'''
X = ("--input", "image:1x3x8x8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "mine.py").write_text(PASS)
    return tmp_path


def test_a_dry_run_prints_the_pipeline_and_does_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # the model is not even looked for, and it needs no inputs
    assert run(["compile", "nowhere.py:build", "--dry-run", "--opset", "17", "--pass", "mine.py:Fridays"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "target     onnx" in lines
    assert "opset      17" in lines
    specs = [line.split(maxsplit=1)[1] for line in lines if line[:5].strip().isdigit()]
    assert specs[: len(default_pipeline()) + 1] == [*(item.spec() for item in default_pipeline()), "fridays"]
    assert "legalise-opset{opset=17,runtime='onnxruntime',exactly=true}" in specs
    assert {path.name for path in folder.iterdir()} == {"net.py", "mine.py"}


def test_a_dry_run_as_json_can_be_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compile", "net.py:build", "--dry-run", "--json", "--pipeline", "fold-constants{max_bytes=64}"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["dry_run"] is True
    (one,) = document["stages"]["canonicalise"]
    assert one["options"]["max_bytes"] == 64
    assert Pipeline.parse(one["spec"]).spec() == one["spec"]


def test_a_dry_run_refuses_what_the_compilation_would(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compile", "net.py:build", "--dry-run", "--print-after", "fold-batchnorm"]) == 2
    refused = capsys.readouterr().err
    assert "error: no pass 'fold-batchnorm' runs here" in refused
    assert "note: did you mean fold-batch-norm?" in refused


def test_a_dry_run_loads_no_model_library(folder: Path) -> None:
    import subprocess

    from tests.cli.command import environment

    program = (
        "import sys\nfrom graphforge.cli.main import run\nrun(['compile', 'net.py:build', '--dry-run'])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_everything_there_is_to_see(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = ["--explain", "--time-passes", "--print-after", "fold-batch-norm"]
    assert run(["compile", "net.py:build", *X, "--pass", "mine.py:Fridays", "-o", "out", *seen]) == 0
    printed = capsys.readouterr().out
    graph, _, rest = printed.partition("  share")
    assert "---- after fold-batch-norm, pass " in graph
    assert "= Conv(image, [4,3,3,3] f32" in graph
    assert "BatchNormalization" not in graph
    assert "  pass\n" in rest
    assert "passes of your own that changed nothing:\n  fridays  (mine.py)" in printed
    miss = printed[printed.index("  fridays, ReluAdd: it is Friday\n") :].splitlines()[1]
    assert "Relu node '" in miss
    assert "net.py:11" in miss
    # without being asked, one line about the pass that did nothing
    assert "note pass fridays (mine.py) changed nothing; nearest: it is Friday at " in printed
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    (record,) = [one for one in manifest["passes"] if one["name"] == "fridays"]
    assert Path(record["source"]) == folder / "mine.py"


def test_json_stays_one_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compile", "net.py:build", *X, "-o", "out", "--json", "--print-after", "fold-batch-norm", "--explain"]
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["manifest"]["verification"]["passed"] is True
    assert "---- after fold-batch-norm" in err


def test_the_same_from_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import graphforge
    from graphforge.spec import ShapeSpec, TensorSpec
    from graphforge.transform import PrintAfter

    printed: list[str] = []
    bundle = graphforge.compile(
        "net.py:build",
        ShapeSpec((TensorSpec("image", (1, 3, 8, 8)),)),
        instruments=[PrintAfter(("fold-batch-norm",), printed.append)],
        output=folder / "out",
    )
    assert len(printed) == 1
    assert bundle.explain().startswith("near misses")
    assert "fold-batch-norm" in bundle.pass_times()
