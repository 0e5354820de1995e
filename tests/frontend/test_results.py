"""What models take and return beside tensors: numbers, dataclasses nobody registered, None, text."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphforge.call import input_tree
from graphforge.frontend.capture import capture
from graphforge.frontend.lower import Lowered, lower
from graphforge.runners.eager import EagerRunner
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.spec import DimRange


def _both(model: torch.nn.Module, *inputs: Any) -> tuple[Lowered, dict[str, Any], dict[str, Any]]:
    """The lowered model, what eager returns and what ONNX Runtime returns."""
    tree = input_tree(model, inputs, {})
    dims = {tree.names[0]: {0: DimRange("rows", 1, 6)}}
    lowered = lower(capture(model, tree, tree.spec().with_dynamic(dims)))
    reference = EagerRunner(model, tree)
    feeds = reference.example()
    import onnx_ir as ir

    proto = ir.to_proto(lowered.model)
    return lowered, reference.run(feeds), OnnxRuntimeRunner(proto, threads=1).run(feeds)


class Numbers(torch.nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": x * 2, "kind": "det", "half": 0.3, "rows": x.shape[0], "third": x.shape[0] / 3, "yes": True}


def test_numbers_among_the_results_are_those_of_python() -> None:
    lowered, expected, found = _both(Numbers().eval(), torch.rand(2, 3))
    assert list(expected) == list(found) == ["y", "half", "rows", "third", "yes"]
    for name, value in expected.items():
        assert value.dtype == found[name].dtype, name
        assert np.array_equal(value, found[name]), name
    assert found["half"].dtype == found["third"].dtype == np.float64
    assert lowered.notes == ["output 'kind' is 'det', expected tensors and numbers; it is left out"]


class OneFloat(torch.nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> float:
        return float(a.sum() / b.sum())


def test_a_single_float_of_python_is_a_double() -> None:
    _, expected, found = _both(OneFloat().eval(), torch.ones(3, dtype=torch.int64), torch.tensor([1, 3]))
    assert expected["output"].dtype == found["output"].dtype == np.float64
    assert found["output"] == 0.75


@dataclasses.dataclass
class Request:
    image: Tensor
    mask: Tensor | None = None


@dataclasses.dataclass
class Part:
    scores: Tensor


@dataclasses.dataclass
class Answer:
    boxes: Tensor
    parts: list[Part]
    name: str = "best"


class WithDataclasses(torch.nn.Module):
    def forward(self, request: Request, extra: Tensor | None) -> Answer:
        image = request.image if extra is None else request.image + extra
        return Answer(image * 2, [Part(image.sum(-1)), Part(image.amax(-1))])


def test_dataclasses_that_nobody_registered_are_taken_apart() -> None:
    _, expected, found = _both(WithDataclasses().eval(), Request(torch.rand(2, 3)), None)
    assert list(expected) == list(found) == ["boxes", "parts_0_scores", "parts_1_scores"]
    for name, value in expected.items():
        assert np.array_equal(value, found[name]), name
