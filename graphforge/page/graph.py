"""What the page's picture is drawn from: the delivered graph's nodes, folded by module, with what is known of each.

The page lays out only what is unfolded, so that thousands of nodes cost nothing until somebody opens their module.
"""

from __future__ import annotations

import linecache
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

__all__ = ["graph_data"]

# More children of one module than this are folded into runs of so many.
_MOST_CHILDREN, _RUN = 90, 40
_MOST_REWRITES = 400
_LETTERS = 300
# So many of the lines that led to a line are shown with it.
_CALLERS = 2


def graph_data(
    path: Path,
    *,
    diff: Mapping[str, Any] | None = None,
    rewrites: Sequence[Mapping[str, Any]] = (),
    seconds: Mapping[str, float] | None = None,
    spreads: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The graph of an ONNX file as plain data.

    Args:
        path: the file; its weights are not read.
        diff: a diff's JSON form, whose values give errors.
        rewrites: what passes did, ``Rewrite.to_dict`` each, with ``nodes``: names in the file that it led to.
        seconds: time of each node, by its name.
        spreads: how the elements of values are spread, ``spread_of`` each, by the value's name.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    types = _types(model)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    errors = _errors(diff)
    by_node: dict[str, list[int]] = {}
    for number, rewrite in enumerate(rewrites[:_MOST_REWRITES]):
        for name in rewrite.get("nodes", ()):
            by_node.setdefault(name, []).append(number)
    losses = {layer["value"]: layer for layer in (diff or {}).get("precision", ())}
    guilty = {name for cause in (diff or {}).get("causes", ()) for name in cause.get("nodes", ())}
    nodes = []
    for node in graph.node:
        properties = {entry.key: entry.value for entry in node.metadata_props}
        name = node.name or next((one for one in node.output if one), "?")
        found = [errors[one] for one in node.output if one in errors]
        nodes.append(
            {
                "name": name,
                "op": node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}",
                "path": _path(properties, name),
                "from": _origins(properties),
                "lines": _lines(properties),
                "in": sorted({makers[one] for one in _read(node) if one in makers}),
                "reads": [_described(one, types, weights) for one in node.input if one],
                "gives": [_described(one, types, weights) for one in node.output if one],
                "dtype": _dtype(types, node),
                "attributes": _attributes(node),
                "error": max((one[0] for one in found if one[0] is not None), default=None),
                "status": next((one[1] for one in found), ""),
                "wrong": name in guilty,
                "seconds": None if seconds is None else seconds.get(name),
                "rewrites": by_node.get(name, []),
                "values": [{"name": one, **spreads[one]} for one in node.output if spreads and one in spreads],
                "loss": next((_loss(losses[one]) for one in node.output if one in losses), None),
            }
        )
    _fold(nodes)
    readers: dict[str, list[int]] = {}
    for index, proto in enumerate(graph.node):
        for one in dict.fromkeys(_read(proto)):
            readers.setdefault(one, []).append(index)
    return {
        "nodes": nodes,
        "rewrites": [_shown(rewrite) for rewrite in rewrites[:_MOST_REWRITES]],
        "depth": _depth(diff, makers),
        "inputs": [
            {"told": _described(value.name, types, weights), "nodes": readers.get(value.name, [])}
            for value in graph.input
            if value.name not in weights
        ],
        "outputs": [
            {
                "told": _described(value.name, types, weights),
                "nodes": [makers[value.name]] if value.name in makers else [],
            }
            for value in graph.output
        ],
    }


def _types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    graph = model.graph
    known = {value.name: value.type for value in (*graph.value_info, *graph.input, *graph.output)}
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    except Exception:  # the picture is worth having without shapes
        return known
    return {value.name: value.type for value in inferred} | known


def _described(name: str, types: Mapping[str, onnx.TypeProto], weights: Mapping[str, onnx.TensorProto]) -> str:
    if name in weights:
        tensor = weights[name]
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        return f"{name}: {kind}[{', '.join(map(str, tensor.dims))}], constant"
    tensor_type = types[name].tensor_type if name in types else None
    if tensor_type is None or not tensor_type.elem_type:
        return name
    kind = onnx.TensorProto.DataType.Name(tensor_type.elem_type).lower()
    if not tensor_type.HasField("shape"):
        return f"{name}: {kind}[...]"
    dims = (str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor_type.shape.dim)
    return f"{name}: {kind}[{', '.join(dims)}]"


def _dtype(types: Mapping[str, onnx.TypeProto], node: onnx.NodeProto) -> str:
    kinds = [types[name].tensor_type.elem_type for name in node.output if name in types]
    known = [onnx.TensorProto.DataType.Name(kind).lower() for kind in kinds if kind]
    return known[0] if known else "unknown"


