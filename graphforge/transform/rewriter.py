"""Rewriter: every edit of a pass goes through here, so names, types, origins and the count of changes stay true."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from graphforge.errors import InternalError
from graphforge.ir import HOME_OPSET, Builder, Operand, Origin, infer_node, nodes_of, origins_of, set_origins
from graphforge.ir.builder import attribute_of
from graphforge.ir.describe import describe
from graphforge.ir.detour import inherit_rounding
from graphforge.ir.names import NameTable
from graphforge.transform.facts import bodies_of
from graphforge.transform.listener import ChangeCount, RewriteListener
from graphforge.transform.rule import Rule

__all__ = ["NearMiss", "Rewriter", "RewriterBuilder"]

# How many places are remembered for one reason of declining; the count goes on.
_EXAMPLES = 3
_AUTOMATIC = re.compile(r"val(_\d+)?")


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A rule that nearly fired.

    Attributes:
        rule: name of the rule or pass.
        reason: why it declined.
        count: how many times.
        places: the first few nodes where it happened, each with its origin.
    """

    rule: str
    reason: str
    count: int
    places: tuple[str, ...]


class RewriterBuilder(Builder):
    """A Builder whose new nodes the Rewriter knows of."""

    def __init__(self, rewriter: Rewriter, graph: ir.Graph, **keywords: Any) -> None:
        super().__init__(graph, **keywords)
        self._rewriter = rewriter

    def node(self, op_type: str, operands: Sequence[Operand], **keywords: Any) -> Any:
        """Add one node, see ``Builder.node``."""
        result = super().node(op_type, operands, **keywords)
        self._rewriter._was_created(self.created[-1], named=keywords.get("_name") is not None)
        return result

    def inside(self, body: ir.Graph) -> RewriterBuilder:
        """See ``Builder.inside``."""
        return RewriterBuilder(
            self._rewriter,
            body,
            origins=self.origins,
            opset=self.opset,
            made_by=self.made_by,
            constants=self.constants,
        )

    def fresh_name(self, base: str) -> str:
        """See ``Builder.fresh_name``."""
        return self._rewriter.names.fresh(base)

    def _initializer(self, tensor: ir.TensorProtocol, name: str | None) -> ir.Value:
        made = super()._initializer(tensor, self._rewriter.names.fresh(name or "constant"))
        self._rewriter._graph_changed("constants")
        return made


