"""In which element types a network does its matrix work: the multiplications of convolutions, products, attention.

Read from the network that the parser made, which is strongly typed: what a layer reads is what it computes in.  A plan
can be asked only where a GPU loads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MatrixWork", "matrix_work"]

# Layers that move values and compute nothing: what stands before them decides.
_MOVES = ("SHUFFLE", "IDENTITY", "SLICE", "CONCATENATION")


@dataclass(frozen=True, slots=True)
class MatrixWork:
    """Multiplications of a network, dynamic dims counted as 1.

    Attributes:
        layers: element type -> how many layers compute in it.
        multiplications: element type -> how many they are.
    """

    layers: Mapping[str, int]
    multiplications: Mapping[str, int]

    def shares(self) -> dict[str, float]:
        """Element type -> its share of all multiplications, largest first."""
        whole = sum(self.multiplications.values())
        ordered = sorted(self.multiplications.items(), key=lambda item: -item[1])
        return {dtype: count / whole for dtype, count in ordered} if whole else {}

    def __str__(self) -> str:
        return ", ".join(
            f"{share:.1%} in {dtype} ({self.layers[dtype]} {'layer' if self.layers[dtype] == 1 else 'layers'})"
            for dtype, share in self.shares().items()
        )


def matrix_work(trt: Any, network: Any) -> MatrixWork:
    """What a parsed network computes its convolutions, products and attention in."""
    made: dict[str, Any] = {}
    for position in range(network.num_layers):
        layer = network.get_layer(position)
        for index in range(layer.num_outputs):
            tensor = layer.get_output(index)
            if tensor is not None:
                made[tensor.name] = layer
    layers: dict[str, int] = {}
    counts: dict[str, int] = {}
    for position in range(network.num_layers):
        for dtype, count in _of_layer(trt, network.get_layer(position), made):
            layers[dtype] = layers.get(dtype, 0) + 1
            counts[dtype] = counts.get(dtype, 0) + count
    return MatrixWork(layers, counts)


def _of_layer(trt: Any, layer: Any, made: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    kind = str(layer.type).rpartition(".")[2]
    if kind in ("CONVOLUTION", "DECONVOLUTION"):
        first, result = layer.get_input(0), layer.get_output(0)
        layer.__class__ = trt.IConvolutionLayer if kind == "CONVOLUTION" else trt.IDeconvolutionLayer
        window = _volume(layer.kernel_size_nd)
        # each place that is written reads the channels of its group; in a transposed convolution each that is read
        places = _volume(result.shape) if kind == "CONVOLUTION" else _volume(first.shape)
        channels = first.shape[1] if kind == "CONVOLUTION" else result.shape[1]
        yield _computed_in(first, made), places * window * max(abs(channels) // layer.num_groups, 1)
    elif kind == "MATRIX_MULTIPLY":
        first, result = layer.get_input(0), layer.get_output(0)
        layer.__class__ = trt.IMatrixMultiplyLayer
        common = {trt.MatrixOperation.NONE: -1, trt.MatrixOperation.TRANSPOSE: -2, trt.MatrixOperation.VECTOR: -1}
        length = abs(first.shape[common[layer.op0]])
        yield _computed_in(first, made), _volume(result.shape) * length
    elif kind == "EINSUM":
        layer.__class__ = trt.IEinsumLayer
        sizes: dict[str, int] = {}
        for index, letters in enumerate(layer.equation.partition("->")[0].replace(" ", "").split(",")):
            sizes.update(zip(letters, layer.get_input(index).shape, strict=False))
        yield _computed_in(layer.get_input(0), made), _volume(sizes.values())
    elif kind == "ATTENTION_INPUT":
        query, key, value = (layer.get_input(index) for index in range(3))
        places = _volume(query.shape[:-1]) * abs(key.shape[-2])
        yield _computed_in(query, made), places * (abs(query.shape[-1]) + abs(value.shape[-1]))


def _computed_in(tensor: Any, made: Mapping[str, Any]) -> str:
    """The element type that a layer reads; what a DequantizeLinear has made is computed in what that reads."""
    layer = made.get(tensor.name)
    for _ in range(len(made)):
        if layer is None or str(layer.type).rpartition(".")[2] not in _MOVES:
            break
        layer = made.get(layer.get_input(0).name)
    if layer is not None and str(layer.type).endswith(".DEQUANTIZE"):
        return str(layer.get_input(0).dtype).rpartition(".")[2]
    return str(tensor.dtype).rpartition(".")[2]


def _volume(dims: Any) -> int:
    return math.prod(abs(int(size)) for size in dims)
