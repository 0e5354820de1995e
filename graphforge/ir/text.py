"""The text form: stable, readable, without ids, and accepted back by ``from_text``.

It is ONNX's own textual syntax.  Weights above a few elements are not spelled out but named in comment lines, which
``from_text`` reads as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.origin import origins_of

__all__ = ["from_text", "to_text", "weights_left_out"]

_WEIGHT = re.compile(r"^# weight (\S+|\"[^\"]*\") (\w+)\[([\d,]*)\]$", flags=re.MULTILINE)


def to_text(model: ir.Model, *, origins: bool = False, max_elements: int = 16) -> str:
    """The model as text.

    Args:
        model: the model.
        origins: put a comment with the origin in front of each node of the main graph.
        max_elements: larger constants are named with type and shape, their elements left out.
    """
    left_out = {
        name: value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.size > max_elements
    }
    with weights_left_out(left_out.values()):
        proto = ir.to_proto(model)
    constants = {tensor.name for tensor in proto.graph.initializer}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in left_out]
    infos = [info for info in proto.graph.value_info if info.name in left_out or info.name not in constants]
    del proto.graph.initializer[:], proto.graph.value_info[:], proto.metadata_props[:]
    proto.graph.initializer.extend(kept)
    proto.graph.value_info.extend(infos)
    text = str(onnx.printer.to_text(proto))
    weights = [
        f"# weight {_quoted(name)} {value.const_value.dtype.name.lower()}"
        f"[{','.join(str(dim) for dim in value.const_value.shape.numpy())}]\n"
        for name, value in left_out.items()
        if value.const_value is not None
    ]
    lines = [line.rstrip() for line in text.splitlines()]
    if origins:
        lines = _with_origins(lines, model.graph)
    return "".join(weights) + "\n".join(lines) + "\n"


def from_text(
    text: str, *, weights: Mapping[str, np.ndarray] | None = None, random_weights: int | None = None
) -> ir.Model:
    """Read what ``to_text`` wrote, or any text in ONNX's syntax.

    Args:
        text: the text.
        weights: elements of the weights that the text only names.
        random_weights: a seed; weights that are given nowhere are then drawn from it.

    Raises:
        GraphForgeError: the text has another form, or the elements of a weight are given nowhere.
    """
    given = dict(weights or {})
    random = None if random_weights is None else np.random.default_rng(random_weights)
    tensors: list[ir.TensorProtocol] = []
    for match in _WEIGHT.finditer(text):
        name, dtype_name, dims = match[1].strip('"'), match[2].upper(), match[3]
        dtype = ir.DataType[dtype_name]
        shape = tuple(int(dim) for dim in dims.split(",") if dim)
        if name not in given and random is None:
            raise GraphForgeError(
                f"the text names weight {name!r} {dtype_name.lower()}{list(shape)} without its elements",
                "give them as weights={name: array}, or draw them with random_weights=SEED",
            )
        if name in given:
            array = np.asarray(given[name])
        else:
            assert random is not None
            array = random.standard_normal(shape) if dtype.is_floating_point() else random.integers(0, 2, shape)
        if array.shape != shape:
            raise GraphForgeError(f"weight {name!r} has shape {list(array.shape)}, the text says {list(shape)}")
        tensors.append(ir.Tensor(array.astype(dtype.numpy()), dtype=dtype, name=name))
    try:
        proto = onnx.parser.parse_model(text)
    except onnx.parser.ParseError as error:
        raise GraphForgeError(f"the text is not an ONNX graph: {str(error).strip()}") from error
    for tensor in tensors:
        proto.graph.initializer.add(name=tensor.name, data_type=tensor.dtype.value, dims=[0])
    model = ir.from_proto(proto)
    for tensor in tensors:
        assert tensor.name is not None
        value = model.graph.initializers[tensor.name]
        value.const_value = tensor
        value.type = ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(tensor.shape.numpy())
    return model


@contextmanager
def weights_left_out(values: Iterable[ir.Value]) -> Iterator[None]:
    """Within the block, empty tensors hold the place of these constants, so that the graph serialises in no time."""
    held = [(value, value.const_value) for value in values]
    try:
        for value, tensor in held:
            if tensor is not None:
                value.const_value = ir.Tensor(np.zeros((0,), tensor.dtype.numpy()), dtype=tensor.dtype, name=value.name)
        yield
    finally:
        for value, tensor in held:
            value.const_value = tensor


def _with_origins(lines: list[str], graph: ir.Graph) -> list[str]:
    """Put the origin of each node of the main graph on a comment line above it."""
    start = next((position for position, line in enumerate(lines) if line == "{"), len(lines))
    result = lines[: start + 1]
    nodes = iter(graph)
    for line in lines[start + 1 :]:
        # The printer indents nodes of the main graph by three blanks, those of bodies by more; "}" closes a body.
        if line.startswith("   ") and line[3] not in " }":
            node = next(nodes, None)
            if node is not None and origins_of(node):
                result.append(f"   # {origins_of(node)[0].describe()}")
        result.append(line)
    return result


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else f'"{name}"'
