"""`graphforge.inspect`: the IR of a model, one node a line, with the origin of every node."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.declaring import GivenOperator, GivenSubstitution, declarations
from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.prepare import ModelLike, Prepared, count_nodes, load, prepare, to_canonical, to_ir
from graphforge.shown import Shown

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console

    from graphforge.journal import Progress
    from graphforge.targets.target import Target
    from graphforge.verify.modules import ModuleCosts

__all__ = ["LEVELS", "Inspection", "PlanInspection", "inspect", "inspect_plan"]

LEVELS = ("captured", "canonical", "legal")
# Lines of a graph that a notebook or a table of reports shows; `str` has all of them.
_SHOWN = 1000


@dataclass(frozen=True, slots=True, repr=False)
class Inspection(Shown):
    """A model's graph at one point of its way.

    Attributes:
        model: the graph.
        level: ``captured``, ``canonical`` or ``legal``.
        node: the one node asked for; None is all of them.
        modules: what each module costs, where that was asked for: it is shown in place of the graph.
    """

    model: ir.Model
    level: str
    node: ir.Node | None = None
    modules: ModuleCosts | None = None

    def summary(self) -> str:
        """``resnet, canonical, 49 nodes``."""
        if self.modules is not None:
            return self.modules.summary()
        if self.node is not None:
            return f"node {self.node.name}, {self.node.op_type}, {self.level}"
        name = self.model.graph.name
        return f"{name + ', ' if name else ''}{self.level}, {count_nodes(self.model)} nodes"

    def __str__(self) -> str:
        """The whole graph, one node a line; or the table of modules."""
        if self.modules is not None:
            return str(self.modules)
        return "\n".join(self.lines(coloured=False))

    def text(self) -> str:
        """Every detail in ONNX's textual syntax, which ``graphforge.ir.from_text`` reads back."""
        from graphforge.ir import to_text

        return to_text(self.model, origins=True)

    def costs(self, *, depth: int | None = None, sizes: Mapping[str, int] | None = None) -> ModuleCosts:
        """Nodes, parameters, arithmetic and memory, module by module.

        Args:
            depth: modules are cut to so many parts of their path; None keeps them whole.
            sizes: sizes of named dims; 1 where a name is missing.
        """
        from graphforge.verify.modules import costs_of

        return costs_of(self.model, depth=depth, sizes=sizes)

    def lines(self, *, coloured: bool, width: int | None = None) -> Iterator[str]:
        """The graph, or the one node with all that is known of it, line by line.

        Args:
            coloured: whether with colours for a terminal.
            width: cut lines of the graph to it; None leaves them.
        """
        from graphforge.ir.printer import lines_of

        if self.node is not None:
            yield from _lines_of_node(self.node)
            return
        for line in lines_of(self.model, width=width):
            yield line.coloured() if coloured else str(line)

    def render(self, console: Console) -> None:
        """Print the graph, at most a thousand lines of it, or the table of modules."""
        if self.modules is not None:
            self.modules.render(console)
            return
        from rich.text import Text

        lines = list(self.lines(coloured=console.color_system is not None, width=console.width))
        for line in lines[:_SHOWN]:
            console.print(Text.from_ansi(line), soft_wrap=True)
        if len(lines) > _SHOWN:
            console.print(f"and {len(lines) - _SHOWN} more lines; print(...) shows all", soft_wrap=True)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        if self.modules is not None:
            return self.modules.to_dict()
        nodes = self.model.graph.all_nodes() if self.node is None else [self.node]
        return {"level": self.level, "nodes": [_described(node) for node in nodes]}


