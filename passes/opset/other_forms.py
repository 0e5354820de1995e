"""Forms that a runtime's table asks for by name, where that of an older opset would not do."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphforge.passes.opset.pool import pool_by_convolution
from graphforge.passes.opset.resize import resize_by_matrices
from graphforge.passes.opset.scatter_compared import scatter_by_comparing
from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["OTHER_FORMS"]


def _of_a_slice(step: Step) -> Values:
    """GatherElements(x, indices)  ==>  GatherElements(Slice(x, as far as the indices reach), indices)."""
    x, indices = step.need(0), step.need(1)
    assert x.shape is not None
    assert indices.shape is not None
    axis = step.int_of("axis", 0) % len(x.shape)
    differing = [at for at in range(len(x.shape)) if at != axis and x.shape[at] != indices.shape[at]]
    op = step.op
    ends = [indices.shape[at] for at in differing]
    if all(isinstance(end, int) for end in ends):
        reach: ir.Value | list[int] = [int(end) for end in ends]  # type: ignore[arg-type]
    else:
        reach = op.Gather(op.Shape(indices), differing, axis=0)
    return [step.same(op.Slice(x, [0] * len(differing), reach, differing), indices)]


OTHER_FORMS: Mapping[str, StepDown] = {
    "as-a-convolution": pool_by_convolution,
    "as-comparisons": scatter_by_comparing,
    "as-matrix-products": resize_by_matrices,
    "of-a-slice": _of_a_slice,
}
