"""The tape of a PyTorch model: every value of its captured program, computed by PyTorch operator by operator."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree

from graphforge.diagnosis.store import Store, give_back
from graphforge.diagnosis.tape import Entry, Key, ModuleCall, Tape
from graphforge.errors import GraphForgeError
from graphforge.frontend.aliasing import is_mutation
from graphforge.frontend.lower import clean_module_path, origin_of_node
from graphforge.runners.arrays import Array, array_from_tensor, as_real, tensor_from_array
from graphforge.user_code import user_error

if TYPE_CHECKING:
    from graphforge.frontend.captured import Captured
    from graphforge.runners.eager import EagerRunner

__all__ = ["counterparts", "tape_of_program"]


def tape_of_program(captured: Captured, reference: EagerRunner, feeds: Mapping[str, Array], *, memory: int) -> Tape:
    """Run the captured program on the feeds and keep every value.

    Args:
        captured: the program.
        reference: the model itself, whose state is put back afterwards and whose outputs are the reference's.
        feeds: inputs by name.
        memory: bytes of values held in memory.

    Raises:
        GraphForgeError: the model, or the captured program, does not run on these inputs.
    """
    outputs = reference.run(feeds)
    recorder = _Recorder(captured, feeds, memory)
    try:
        with reference.undisturbed():
            recorder.run(enable_io_processing=False)
    except GraphForgeError:
        raise
    except Exception as error:  # an operator of the model's, of any kind
        raise user_error("the captured program does not run on these inputs", error) from error
    give_back()
    inputs = {name: node for node, name in captured.input_names.items()}
    return Tape(reference.name, recorder.entries, recorder.store, recorder.by_name, outputs, inputs)


def counterparts(program: Captured, reference: Captured) -> dict[str, str]:
    """Names of a program's values -> those of the values of another that stand at the same place.

    The same operator in the same call of a module of the same path, in the same order: what one of the two has and the
    other has not is passed over.  One operator in the place of another, in the same call, stands for that.
    """
    mine, theirs = _places(program), _places(reference)
    matcher = difflib.SequenceMatcher(None, [place for _, place in mine], [place for _, place in theirs], False)
    found = {}
    for kind, start, end, first, last in matcher.get_opcodes():
        for (name, place), (other, there) in zip(mine[start:end], theirs[first:last], strict=False):
            if kind == "equal" or (kind == "replace" and end - start == last - first and place[:2] == there[:2]):
                found[name] = other
    return found


def _places(program: Captured) -> list[tuple[str, tuple[str, int, str]]]:
    found = []
    for node in program.graph_module.graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem:
            call = next(iter(_calls_of(node)[-1:]), ModuleCall("", ""))
            found.append((node.name, (call.path, call.call, str(node.target))))
    return found


class _Recorder(torch.fx.Interpreter):
    def __init__(self, captured: Captured, feeds: Mapping[str, Array], memory: int) -> None:
        super().__init__(captured.graph_module, garbage_collect_values=True)
        self.captured = captured
        self.feeds = feeds
        self.store: Store[Key] = Store(memory)
        self.entries: dict[Key, Entry] = {}
        self.by_name: dict[str, list[Key]] = {}
        graphs = [m for m in captured.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
        self.overwrites = any(
            node.op == "call_function" and is_mutation(node.target) for graph in graphs for node in graph.graph.nodes
        )

    def run_node(self, n: torch.fx.Node) -> Any:
        if n.op == "placeholder":
            return self._given(n)
        result = super().run_node(n)
        if n.op == "get_attr" and self.overwrites and isinstance(result, torch.Tensor):
            return result.clone()
        if n.op == "call_function" and n.target is not operator.getitem:
            self._keep(n, result)
        return result

    def _given(self, node: torch.fx.Node) -> Any:
        captured = self.captured
        if node.name in captured.weights:
            tensor = captured.weights[node.name][1]
            return tensor.detach().clone() if self.overwrites else tensor.detach()
        if node.name in captured.constants:
            return captured.constants[node.name]
        fake = node.meta.get("val")
        name = captured.input_names[node.name]
        if not isinstance(fake, torch.Tensor):
            return fake
        given = tensor_from_array(self.feeds[name]).to(fake.device)
        return torch.view_as_complex(given) if fake.is_complex() and not given.is_complex() else given

    def _keep(self, node: torch.fx.Node, result: Any) -> None:
        leaves = [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        reads = _reads(node)
        for index, leaf in enumerate(leaves):
            if leaf.layout != torch.strided or leaf.is_quantized:
                continue
            plain = as_real(leaf)
            array = array_from_tensor(plain)
            owner: int | None = plain.untyped_storage().data_ptr()
            if self.overwrites:
                array, owner = array.copy(), None
            key = (node.name, index)
            self.store.put(key, array, owner=owner)
            self.entries[key] = Entry(
                key,
                len(self.entries),
                str(node.target),
                origin_of_node(node),
                _calls_of(node),
                reads,
                tuple(array.shape),
                str(array.dtype.name),
            )
            self.by_name.setdefault(node.name, []).append(key)


def _reads(node: torch.fx.Node) -> tuple[str, ...]:
    """The nodes that it reads, a result picked out of several by the node that made them."""
    names: dict[str, None] = {}
    for source in node.all_input_nodes:
        while source.target is operator.getitem and isinstance(source.args[0], torch.fx.Node):
            source = source.args[0]
        names[source.name] = None
    return tuple(names)


def _calls_of(node: torch.fx.Node) -> tuple[ModuleCall, ...]:
    """The module calls around a node: torch marks the key of a second call by ``@1``."""
    calls = []
    for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items():
        named = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        again = re.search(r"@(\d+)$", str(key))
        plain = re.sub(r"@\d+", "", clean_module_path(str(path)))
        calls.append(ModuleCall(plain, named, int(again[1]) if again else 0))
    return tuple(calls)