@dataclass(frozen=True, slots=True, repr=False)
class PlanInspection(Shown):
    """What is known of a TensorRT plan: the file itself records nothing, so it is what stands in plan.json beside it.

    Attributes:
        path: the plan.
        facts: what plan.json says.
        is_that_file: whether the file is the one that plan.json describes.
    """

    path: str
    facts: Mapping[str, Any]
    is_that_file: bool

    def summary(self) -> str:
        """``out/net/model.plan for SM86, tensorrt_rtx 1.7.1, 12.4 MB``."""
        gpus = ", ".join(self.facts["compute_capabilities"])
        size = self.facts["plan"]["bytes"] / 1e6
        return f"{self.path} for {gpus}, {self.facts['flavour']} {self.facts['version']}, {size:.1f} MB"

    def lines(self) -> Iterator[str]:
        """All of it, line by line."""
        yield self.summary()
        if not self.is_that_file:
            yield "  it is not the file that plan.json describes: its SHA-256 differs"
        onnx = self.facts["onnx"]
        yield f"  built from {onnx['file']}, opset {onnx['opset']}, precision {self.facts['precision']}"
        for what in ("inputs", "outputs"):
            for one in self.facts[what]:
                shape = "?" if one["shape"] is None else "x".join(map(str, one["shape"])) or "scalar"
                yield f"  {what.removesuffix('s'):6} {one['name']}  {one['dtype']} {shape}"
        for profile in self.facts["profiles"]:
            for name, sizes in profile.items():
                low, best, high = ("x".join(map(str, sizes[end])) for end in ("min", "opt", "max"))
                yield f"  sizes  {name}  {low} to {high}, fastest at {best}"
        for name in ("tf32", "optimization_level", "workspace_mib", "weight_stripped", "checked"):
            if self.facts.get(name) not in (None, False):
                yield f"  {name}: {self.facts[name]}"

    def render(self, console: Console) -> None:
        """Print it."""
        for line in self.lines():
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"path": self.path, "is_that_file": self.is_that_file, "plan": dict(self.facts)}


def inspect_plan(path: str | os.PathLike[str]) -> PlanInspection:
    """Look at a TensorRT plan; no TensorRT and no GPU is needed.

    Raises:
        GraphForgeError: there is no such file, or no plan.json beside it.
    """
    from graphforge.targets.tensorrt.manifest import read_plan_manifest, sha256_of

    file = Path(path)
    if not file.is_file():
        raise GraphForgeError(f"there is no plan {str(path)!r}")
    if not (file.parent / "plan.json").is_file():
        raise GraphForgeError(
            f"there is no plan.json beside {str(path)!r}, and a plan itself records nothing about how it was made",
            "give the plan in the bundle that a compilation for the target tensorrt wrote",
        )
    facts = read_plan_manifest(file.parent)
    return PlanInspection(os.fspath(path), facts, sha256_of(file) == facts["plan"].get("sha256"))


