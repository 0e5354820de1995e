"""Normalisation: batch, layer, group, instance, RMS, and the native forms that they decompose to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from graphforge.frontend.aten._windows import empty_result
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_FLOAT = ir.DataType.FLOAT
_DOUBLE = ir.DataType.DOUBLE


def _filled(op: Emitter, value: float, sizes: Sequence[Dim], dtype: ir.DataType | None) -> ir.Value:
    """A tensor of one repeated number."""
    if all(isinstance(size, int) for size in sizes):
        return op.constant(np.full([size for size in sizes if isinstance(size, int)], value), dtype)
    filled: ir.Value = op.Expand(op.constant(value, dtype), op.vector(list(sizes)))
    return filled


def _channels(op: Emitter, x: ir.Value, *parameters: ir.Value | None) -> Dim:
    """How many channels, read off a parameter where the input does not say."""
    for parameter in parameters:
        if parameter is not None:
            return op.size(parameter, 0)
    return op.size(x, 1)


def _along_channels(op: Emitter, parameter: ir.Value, rank: int) -> ir.Value:
    """[C] as [C, 1, 1...], so that it broadcasts along axis 1 of an input of this rank."""
    weight = op.weight(parameter)
    if rank <= 2:
        return parameter
    if weight is not None:
        return op.tensor(weight.reshape([-1] + [1] * (rank - 2)), name=f"{parameter.name}_per_channel")
    return op.unsqueeze(parameter, list(range(1, rank - 1)))


# -- batch -----------------------------------------------------------------------------------------------------------


def _batch_norm_inference(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value | None,
    bias: ir.Value | None,
    mean: ir.Value,
    variance: ir.Value,
    epsilon: float,
) -> ir.Value:
    empty = empty_result(op, 0 if isinstance(op.result, list | tuple) else None)
    if empty is not None:
        return empty
    channels = _channels(op, x, mean)
    dtype = mean.dtype if weight is None or weight.dtype is None else weight.dtype
    scale = _filled(op, 1.0, [channels], dtype) if weight is None else weight
    shift = _filled(op, 0.0, [channels], dtype) if bias is None else op.cast(bias, scale.dtype or _FLOAT)
    single = float(np.float32(epsilon))
    if variance.dtype == _DOUBLE and single != epsilon:  # the attribute is single precision: the variance has the rest
        variance = op.Add(variance, epsilon - single)
    result: ir.Value = op.BatchNormalization(x, scale, shift, mean, variance, epsilon=epsilon)
    return result


def _batch_statistics(op: Emitter, x: ir.Value, dtype: ir.DataType) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The input less its mean, the mean and the variance over all axes but 1, keeping dims."""
    axes = [axis for axis in range(op.rank(x)) if axis != 1]
    wide = op.cast(x, dtype)
    mean = op.ReduceMean(wide, axes, keepdims=1)
    centred = op.Sub(wide, mean)
    variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    return centred, mean, variance


def _batch_norm_training(
    op: Emitter, x: ir.Value, weight: ir.Value | None, bias: ir.Value | None, epsilon: float
) -> list[ir.Value]:
    """Normalisation by the batch's own statistics: result, mean and reciprocal standard deviation."""
    rank = op.rank(x)
    dtype = _DOUBLE if x.dtype == _DOUBLE else _FLOAT
    centred, mean, variance = _batch_statistics(op, x, dtype)
    deviation = op.Sqrt(op.Add(variance, epsilon))
    result = op.Div(centred, deviation)
    if weight is not None:
        result = op.Mul(result, _along_channels(op, op.cast(weight, dtype), rank))
    if bias is not None:
        result = op.Add(result, _along_channels(op, op.cast(bias, dtype), rank))
    saved = []
    for index, statistic in ((1, mean), (2, op.Reciprocal(deviation) if op.wants(2) else deviation)):
        flat = op.Reshape(statistic, [-1]) if op.wants(index) else statistic
        saved.append(flat)
    return [op.cast(result, x.dtype or _FLOAT), *saved]


def _refuse_state(op: Emitter, *running: ir.Value | None) -> None:
    """Raise when the model's own running statistics would have to be updated."""
    if any(value is not None and value.is_initializer() for value in running):
        raise op.fail(
            "the layer is in training mode and would update its running statistics",
            "call model.eval() before compiling",
        )


