"""Lower a function or module, run it in ONNX Runtime and compare with eager: what every lowering test does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.utils import _pytree

from graphforge.call import input_tree
from graphforge.frontend.capture import capture
from graphforge.frontend.lower import Lowered, lower
from graphforge.ir.detour import roundings_of_outputs
from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.runners.arrays import as_real
from graphforge.spec import DimRange

__all__ = [
    "TOLERANCES",
    "Outcome",
    "assert_same",
    "flat_tensors",
    "lower_and_compare",
    "lower_only",
    "operators",
    "run_model",
]

# Relative and absolute tolerance by dtype, those of torch.testing.assert_close but for the rounding of a few kernels.
TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float16: (2e-3, 1e-3),
    torch.bfloat16: (1.6e-2, 1e-3),
    torch.float32: (1e-5, 1e-5),
    torch.float64: (1e-7, 1e-7),
}

Dynamic = Mapping[str, Mapping[int, tuple[int, int] | tuple[int, int, int] | DimRange]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A lowered model that agreed with eager.

    Attributes:
        lowered: what the driver returned, with fallbacks and decompositions.
        counts: operator type -> number of nodes.
    """

    lowered: Lowered
    counts: Counter[str]

    @property
    def model(self) -> ir.Model:
        """The model, level CAPTURED."""
        return self.lowered.model

    @property
    def nodes(self) -> int:
        """How many nodes there are, subgraphs included."""
        return sum(self.counts.values())

    @property
    def rounded(self) -> set[str]:
        """The operators that ONNX Runtime computes with fewer digits than the model asks for."""
        return {
            rounding.operator
            for roundings in roundings_of_outputs(runnable(self.model)).values()
            for rounding in roundings
        }


class _Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def operators(model: ir.Model) -> Counter[str]:
    """Operator type -> number of nodes, subgraphs included."""
    counts: Counter[str] = Counter()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        counts[node.op_type] += 1
    return counts


