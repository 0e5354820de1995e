"""What opset 17 brought, said in opset 16."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.fourier import dft, stft
from graphforge.passes.opset.step import HALF_FLOATS, Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _layer_normalization(step: Step) -> Values:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias; half floats in float inside."""
    op, kind = step.op, step.dtype()
    x = step.need(0)
    rank = step.rank(0)
    axes = list(range(step.int_of("axis", -1) % rank, rank))
    inside = kind
    if kind in HALF_FLOATS and step.int_of("stash_type", 1) == ir.DataType.FLOAT.value:
        inside = ir.DataType.FLOAT
        x = op.Cast(x, to=inside.value)
    mean = op.ReduceMean(x, axes=axes, keepdims=1)
    centred = op.Sub(x, mean)
    variance = op.ReduceMean(op.Mul(centred, centred), axes=axes, keepdims=1)
    deviation = op.Sqrt(op.Add(variance, op.constant(step.float_of("epsilon", 1e-5), inside)))
    normal = op.Div(centred, deviation)
    if inside != kind:
        normal = op.Cast(normal, to=kind.value)
    y = op.Mul(normal, step.need(1))
    bias = step.input(2)
    if bias is not None:
        y = op.Add(y, bias)
    values: list[ir.Value | None] = [y]
    if len(step.node.outputs) > 1:
        values.append(mean if step.is_read(1) else None)
    if len(step.node.outputs) > 2:
        values.append(op.Reciprocal(deviation) if step.is_read(2) else None)
    return values


def _mel_weights(step: Step) -> Values | None:
    """A matrix of numbers that are known when the model is compiled."""
    given = [step.constant(position) for position in range(5)]
    if any(item is None for item in given):
        step.fail("its sizes are computed at run time", "make them constants of the model")
    bins, length, rate, low, high = (item.reshape(-1)[0] for item in given if item is not None)
    kind = ir.DataType(step.int_of("output_datatype", 1))
    return [step.op.constant(_mel_matrix(int(bins), int(length), int(rate), float(low), float(high)), kind)]


def _mel_matrix(bins: int, length: int, rate: int, low: float, high: float) -> np.ndarray:
    """Triangles, evenly spaced on the mel scale, over the bins of a spectrum (the definition of MelWeightMatrix)."""
    rows = length // 2 + 1
    edges = np.arange(0, bins + 2, dtype=np.float64)
    low_mel, high_mel = (2595 * np.log10(1 + frequency / 700) for frequency in (low, high))
    mels = edges * ((high_mel - low_mel) / edges.shape[0]) + low_mel
    hertz = 700 * (np.power(10, mels / 2595) - 1)
    positions = ((length + 1) * hertz) // rate
    places = positions.astype(int)
    matrix = np.zeros((rows, bins))
    for band in range(bins):
        left, centre, right = places[band], places[band + 1], places[band + 2]
        if centre == left:
            matrix[centre, band] = 1
        else:
            for row in range(left, centre + 1):
                matrix[row, band] = (row - left) / (centre - left)
        for row in range(centre, right):
            matrix[row, band] = (right - row) / (right - centre)
    return matrix


STEPS_DOWN: Mapping[str, StepDown] = {
    "DFT": dft,
    "LayerNormalization": _layer_normalization,
    "MelWeightMatrix": _mel_weights,
    "STFT": stft,
}
