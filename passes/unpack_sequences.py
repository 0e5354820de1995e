"""Replace sequences of tensors by the tensors.    sequence_at(split_to_sequence(x), i) ==> split(x)[i]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphforge.ir import Graph, Node, Value, constant_of, nodes_of
from graphforge.transform import Pass, Rewriter, dims_of, int_attribute, is_op, scalar_of

__all__ = ["UnpackSequences"]


@dataclass(frozen=True)
class UnpackSequences(Pass):
    """Sequences of a length known now, read at constant places or concatenated whole."""

    name: ClassVar[str] = "unpack-sequences"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Unpack them in the graph and its bodies."""
        for node in nodes_of(graph):
            if is_op(node, "SplitToSequence"):
                _split(node, rewriter)
            elif is_op(node, "SequenceConstruct"):
                parts = [value for value in node.inputs if value is not None]
                _unpack(node, parts, rewriter)


def _readers(sequence: Node, length: int) -> dict[Node, int | None] | str:
    """The nodes that read the sequence, each with the place it reads (None for all); else why it must stay."""
    value = sequence.outputs[0]
    if value.is_graph_output():
        return "the sequence is handed out"
    readers: dict[Node, int | None] = {}
    for user in value.consumers():
        if is_op(user, "ConcatFromSequence"):
            readers[user] = None
        elif is_op(user, "SequenceAt"):
            place = scalar_of(user.inputs[1])
            if place is None or not -length <= place < length:
                return "a place in the sequence is known at run time only"
            readers[user] = int(place) % length
        else:
            return f"{user.op_type} reads the sequence"
    return readers


def _unpack(node: Node, parts: list[Value], rewriter: Rewriter) -> None:
    """Let the readers of a sequence read its parts."""
    readers = _readers(node, len(parts))
    if isinstance(readers, str):
        rewriter.declined(readers, node)
        return
    for reader, place in readers.items():
        rewriter.forget_fresh()
        if place is not None:
            rewriter.replace(reader, parts[place])
            continue
        op = rewriter.builder(reader)
        axis = int_attribute(reader, "axis", 0)
        if int_attribute(reader, "new_axis", 0):
            rewriter.replace(reader, op.Concat(*(op.Unsqueeze(part, [axis]) for part in parts), axis=axis))
        else:
            rewriter.replace(reader, op.Concat(*parts, axis=axis))
    rewriter.erase(node)


def _split(node: Node, rewriter: Rewriter) -> None:
    source = node.inputs[0]
    dims = dims_of(source)
    axis = int_attribute(node, "axis", 0)
    size = None if dims is None else dims[axis]
    given = node.inputs[1] if len(node.inputs) > 1 else None
    sizes: list[int]
    if source is None or not isinstance(size, int):
        rewriter.declined("how many parts there are is known at run time only", node)
        return
    if given is None:
        sizes = [1] * size
    else:
        array = constant_of(given)
        if array is None:
            rewriter.declined("the sizes of the parts are known at run time only", node)
            return
        if array.ndim == 0:
            chunk = int(array)
            sizes = [min(chunk, size - start) for start in range(0, size, chunk)]
        else:
            sizes = [int(part) for part in array]
    squeezed = given is None and not int_attribute(node, "keepdims", 1)
    readers = _readers(node, len(sizes))
    if isinstance(readers, str) or not sizes:
        rewriter.declined(readers if isinstance(readers, str) else "the sequence is empty", node)
        return
    rewriter.forget_fresh()
    op = rewriter.builder(node)
    if len(sizes) == 1:
        parts = [source]
    else:
        parts = list(op.Split(source, sizes, axis=axis, _outputs=len(sizes)))
    if squeezed:
        parts = [op.Squeeze(part, [axis]) for part in parts]
    _unpack(node, parts, rewriter)
