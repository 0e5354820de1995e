"""Pooling: max, average, adaptive (any window, any size) and unpooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.frontend.aten._windows import empty_result, per_axis
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_FLOAT = ir.DataType.FLOAT
_INT64 = ir.DataType.INT64


def _with_batch(op: Emitter, x: ir.Value, axes: int) -> tuple[ir.Value, bool]:
    """``x`` as [N, C, spatial...], and whether the batch dim had to be added."""
    if op.rank(x) == axes + 2:
        return x, False
    return op.unsqueeze(x, [0]), True


def _end_pads(
    op: Emitter, x: ir.Value, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> list[int] | None:
    """End pads that make rounding up needless, None when a size is dynamic.

    A last window that would start beyond the input and its begin padding is dropped, as torch does.
    """
    pads = []
    for axis in range(len(kernel)):
        size = op.size(x, axis - len(kernel))
        if not isinstance(size, int):
            return None
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        count = -(-(size + 2 * padding[axis] - reach) // stride[axis]) + 1
        if (count - 1) * stride[axis] >= size + padding[axis]:
            count -= 1
        pads.append(max(padding[axis], (count - 1) * stride[axis] + reach - size - padding[axis]))
    return pads


# -- max -------------------------------------------------------------------------------------------------------------


def _max_pool(
    op: Emitter,
    x: ir.Value,
    axes: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    *,
    with_indices: bool = False,
) -> list[ir.Value | None]:
    kernel = per_axis(kernel_size, axes)
    strides = per_axis(stride, axes) if stride else kernel
    begin = per_axis(padding, axes)
    dilations = per_axis(dilation, axes)
    end = begin
    if ceil_mode:
        computed = _end_pads(op, x, kernel, strides, begin, dilations)
        # with dilation they can be as wide as the kernel, which ONNX Runtime does not take
        if computed is not None and all(pad < size for pad, size in zip(computed, kernel, strict=True)):
            end, ceil_mode = computed, False
    x, unbatched = _with_batch(op, x, axes)
    results = op.MaxPool(
        x,
        kernel_shape=kernel,
        strides=strides,
        pads=[*begin, *end],
        dilations=dilations,
        ceil_mode=int(ceil_mode),
        _outputs=2 if with_indices else 1,
    )
    if not with_indices:
        return [op.squeeze(results, [0]) if unbatched else results, None]
    values, indices = results
    # ONNX counts through batch and channels as well, torch within one plane
    indices = op.Mod(indices, _plane_size(op, x, axes))
    return [op.squeeze(value, [0]) if unbatched else value for value in (values, indices)]


def _plane_size(op: Emitter, x: ir.Value, axes: int) -> ir.Value | int:
    """How many elements one channel of one image has."""
    plane = op.vector([op.size(x, axis) for axis in range(2, axes + 2)])
    if isinstance(plane, list):
        return int(np.prod(plane))
    size: ir.Value = op.ReduceProd(plane, keepdims=0)
    return size


@lowers("aten.max_pool1d.default")
def max_pool1d(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> ir.Value | None:
    """MaxPool."""
    return _max_pool(op, x, 1, kernel_size, stride, padding, dilation, ceil_mode)[0]


@lowers("aten.max_pool2d.default")
def max_pool2d(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> ir.Value | None:
    """MaxPool."""
    return _max_pool(op, x, 2, kernel_size, stride, padding, dilation, ceil_mode)[0]


@lowers("aten.max_pool3d.default")
def max_pool3d(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> ir.Value | None:
    """MaxPool."""
    return _max_pool(op, x, 3, kernel_size, stride, padding, dilation, ceil_mode)[0]


def _max_pool_with_indices(
    op: Emitter,
    x: ir.Value,
    axes: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> list[ir.Value | None]:
    wanted = op.wants(1)
    return _max_pool(op, x, axes, kernel_size, stride, padding, dilation, ceil_mode, with_indices=wanted)


@lowers("aten.max_pool1d_with_indices.default")
def max_pool1d_with_indices(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> list[ir.Value | None]:
    """MaxPool and, where used, the positions of the maxima."""
    return _max_pool_with_indices(op, x, 1, kernel_size, stride, padding, dilation, ceil_mode)


@lowers("aten.max_pool2d_with_indices.default")
def max_pool2d_with_indices(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> list[ir.Value | None]:
    """MaxPool and, where used, the positions of the maxima."""
    return _max_pool_with_indices(op, x, 2, kernel_size, stride, padding, dilation, ceil_mode)


@lowers("aten.max_pool3d_with_indices.default")
def max_pool3d_with_indices(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> list[ir.Value | None]:
    """MaxPool and, where used, the positions of the maxima."""
    return _max_pool_with_indices(op, x, 3, kernel_size, stride, padding, dilation, ceil_mode)


# -- average ---------------------------------------------------------------------------------------------------------


def _avg_pool(
    op: Emitter,
    x: ir.Value,
    axes: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> ir.Value:
    kernel = per_axis(kernel_size, axes)
    strides = per_axis(stride, axes) if stride else kernel
    begin = per_axis(padding, axes)
    end = begin
    x, unbatched = _with_batch(op, x, axes)
    padded = any(begin)
    if x.dtype is not None and x.dtype.is_integer():
        if ceil_mode and padded and count_include_pad and divisor_override is None:
            raise op.fail(
                "an average of integers whose size is rounded up and whose padding counts cannot be expressed",
                "convert the input to float32 first, or pool with ceil_mode=False",
            )
        average = _integer_average(op, x, kernel, strides, begin, ceil_mode, count_include_pad, divisor_override)
        return op.squeeze(average, [0]) if unbatched else average
    if ceil_mode:
        computed = _end_pads(op, x, kernel, strides, begin, [1] * axes)
        if computed == begin:
            ceil_mode = False
        elif divisor_override is not None and computed is None:
            x, ceil_mode = _reaching(op, x, kernel, strides, begin), False
            begin = end = [0] * axes
        elif computed is not None and (divisor_override is not None or not (padded and count_include_pad)):
            # elements beyond the padding never count, so that they may be padding that is not counted
            end, ceil_mode = computed, False
            count_include_pad = False
    scale = 1.0
    if divisor_override is not None:
        scale = float(np.prod(kernel)) / divisor_override
        count_include_pad = True
    result: ir.Value = op.AveragePool(
        x,
        kernel_shape=kernel,
        strides=strides,
        pads=[*begin, *end],
        ceil_mode=int(ceil_mode),
        count_include_pad=int(count_include_pad and (any(begin) or any(end))),
    )
    if scale != 1.0:
        result = op.Mul(result, scale)
    return op.squeeze(result, [0]) if unbatched else result


def _reaching(op: Emitter, x: ir.Value, kernel: list[int], stride: list[int], padding: list[int]) -> ir.Value:
    """``x`` with zeros before it, and after it as many as the windows of a size that is rounded up need."""
    ends = []
    for axis, reach in enumerate(kernel):
        size = op.scalar(op.size(x, 2 + axis), _INT64)
        beyond = min(2 * padding[axis] - reach + stride[axis], padding[axis])  # as frontend/pool_shapes.py counts
        count = op.Div(op.Add(size, beyond + stride[axis] - 1), stride[axis])
        used = op.Add(op.Mul(op.Sub(count, 1), stride[axis]), reach)
        ends.append(op.Unsqueeze(op.Sub(op.Sub(used, size), padding[axis]), [0]))
    pads = op.Concat(op.constant([0, 0, *padding, 0, 0]), *ends, axis=0)
    padded: ir.Value = op.Pad(x, pads)
    return padded


def _integer_average(
    op: Emitter,
    x: ir.Value,
    kernel: list[int],
    strides: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> ir.Value:
    """Sums divided as C divides integers: the fraction is cut off."""
    axes, dtype = len(kernel), x.dtype
    assert dtype is not None

    def sums(values: ir.Value) -> ir.Value:
        total = _avg_pool(op, values, axes, kernel, strides, padding, ceil_mode, True, 1)
        return op.cast(op.Round(total), dtype)

    total = sums(op.cast(x, ir.DataType.DOUBLE))
    count: ir.Value
    if divisor_override is not None or (count_include_pad and not ceil_mode) or not (any(padding) or ceil_mode):
        count = op.constant(divisor_override or int(np.prod(kernel)), dtype)
    else:
        image = op.vector([1, 1, *op.dims(x)[2:]])
        count = sums(op.Expand(op.constant(1.0, ir.DataType.DOUBLE), image))
    average: ir.Value = op.Div(total, count)
    return average


@lowers("aten.avg_pool1d.default")
def avg_pool1d(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> ir.Value:
    """AveragePool."""
    return _avg_pool(op, x, 1, kernel_size, stride, padding, ceil_mode, count_include_pad)


@lowers("aten.avg_pool2d.default")
def avg_pool2d(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> ir.Value:
    """AveragePool."""
    return _avg_pool(op, x, 2, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@lowers("aten.avg_pool3d.default")
def avg_pool3d(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> ir.Value:
    """AveragePool."""
    return _avg_pool(op, x, 3, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


# -- adaptive --------------------------------------------------------------------------------------------------------


def _same(first: Dim, second: Dim) -> bool:
    if isinstance(first, int) or isinstance(second, int):
        return first == second
    return first.label == second.label


def _equal_windows(op: Emitter, x: ir.Value, sizes: Sequence[Dim]) -> list[int] | None:
    """The kernel, when every axis falls into equal windows side by side."""
    kernel = []
    for axis, wanted in enumerate(sizes):
        have = op.size(x, axis - len(sizes))
        if _same(have, wanted):
            kernel.append(1)
        elif isinstance(have, int) and isinstance(wanted, int) and wanted > 0 and have % wanted == 0:
            kernel.append(have // wanted)
        else:
            return None
    return kernel


def _bounds(op: Emitter, have: Dim, wanted: Dim) -> tuple[ir.Value, ir.Value]:
    """First and one-past-last position of every window: floor(i * have / wanted), ceil((i + 1) * have / wanted)."""
    if isinstance(have, int) and isinstance(wanted, int):
        steps = np.arange(wanted, dtype=np.int64)
        return op.constant(steps * have // wanted), op.constant(-(-(steps + 1) * have // wanted))
    size, count = op.scalar(have, _INT64), op.scalar(wanted, _INT64)
    edges = op.Mul(op.Range(0, count, 1), size)
    return op.Div(edges, count), op.Div(op.Add(op.Add(edges, size), op.Sub(count, 1)), count)


def _averaging_matrix(op: Emitter, have: Dim, wanted: Dim, dtype: ir.DataType, *, transposed: bool) -> ir.Value:
    """[wanted, have] (or its transpose): row i holds 1 / length on the positions of window i."""
    if isinstance(have, int) and isinstance(wanted, int):
        matrix = np.zeros((wanted, have))
        for row in range(wanted):
            start, end = row * have // wanted, -(-(row + 1) * have // wanted)
            matrix[row, start:end] = 1.0 / (end - start)
        return op.constant((matrix.T if transposed else matrix).astype(dtype.numpy()))
    low, high = _bounds(op, have, wanted)
    positions = op.Range(0, op.scalar(have, _INT64), 1)
    if transposed:
        positions = op.Unsqueeze(positions, [1])
    else:
        low, high = op.Unsqueeze(low, [1]), op.Unsqueeze(high, [1])
    inside = op.And(op.GreaterOrEqual(positions, low), op.Less(positions, high))
    weights = op.Div(op.constant(1.0, dtype), op.cast(op.Sub(high, low), dtype))
    matrix_value: ir.Value = op.Where(inside, weights, op.constant(0.0, dtype))
    return matrix_value


def _adaptive_avg_pool(op: Emitter, x: ir.Value, sizes: Sequence[Dim]) -> ir.Value:
    empty = empty_result(op)
    if empty is not None:
        return empty
    if x.dtype == ir.DataType.BFLOAT16:
        x = op.cast(x, _FLOAT)  # so that the averaging matrices are exact enough
    axes = len(sizes)
    if all(size == 1 for size in sizes):
        if op.rank(x) == axes + 2:
            pooled: ir.Value = op.GlobalAveragePool(x)
            return pooled
        pooled = op.ReduceMean(x, list(range(-axes, 0)), keepdims=1)
        return pooled
    kernel = _equal_windows(op, x, sizes)
    if kernel is not None:
        if all(size == 1 for size in kernel):
            return x
        x, unbatched = _with_batch(op, x, axes)
        pooled = op.AveragePool(x, kernel_shape=kernel, strides=kernel)
        return op.squeeze(pooled, [0]) if unbatched else pooled
    # Windows of unequal length, or sizes known at run time only: one product with an averaging matrix for each axis.
    rank = op.rank(x)
    dtype = _FLOAT if x.dtype is None else x.dtype
    result = x
    for axis, wanted in enumerate(sizes):
        have = op.size(x, axis - axes)
        position = rank - axes + axis
        if _same(have, wanted):
            continue
        if wanted == 1:
            result = op.ReduceMean(result, [position], keepdims=1)
            continue
        matrix = _averaging_matrix(op, have, wanted, dtype, transposed=position == rank - 1)
        if position == rank - 1:
            result = op.MatMul(result, matrix)
        elif position == rank - 2:
            result = op.MatMul(matrix, result)
        else:
            swap = list(range(rank))
            swap[position], swap[rank - 2] = swap[rank - 2], swap[position]
            result = op.transpose(op.MatMul(matrix, op.transpose(result, swap)), swap)
    return result


@lowers("aten.adaptive_avg_pool1d.default")
def adaptive_avg_pool1d(op: Emitter, x: ir.Value, output_size: Sequence[Dim]) -> ir.Value:
    """GlobalAveragePool, AveragePool, or products with averaging matrices."""
    return _adaptive_avg_pool(op, x, list(output_size))


@lowers("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(op: Emitter, x: ir.Value, output_size: Sequence[Dim]) -> ir.Value:
    """GlobalAveragePool, AveragePool, or products with averaging matrices."""
    return _adaptive_avg_pool(op, x, [output_size[0], output_size[-1]])


@lowers("aten.adaptive_avg_pool3d.default", "aten._adaptive_avg_pool3d.default")
def adaptive_avg_pool3d(op: Emitter, x: ir.Value, output_size: Sequence[Dim]) -> ir.Value:
    """GlobalAveragePool, AveragePool, or products with averaging matrices."""
    return _adaptive_avg_pool(op, x, list(output_size) if len(output_size) == 3 else [output_size[0]] * 3)


def _window_positions(op: Emitter, have: Dim, wanted: Dim) -> ir.Value:
    """[wanted, longest]: positions in each window; a shorter one repeats its last, which no maximum minds."""
    if isinstance(have, int) and isinstance(wanted, int):
        low = np.arange(wanted, dtype=np.int64) * have // wanted
        high = -(-(np.arange(wanted, dtype=np.int64) + 1) * have // wanted)
        longest = int((high - low).max()) if wanted else 0
        return op.constant(np.minimum(low[:, None] + np.arange(longest), high[:, None] - 1))
    first, last = _bounds(op, have, wanted)
    length = op.ReduceMax(op.Sub(last, first), keepdims=0)
    first, last = op.Unsqueeze(first, [1]), op.Unsqueeze(last, [1])
    positions: ir.Value = op.Min(op.Add(first, op.Range(0, length, 1)), op.Sub(last, 1))
    return positions


def _adaptive_max_pool(op: Emitter, x: ir.Value, sizes: Sequence[Dim]) -> list[ir.Value | None]:
    axes = len(sizes)
    wants_indices = op.wants(1)
    if all(size == 1 for size in sizes):
        return _global_max_pool(op, x, axes, with_indices=wants_indices)
    kernel = _equal_windows(op, x, sizes)
    if kernel is not None:
        return _max_pool(op, x, axes, kernel, kernel, [0], [1], False, with_indices=wants_indices)
    rank = op.rank(x)
    if not wants_indices:
        result = x
        for axis, wanted in enumerate(sizes):
            have = op.size(x, axis - axes)
            position = rank - axes + axis
            if _same(have, wanted):
                continue
            if wanted == 1:
                result = op.ReduceMax(result, [position], keepdims=1)
                continue
            gathered = op.Gather(result, _window_positions(op, have, wanted), axis=position)
            result = op.ReduceMax(gathered, [position + 1], keepdims=0)
        return [result, None]
    # [..., H, W] -> [..., oh, lh, ow, lw] -> [..., oh, ow, lh * lw], and the same for each element's own flat position
    tables = [_window_positions(op, op.size(x, axis - axes), wanted) for axis, wanted in enumerate(sizes)]
    lead = rank - axes
    windows, flat = x, None
    for axis, table in enumerate(tables):
        windows = op.Gather(windows, table, axis=lead + 2 * axis)
        shape = [1] * (2 * axes)
        shape[2 * axis], shape[2 * axis + 1] = -1, 0
        own = op.Unsqueeze(table, [d for d in range(2 * axes) if d not in (2 * axis, 2 * axis + 1)])
        flat = own if flat is None else op.Add(op.Mul(flat, op.scalar(op.size(x, axis - axes), _INT64)), own)
    assert flat is not None
    order = [*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)]
    windows = op.transpose(windows, [*range(lead), *[lead + axis for axis in order]])
    windows = op.Reshape(windows, [*[0] * rank, -1])
    flat = op.Reshape(op.transpose(flat, order), [*[0] * axes, -1])
    values = op.ReduceMax(windows, [rank], keepdims=0)
    best = op.ArgMax(windows, axis=rank, keepdims=1)
    flat = op.Expand(flat, op.Shape(windows))
    return [values, op.Squeeze(op.GatherElements(flat, best, axis=rank), [rank])]


def _global_max_pool(op: Emitter, x: ir.Value, axes: int, *, with_indices: bool) -> list[ir.Value | None]:
    if not with_indices:
        whole = op.rank(x) == axes + 2 and x.dtype in (_FLOAT, ir.DataType.FLOAT16)
        return [op.GlobalMaxPool(x) if whole else op.ReduceMax(x, list(range(-axes, 0)), keepdims=1), None]
    lead = op.rank(x) - axes
    flat = op.Reshape(x, [*[0] * lead, -1])
    ones = list(range(lead, lead + axes))
    values = op.Unsqueeze(op.ReduceMax(flat, [lead], keepdims=0), ones)
    return [values, op.Unsqueeze(op.ArgMax(flat, axis=lead, keepdims=0), ones)]


@lowers("aten.adaptive_max_pool1d.default")
def adaptive_max_pool1d(op: Emitter, x: ir.Value, output_size: Sequence[Dim]) -> list[ir.Value | None]:
    """MaxPool, or a gather of every window and its maximum."""
    return _adaptive_max_pool(op, x, list(output_size))


@lowers("aten.adaptive_max_pool2d.default")
def adaptive_max_pool2d(op: Emitter, x: ir.Value, output_size: Sequence[Dim]) -> list[ir.Value | None]:
    """MaxPool, or a gather of every window and its maximum."""
    return _adaptive_max_pool(op, x, [output_size[0], output_size[-1]])


@lowers("aten.adaptive_max_pool3d.default")
def adaptive_max_pool3d(op: Emitter, x: ir.Value, output_size: Sequence[Dim]) -> list[ir.Value | None]:
    """MaxPool, or a gather of every window and its maximum."""
    return _adaptive_max_pool(op, x, list(output_size) if len(output_size) == 3 else [output_size[0]] * 3)


# -- unpooling -------------------------------------------------------------------------------------------------------


def _max_unpool(op: Emitter, x: ir.Value, indices: ir.Value, sizes: Sequence[Dim]) -> ir.Value:
    axes = len(sizes)
    lead = op.rank(x) - axes
    flat = [*[0] * lead, -1]
    if all(isinstance(size, int) for size in sizes):
        count: int | ir.Value = int(np.prod([size for size in sizes if isinstance(size, int)]))
    else:
        vector = op.vector(list(sizes))
        assert isinstance(vector, ir.Value)
        product: ir.Value = op.ReduceProd(vector, keepdims=1)
        count = product
    outer = [op.size(x, axis) for axis in range(lead)]
    empty = op.Expand(op.constant(0, x.dtype), op.vector([*outer, count]))
    filled = op.ScatterElements(empty, op.Reshape(indices, flat), op.Reshape(x, flat), axis=lead)
    return op.reshape(filled, [*outer, *sizes], op.result_dims())


@lowers("aten.max_unpool2d.default")
def max_unpool2d(op: Emitter, x: ir.Value, indices: ir.Value, output_size: Sequence[Dim]) -> ir.Value:
    """Zeros with the values scattered to where their maxima were."""
    return _max_unpool(op, x, indices, output_size)


@lowers("aten.max_unpool3d.default")
def max_unpool3d(
    op: Emitter,
    x: ir.Value,
    indices: ir.Value,
    output_size: Sequence[Dim],
    stride: Sequence[int],
    padding: Sequence[int],
) -> ir.Value:
    """Zeros with the values scattered to where their maxima were."""
    return _max_unpool(op, x, indices, output_size)