@lowers("aten.batch_norm.default")
def batch_norm(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value | None,
    bias: ir.Value | None,
    running_mean: ir.Value | None,
    running_var: ir.Value | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> ir.Value:
    """BatchNormalization, kept whole so that a pass can fold it into the layer before it.

    Raises:
        LoweringError: the layer is in training mode.
    """
    if not training and running_mean is not None and running_var is not None:
        return _batch_norm_inference(op, x, weight, bias, running_mean, running_var, eps)
    _refuse_state(op, running_mean, running_var)
    return _batch_norm_training(op, x, weight, bias, eps)[0]


@lowers("aten.cudnn_batch_norm.default")
def cudnn_batch_norm(op: Emitter, x: ir.Value, *arguments: Any) -> tuple[ir.Value, None, None, None]:
    """Batch norm as captured on a GPU; its further results serve its gradient."""
    return batch_norm(op, x, *arguments), None, None, None


@lowers("aten._native_batch_norm_legit_no_training.default")
def native_batch_norm_no_training(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value | None,
    bias: ir.Value | None,
    running_mean: ir.Value,
    running_var: ir.Value,
    momentum: float,
    eps: float,
) -> list[ir.Value]:
    """BatchNormalization; the saved statistics are empty in inference."""
    return _with_empty_statistics(op, _batch_norm_inference(op, x, weight, bias, running_mean, running_var, eps))


def _with_empty_statistics(op: Emitter, result: ir.Value) -> list[ir.Value]:
    statistics = [op.constant(np.zeros(0), op.dtype_of(op.result[index])) for index in range(1, len(op.result))]
    return [result, *statistics]


@lowers(
    "aten.native_batch_norm.default",
    "aten._native_batch_norm_legit.default",
    "aten._native_batch_norm_legit_functional.default",
)
def native_batch_norm(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value | None,
    bias: ir.Value | None,
    running_mean: ir.Value | None,
    running_var: ir.Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> list[ir.Value]:
    """BatchNormalization in inference, the batch's own statistics in training.

    Raises:
        LoweringError: the layer is in training mode.
    """
    if not training and running_mean is not None and running_var is not None:
        return _with_empty_statistics(op, _batch_norm_inference(op, x, weight, bias, running_mean, running_var, eps))
    _refuse_state(op, running_mean, running_var)
    return _batch_norm_training(op, x, weight, bias, eps)


@lowers("aten._native_batch_norm_legit.no_stats")
def native_batch_norm_no_stats(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value | None,
    bias: ir.Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> list[ir.Value]:
    """Normalisation by the batch's own statistics."""
    return _batch_norm_training(op, x, weight, bias, eps)


@lowers("aten._batch_norm_no_update.default")
def batch_norm_no_update(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value | None,
    bias: ir.Value | None,
    running_mean: ir.Value,
    running_var: ir.Value,
    momentum: float,
    eps: float,
) -> list[ir.Value]:
    """BatchNormalization."""
    return _with_empty_statistics(op, _batch_norm_inference(op, x, weight, bias, running_mean, running_var, eps))


# -- layer, RMS ------------------------------------------------------------------------------------------------------


def layer_normalized(
    op: Emitter,
    x: ir.Value,
    normalized_shape: Sequence[Dim],
    weight: ir.Value | None,
    bias: ir.Value | None,
    epsilon: float,
    outputs: int = 1,
) -> ir.Value | tuple[ir.Value, ...]:
    """LayerNormalization over the last axes, one output or all three of it; written out for doubles."""
    dtype = x.dtype
    if dtype is None:
        raise op.fail("the dtype of an operand is unknown")
    if dtype == _DOUBLE:
        written_out = _layer_norm_by_hand(op, x, len(normalized_shape), weight, bias, epsilon)
        return written_out if outputs > 1 else written_out[0]
    scale = _filled(op, 1.0, normalized_shape, dtype) if weight is None else op.cast(weight, dtype)
    shift = None if bias is None else op.cast(bias, dtype)
    normalised: ir.Value | tuple[ir.Value, ...] = op.LayerNormalization(
        x, scale, shift, axis=-len(normalized_shape), epsilon=epsilon, _outputs=outputs
    )
    return normalised


def _layer_norm_by_hand(
    op: Emitter, x: ir.Value, axes: int, weight: ir.Value | None, bias: ir.Value | None, epsilon: float
) -> tuple[ir.Value, ...]:
    """For doubles: LayerNormalization's epsilon and the type of its statistics are single precision."""
    last = list(range(-axes, 0))
    mean = op.ReduceMean(x, last, keepdims=1)
    centred = op.Sub(x, mean)
    deviation = op.Sqrt(op.Add(op.ReduceMean(op.Mul(centred, centred), last, keepdims=1), epsilon))
    return _scaled_and_shifted(op, op.Div(centred, deviation), weight, bias), mean, op.Reciprocal(deviation)


def _scaled_and_shifted(op: Emitter, x: ir.Value, weight: ir.Value | None, bias: ir.Value | None) -> ir.Value:
    scaled = x if weight is None else op.Mul(x, op.cast(weight, _DOUBLE))
    return scaled if bias is None else op.Add(scaled, op.cast(bias, _DOUBLE))


@lowers("aten.layer_norm.default")
def layer_norm(
    op: Emitter,
    x: ir.Value,
    normalized_shape: Sequence[Dim],
    weight: ir.Value | None = None,
    bias: ir.Value | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> ir.Value | tuple[ir.Value, ...]:
    """LayerNormalization."""
    return layer_normalized(op, x, normalized_shape, weight, bias, eps)


@lowers("aten.native_layer_norm.default")
def native_layer_norm(
    op: Emitter,
    x: ir.Value,
    normalized_shape: Sequence[Dim],
    weight: ir.Value | None,
    bias: ir.Value | None,
    eps: float,
) -> list[ir.Value | None]:
    """LayerNormalization, with mean and reciprocal standard deviation where used."""
    if not op.wants(1) and not op.wants(2):
        result = layer_normalized(op, x, normalized_shape, weight, bias, eps)
        assert isinstance(result, ir.Value)
        return [result, None, None]
    results = layer_normalized(op, x, normalized_shape, weight, bias, eps, outputs=3)
    assert isinstance(results, tuple)
    return list(results)


@lowers("aten.rms_norm.default")
def rms_norm(
    op: Emitter,
    x: ir.Value,
    normalized_shape: Sequence[Dim],
    weight: ir.Value | None = None,
    eps: float | None = None,
) -> ir.Value:
    """RMSNormalization."""
    return _rms_norm(op, x, normalized_shape, weight, eps)


def _epsilon(op: Emitter, eps: float | None) -> float:
    """torch's own where none is given: the last place of the type it computes in, which is float32 for halves."""
    if eps is not None:
        return eps
    given = op.inputs[0].dtype
    return float(torch.finfo(torch.float32 if given.itemsize < 4 else given).eps)


def _rms_norm(
    op: Emitter, x: ir.Value, normalized_shape: Sequence[Dim], weight: ir.Value | None, eps: float | None
) -> ir.Value:
    epsilon = _epsilon(op, eps)
    dtype = x.dtype
    if dtype is None:
        raise op.fail("the dtype of an operand is unknown")
    if dtype == _DOUBLE:  # RMSNormalization's epsilon is single precision
        last = list(range(-len(normalized_shape), 0))
        root = op.Sqrt(op.Add(op.ReduceMean(op.Mul(x, x), last, keepdims=1), epsilon))
        return _scaled_and_shifted(op, op.Div(x, root), weight, None)
    scale = _filled(op, 1.0, normalized_shape, dtype) if weight is None else op.cast(weight, dtype)
    result: ir.Value = op.RMSNormalization(x, scale, axis=-len(normalized_shape), epsilon=epsilon)
    return result


@lowers("aten._fused_rms_norm.default")
def fused_rms_norm(
    op: Emitter,
    x: ir.Value,
    normalized_shape: Sequence[Dim],
    weight: ir.Value | None,
    eps: float | None,
) -> list[ir.Value | None]:
    """RMSNormalization, with the reciprocal root mean square where used."""
    result = _rms_norm(op, x, normalized_shape, weight, eps)
    if not op.wants(1):
        return [result, None]
    dtype = _DOUBLE if x.dtype == _DOUBLE else _FLOAT
    wide = op.cast(x, dtype)
    epsilon = _epsilon(op, eps)
    axes = list(range(-len(normalized_shape), 0))
    mean = op.ReduceMean(op.Mul(wide, wide), axes, keepdims=1)
    return [result, op.Reciprocal(op.Sqrt(op.Add(mean, epsilon)))]


# -- group, instance -------------------------------------------------------------------------------------------------


def _per_channel_parameter(
    op: Emitter, x: ir.Value, parameter: ir.Value | None, default: float, dtype: ir.DataType
) -> ir.Value:
    if parameter is not None:
        return op.cast(parameter, dtype)
    return _filled(op, default, [op.size(x, 1)], dtype)


@lowers("aten.group_norm.default")
def group_norm(
    op: Emitter,
    x: ir.Value,
    num_groups: int,
    weight: ir.Value | None = None,
    bias: ir.Value | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> ir.Value:
    """GroupNormalization."""
    return _group_norm(op, x, num_groups, weight, bias, eps)


def _group_norm(
    op: Emitter, x: ir.Value, groups: int, weight: ir.Value | None, bias: ir.Value | None, eps: float
) -> ir.Value:
    if 0 in x.shape.dims if x.shape is not None else False:
        return x
    dtype = x.dtype or _FLOAT
    scale = _per_channel_parameter(op, x, weight, 1.0, dtype)
    shift = _per_channel_parameter(op, x, bias, 0.0, dtype)
    if dtype == _DOUBLE:  # the attribute is single precision, and so are the kernels
        return _group_norm_by_hand(op, x, groups, scale, shift, eps)
    # [N, C] alone: one position in each channel
    flat = op.rank(x) == 2
    wide = op.unsqueeze(x, [2]) if flat else x
    result = op.GroupNormalization(wide, scale, shift, num_groups=groups, epsilon=eps)
    return op.squeeze(result, [2]) if flat else result


def _grouped(op: Emitter, x: ir.Value, groups: int) -> ir.Value:
    """[N, C, ...] as [N, groups, -1]; by known sizes where N alone is open, which may be 0."""
    dims = op.dims(x)[1:]
    known = [size for size in dims if isinstance(size, int)]
    grouped: ir.Value = (
        op.Reshape(x, [-1, groups, math.prod(known) // groups])
        if len(known) == len(dims)
        else op.Reshape(x, [0, groups, -1])
    )
    return grouped


def _group_norm_by_hand(
    op: Emitter, x: ir.Value, groups: int, weight: ir.Value, bias: ir.Value, eps: float
) -> ir.Value:
    grouped = _grouped(op, x, groups)
    centred = op.Sub(grouped, op.ReduceMean(grouped, [2], keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), [2], keepdims=1)
    normalised = op.Reshape(op.Div(centred, op.Sqrt(op.Add(variance, eps))), op.Shape(x))
    scale, shift = (_along_channels(op, one, op.rank(x)) for one in (weight, bias))
    return _scaled_and_shifted(op, normalised, scale, shift)


@lowers("aten.native_group_norm.default")
def native_group_norm(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value | None,
    bias: ir.Value | None,
    batch: Dim,
    channels: Dim,
    plane: Dim,
    groups: int,
    eps: float,
) -> list[ir.Value | None]:
    """GroupNormalization, with mean and reciprocal standard deviation of each group where used."""
    result = _group_norm(op, x, groups, weight, bias, eps)
    if not op.wants(1) and not op.wants(2):
        return [result, None, None]
    nothing = [empty_result(op, index) for index in (1, 2)]
    if nothing[0] is not None:
        return [result, *nothing]
    dtype = _DOUBLE if x.dtype == _DOUBLE else _FLOAT
    grouped = _grouped(op, op.cast(x, dtype), groups)
    mean = op.ReduceMean(grouped, [2], keepdims=1)
    centred = op.Sub(grouped, mean)
    variance = op.ReduceMean(op.Mul(centred, centred), [2], keepdims=0)
    return [result, op.Squeeze(mean, [2]), op.Reciprocal(op.Sqrt(op.Add(variance, eps)))]


@lowers("aten.instance_norm.default")
def instance_norm(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value | None,
    bias: ir.Value | None,
    running_mean: ir.Value | None,
    running_var: ir.Value | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> ir.Value:
    """InstanceNormalization, or BatchNormalization when it goes by running statistics.

    By the input's own statistics it also updates running ones that it is given, in eval mode too: `functional` does so
    unless told otherwise.  Nothing that it returns hangs on them.
    """
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise op.fail("neither input statistics nor running statistics to normalise by")
        return _batch_norm_inference(op, x, weight, bias, running_mean, running_var, eps)
    if any(value is not None and value.is_initializer() for value in (running_mean, running_var)):
        op.notes.add("running statistics that instance_norm updates in PyTorch stay as they are: it normalises without")
    channels = op.size(x, 1)
    if not isinstance(channels, int):
        channels = _channels(op, x, weight, bias)
    if x.dtype == _DOUBLE:
        return _instance_norm_by_hand(op, x, weight, bias, eps)
    dtype = x.dtype or _FLOAT
    scale = _filled(op, 1.0, [channels], dtype) if weight is None else op.cast(weight, dtype)
    shift = _filled(op, 0.0, [channels], dtype) if bias is None else op.cast(bias, dtype)
    result: ir.Value = op.InstanceNormalization(x, scale, shift, epsilon=eps)
    return result


def _instance_norm_by_hand(
    op: Emitter, x: ir.Value, weight: ir.Value | None, bias: ir.Value | None, eps: float
) -> ir.Value:
    """For doubles: the epsilon of InstanceNormalization is an attribute, and single precision."""
    rank = op.rank(x)
    axes = list(range(2, rank))
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    normalised = op.Div(centred, op.Sqrt(op.Add(variance, eps)))
    scale, shift = (None if one is None else _along_channels(op, one, rank) for one in (weight, bias))
    return _scaled_and_shifted(op, normalised, scale, shift)
