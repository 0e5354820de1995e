"""A torch operator of the user's own, from capture to a verified file: one declaration is all it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import graphforge
from graphforge.errors import GraphForgeError, LoweringError, VerificationError
from graphforge.ops.custom_op import TensorFact, custom_op, declared_ops, withdraw


@torch.library.custom_op("acme_test::scaled_sort", mutates_args=())
def scaled_sort(x: Tensor, scale: Tensor, descending: bool) -> tuple[Tensor, Tensor]:
    values, order = torch.sort(x * scale, dim=-1, descending=descending)
    return values, order


@scaled_sort.register_fake
def _(x: Tensor, scale: Tensor, descending: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty(x.shape, dtype=torch.int64)


class Net(nn.Module):
    """Ours between operators of torch, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, order = torch.ops.acme_test.scaled_sort(self.first(x).relu(), self.scale, True)
        again, _ = torch.ops.acme_test.scaled_sort(values.tanh() - values, self.scale, False)
        result: tuple[Tensor, Tensor] = (again + 1, order)
        return result


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    for op in declared_ops():
        if op.domain == "acme_test":
            withdraw(op)


def python_kernel(x: Tensor, scale: Tensor, descending: int) -> tuple[Tensor, Tensor]:
    values, order = scaled_sort(x, scale, bool(descending))
    return values, order


def declare(**changes: object) -> None:
    settings: dict[str, object] = {
        "inputs": ["x", "scale"],
        "outputs": ["sorted", "order: int64"],
        "attributes": {"descending": 0},
        "shapes": lambda inputs, attributes: [inputs[0], TensorFact("int64", inputs[0].shape)],
        "function": python_kernel,
        "torch_name": "acme_test::scaled_sort",
    }
    custom_op("acme_test::ScaledSort", **{**settings, **changes})  # type: ignore[arg-type]


def compiled(folder: Path, **options: Any) -> graphforge.Bundle:
    torch.manual_seed(0)
    return graphforge.compile(
        Net().eval(), torch.randn(3, 6), dynamic_shapes={"x": {0: (1, 5)}}, output=folder / "bundle", **options
    )


def test_survives_from_capture_to_file_and_is_verified_by_its_function(tmp_path: Path) -> None:
    declare()
    bundle = compiled(tmp_path)
    assert bundle.manifest["verification"]["passed"]
    assert bundle.manifest["operators"]["acme_test::ScaledSort"] == 2
    assert not bundle.manifest["lowering"]["fallbacks"]
    model = onnx.load(bundle.path / "model.onnx")
    assert {one.domain: one.version for one in model.opset_import}["acme_test"] == 1


def test_a_function_that_computes_something_else_fails_verification(tmp_path: Path) -> None:
    declare(function=lambda x, scale, descending: scaled_sort(x, scale * 1.5, bool(descending)))
    with pytest.raises(VerificationError):
        compiled(tmp_path)


def test_no_kernel_is_an_error_that_says_what_to_declare(tmp_path: Path) -> None:
    declare(function=None)
    with pytest.raises(GraphForgeError, match="ScaledSort has no kernel") as caught:
        compiled(tmp_path)
    assert "function=" in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_a_function_that_raises_is_named(tmp_path: Path) -> None:
    declare(function=lambda x, scale, descending: 1 // 0)
    with pytest.raises(GraphForgeError, match="function of acme_test::ScaledSort failed: ZeroDivisionError"):
        compiled(tmp_path)


def test_an_argument_that_is_not_declared_is_an_error(tmp_path: Path) -> None:
    declare(attributes={})
    with pytest.raises(LoweringError, match="argument 'descending'"):
        compiled(tmp_path)


def test_an_input_of_another_name_is_an_error(tmp_path: Path) -> None:
    declare(inputs=["data", "scale"])
    with pytest.raises(LoweringError, match="nothing for input 'data'"):
        compiled(tmp_path)


def test_declared_for_one_call_and_gone_afterwards(tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "inputs": ["x", "scale"],
        "outputs": ["sorted", "order: int64"],
        "attributes": {"descending": 0},
        "shapes": lambda inputs, attributes: [inputs[0], TensorFact("int64", inputs[0].shape)],
        "torch_name": "acme_test::scaled_sort",
        "declare": False,
    }
    right = custom_op("acme_test::ScaledSort", **settings, function=python_kernel)  # type: ignore[arg-type]
    wrong = custom_op(
        "acme_test::ScaledSort",
        **settings,  # type: ignore[arg-type]
        function=lambda x, scale, descending: scaled_sort(x, scale * 1.5, bool(descending)),
    )
    bundle = compiled(tmp_path, custom_ops=[right])
    assert bundle.manifest["verification"]["passed"]
    assert bundle.manifest["operators"]["acme_test::ScaledSort"] == 2
    x = torch.randn(2, 6)
    with graphforge.custom_ops(right):
        assert bundle.run(x)["output_1"].shape == (2, 8)
    with pytest.raises(GraphForgeError, match=r"declare acme_test::ScaledSort while it runs: with graphforge"):
        bundle.run(x)
    with pytest.raises(VerificationError):
        compiled(tmp_path, custom_ops=[wrong])
    assert not [op for op in declared_ops() if op.domain == "acme_test"]
    with pytest.raises(GraphForgeError):
        compiled(tmp_path)
    with graphforge.custom_ops(wrong):  # what is given for the call goes before what is around it
        assert compiled(tmp_path, custom_ops=[right]).manifest["verification"]["passed"]


def test_a_rule_that_leaves_shapes_open_is_run_all_the_same(tmp_path: Path) -> None:
    open_rule = custom_op(
        "acme_test::ScaledSort",
        inputs=["x", "scale"],
        outputs=["sorted", "order: int64"],
        attributes={"descending": 0},
        torch_name="acme_test::scaled_sort",
        function=python_kernel,
        declare=False,
    )
    assert compiled(tmp_path, custom_ops=[open_rule]).manifest["verification"]["passed"]
