"""What each module of a graph costs: nodes, parameters, arithmetic, memory of results, and time where it was measured.

Nodes stand for the module that their first origin names; what was folded into them goes with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from graphforge.shown import Shown

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console

__all__ = ["ModuleCost", "ModuleCosts", "costs_of"]


@dataclass(frozen=True, slots=True)
class ModuleCost:
    """One module, all that is inside included.

    Attributes:
        module: its path; "" for what belongs to none.
        kind: its class, as far as an origin names it.
        nodes: how many nodes.
        parameters: elements of the weights that its nodes are the first to read.
        flops: additions and multiplications, counted one by one; None where a shape is unknown.
        result_bytes: what its nodes write.
        seconds: of a run; None where it was not measured.
    """

    module: str
    kind: str = ""
    nodes: int = 0
    parameters: int = 0
    flops: int | None = 0
    result_bytes: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ModuleCosts(Shown):
    """A graph by module.

    Attributes:
        rows: the modules in the order of computation.
        total: all of them together.
        sizes: what named dims were taken as.
        unplaced: seconds of what the runtime made itself and names after no node.
        notes: what limits the numbers.
    """

    rows: tuple[ModuleCost, ...]
    total: ModuleCost
    sizes: Mapping[str, int]
    unplaced: float = 0.0
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """All of it in one line."""
        flops = "unknown" if self.total.flops is None else f"{self.total.flops / 1e9:.3g} GFLOP"
        return (
            f"{self.total.nodes} nodes, {self.total.parameters:,} parameters, {flops}, "
            f"{self.total.result_bytes / 1e6:.3g} MB of results"
        )

    def render(self, console: Console) -> None:
        """Print the table."""
        from rich.markup import escape
        from rich.table import Table

        timed = self.total.seconds is not None
        table = Table(title="by module" + _at(self.sizes), title_justify="left")
        for name in (
            "module",
            "class",
            "nodes",
            "parameters",
            "MFLOP",
            "MB of results",
            *(["ms", "share"] if timed else []),
        ):
            table.add_column(name, justify="left" if name in ("module", "class") else "right", overflow="fold")
        for row in (*self.rows, self.total):
            if row is self.total:
                table.add_section()
            time = [f"{(row.seconds or 0) * 1e3:.3f}", _share(row.seconds, self.total.seconds)] if timed else []
            table.add_row(
                escape(row.module or ("all" if row is self.total else "(none)")),
                escape(row.kind),
                str(row.nodes),
                f"{row.parameters:,}",
                "?" if row.flops is None else f"{row.flops / 1e6:,.2f}",
                f"{row.result_bytes / 1e6:,.3f}",
                *time,
            )
        console.print(table)
        if self.unplaced:
            console.print(f"{self.unplaced * 1e3:.3f} ms in nodes of ONNX Runtime's own making", highlight=False)
        for note in self.notes:
            console.print(escape(f"note: {note}"), highlight=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "modules": [asdict(row) for row in self.rows],
            "total": asdict(self.total),
            "sizes": dict(self.sizes),
            "unplaced_seconds": self.unplaced,
            "notes": list(self.notes),
        }


def costs_of(
    model: ir.Model,
    *,
    depth: int | None = None,
    sizes: Mapping[str, int] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> ModuleCosts:
    """Count what each module costs.

    Args:
        model: the graph, with shapes.
        depth: modules are cut to so many parts of their path; None keeps them whole.
        sizes: sizes of named dims; 1 where a name is missing.
        seconds: time of nodes by name; names that no node has are the runtime's own.
    """
    from graphforge.ir import origins_of

    known = dict(sizes or {})
    rows: dict[str, ModuleCost] = {}
    taken: set[int] = set()
    names = set()
    uncounted: dict[str, int] = {}
    for node in model.graph.all_nodes():
        origin = next((one for one in origins_of(node) if one.module), None)
        parts = origin.module.split(".") if origin is not None else []
        path = ".".join(parts if depth is None else parts[:depth])
        whole = origin is not None and path == origin.module
        row = rows.get(path, ModuleCost(path, flops=0, seconds=None if seconds is None else 0.0))
        parameters = 0
        for value in node.inputs:
            if value is not None and value.const_value is not None and id(value) not in taken:
                taken.add(id(value))
                parameters += value.const_value.size
        flops = _flops(node, known)
        if flops is None:
            uncounted[node.op_type] = uncounted.get(node.op_type, 0) + 1
        time = None
        if seconds is not None:
            name = node.name or ""
            names.add(name)
            time = (row.seconds or 0.0) + seconds.get(name, 0.0)
        rows[path] = ModuleCost(
            path,
            row.kind or (origin.module_class.rpartition(".")[2] if whole and origin is not None else ""),
            row.nodes + 1,
            row.parameters + parameters,
            (row.flops or 0) + (flops or 0),
            row.result_bytes + sum(_bytes(value, known) for value in node.outputs),
            time,
        )
    total = ModuleCost(
        "",
        "",
        sum(row.nodes for row in rows.values()),
        sum(row.parameters for row in rows.values()),
        sum(row.flops or 0 for row in rows.values()),
        sum(row.result_bytes for row in rows.values()),
        None if seconds is None else sum(seconds.values()),
    )
    unplaced = 0.0 if seconds is None else sum(time for name, time in seconds.items() if name not in names)
    notes = [] if seconds is None else ["what ONNX Runtime fuses stands at the node whose name it took over"]
    told = (
        "the arithmetic of "
        + ", ".join(f"{count} {op}" for op, count in sorted(uncounted.items()))
        + " is not in the numbers: a shape is unknown, or it hangs on the data"
    )
    notes += [told] if uncounted else []
    lacking = sorted({name for node in model.graph.all_nodes() for name in _named(node)} - set(known))
    if lacking:
        notes.append(f"sizes that hang on the data or were not given count as 1: {', '.join(lacking)}")
    return ModuleCosts(tuple(rows.values()), total, known, unplaced, tuple(notes))


def _at(sizes: Mapping[str, int]) -> str:
    return f" at {', '.join(f'{name}={size}' for name, size in sizes.items())}" if sizes else ""


def _share(part: float | None, whole: float | None) -> str:
    return f"{100 * (part or 0) / whole:.1f} %" if whole else ""


def _dims(value: ir.Value | None, sizes: Mapping[str, int]) -> list[int] | None:
    if value is None or value.shape is None:
        return None
    dims = []
    for dim in value.shape:
        if isinstance(dim, int):
            dims.append(dim)
        elif dim.value is None:
            return None
        else:
            dims.append(sizes.get(dim.value, 1))
    return dims


def _named(node: ir.Node) -> list[str]:
    shapes = [value.shape for value in node.outputs if value.shape is not None]
    return [str(dim.value) for shape in shapes for dim in shape if not isinstance(dim, int) and dim.value]


def _bytes(value: ir.Value, sizes: Mapping[str, int]) -> int:
    dims = _dims(value, sizes)
    if dims is None or value.dtype is None or value.dtype.name == "STRING":
        return 0
    return math.ceil(math.prod(dims) * value.dtype.bitwidth / 8)


# They move or describe numbers and compute none.
_FREE = frozenset(
    "Identity Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Gather GatherElements GatherND Shape Size "
    "Expand Tile Pad Cast CastLike Constant ConstantOfShape DepthToSpace SpaceToDepth Range OneHot NonZero Compress "
    "ScatterElements ScatterND ReverseSequence Dropout".split()
)


def _flops(node: ir.Node, sizes: Mapping[str, int]) -> int | None:
    """Additions and multiplications of a node; None where they cannot be counted."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _FREE:
        return 0
    if node.op_type in ("If", "Loop", "Scan"):
        return 0  # their bodies are counted node by node, once
    result = _dims(node.outputs[0] if node.outputs else None, sizes)
    if result is None:
        return None
    count = math.prod(result)
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = _dims(node.inputs[1], sizes)
        image = _dims(node.inputs[0], sizes)
        if weight is None or image is None:
            return None
        # each result of a Conv, each input of a ConvTranspose, meets a whole filter
        ends = count if node.op_type == "Conv" else math.prod(image)
        return 2 * ends * math.prod(weight[1:])
    if node.op_type == "Gemm":
        first = _dims(node.inputs[0], sizes)
        transposed = "transA" in node.attributes and node.attributes["transA"].as_int()
        return None if first is None else 2 * count * first[0 if transposed else 1]
    if node.op_type == "MatMul":
        first = _dims(node.inputs[0], sizes)
        return None if not first else 2 * count * first[-1]
    if node.op_type in ("LSTM", "GRU", "RNN"):
        image, weight, again = (_dims(value, sizes) for value in node.inputs[:3])
        if image is None or weight is None or again is None:
            return None
        return 2 * image[0] * image[1] * (math.prod(weight) + math.prod(again))
    if node.op_type.startswith(("Reduce", "Global", "ArgM", "Softmax", "LogSoftmax", "TopK")) or "Norm" in node.op_type:
        read = _dims(node.inputs[0], sizes)
        return None if read is None else math.prod(read)
    if node.op_type in ("MaxPool", "AveragePool", "LpPool"):
        window = node.attributes.get("kernel_shape")
        return None if window is None else count * math.prod(window.as_ints())
    return count