class Rewriter:
    """Edits one model on behalf of one pass and measures what changed.

    Args:
        model: what is edited.
        pass_name: stamped as ``made_by`` on the origins of new nodes.
        names: the names taken in the model, when they are known already.
        listeners: who hears of every edit.

    Attributes:
        notes: what the pass wants the user to know.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        pass_name: str = "",
        names: NameTable | None = None,
        listeners: Iterable[RewriteListener] = (),
    ) -> None:
        self.model = model
        self.graph = model.graph
        self.opset = model.graph.opset_imports.get("", HOME_OPSET)
        self.pass_name = pass_name
        self.notes: list[str] = []
        self._names = names
        self._constants: RewriterBuilder | None = None
        self._fresh: list[ir.Node] = []
        self._misses: dict[tuple[str, str], list[str]] = {}
        self._miss_counts: Counter[tuple[str, str]] = Counter()
        self._count = ChangeCount()
        self._listeners: list[RewriteListener] = [self._count, *listeners]

    @property
    def changes(self) -> int:
        """How many edits there were; zero means the graph is untouched."""
        return self._count.changes

    def add_listener(self, listener: RewriteListener) -> None:
        """Let somebody hear of every edit from here on."""
        self._listeners.append(listener)

    # Making nodes

    def builder(self, before: ir.Node | None, *, origins: Iterable[Origin] | None = None) -> RewriterBuilder:
        """A builder that inserts in front of ``before``, in its graph; constants go to the main graph.

        New nodes start with the given origins, by default those of ``before``.  Without ``before`` they go to the end
        of the main graph.
        """
        graph = self.graph if before is None else before.graph
        if graph is None:
            raise InternalError(f"{self.pass_name}: cannot build in front of a node that is in no graph")
        if origins is None:
            origins = () if before is None else origins_of(before)
        return RewriterBuilder(
            self,
            graph,
            before=before,
            origins=origins,
            opset=self.opset,
            made_by=self.pass_name,
            constants=self.graph,
        )

    def constant(self, value: Operand, name: str | None = None) -> ir.Value:
        """An initializer of the main graph; small equal ones are shared."""
        if self._constants is None:
            self._constants = RewriterBuilder(self, self.graph, opset=self.opset)
        return self._constants.constant(value, name=name)

    # Changing nodes

    def replace(
        self,
        nodes: ir.Node | Sequence[ir.Node],
        values: ir.Value | Sequence[ir.Value | None] | Mapping[ir.Value, ir.Value],
    ) -> tuple[ir.Node, ...]:
        """Put values in the place of what the nodes compute, and erase the nodes that nobody reads any more.

        Uses, graph-output-ness, names, types and shapes move to the new values; the nodes built since the last
        replacement inherit the origins of all the replaced nodes.

        Args:
            nodes: one node, or several with the root first.
            values: one value for each output of the root (None for an output nobody reads); or one value alone, for
                the first output when nobody reads the others; or old value -> new value.

        Returns:
            The new nodes.
        """
        group = (nodes,) if isinstance(nodes, ir.Node) else tuple(dict.fromkeys(nodes))
        root = group[0]
        pairs = _pairs(root, values)
        for listener in self._listeners:
            listener.node_replacing(group)
        fresh = tuple(node for node in self._fresh if node.graph is not None)
        self._fresh.clear()
        if fresh:
            # in the order of the data: a convolution with its norm folded in is first of all the convolution
            origins = [origin for node in reversed(group) for origin in origins_of(node)]
            for node in fresh:
                set_origins(node, origins, made_by=self.pass_name)
            inherit_rounding(group, fresh)
        made = set(fresh)
        for old, new in pairs:
            producer = new.producer()
            automatic = new.name is not None and _AUTOMATIC.fullmatch(new.name) is not None
            self.replace_value(old, new, take_name=producer in made or automatic)
        self._name_helpers(root, fresh, [new for _, new in pairs])
        # The root first: what it read is then free to go, and what that read.
        pending = [node for node in group if node.graph is not None]
        while pending:
            unread = [node for node in pending if not any(v._uses or v.is_graph_output() for v in node.outputs)]
            if not unread:
                break
            self.erase(*unread)
            pending = [node for node in pending if node.graph is not None]
        for listener in self._listeners:
            listener.node_replaced(root, fresh)
        return fresh

    def replace_value(self, old: ir.Value, new: ir.Value, *, take_name: bool = False) -> None:
        """Let everything that reads ``old`` read ``new`` instead; a graph output keeps its name.

        Where ``new`` cannot be a graph output itself (it is an input, a constant, an output already or belongs to an
        enclosing graph), an Identity hands it out.

        Args:
            take_name: also give ``new`` the name of ``old`` when it is not a graph output.
        """
        if old is new:
            return
        _adopt_type(old, new)
        if old.is_graph_output():
            self._replace_output(old, new)
        elif take_name and old.name and not new.is_graph_output() and new.producer() is not None:
            new.name, old.name = old.name, None
        if not old._uses:
            return
        keep = self._identity_over(old, new)
        for user, index in old.uses():
            if user is keep:
                continue
            user.replace_input_with(index, new)
            self._input_changed(user, index)

    def set_input(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Let one input of a node read another value."""
        if index >= len(node.inputs):
            if value is None:
                return
            self._editing(node)
            node.resize_inputs(index + 1)
        elif node.inputs[index] is value:
            return
        else:
            self._editing(node)
        node.replace_input_with(index, value)
        self._input_changed(node, index)

    def keep_inputs(self, node: ir.Node, count: int) -> None:
        """Let a node read its first inputs only."""
        for index in range(len(node.inputs) - 1, count - 1, -1):
            node.resize_inputs(index)
            self._input_changed(node, index)

    def set_attribute(self, node: ir.Node, name: str, value: Any) -> None:
        """Set an attribute; None removes it."""
        if value is None:
            if name in node.attributes:
                self._editing(node)
                del node.attributes[name]
                self._attribute_changed(node, name)
            return
        attribute = attribute_of(name, value)
        known = node.attributes.get(name)
        if known is not None and known.type == attribute.type and known.value == attribute.value:
            return
        self._editing(node)
        node.attributes[name] = attribute
        self._attribute_changed(node, name)

    def set_constant(self, value: ir.Value, tensor: ir.TensorProtocol) -> None:
        """Let an initializer hold other data (type and shape follow)."""
        value.const_value = tensor
        value.type = ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(tensor.shape.numpy())
        self._value_changed(value)

    def set_type(self, value: ir.Value, kind: ir.TypeProtocol | None) -> None:
        """State the type of a value."""
        if value.type != kind:
            value.type = kind
            self._value_changed(value)

    def set_shape(self, value: ir.Value, shape: ir.Shape | None) -> None:
        """State the shape of a value."""
        if value.shape != shape:
            value.shape = shape
            self._value_changed(value)

    def infer(self, node: ir.Node) -> None:
        """Work out the types and shapes of a node's outputs where they are unknown or vague; what is known stays."""
        vague = False
        for value in node.outputs:
            if value.type is None or value.shape is None:
                vague = True
                break
            vague = vague or any(not isinstance(dim, int) and dim.value is None for dim in value.shape._dims)
        if not vague:
            return
        known = [(value.type, value.shape) for value in node.outputs]
        if all(kind is not None and shape is not None for kind, shape in known):
            for value in node.outputs:
                value.shape = None
        infer_node(node, self.opset)
        for value, (kind, shape) in zip(node.outputs, known, strict=True):
            if shape is not None and value.shape is not shape:
                value.shape = _sharpest(shape, value.shape)
            if value.type != kind or value.shape != shape:
                self._value_changed(value)

    def keep_outputs(self, node: ir.Node, count: int) -> None:
        """Drop outputs at the end that nobody reads."""
        if count != len(node.outputs):
            node.resize_outputs(count)
            self._graph_changed("outputs", node.graph)

    def erase(self, *nodes: ir.Node) -> None:
        """Remove nodes that nobody reads (from outside the given ones).

        Raises:
            InternalError: somebody does.
        """
        gone = set(nodes)
        for node in nodes:
            for value in node.outputs:
                if value.is_graph_output() or any(user not in gone for user, _ in value._uses):
                    raise InternalError(f"{self.pass_name}: cannot erase {node.op_type}, {value.name!r} is still read")
        by_graph: dict[ir.Graph, list[ir.Node]] = {}
        for node in nodes:
            if node.graph is not None:
                by_graph.setdefault(node.graph, []).append(node)
                self._editing(node)
            _detach(node)
        for graph, doomed in by_graph.items():
            graph.remove(doomed)
            for node in doomed:
                self._erased(node)

    def drop_initializer(self, value: ir.Value) -> None:
        """Remove an initializer that nobody reads."""
        graph = value.graph
        if graph is None or value.name is None or value._uses or value.is_graph_output():
            raise InternalError(f"{self.pass_name}: cannot drop initializer {value.name!r}, it is still read")
        del graph.initializers[value.name]
        self._graph_changed("constants", graph)

    # Changing the graph as a whole

    def set_outputs(self, outputs: Sequence[tuple[str, ir.Value]]) -> None:
        """Let the main graph hand out these values under these names, in this order.

        Raises:
            InternalError: one of them cannot be an output: it is an input or a constant, or handed out twice.
        """
        graph = self.graph
        if [(value.name, value) for value in graph.outputs] == list(outputs):
            return
        new = [value for _, value in outputs]
        if len(set(new)) != len(new) or any(value.producer() is None for value in new):
            names = ", ".join(name for name, _ in outputs)
            raise InternalError(f"{self.pass_name}: outputs {names} are not each a computed value of its own")
        old = list(graph.outputs)
        wanted = {name for name, _ in outputs}
        graph.outputs.clear()
        for value in old:
            if value not in new:
                value.name = self.names.fresh("val")
        for value in [value for node in nodes_of(graph) for value in node.outputs]:
            if value.name in wanted and value not in new:
                value.name = self.names.fresh(str(value.name))
        for name, value in outputs:
            graph.outputs.append(value)
            value.name = name
        self._graph_changed("outputs")

    def add_output(self, name: str, value: ir.Value) -> None:
        """Let the main graph hand out one value more, under this name when it is free."""
        self.set_outputs([*((str(one.name), one) for one in self.graph.outputs), (self.names.fresh(name), value)])

    def set_opset(self, version: int | None, domain: str = "") -> None:
        """State which version of a domain the model is written in; None: it has no operator of the domain."""
        imports = self.graph.opset_imports
        if imports.get(domain) == version:
            return
        if version is None:
            del imports[domain]
        else:
            imports[domain] = version
            if domain == "":
                self.opset = version
        self._graph_changed("opset")

    def sort(self) -> None:
        """Bring the nodes into an order in which each comes after what it reads; those that may stay do."""
        before = list(self.graph)
        self.graph.sort()
        if list(self.graph) != before:
            self._graph_changed("order")

    def move_out(self, body: ir.Graph, node: ir.Node) -> list[ir.Value]:
        """Move all nodes of a body, which is empty afterwards, behind a node of the graph around it.

        Returns:
            What the body handed out.
        """
        around = node.graph
        assert around is not None
        results, nodes, constants = list(body.outputs), list(body), list(body.initializers.values())
        body.outputs.clear()
        body.initializers.clear()
        body.remove(nodes)
        for value in constants:
            value.name = self.names.fresh(str(value.name))
            self.graph.register_initializer(value)
            self._graph_changed("constants")
        # two bodies may use the same names; out here they would meet
        for inner in nodes:
            self._rename(inner.outputs)
            for deeper in bodies_of(inner):
                self._rename_inside(deeper)
        around.insert_after(node, nodes)
        for inner in nodes:
            self._created(inner)
        return results

    def move_in(self, body: ir.Graph) -> list[ir.Value]:
        """Move all nodes of the main graph into a body, which somebody is about to put into a node.

        Returns:
            What the main graph handed out; it hands out nothing afterwards.
        """
        results, nodes = list(self.graph.outputs), list(self.graph)
        self.graph.outputs.clear()
        self.graph.remove(nodes)
        body.extend(nodes)
        for node in nodes:
            self._created(node)
        self._graph_changed("outputs")
        return results

    def take_over(self, other: ir.Graph) -> None:
        """Let the main graph hold what another graph holds, which is empty afterwards.

        Inputs stay the same values where the other graph has them too; outputs are found by their names.
        """
        graph = self.graph
        names = [value.name for value in graph.outputs]
        nodes = list(other)
        inputs = {value.name: value for value in graph.inputs}
        constants = list(other.initializers.values())
        outputs = {value.name: value for value in other.outputs}
        other.outputs.clear()
        other.remove(nodes)
        for value in other.inputs:
            mine = inputs.get(value.name)
            if mine is not None:
                value.replace_all_uses_with(mine)
        other.inputs.clear()
        other.initializers.clear()
        graph.outputs.clear()
        old = list(graph)
        graph.remove(old)
        graph.initializers.clear()
        for value in constants:
            graph.register_initializer(value)
        graph.extend(nodes)
        graph.outputs.extend(outputs[name] for name in names)
        graph.opset_imports.update(other.opset_imports)
        self._names = NameTable(self.model)
        self._fresh.clear()
        for node in old:
            self._erased(node)
        for node in nodes:
            self._created(node)
        self._graph_changed("outputs")

    # Rules

    def apply(self, rules: Rule | Iterable[Rule], graph: ir.Graph | None = None) -> int:
        """Apply rewrite rules everywhere (bodies included) until none fires; returns how many times one did."""
        from graphforge.transform.driver import apply_rules

        group = (rules,) if isinstance(rules, Rule) else tuple(rules)
        return apply_rules(group, self.graph if graph is None else graph, self)

    def rule_starts(self, rule: str, nodes: Sequence[ir.Node]) -> None:
        """Tell whoever listens that a rule is about to rewrite nodes."""
        for listener in self._listeners:
            listener.rule_starts(rule, nodes)

    def rule_ends(self, fired: bool) -> None:
        """Tell whoever listens that it is done."""
        for listener in self._listeners:
            listener.rule_ends(fired)

    def forget_fresh(self) -> None:
        """The nodes built so far are no part of the next replacement."""
        self._fresh.clear()

    # Telling

    def note(self, text: str) -> None:
        """Tell the user something, one line."""
        if text not in self.notes:
            self.notes.append(text)

    def declined(self, reason: str, node: ir.Node | None = None, *, rule: str = "") -> None:
        """Record why a rewrite that nearly happened did not."""
        key = (rule or self.pass_name, reason)
        self._miss_counts[key] += 1
        for listener in self._listeners:
            listener.rewrite_declined(key[0], reason, node)
        places = self._misses.setdefault(key, [])
        if node is not None and len(places) < _EXAMPLES:
            places.append(describe(node))

    @property
    def near_misses(self) -> list[NearMiss]:
        """What nearly fired, the most frequent first."""
        return [
            NearMiss(rule, reason, count, tuple(self._misses[rule, reason]))
            for (rule, reason), count in self._miss_counts.most_common()
        ]

    # Inside

    @property
    def names(self) -> NameTable:
        """The names taken in the model."""
        if self._names is None:
            self._names = NameTable(self.model)
        return self._names

    def _editing(self, node: ir.Node) -> None:
        for listener in self._listeners:
            listener.node_editing(node)

    def _created(self, node: ir.Node) -> None:
        for listener in self._listeners:
            listener.node_created(node)

    def _erased(self, node: ir.Node) -> None:
        for listener in self._listeners:
            listener.node_erased(node)

    def _input_changed(self, node: ir.Node, index: int) -> None:
        for listener in self._listeners:
            listener.input_changed(node, index)

    def _attribute_changed(self, node: ir.Node, name: str) -> None:
        for listener in self._listeners:
            listener.attribute_changed(node, name)

    def _value_changed(self, value: ir.Value) -> None:
        for listener in self._listeners:
            listener.value_changed(value)

    def _graph_changed(self, what: str, graph: ir.Graph | None = None) -> None:
        for listener in self._listeners:
            listener.graph_changed(self.graph if graph is None else graph, what)

    def _rename(self, values: Iterable[ir.Value]) -> None:
        for value in values:
            if value.name:
                value.name = self.names.fresh(value.name)

    def _rename_inside(self, body: ir.Graph) -> None:
        self._rename([*body.inputs, *body.initializers.values()])
        for node in body:
            self._rename(node.outputs)
            for deeper in bodies_of(node):
                self._rename_inside(deeper)

    def _was_created(self, node: ir.Node, *, named: bool) -> None:
        self._fresh.append(node)
        self._created(node)
        for value in node.outputs[int(named) :]:
            # The graph numbers values by itself, but each body starts anew.
            value.name = self.names.fresh("val")

    def _replace_output(self, old: ir.Value, new: ir.Value) -> None:
        graph = old.graph
        assert graph is not None
        can_be_output = new.producer() is not None and new.graph is graph and not new.is_graph_output()
        if not can_be_output:
            if self._identity_over(old, new) is not None:
                return
            producer = old.producer()
            assert producer is not None, "a graph output that no node computes is not replaced"
            fresh = self._fresh
            self._fresh = []
            new = self.builder(producer).Identity(new)
            self._fresh = fresh
            _adopt_type(old, new)
        name = old.name
        for position, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[position] = new
        old.name = None
        new.name = name
        self._graph_changed("outputs", graph)

    def _identity_over(self, old: ir.Value, new: ir.Value) -> ir.Node | None:
        """The Identity that hands ``new`` out as the graph output ``old``, when that is what computes ``old``."""
        producer = old.producer()
        if not old.is_graph_output() or producer is None:
            return None
        if producer.op_type != "Identity" or producer.domain != "" or producer.inputs[0] is not new:
            return None
        return producer

    def _name_helpers(self, root: ir.Node, fresh: Sequence[ir.Node], replacements: Sequence[ir.Value]) -> None:
        """Give the values between the old and the new names that say where they belong."""
        base = next((value.name for value in replacements if value.name), None)
        if base is None:
            return
        results = set(replacements)
        heir = replacements[0].producer() if replacements else None
        for node in fresh:
            for value in node.outputs:
                if value not in results and (value.name is None or _AUTOMATIC.fullmatch(value.name)):
                    value.name = self.names.fresh(f"{base}/{node.op_type}")
            if node.name is None or node.name.startswith("node_"):
                # a value's name is its alone, and two nodes of one name are more than ONNX Runtime loads
                node.name = root.name if node is heir and root.name else node.outputs[0].name


