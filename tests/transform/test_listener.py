"""Every edit is told, once, at the place where it is made; the count of changes is one who listens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import pytest

from graphforge.errors import InternalError
from graphforge.ir import Graph, Model, Node, Value, verify_graph
from graphforge.transform import Pass, PassRecord, Pipeline, RewriteListener, Rewriter
from tests.transform.toys import DropDoubleNeg, ReluToClip, parse

GRAPH = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Relu(x) b = Neg(a) c = Neg(b) y = Add(c, w) }"


@dataclass
class Told(RewriteListener):
    """Writes down all that it hears."""

    events: list[str] = field(default_factory=list)

    def node_created(self, node: Node) -> None:
        self.events.append(f"created {node.op_type}")

    def node_replaced(self, node: Node, made: Sequence[Node]) -> None:
        self.events.append(f"replaced {node.op_type} by {[one.op_type for one in made]}")

    def node_erased(self, node: Node) -> None:
        self.events.append(f"erased {node.op_type}")

    def input_changed(self, node: Node, index: int) -> None:
        self.events.append(f"input {index} of {node.op_type}")

    def attribute_changed(self, node: Node, name: str) -> None:
        self.events.append(f"attribute {name} of {node.op_type}")

    def value_changed(self, value: Value) -> None:
        self.events.append(f"value {value.name}")

    def graph_changed(self, graph: Graph, what: str) -> None:
        self.events.append(what)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def model() -> Model:
    return parse(GRAPH)


def test_a_replacement_and_the_edits_it_consists_of(told: Told, model: Model) -> None:
    rewriter = Rewriter(model, listeners=[told])
    relu, *_ = model.graph
    rewriter.replace(relu, rewriter.builder(relu).Abs(relu.inputs[0]))
    assert told.events == ["created Abs", "input 0 of Neg", "erased Relu", "replaced Relu by ['Abs']"]
    assert rewriter.changes == 3


def test_other_edits_are_told_once_and_only_when_they_change_something(told: Told, model: Model) -> None:
    rewriter = Rewriter(model)
    rewriter.add_listener(told)
    relu, _, _, add = model.graph
    a, w = relu.outputs[0], model.graph.initializers["w"]
    for _ in range(2):
        rewriter.set_attribute(relu, "alpha", 1.0)
        rewriter.set_type(a, ir.TensorType(ir.DataType.FLOAT))
        rewriter.set_shape(a, ir.Shape([2]))
        rewriter.set_input(add, 1, a)
        rewriter.set_opset(3, "acme")
        rewriter.set_outputs([("y", add.outputs[0])])
        rewriter.sort()
        rewriter.infer(relu)
    assert told.events == ["attribute alpha of Relu", "value a", "value a", "input 1 of Add", "opset"]
    told.events.clear()
    rewriter.set_constant(w, ir.Tensor(np.zeros(2, np.float32)))
    rewriter.drop_initializer(w)
    rewriter.keep_inputs(add, 1)
    rewriter.constant(np.ones(3, np.float32))
    rewriter.set_opset(None, "acme")
    rewriter.add_output("more", a)
    assert told.events == ["value w", "constants", "input 1 of Add", "constants", "opset", "outputs"]
    assert rewriter.changes == 11


def test_inference_fills_in_what_is_unknown_and_keeps_what_is_known(told: Told) -> None:
    model = parse("g (float[N,2] x) => (float[N,2] y) { a = Relu(x) y = Relu(a) }")
    rewriter = Rewriter(model, listeners=[told])
    first, second = model.graph
    for node in (first, second):
        rewriter.infer(node)
    assert told.events == ["value a"]
    assert str(first.outputs[0].shape) == "[N,2]"


def test_sorting_is_told_where_it_moves_something(told: Told, model: Model) -> None:
    rewriter = Rewriter(model, listeners=[told])
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.append(first)
    rewriter.sort()
    assert told.events == ["order"]
    verify_graph(model)


def test_outputs_get_their_names_and_whoever_had_them_another(model: Model) -> None:
    rewriter = Rewriter(model)
    relu, _, neg, add = model.graph
    rewriter.set_outputs([("a", neg.outputs[0]), ("y", add.outputs[0])])
    assert [value.name for value in model.graph.outputs] == ["a", "y"]
    assert relu.outputs[0].name == "a_1"
    verify_graph(model)
    rewriter.set_outputs([("z", neg.outputs[0])])
    assert add.outputs[0].name == "val"
    verify_graph(model)
    with pytest.raises(InternalError, match="not each a computed value of its own"):
        rewriter.set_outputs([("one", neg.outputs[0]), ("two", neg.outputs[0])])
    with pytest.raises(InternalError, match="not each a computed value of its own"):
        rewriter.set_outputs([("x", model.graph.inputs[0])])
    assert [value.name for value in model.graph.outputs] == ["z"]


def test_an_instrument_that_listens_hears_of_every_pass(model: Model) -> None:
    @dataclass
    class WhoMadeWhat(RewriteListener):
        made: dict[str, list[str]] = field(default_factory=dict)
        now: str = ""

        def before(self, pass_: Pass, model: Model) -> None:
            self.now = pass_.name

        def after(self, pass_: Pass, model: Model, record: PassRecord) -> None:
            self.now = ""

        def node_created(self, node: Node) -> None:
            self.made.setdefault(self.now, []).append(node.op_type)

    journal = WhoMadeWhat()
    Pipeline([DropDoubleNeg(), ReluToClip()]).run(model, [journal])
    assert journal.made == {"relu-to-clip": ["Clip"]}
