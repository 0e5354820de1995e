"""Sessions of ONNX Runtime: one place makes them, from a file, bytes, a ModelProto or a graph."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphforge.errors import GraphForgeError
from graphforge.ir import from_text
from graphforge.runners import session
from graphforge.runners.session import new_session

ROOT = Path(__file__).parents[2]
TEXT = (
    '<ir_version: 14, opset_import: ["" : 21]>\ng (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }'
)


@pytest.mark.parametrize("form", ["file", "text", "bytes", "proto", "graph"])
def test_every_form_of_a_model_runs(form: str, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(TEXT)
    proto.ir_version = 10
    onnx.save(proto, tmp_path / "m.onnx")
    forms = {
        "file": tmp_path / "m.onnx",
        "text": str(tmp_path / "m.onnx"),
        "bytes": proto.SerializeToString(),
        "proto": proto,
        "graph": from_text(TEXT),  # of an IR version that is newer than its opset, and stays so
    }
    (found,) = new_session(forms[form], optimize=False).run(None, {"x": np.array([1, 1], np.float32)})
    assert found.tolist() == [2, 3]
    kept = forms["graph"]
    assert isinstance(kept, ir.Model)
    assert kept.ir_version == 14


def test_a_model_too_large_for_memory_needs_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "_MAX_IN_MEMORY", 0)
    model = from_text(TEXT)
    with pytest.raises(GraphForgeError, match="too large to be handed over in memory"):
        new_session(model)
    (found,) = new_session(model, scratch=lambda: tmp_path).run(None, {"x": np.array([1, 1], np.float32)})
    assert found.tolist() == [2, 3]
    assert (tmp_path / "model.onnx").is_file()


def _makes_sessions(text: str) -> bool:
    """Whether the code itself calls it; a script that is written out for the user stands alone."""
    nodes = list(ast.walk(ast.parse(text)))
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    bases = [base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]
    return any(ast.unparse(made).endswith("InferenceSession") for made in (*calls, *bases))


def test_nobody_else_makes_sessions() -> None:
    folders = [ROOT / name for name in ("graphforge", "passes", "ops")]
    makers = [
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in folder.glob("**/*.py")
        if _makes_sessions(path.read_text(encoding="utf-8"))
    ]
    assert makers == ["graphforge/runners/session.py"]