def _attributes(node: onnx.NodeProto) -> str:
    parts = []
    for attribute in node.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            parts.append(f"{attribute.name}: {len(attribute.g.node)} nodes")
        else:
            parts.append(str(onnx.helper.printable_attribute(attribute)))
    text = ", ".join(parts)
    return text if len(text) <= _LETTERS else text[:_LETTERS] + "…"


def _read(node: onnx.NodeProto) -> list[str]:
    names = list(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names += _read(inner)
    return names


def _path(properties: Mapping[str, str], name: str) -> list[str]:
    from graphforge.ir.origin import origins_from_metadata

    origins = origins_from_metadata(dict(properties))
    module = next((origin.module for origin in origins if origin.module), "")
    return [part for part in (module or name.rpartition("/")[0].replace("/", ".")).split(".") if part]


def _origins(properties: Mapping[str, str]) -> list[str]:
    from graphforge.ir.origin import origins_from_metadata

    told = []
    for origin in origins_from_metadata(dict(properties)):
        made = f", made by {origin.made_by}" if origin.made_by else ""
        called = f", called from {' < '.join(origin.callers)}" if origin.callers else ""
        told.append(f"{origin.describe()}{made}{called}")
    return told


def _lines(properties: Mapping[str, str]) -> list[str]:
    """The lines of code that a node comes from, as far as their files are here."""
    from graphforge.ir.origin import origins_from_metadata

    lines = {}
    for origin in origins_from_metadata(dict(properties)):
        for place in (origin.source, *origin.callers[:_CALLERS]):
            file, _, number = place.rpartition(":")
            # a bundle may come from anybody, and names files as it likes: only programs are read for it
            if file.endswith(".py") and number.isdecimal() and len(number) < 10:
                lines[f"{Path(file).name}:{number}"] = linecache.getline(file, int(number)).strip()[:_LETTERS]
    return [f"{source}: {line}" for source, line in lines.items() if line]


def _loss(layer: Mapping[str, Any]) -> dict[str, Any]:
    """What one layer of a file in fewer digits loses, for its node's panel."""
    own = layer.get("own") or {}
    shares = {name: layer[name] for name in ("overflow", "underflow", "clipped")}
    return {
        "here": layer["here"]["snr"],
        "own": own.get("snr"),
        "costs": layer["costs"],
        "largest": layer["largest"],
        "keep": layer.get("keep", False),
        **shares,
    }


def _rows(diff: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The values of the file that a diff compared; outputs have their comparison from the verdict on them."""
    if diff is None:
        return []
    outputs = {one["name"]: one for one in diff.get("outputs", ())}
    rows = diff.get("values") or diff.get("rows", ())
    found = [{**row, "comparison": row.get("comparison") or outputs.get(row.get("value"))} for row in rows]
    return [row for row in found if row.get("value") and row["comparison"]]


def _errors(diff: Mapping[str, Any] | None) -> dict[str, tuple[float | None, str]]:
    """Error and status of each value of the file that a diff compared."""
    return {row["value"]: (_error(row), row["status"]) for row in _rows(diff)}


def _error(row: Mapping[str, Any]) -> float | None:
    comparison = row["comparison"]
    error = comparison.get("max_rel")
    if error is None or not math.isfinite(float(error)):  # JSON has infinite numbers as text
        return None if comparison.get("passed", True) else 1.0
    return float(error)


def _depth(diff: Mapping[str, Any] | None, makers: Mapping[str, int]) -> list[dict[str, Any]]:
    """The error of each value in the order of computation."""
    return [
        {
            "error": _error(row),
            "status": row["status"],
            "name": row["value"],
            "node": makers.get(row["value"]),
            "source": row.get("source", ""),
        }
        for row in _rows(diff)
    ]


def _shown(rewrite: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("pass_name", "rule", "number", "what", "node", "before", "after")
    return {key: rewrite[key] for key in keys}


def _fold(nodes: list[dict[str, Any]]) -> None:
    """Put runs of nodes into folds of their own, where a module has more children than anybody would look at."""
    children: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = {}
    for index, node in enumerate(nodes):
        path = tuple(node["path"])
        for depth in range(len(path)):
            children.setdefault(path[:depth], {}).setdefault(path[depth], []).append(node)
        children.setdefault(path, {})[f"\0{index}"] = [node]
    for path, found in sorted(children.items(), key=lambda item: -len(item[0])):
        if len(found) <= _MOST_CHILDREN:
            continue
        groups = list(found.values())
        for start in range(0, len(groups), _RUN):
            label = f"{start + 1} to {min(start + _RUN, len(groups))}"
            for node in (one for group in groups[start : start + _RUN] for one in group):
                node["path"] = [*node["path"][: len(path)], label, *node["path"][len(path) :]]