def run_model(model: ir.Model, feeds: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Run a model in ONNX Runtime on one thread, operators of our own as plain ones, casts where it lacks kernels."""
    from graphforge.runners.session import new_session

    if "graphforge" in model.graph.opset_imports:
        from graphforge.passes.lower_nms import LowerNms
        from graphforge.passes.lower_semantic_ops import LowerSemanticOps
        from graphforge.transform import Pipeline

        Pipeline([LowerSemanticOps(), LowerNms()]).run(model)
    session = new_session(runnable(model))
    given = {name: _ort_value(as_real(tensor.detach()).contiguous()) for name, tensor in feeds.items()}
    return [_tensor(value) for value in session.run_with_ort_values(None, given)]


def _ort_value(tensor: torch.Tensor) -> Any:
    import onnxruntime

    if tensor.dtype is torch.bfloat16:  # numpy has none: hand over the bits
        bits = tensor.view(torch.int16).numpy()
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, ir.DataType.BFLOAT16.value)
    return onnxruntime.OrtValue.ortvalue_from_numpy(tensor.numpy())


def _tensor(value: Any) -> torch.Tensor:
    if value.data_type() == "tensor(bfloat16)":
        return torch.utils.dlpack.from_dlpack(value._ortvalue.to_dlpack()).clone()
    return torch.from_numpy(np.array(value.numpy()))


def flat_tensors(result: Any) -> list[torch.Tensor]:
    """The tensors of a nested result, Python numbers made tensors, None left out, complex ones made pairs."""
    flat = []
    for leaf in _pytree.tree_leaves(result):
        if leaf is not None:
            flat.append(as_real(leaf if isinstance(leaf, torch.Tensor) else torch.tensor(leaf)))
    return flat


def assert_same(
    actual: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    *,
    rtol: float | None = None,
    atol: float | None = None,
    what: str = "",
) -> None:
    """Values, dtypes and shapes agree; integers and bools exactly, NaN where NaN is, infinities of the same sign."""
    assert len(actual) == len(expected), f"{what}{len(actual)} outputs, expected {len(expected)}"
    for position, (found, want) in enumerate(zip(actual, expected, strict=True)):
        want = want.detach()
        where = f"{what}output {position}: "
        assert found.dtype == want.dtype, f"{where}dtype {found.dtype}, expected {want.dtype}"
        assert tuple(found.shape) == tuple(want.shape), (
            f"{where}shape {tuple(found.shape)}, expected {tuple(want.shape)}"
        )
        relative, absolute = TOLERANCES.get(want.dtype, (0.0, 0.0))

        def located(text: str, where: str = where) -> str:
            return where + text

        torch.testing.assert_close(
            found,
            want.contiguous(),
            rtol=relative if rtol is None or not want.is_floating_point() else rtol,
            atol=absolute if atol is None or not want.is_floating_point() else atol,
            equal_nan=True,
            msg=located,
        )


def _ranges(dynamic: Dynamic) -> dict[str, dict[int, DimRange]]:
    return {
        name: {
            axis: dim if isinstance(dim, DimRange) else DimRange(f"{name}_{axis}".replace(".", "_"), *dim)
            for axis, dim in axes.items()
        }
        for name, axes in dynamic.items()
    }


def lower_only(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: Dynamic | None = None,
    method: str = "export",
) -> Lowered:
    """Capture and lower, without running anything; see ``lower_and_compare``."""
    module = model if isinstance(model, torch.nn.Module) else _Function(model)
    inputs = input_tree(model if not isinstance(model, torch.nn.Module) else module, args, kwargs or {})
    shapes = inputs.spec()
    if dynamic:
        shapes = shapes.with_dynamic(_ranges(dynamic))
    if not isinstance(model, torch.nn.Module):
        module.forward = model  # its signature names the inputs
    return lower(capture(module, inputs, shapes, method=method))


def lower_and_compare(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: Dynamic | None = None,
    other_inputs: Sequence[Sequence[Any]] = (),
    rtol: float | None = None,
    atol: float | None = None,
    method: str = "export",
    allow_fallback: bool = False,
) -> Outcome:
    """Lower a function or module and compare it with eager on the example and on other inputs.

    Args:
        model: an ``nn.Module`` (put in eval mode here) or a plain function.
        args: positional example arguments; tensors become inputs, the rest constants.
        kwargs: keyword example arguments.
        dynamic: input name -> axis -> (low, high) or (low, high, step) or a ``DimRange`` (same name: tied dims).
        other_inputs: further positional arguments to run the same artifact on, other sizes in the promised ranges.
        rtol: relative tolerance instead of that of each output's dtype; say why where you give it.
        atol: absolute tolerance, likewise.
        method: how to capture.
        allow_fallback: whether the stock exporter's translation may stand in the result.
    """
    if isinstance(model, torch.nn.Module):
        model.eval()
    lowered = lower_only(model, _cloned(args), kwargs, dynamic=dynamic, method=method)
    assert allow_fallback or not lowered.fallbacks, f"stock translation of {lowered.fallbacks}"
    for number, call in enumerate([args, *other_inputs]):
        with torch.no_grad():
            expected = flat_tensors(model(*_cloned(call), **dict(kwargs or {})))
        tree = input_tree(model, call, kwargs or {})
        wanted = {value.name for value in lowered.model.graph.inputs}
        feeds = {name: tensor for name, tensor in tree.tensors.items() if name in wanted}
        what = f"call {number}, shapes {[tuple(tensor.shape) for tensor in feeds.values()]}: "
        assert_same(run_model(lowered.model, feeds), expected, rtol=rtol, atol=atol, what=what)
    return Outcome(lowered, operators(lowered.model))


def _cloned(args: Sequence[Any]) -> tuple[Any, ...]:
    copied = _pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, tuple(args))
    assert isinstance(copied, tuple)
    return copied
