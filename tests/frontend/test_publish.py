"""A published checkpoint has the weights and nothing of the training, under a name that tells its content."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.frontend.openmmlab.publish import publish
from tests.cli.command import run_command


def trained(file: Path, **more: Any) -> dict[str, torch.Tensor]:
    """What a run leaves: weights, and three times as much beside them."""
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    state = model.state_dict()
    torch.save({"meta": {"epoch": 3}, "state_dict": state, "optimizer": optimizer.state_dict(), **more}, file)
    return {key: value.clone() for key, value in state.items()}


def test_the_weights_alone_under_their_hash(tmp_path: Path) -> None:
    state = trained(tmp_path / "in.pth", message_hub={"loss": [1.0, 2.0]})
    done = publish(tmp_path / "in.pth", tmp_path / "out.pth")
    assert re.fullmatch(r"out-[0-9a-f]{8}_20\d{6}\.pth", done.path.name)
    assert hashlib.sha256(done.path.read_bytes()).hexdigest()[:8] == done.path.name[4:12]
    assert set(done.dropped) == {"optimizer", "message_hub"}
    assert done.after < done.before / 2
    read = torch.load(done.path, weights_only=True)
    assert set(read) == {"meta", "state_dict"}
    assert all(torch.equal(read["state_dict"][key], value) for key, value in state.items())


@pytest.mark.parametrize("what", [b"\x89PNG\r\n\x1a\n0000", b"hello\n", b""])
def test_what_is_no_checkpoint_is_not_to_be_trusted(what: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.pth").write_bytes(what)
    with pytest.raises(GraphForgeError, match=r"is not a file that torch\.save wrote") as told:
        publish(tmp_path / "in.pth", tmp_path / "out.pth")
    assert "trust" not in str(told.value)
    with pytest.raises(GraphForgeError, match=r"is not a file that torch\.save wrote"):
        graphforge.load_model("torch.nn:ReLU", checkpoint=tmp_path / "in.pth")
    assert [file.name for file in tmp_path.iterdir()] == ["in.pth"]


def test_averages_or_what_was_trained(tmp_path: Path) -> None:
    plain = {"module.weight": torch.full((64, 64), 0.5), "module.bias": torch.zeros(64), "steps": torch.tensor(9)}
    trained(tmp_path / "in.pth", ema_state_dict=plain)
    done = publish(tmp_path / "in.pth", tmp_path / "out.pth", weights="plain")
    assert torch.load(done.path, weights_only=True)["state_dict"]["weight"].eq(0.5).all()
    assert done.weights == "plain"
    assert "ema_state_dict" in publish(tmp_path / "in.pth", tmp_path / "out.pth").dropped


def test_the_same_weights_have_the_same_name(tmp_path: Path) -> None:
    trained(tmp_path / "in.pth")
    (tmp_path / "again").mkdir()
    one = publish(tmp_path / "in.pth", tmp_path / "out.pth").path
    assert publish(tmp_path / "in.pth", tmp_path / "again" / "out.pth").path.name == one.name


def test_what_is_no_checkpoint_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(GraphForgeError, match=r"is not a file that torch\.save wrote"):
        publish(tmp_path / "in.pth", tmp_path / "out.pth")
    trained(tmp_path / "good.pth")
    with pytest.raises(GraphForgeError, match="cannot write"):
        publish(tmp_path / "good.pth", tmp_path / "missing" / "out.pth")
    assert {file.name for file in tmp_path.iterdir()} == {"in.pth", "good.pth"}


def test_the_command(tmp_path: Path) -> None:
    trained(tmp_path / "in.pth")
    done = run_command("publish", "in.pth", "out.pth", cwd=tmp_path)
    assert done.code == 0
    assert "left out: optimizer" in done.stdout
    assert len(list(tmp_path.glob("out-*_*.pth"))) == 1