def inspect(
    model: ModelLike,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    level: str | None = None,
    node: str | None = None,
    summary: bool = False,
    depth: int | None = None,
    target: str | Target = "onnx",
    opset: int | None = None,
    capture: str = "auto",
    substitutes: Sequence[GivenSubstitution] = (),
    custom_ops: Sequence[GivenOperator] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Inspection:
    """Look at the graph of a model, with the module, operator and source line that every node came from.

    Args:
        model: the model, as ``graphforge.compile`` takes it; an ONNX file is only read and needs no inputs.
        inputs, kwargs, dynamic_shapes: the example call, as ``graphforge.compile`` takes it.
        level: ``captured`` (or read), ``canonical`` (after the default passes), ``legal`` (as the target gets it);
            None is canonical, captured for an ONNX file.
        node: name of a node, or of what it computes: only this one.
        summary: show nodes, parameters, arithmetic and memory, module by module, in place of the graph.
        depth: for the summary: modules are cut to so many parts of their path.
        target: the target of level ``legal``.
        opset: the opset of level ``legal``.
        capture: how the program is read from the module, as ``graphforge.compile`` takes it.
        substitutes, custom_ops: your own declarations for this call, as ``graphforge.compile`` takes them.
        seed: of random inputs.
        progress: called with the name of each step as it begins.

    Raises:
        UsageError: there is no such level or target.
        GraphForgeError: the model cannot be captured or lowered, or there is no such node.
    """
    from graphforge.ir import Level
    from graphforge.onnx_io.blame import blaming
    from graphforge.spec import ShapeSpec
    from graphforge.targets import get_target, options_for
    from graphforge.transform import Pipeline, check_level

    if summary and node is not None:
        raise UsageError(f"{argument('node', node)}: the summary is about modules, not about one node", _EITHER)
    if depth is not None and not summary:
        raise UsageError(f"{argument('depth', depth)} is about modules", f"ask for them: {argument('summary', True)}")
    if depth is not None and depth < 1:
        raise UsageError(f"{argument('depth', depth)}: a module's path has at least one part")
    with declarations(substitutes, custom_ops), blaming(model):
        if level is not None and level not in LEVELS:
            raise UsageError(f"there is no level {level!r}", f"the levels are: {', '.join(LEVELS)}")
        chosen = get_target(target) if isinstance(target, str) else target
        legalising = chosen.pipeline(options_for(chosen, opset=opset)) if level == "legal" else []
        begin = progress or _say_nothing
        loaded = load(model)
        if loaded.onnx_path is not None and inputs is None:
            prepared = Prepared(loaded, ShapeSpec(()))
        else:
            prepared = prepare(loaded, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)
        level = level or ("canonical" if loaded.onnx_path is None else "captured")
        begin("capture")
        graph, _ = to_ir(prepared, capture=capture, check=level != "captured")
        if level != "captured":
            begin("canonicalise")
            to_canonical(graph)
        if legalising:
            begin("legalise")
            Pipeline(legalising).run(graph)
            check_level(graph, Level.LEGAL, f"the passes of target {chosen.name}", owner=chosen)
        found = Inspection(graph, level, None if node is None else _find(graph, node))
        if not summary:
            return found
        return replace(found, modules=found.costs(depth=depth, sizes=prepared.shapes.example_sizes()))


_EITHER = "leave one of the two out"


def _say_nothing(step: str) -> None:
    """Nobody asked how far it is."""


def _find(model: ir.Model, name: str) -> ir.Node:
    nodes = {node.name: node for node in model.graph.all_nodes() if node.name is not None}
    nodes |= {output.name: node for node in nodes.values() for output in node.outputs if output.name is not None}
    if name in nodes:
        return nodes[name]
    close = difflib.get_close_matches(name, nodes, n=3)
    raise GraphForgeError(
        f"there is no node {name!r}",
        f"did you mean {' or '.join(close)}?" if close else "",
        f"the graph has {count_nodes(model)} nodes; where no node is named they are all shown",
    )


def _described(node: ir.Node) -> dict[str, Any]:
    from graphforge.ir import origins_of

    return {
        "name": node.name,
        "op": node.op_type,
        "domain": node.domain,
        "inputs": [None if value is None else value.name for value in node.inputs],
        "outputs": [_value(value) for value in node.outputs],
        "attributes": {name: str(attribute.value) for name, attribute in node.attributes.items()},
        "origins": [asdict(origin) for origin in origins_of(node)],
    }


def _value(value: ir.Value) -> dict[str, Any]:
    return {
        "name": value.name,
        "dtype": None if value.dtype is None else value.dtype.name.lower(),
        "shape": None if value.shape is None else [dim if isinstance(dim, int) else str(dim) for dim in value.shape],
    }


def _lines_of_node(node: ir.Node) -> Iterator[str]:
    from graphforge.ir import origins_of

    yield f"{node.name}: {node.domain + '::' if node.domain else ''}{node.op_type}"
    for value in node.inputs:
        if value is not None:
            yield f"  input   {value.name}  {_typed(value)}"
    for name, attribute in node.attributes.items():
        yield f"  attr    {name} = {attribute.value}"
    for value in node.outputs:
        yield f"  output  {value.name}  {_typed(value)}"
    for origin in origins_of(node):
        made_by = f", made by {origin.made_by}" if origin.made_by else ""
        yield f"  origin  {origin.describe()}{made_by}"
        if origin.callers:
            yield f"          called from {', '.join(origin.callers)}"


def _typed(value: ir.Value) -> str:
    facts = _value(value)
    shape = "?" if facts["shape"] is None else "x".join(map(str, facts["shape"])) or "scalar"
    return f"{facts['dtype'] or '?'} {shape}"
