"""The notebook of the tour runs headless, and what the functions return shows itself as HTML in it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import graphforge

nbclient = pytest.importorskip("nbclient", reason="installed with the extra dev")
nbformat = pytest.importorskip("nbformat", reason="installed with the extra dev")
pytest.importorskip("ipykernel", reason="installed with the extra dev")

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
FUNCTIONS = (
    *("bisect", "compile", "diff", "evaluate", "explain", "inspect", "lint", "opset", "optimize", "pipeline"),
    *("profile", "reduce", "report", "run"),
)


def _code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_notebook_is_kept_without_outputs() -> None:
    cells = _code_cells(nbformat.read(NOTEBOOK, as_version=4))
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


def test_notebook_uses_every_function() -> None:
    text = "\n".join(cell.source for cell in _code_cells(nbformat.read(NOTEBOOK, as_version=4)))
    assert [name for name in FUNCTIONS if f"graphforge.{name}(" not in text] == []
    assert {"Bundle.open", "bundle.run", "bundle.report"} <= set(re.findall(r"[Bb]undle\.\w+", text))
    assert set(FUNCTIONS) <= set(graphforge.__all__)


@pytest.mark.slow
def test_every_cell_runs_and_reports_show_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises where a cell does
    shown = 0
    for cell in _code_cells(notebook):
        last = cell.source.splitlines()[-1]
        results = [output for output in cell.outputs if output.output_type == "execute_result"]
        assert not [output for output in cell.outputs if output.output_type == "error"]
        reports = re.match(r"(graphforge\.\w+|bundle\.report)\(.*\)$|bundle$|result$", last)
        if reports is None:
            continue
        (result,) = results
        html, text = result.data["text/html"], result.data["text/plain"]
        assert html.startswith(("<pre", "<iframe"))
        assert "\n" not in text  # one line as repr
        assert len(text) < 200
        shown += 1
    assert shown >= 10
    everything = [output for cell in _code_cells(notebook) for output in cell.outputs if "data" in output]
    assert sum("data:image/png;base64," in output.data.get("text/html", "") for output in everything) == 1