def _pairs(
    root: ir.Node, values: ir.Value | Sequence[ir.Value | None] | Mapping[ir.Value, ir.Value]
) -> list[tuple[ir.Value, ir.Value]]:
    if isinstance(values, Mapping):
        return list(values.items())
    if isinstance(values, ir.Value):
        values = [values, *[None] * (len(root.outputs) - 1)]
    given = tuple(values)
    if len(given) != len(root.outputs):
        raise InternalError(f"{root.op_type} has {len(root.outputs)} outputs, {len(given)} values are to replace them")
    pairs = []
    for old, new in zip(root.outputs, given, strict=True):
        if new is not None:
            pairs.append((old, new))
        elif old._uses or old.is_graph_output():
            raise InternalError(f"output {old.name!r} of {root.op_type} is read and needs a replacement")
    return pairs


def _adopt_type(old: ir.Value, new: ir.Value) -> None:
    """Let ``new`` know all that is known of ``old``: they are the same tensor."""
    if new.type is None:
        new.type = old.type
    if old.shape is None or new.shape is old.shape:
        return
    if new.shape is None:
        new.shape = old.shape.copy()
        return
    if len(new.shape) != len(old.shape):
        return
    for axis, (theirs, ours) in enumerate(zip(old.shape.dims, new.shape.dims, strict=True)):
        if isinstance(ours, int) or (ours.value is not None and not isinstance(theirs, int)):
            continue
        if isinstance(theirs, int) or theirs.value is not None:
            if new.shape.frozen:
                new.shape = new.shape.copy()
            new.shape[axis] = theirs


def _sharpest(known: ir.Shape, inferred: ir.Shape | None) -> ir.Shape:
    """What is known of a shape, and the dims that inference adds to it."""
    if inferred is None or len(inferred) != len(known):
        return known
    for axis, dim in enumerate(known.dims):
        ours = inferred[axis]
        if isinstance(dim, int) or (not isinstance(ours, int) and dim.value is not None):
            inferred[axis] = dim
    return inferred


def _detach(node: ir.Node) -> None:
    """Let the node, and those in its bodies, read nothing any more."""
    node.resize_inputs(0)
    for body in bodies_of(node):
        for inner in body.all_nodes():
            inner.resize_inputs(0)
