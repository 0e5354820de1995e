"""The stock exporter's translation of one ATen call, taken into our graph: the last way out before an error.

torch carries ONNX translations of ATen operators (torchlib, at opset 18).  The one of the call at hand is traced into a
small model of its own, which is raised to the home opset as any imported ONNX file is, and its nodes are moved over.
Sizes are what our values say, so a dynamic dim stays dynamic.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch

from graphforge.errors import GraphForgeError, LoweringError
from graphforge.frontend.emitter import Emitter, SymbolicScalar
from graphforge.ir import set_origins

__all__ = ["translate_call"]


@functools.cache
def _registry() -> Any:
    """torch's table of translations; building it takes most of a second, hence once."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return ONNXRegistry.from_torchlib()


def translate_call(
    op: Emitter, node: torch.fx.Node, target: torch._ops.OpOverload, arguments: list[Any], keywords: dict[str, Any]
) -> Any:
    """Translate one call as the stock exporter does; returns a value, or a list of them.

    Args:
        op: where to emit.
        node: the call, whose metadata say what it returns.
        target: the operator to translate: the node's own, or its functional twin.
        arguments: the call's arguments as a lowering rule receives them.
        keywords: likewise.

    Raises:
        LoweringError: torch has no translation, or it does not fit this call.
    """
    function = _translation(target)
    if function is None:
        raise LoweringError(
            f"{target}: no lowering",
            "it has no rule here, torch has no decomposition of it and the stock exporter no translation",
            "compute it by other operators, or register a custom op for it",
        )
    try:
        model, fed = _traced(op, function, node, arguments, keywords)
    except GraphForgeError:
        raise
    except Exception as error:  # torchlib raises whatever its Python code runs into
        raise LoweringError(
            f"{target}: no lowering",
            f"the stock exporter's translation fails: {type(error).__name__}: {str(error).splitlines()[0][:200]}",
        ) from None
    return _moved(op, model, fed, isinstance(node.meta.get("val"), list | tuple))


def _translation(target: torch._ops.OpOverload) -> Any:
    found = [meta for meta in _registry().get_decomps(target) if not meta.is_complex]
    return found[0].onnx_function if found else None


class _Proxies:
    """Stand-ins for our values, of the class that torch's translations compute with."""

    def __init__(self, op: Emitter, opset: Any) -> None:
        self.op = op
        self.opset = opset
        self.of: dict[ir.Value, ir.Value] = {}

    def argument(self, value: Any) -> Any:
        """What torch's translation expects in place of one of our arguments."""
        if isinstance(value, SymbolicScalar):
            value = self.op.scalar(value)
        if isinstance(value, ir.Value):
            return self.value(value)
        if isinstance(value, list | tuple):
            return [self.argument(item) for item in value]
        if isinstance(value, torch.dtype):
            from onnx_ir.tensor_adapters import from_torch_dtype

            return from_torch_dtype(value)
        if isinstance(value, torch.device | torch.memory_format | torch.layout):
            return str(value)
        return value

    def value(self, value: ir.Value) -> ir.Value:
        from torch.onnx._internal.exporter._tensors import SymbolicTensor

        if value not in self.of:
            shape = None if value.shape is None else ir.Shape(list(value.shape.dims))
            self.of[value] = SymbolicTensor(self.opset, name=f"operand_{len(self.of)}", shape=shape, type=value.type)
        return self.of[value]


def _traced(
    op: Emitter, function: Any, node: torch.fx.Node, arguments: list[Any], keywords: dict[str, Any]
) -> tuple[ir.Model, list[ir.Value]]:
    """The translation as a model at the home opset, and our values to feed its inputs."""
    import onnxscript
    from torch.onnx._internal.exporter._building import OpRecorder
    from torch.onnx._internal.exporter._constants import TORCHLIB_OPSET

    from graphforge.onnx_io.importing import import_onnx_proto

    opset = onnxscript.values.Opset("", TORCHLIB_OPSET)
    proxies = _Proxies(op, opset)
    positional = [proxies.argument(value) for value in arguments]
    named = {key: proxies.argument(value) for key, value in keywords.items()}
    if "dtype" in named and named["dtype"] is None:
        named["dtype"] = -1  # torchlib's spelling of "as the operand"
    recorder = OpRecorder(opset, {})
    with onnxscript.evaluator.default_as(recorder):
        result = function(*positional, **named)
    nodes = list(recorder.nodes)
    outputs = list(_outputs(result, nodes, node.meta.get("val")))
    for position, output in enumerate(outputs):
        output.name = f"result_{position}"
    graph = ir.Graph(
        list(proxies.of.values()), outputs, nodes=nodes, opset_imports={"": TORCHLIB_OPSET}, name="translation"
    )
    model = ir.Model(graph, ir_version=10)
    for identifier, defined in recorder.functions.items():
        local = (
            defined if isinstance(defined, ir.Function) else ir.serde.deserialize_function(defined.to_function_proto())
        )
        model.functions[identifier] = local
        graph.opset_imports.setdefault(local.domain, 1)
    for inner in ir.traversal.RecursiveGraphIterator(graph):
        graph.opset_imports.setdefault(inner.domain, 1)
    return import_onnx_proto(ir.to_proto(model), label="translation"), list(proxies.of)


def _outputs(result: Any, nodes: list[ir.Node], fake: Any) -> Iterator[ir.Value]:
    """The results as tensors; a sequence is taken apart."""
    if isinstance(result, ir.Value):
        results: Sequence[Any] = [result]
    else:
        results = list(result)
    wanted = list(fake) if isinstance(fake, list | tuple) else [fake]
    if len(results) == 1 and len(wanted) > 1:
        for position in range(len(wanted)):
            index = ir.node("Constant", [], attributes={"value_int": position})
            element = ir.node("SequenceAt", [results[0], index.outputs[0]])
            nodes += [index, element]
            yield _typed(element.outputs[0], wanted[position])
        return
    for value, one in zip(results, wanted, strict=False):
        if value in {output for node in nodes for output in node.outputs}:
            yield _typed(value, one)
            continue
        same = ir.node("Identity", [value])  # an operand handed through
        nodes.append(same)
        yield _typed(same.outputs[0], one)


def _typed(value: ir.Value, fake: Any) -> ir.Value:
    """Rank and dtype are all that the small model needs to know of its results."""
    from onnx_ir.tensor_adapters import from_torch_dtype

    if isinstance(fake, torch.Tensor):
        value.type = value.type or ir.TensorType(from_torch_dtype(fake.dtype))
        value.shape = ir.Shape([None] * fake.dim())
    return value


def _moved(op: Emitter, model: ir.Model, fed: list[ir.Value], several: bool) -> Any:
    """Take the nodes of a small model over into the graph that ``op`` writes."""
    graph = model.graph
    for inner, outer in zip(list(graph.inputs), fed, strict=True):
        inner.replace_all_uses_with(outer)
    for initializer in list(graph.initializers.values()):
        tensor = initializer.const_value
        assert tensor is not None
        constant = op.constant(tensor.numpy(), tensor.dtype) if tensor.size <= 64 else op.constant(tensor)
        initializer.replace_all_uses_with(constant)
    results = list(graph.outputs)
    graph.outputs.clear()
    nodes = list(graph)
    graph.remove(nodes)
    for moved in nodes:
        moved.name = None
        moved.metadata_props.clear()
        for output in moved.outputs:
            output.name = None
        set_origins(moved, op.origins, made_by=op.made_by)
        op.graph.append(moved)
        op.created.append(moved)
    return results if several else results[0]
