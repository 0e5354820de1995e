"""Caches of transformers as inputs and outputs, named by layer; output classes that look at their tensors."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils import _pytree

import graphforge
from graphforge import libraries
from graphforge.call import input_tree, output_names
from graphforge.frontend.torchvision_fix import ensure_torchvision
from graphforge.libraries import export_helpers
from graphforge.spec import DimRange

_SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
}
_TENSORS = [f"layers_{layer}_{part}" for layer in (0, 1) for part in ("keys", "values")]


def _decoder() -> Any:
    pytest.importorskip("transformers")
    ensure_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**_SIZES)).eval()


def test_a_model_of_others_does_not_import_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it takes a second, and MMDetection imports the library for a tokeniser."""
    pytest.importorskip("transformers")
    ensure_torchvision()
    name = "transformers.exporters.exporter_dynamo"
    monkeypatch.delitem(sys.modules, name, raising=False)
    input_tree(torch.nn.Linear(2, 3), (torch.zeros(1, 2),), {})
    with export_helpers(torch.nn.Linear(2, 3)):
        pass
    assert name not in sys.modules


def test_a_cache_is_handed_out_and_taken_in_by_layer(tmp_path: Path) -> None:
    model = _decoder()
    batch, past, length = DimRange("batch", 1, 3), DimRange("past", 2, 9), DimRange("length", 2, 9)
    ids = torch.randint(0, 50, (2, 5))
    first = graphforge.compile(
        model, kwargs={"input_ids": ids}, dynamic_shapes={"input_ids": {0: batch, 1: length}}, output=tmp_path / "first"
    )
    outputs = [entry["name"] for entry in first.manifest["outputs"]]
    assert outputs[0] == "logits"
    assert [name.partition("_")[2] for name in outputs[1:]] == _TENSORS  # the library called it past_key_values before

    name = outputs[1].removesuffix("_layers_0_keys")
    with torch.no_grad():
        cache = model(ids, use_cache=True)[name]
    step = graphforge.compile(
        model,
        kwargs={"input_ids": ids[:, :1], name: cache},
        dynamic_shapes={"input_ids": {0: batch}, **{f"{name}.{one}": {0: batch, 2: past} for one in _TENSORS}},
        output=tmp_path / "step",
    )
    assert step.manifest["verification"]["passed"]

    # one after the other they say what the model says of the whole
    text = torch.randint(0, 50, (1, 8))
    made = first.run({"input_ids": text[:, :7]})
    fed = {f"{name}.{one}": made[f"{name}_{one}"] for one in _TENSORS}
    last = step.run({"input_ids": text[:, 7:], **fed})["logits"][0, 0]
    with torch.no_grad():
        whole = model(text).logits[0, 7]
    torch.testing.assert_close(torch.as_tensor(last), whole, rtol=1e-3, atol=1e-5)


class _Checked:
    """Something returned that wants tensors of equal length."""

    def __init__(self, boxes: Any, scores: Any) -> None:
        if boxes.shape[0] != scores.shape[0]:
            raise ValueError("boxes and scores must go together")
        self.boxes = boxes
        self.scores = scores


class _Detector(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, _Checked]:
        return {"found": _Checked(x * 2, x.sum(1))}


def test_outputs_are_named_without_being_made_again(tmp_path: Path) -> None:
    if _Checked not in _pytree.SUPPORTED_NODES:
        _pytree.register_pytree_node(
            _Checked,
            lambda one: ([one.boxes, one.scores], ["boxes", "scores"]),
            lambda values, _: _Checked(*values),
            serialized_type_name="tests.Checked",
            flatten_with_keys_fn=lambda one: (
                [(_pytree.GetAttrKey("boxes"), one.boxes), (_pytree.GetAttrKey("scores"), one.scores)],
                ["boxes", "scores"],
            ),
        )
    spec = _pytree.tree_structure({"found": _Checked(torch.ones(2), torch.ones(2))})
    assert output_names(spec) == ["found_boxes", "found_scores"]
    bundle = graphforge.compile(_Detector(), (torch.randn(3, 4),), output=tmp_path / "b")
    assert [entry["name"] for entry in bundle.manifest["outputs"]] == ["found_boxes", "found_scores"]


def test_what_the_library_replaces_is_put_back() -> None:
    model = _decoder()
    from transformers import cache_utils

    kind = getattr(cache_utils, "DynamicSlidingWindowLayer", None)
    if kind is None:
        pytest.skip("this version of transformers has no such layer")
    before = vars(kind).get("update")
    with export_helpers(model):
        pass
    assert vars(kind).get("update") is before


def test_what_the_library_replaces_in_models_that_nobody_uses_is_not_loaded() -> None:
    model = _decoder()
    with export_helpers(model):  # whatever torch and the library load for themselves
        pass
    before = set(sys.modules)
    with export_helpers(model):
        assert not {name for name in set(sys.modules) - before if ".models." in name}
    held = [owner for owner, _, _ in libraries._replacements() if isinstance(owner, type)]
    assert held
    assert not {one.__module__ for one in held} - set(sys.modules)


def test_other_models_are_left_alone() -> None:
    with export_helpers(torch.nn.Linear(2, 2)):
        assert output_names(_pytree.tree_structure((1, {"a": 2}))) == ["output_0", "output_1_a"]


def test_an_exporter_that_brings_less_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(torch.nn.Module):
        __module__ = "transformers.models.other"

    monkeypatch.setattr(libraries, "_exporter", lambda model: SimpleNamespace(Cache=object))
    known = set(_pytree.SUPPORTED_NODES)
    libraries.know_containers(Other())
    assert set(_pytree.SUPPORTED_NODES) == known
