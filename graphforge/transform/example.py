"""Example: the smallest graph that shows what a pass does, before and after.

It is a text file `examples/<pass_name>.txt` beside the file of the pass, for passes of others too: a pipeline, an empty
line, the graph before it, a line `==>`, and the graph after it.  The graphs are in ONNX's textual syntax; the header
is left out where it says no more than the home opset.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import onnx

from graphforge.errors import GraphForgeError
from graphforge.ir import HOME_OPSET, Model, from_text, infer_node, nodes_of, to_text
from graphforge.transform.base import Pass
from graphforge.transform.pipeline import Pipeline

__all__ = ["Example", "example_file", "example_of", "example_text"]

_HEADER = f'<ir_version: 10, opset_import: ["" : {HOME_OPSET}]>\n'
_ARROW = "\n==>\n"


@dataclass(frozen=True, slots=True)
class Example:
    """A graph before and after a pass.

    Attributes:
        pipeline: what runs, as ``pipeline`` takes it: the pass with the options that the example needs.
        before: the graph before it, as text.
        after: the graph after it, as ``example_text`` writes it.
    """

    pipeline: str
    before: str
    after: str

    @classmethod
    def parse(cls, text: str) -> Example:
        """Read the text of an example file.

        Raises:
            GraphForgeError: the text has another form.
        """
        pipeline, empty, graphs = text.partition("\n\n")
        before, arrow, after = graphs.partition(_ARROW)
        if not empty or not arrow or not pipeline.strip():
            raise GraphForgeError(
                "an example of a pass is a pipeline, an empty line, a graph, a line `==>` and a graph", f"got {text!r}"
            )
        return cls(pipeline.strip(), before.strip(), after.strip())

    def __str__(self) -> str:
        return f"{self.pipeline}\n\n{self.before}\n{_ARROW}\n{self.after}\n"

    def model(self) -> Model:
        """The graph before the pass as a model, with types and shapes worked out."""
        text = self.before if self.before.startswith("<") else _HEADER + self.before
        model = from_text(text, random_weights=0)
        for node in nodes_of(model.graph):
            infer_node(node, model.graph.opset_imports.get("", HOME_OPSET))
        return model

    def run(self) -> Example:
        """The same with the ``after`` that the pipeline makes now."""
        model = self.model()
        Pipeline.parse(self.pipeline).run(model)
        return Example(self.pipeline, self.before, example_text(model).strip())


def example_file(pass_class: type[Pass]) -> Path:
    """Where the example of a pass is, if there is one."""
    return Path(inspect.getfile(pass_class)).parent / "examples" / f"{pass_class.name.replace('-', '_')}.txt"


def example_of(pass_class: type[Pass]) -> Example | None:
    """The example that comes with a pass.

    Raises:
        GraphForgeError: its file has another form.
    """
    file = example_file(pass_class)
    return Example.parse(file.read_text(encoding="utf-8")) if file.is_file() else None


def example_text(model: Model) -> str:
    """The model in the form of examples: as ``to_text``, without the types of what lies between and a plain header."""
    text = to_text(model)
    weights = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("# weight ")).replace('"', "")
    proto = onnx.parser.parse_model(text)
    for graph in _graphs(proto.graph):
        # a weight whose elements are left out is declared among the types
        named = [info for info in graph.value_info if f"# weight {info.name} " in weights]
        del graph.value_info[:]
        graph.value_info.extend(named)
        for node in graph.node:
            node.ClearField("name")
    header, _, graph_text = str(onnx.printer.to_text(proto)).partition(">\n")
    imports = {item.domain: item.version for item in proto.opset_import}
    graph_text = re.sub(r" +$", "", graph_text.replace(" =  ", " = "), flags=re.MULTILINE)
    # the type of an attribute is left out where the parser reads the same one from the number or text
    graph_text = re.sub(r"(\w+): (?:int|string)s? = ", r"\1 = ", graph_text)
    graph_text = re.sub(r"(\w+): float = (?=-?\d+[.e])", r"\1 = ", graph_text) + "\n"
    if imports != {"": HOME_OPSET}:
        graph_text = re.sub(r"\s+", " ", f"{header}>").replace("< ", "<").replace(" >", ">") + "\n" + graph_text
    return weights + graph_text


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """The graph and the bodies in it."""
    bodies = [
        attribute.g
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
    ]
    return [graph, *(inner for body in bodies for inner in _graphs(body))]
