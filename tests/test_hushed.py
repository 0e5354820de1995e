"""Nothing of torch reaches the terminal while something fails, and no message is longer than a screen."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch

from graphforge.cli.main import run
from graphforge.errors import GraphForgeError
from graphforge.hushed import MOST_LINES, hushed, in_a_screen
from graphforge.runners.eager import EagerRunner
from tests import conftest


def test_logs_and_prints_of_torch_are_kept(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_LOGS", raising=False)
    module = torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())
    module.graph.output(module.graph.call_function(torch.reshape, (module.graph.placeholder("x"), (5, 5))))
    module.recompile()
    with hushed() as said:
        logging.getLogger("torch._dynamo").warning("a warning of %s", "dynamo")
        logging.getLogger("torch.fx.experimental.anything").error("an error of fx")
        with pytest.raises(RuntimeError):
            module(torch.ones(2))
        print("the user's own word")
    out, err = capfd.readouterr()
    assert (out, err) == ("the user's own word\n", "")
    assert "a warning of dynamo" in said.text
    assert "an error of fx" in said.text
    assert "generated forward function" in said.text


def test_a_program_that_fails_on_its_inputs_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 3)

    runner = EagerRunner.of(torch.fx.symbolic_trace(Fixed()), (torch.ones(6),))
    with pytest.raises(GraphForgeError, match="fails on these inputs"):
        runner.run({"x": torch.ones(7).numpy()})
    assert capfd.readouterr() == ("", "")


def test_a_message_longer_than_a_screen_is_cut_and_kept_in_a_file() -> None:
    told = ("what is wrong", *(f"note {number}" for number in range(40)), "\n".join(f"line {i}" for i in range(40)))
    shown = in_a_screen(told)
    assert sum(text.count("\n") + 1 for text in shown) <= MOST_LINES
    assert shown[0] == "what is wrong"
    path = Path(shown[-1].rpartition(" is in ")[2])
    assert path.read_text() == "\n".join(told) + "\n"
    path.unlink()
    assert in_a_screen(told[:5]) == told[:5]
    assert conftest.MOST_LINES == MOST_LINES


def test_what_torch_says_is_in_a_file_that_the_message_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.tolist()[0] * x if x.mean() > 0 else x\n"
        "def build():\n"
        "    return Net()\n"
    )
    assert run(["compile", "net.py:build", "--input", "x:3"]) == 1
    said = capfd.readouterr().err
    assert len(said.splitlines()) <= MOST_LINES
    assert said.startswith("error: the model could not be captured: it decides in Python what depends on data\n")
    assert "note: at net.py:4, in forward: return x.tolist()[0]" in said
    path = Path(said.strip().rpartition("all that torch says about it is in ")[2])
    assert "Traceback (most recent call last)" in path.read_text()
    path.unlink()
    assert "graphforge.hushed" in sys.modules
