"""Holds graphforge/targets/tables/onnxruntime.toml against the ONNX Runtime that is installed.

Every operator, version and element type is tried as a model of one node, loaded and, where the table speaks of the
operator, run.  Prints where the table is wrong and what the entry of this release would have to say; exit code 1 when
something differs:  .venv/bin/python scripts/probe_onnxruntime.py [--entry] [OPERATOR ...]
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper

from graphforge.ir import HOME_OPSET
from graphforge.ir.versions import versions_of
from graphforge.runners.session import new_session
from graphforge.targets.tables import Facts, facts_of, table_of
from graphforge.targets.tables.table import version_numbers

DTYPES = tuple(
    ir.DataType[name]
    for name in ("FLOAT16 FLOAT DOUBLE BFLOAT16 INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 BOOL".split())
)
OLDEST_OPSET = 11  # GraphForge writes none that is older

_Value = TypeVar("_Value")

_TYPES = {dtype: f"tensor({dtype.name.lower()})" for dtype in DTYPES}
_DTYPES = {text: dtype for dtype, text in _TYPES.items()}


def _each(names: str, value: _Value) -> dict[str, _Value]:
    return dict.fromkeys(names.split(), value)


# Attributes that a node cannot do without, or without which it means something else.
_ATTRIBUTES: dict[str, dict[str, Any]] = {
    **_each("AveragePool LpPool MaxPool", {"kernel_shape": [2, 2]}),
    "MaxUnpool": {"kernel_shape": [2, 2], "strides": [2, 2]},
    **_each("GRU LSTM RNN", {"hidden_size": 3}),
    **_each("DepthToSpace SpaceToDepth", {"blocksize": 2}),
    **_each("ScatterElements ScatterND", {"reduction": "add"}),
    **_each("BitCast Cast", {"to": int(ir.DataType.FLOAT)}),
    "Attention": {"q_num_heads": 1, "kv_num_heads": 1},
    "BitShift": {"direction": "LEFT"},
    "Concat": {"axis": 0},
    "Einsum": {"equation": "ij,jk->ik"},
    "GroupNormalization": {"num_groups": 4},
    "LRN": {"size": 3},
    "MaxRoiPool": {"pooled_shape": [2, 2]},
    "RotaryEmbedding": {"num_heads": 1},
    "Squeeze": {"axes": [0]},
    "TfIdfVectorizer": {
        "max_gram_length": 1,
        "max_skip_count": 0,
        "min_gram_length": 1,
        "mode": "TF",
        "ngram_counts": [0],
        "ngram_indexes": [0],
    },
    "Unsqueeze": {"axes": [0]},
}
# Their moves have kernels for every element type, their reductions have not; a row of theirs is about all of these.
_REDUCTIONS = {"ScatterElements": ("mul", "min", "max"), "ScatterND": ("mul", "min", "max")}
# Optional inputs that the node is given all the same.
_INPUTS = {"Clip": 3, "Pad": 3, "Resize": 3, "Trilu": 1}
# Which input's element type is the one tried, where that is not the first.
_DECIDES = {"Where": 1, "OneHot": 2}
# What is fed, where two rows of ones of three would not do.
_IMAGE = np.ones((1, 4, 4, 4))
_FEEDS: dict[str, Sequence[Any]] = {
    **_each(
        "AveragePool DepthToSpace GlobalAveragePool GlobalMaxPool LRN LpPool MaxPool MeanVarianceNormalization "
        "SpaceToDepth",
        [_IMAGE],
    ),
    "Attention": [np.ones((1, 2, 4))] * 3,
    "BatchNormalization": [_IMAGE, *[np.ones(4)] * 4],
    "Col2Im": [np.ones((1, 4, 4)), [3, 3], [2, 2]],
    "Compress": [np.ones((2, 3)), [True, False]],
    "Conv": [_IMAGE, np.ones((4, 4, 2, 2))],
    "ConvTranspose": [_IMAGE, np.ones((4, 4, 2, 2))],
    "Clip": [np.ones((2, 3)), 0, 2],
    "CumProd": [np.ones((2, 3)), 0],
    "CumSum": [np.ones((2, 3)), 0],
    "DFT": [np.ones((1, 4, 1))],
    "Det": [np.ones((2, 2))],
    "Einsum": [np.ones((2, 3)), np.ones((3, 2))],
    "Expand": [np.ones((1, 3)), [2, 3]],
    "GRU": [np.ones((2, 1, 3)), np.ones((1, 9, 3)), np.ones((1, 9, 3))],
    "Gemm": [np.ones((2, 3)), np.ones((3, 2))],
    "GridSample": [_IMAGE, np.ones((1, 2, 2, 2))],
    "GroupNormalization": [_IMAGE, np.ones(4), np.ones(4)],
    "InstanceNormalization": [_IMAGE, np.ones(4), np.ones(4)],
    "LSTM": [np.ones((2, 1, 3)), np.ones((1, 12, 3)), np.ones((1, 12, 3))],
    "LayerNormalization": [np.ones((2, 3)), np.ones(3)],
    "MatMul": [np.ones((2, 3)), np.ones((3, 2))],
    "MaxUnpool": [np.ones((1, 1, 2, 2)), [[[[0, 3], [12, 15]]]]],
    "OneHot": [[0, 1], 3, [0, 1]],
    "Pad": [np.ones((2, 3)), [0, 1, 0, 1], 0],
    "RMSNormalization": [np.ones((2, 3)), np.ones(3)],
    "RNN": [np.ones((2, 1, 3)), np.ones((1, 3, 3)), np.ones((1, 3, 3))],
    "Range": [0, 3, 1],
    "Resize": [_IMAGE, [], [1, 1, 2, 2]],
    "ReverseSequence": [np.ones((2, 3)), [2, 2, 2]],
    "RotaryEmbedding": [np.ones((1, 2, 4)), np.ones((1, 2, 2)), np.ones((1, 2, 2))],
    "ScatterElements": [np.ones((2, 3)), [[0, 1, 0]], np.ones((1, 3))],
    "ScatterND": [np.ones((2, 3)), [[0]], np.ones((1, 3))],
    "Tile": [np.ones((2, 3)), [1, 2]],
    "TopK": [np.ones((2, 3)), [1]],
    "Trilu": [np.ones((2, 3))],
    "Where": [np.ones((2, 3), bool), np.ones((2, 3)), np.ones((2, 3))],
}


@dataclass(slots=True)
class Measured:
    """What a release takes.

    Attributes:
        version: of the installed package.
        newest_opset, newest_ir_version: the newest that it loads.
        kernels: operator and its version -> element types that it computes.
        legal: operator and its version -> element types that its schema admits.
        refusals: (operator, version, element type) -> what the runtime said.
    """

    version: str
    newest_opset: int
    newest_ir_version: int
    kernels: dict[tuple[str, int], frozenset[ir.DataType]] = field(default_factory=dict)
    legal: dict[tuple[str, int], frozenset[ir.DataType]] = field(default_factory=dict)
    refusals: dict[tuple[str, int, ir.DataType], str] = field(default_factory=dict)


def one_node(operator: str, version: int, dtype: ir.DataType, opset: int) -> onnx.ModelProto | None:
    """A model of the operator alone, nothing said of shapes; None where its schema does not admit the element type."""
    schema = onnx.defs.get_schema(operator, version)
    variadic = schema.inputs and schema.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    count = max(schema.min_input, _INPUTS.get(operator, 0), 2 if variadic else 0)
    count = count if variadic else min(count, len(schema.inputs))
    formals = [schema.inputs[min(position, len(schema.inputs) - 1)] for position in range(count)]
    decides = _DECIDES.get(operator, 0)
    if len(formals) <= decides:
        return None
    admitted = {one.type_param_str: list(one.allowed_type_strs) for one in schema.type_constraints}
    variable = formals[decides].type_str
    tried = _TYPES[dtype]
    if tried not in admitted.get(variable, ()):
        return None

    def chosen(type_str: str) -> str:
        if type_str == variable or type_str not in admitted:
            return tried if type_str == variable else type_str
        known = admitted[type_str]
        same = tried in known and dtype.is_floating_point()
        wanted = ([tried] if same else []) + ["tensor(int64)", "tensor(float)", "tensor(bool)"]
        return next((text for text in wanted if text in known), known[0])

    types = [chosen(formal.type_str) for formal in formals]
    if operator == "Resize":
        types[1:] = ["tensor(float)"] * (len(types) - 1)
    skipped = {1} if operator == "Resize" and version >= 13 else set()
    results = [schema.outputs[min(n, len(schema.outputs) - 1)] for n in range(max(1, schema.min_output))]
    bound = {formal.type_str: text for formal, text in zip(formals, types, strict=True)}
    given = [_result_type(operator, result.type_str, bound, admitted, tried) for result in results]
    if any(text not in _DTYPES for text in [*types, *given]):
        return None
    inputs = [
        helper.make_tensor_value_info(f"x{n}", int(_DTYPES[text]), None)
        for n, text in enumerate(types)
        if n not in skipped
    ]
    outputs = [helper.make_tensor_value_info(f"y{n}", int(_DTYPES[text]), None) for n, text in enumerate(given)]
    node = helper.make_node(
        operator,
        ["" if n in skipped else f"x{n}" for n in range(count)],
        [value.name for value in outputs],
        **{name: value for name, value in _ATTRIBUTES.get(operator, {}).items() if name in schema.attributes},
    )
    graph = helper.make_graph([node], "probe", inputs, outputs)
    # the oldest IR version that may carry the opset, so that the answer is about the operator alone
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=min(helper.find_min_ir_version_for(imports), 10))


def _result_type(
    operator: str, type_str: str, bound: dict[str, str], admitted: dict[str, list[str]], tried: str
) -> str:
    if type_str in bound:
        return bound[type_str]
    if type_str not in admitted:
        return type_str
    kept = {"EyeLike": tried, "RandomNormalLike": tried, "RandomUniformLike": tried, "Bernoulli": tried}
    made = {"BitCast": "tensor(float)", "Cast": "tensor(float)", "ConstantOfShape": "tensor(float)"}
    made |= {"Multinomial": "tensor(int32)", "QuantizeLinear": "tensor(uint8)", "OptionalGetElement": tried}
    made |= dict.fromkeys("BlackmanWindow HammingWindow HannWindow MelWeightMatrix".split(), "tensor(float)")
    wanted = [kept.get(operator, made.get(operator, "")), "tensor(int64)", "tensor(float)", "tensor(bool)"]
    return next((text for text in wanted if text in admitted[type_str]), admitted[type_str][0])


def refusal(model: onnx.ModelProto, operator: str, *, feeds: bool = True) -> str:
    """Why the runtime does not take the model, "" when it loads and, where there is something to feed, runs it."""
    try:
        session = new_session(model)
        if feeds and operator in _FEEDS:
            session.run_with_ort_values(None, dict(_ort_values(model, operator)))
    except Exception as error:  # the runtime has a class of its own for each status code
        return " ".join(str(error).split())
    return ""


def _reduction_refused(model: onnx.ModelProto, operator: str, version: int) -> str:
    """Why the runtime does not take one of the operator's other reductions, "" when it takes all."""
    (node,) = model.graph.node
    if not any(attribute.name == "reduction" for attribute in node.attribute):
        return ""
    for reduction in _REDUCTIONS.get(operator, ()):
        if reduction == "mul" or version >= 18:  # min and max came with version 18
            next(one for one in node.attribute if one.name == "reduction").s = reduction.encode()
            reason = refusal(model, operator)
            if reason:
                return f"reduction {reduction}: {reason}"
    return ""


def _ort_values(model: onnx.ModelProto, operator: str) -> Iterator[tuple[str, Any]]:
    for value in model.graph.input:
        array = _FEEDS[operator][int(value.name[1:])]
        dtype = ir.DataType(value.type.tensor_type.elem_type)
        data = np.asarray(array).astype(dtype.numpy())
        if dtype == ir.DataType.BFLOAT16:  # numpy has none: hand over the bits
            data = data.view(np.int16)
        yield value.name, onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(data, int(dtype))


def tried_versions(operator: str, newest: int = HOME_OPSET) -> list[tuple[int, int]]:
    """(version of the operator, the newest opset that has it), for the opsets that GraphForge writes."""
    newest = min(newest, HOME_OPSET)
    versions = [version for version in versions_of(operator) if version <= newest]
    ends = [*(version - 1 for version in versions[1:]), newest]
    return [(version, end) for version, end in zip(versions, ends, strict=False) if end >= OLDEST_OPSET]


def measure(operators: Collection[str]) -> Measured:
    """Try every operator, version and element type."""
    found = Measured(onnxruntime.__version__, _newest_opset(), _newest_ir_version())
    for operator in sorted(operators):
        for version, opset in tried_versions(operator, found.newest_opset):
            legal, computed = set(), set()
            for dtype in DTYPES:
                model = one_node(operator, version, dtype, opset)
                if model is None:
                    continue
                legal.add(dtype)
                reason = refusal(model, operator) or _reduction_refused(model, operator, version)
                if reason:
                    found.refusals[operator, version, dtype] = reason
                else:
                    computed.add(dtype)
            if legal:
                found.legal[operator, version] = frozenset(legal)
                found.kernels[operator, version] = frozenset(computed)
    return found


def _relu(opset: int, ir_version: int) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def _newest_opset() -> int:
    readable = (n for n in range(onnx.defs.onnx_opset_version(), 0, -1) if not refusal(_relu(n, 8), ""))
    return next(readable, 0)


def _newest_ir_version() -> int:
    return next((n for n in range(onnx.IR_VERSION + 5, 0, -1) if not refusal(_relu(13, n), "")), 0)


# The element type tried is not the only one that decides.
_TWO_TYPES = frozenset("BitCast Cast CastLike QLinearConv QLinearMatMul QuantizeLinear DequantizeLinear".split())
# Need a body, or what the probe cannot make up.
_NOT_TRIED = frozenset("If Loop Scan SequenceMap TfIdfVectorizer".split())


def operators() -> frozenset[str]:
    """The operators of ONNX that can be tried."""
    schemas = onnx.defs.get_all_schemas()
    names = {schema.name for schema in schemas if schema.domain == "" and not schema.deprecated}
    return frozenset(names - _NOT_TRIED - _TWO_TYPES)


def rows(found: Measured) -> dict[str, frozenset[ir.DataType]]:
    """The rows of the table of kernels: what lacks a legal type, and versions that differ."""
    versions: dict[str, list[int]] = {}
    for operator, version in found.kernels:
        versions.setdefault(operator, []).append(version)
    table: dict[str, frozenset[ir.DataType]] = {}
    for operator, known in versions.items():
        usable = [version for version in sorted(known, reverse=True) if found.kernels[operator, version]]
        if not usable:
            continue
        newest = usable[0]
        lacks = found.legal[operator, newest] - found.kernels[operator, newest]
        if lacks:
            table[operator] = found.kernels[operator, newest]
        for version in usable[1:]:
            legal, computed = found.legal[operator, version], found.kernels[operator, version]
            said = table.get(operator, legal)
            if computed != said & legal:
                table[f"{operator}-{version}"] = computed
    return table


def missing(found: Measured) -> dict[str, int]:
    """Operator -> the first version of it of which no element type has a kernel."""
    empty = sorted((name, version) for (name, version), computed in found.kernels.items() if not computed)
    first: dict[str, int] = {}
    for name, version in empty:
        newer = [computed for (other, later), computed in found.kernels.items() if other == name and later > version]
        if not any(newer):
            first.setdefault(name, version)
    return first


def entry(found: Measured, below: dict[str, frozenset[ir.DataType]]) -> str:
    """The release's entry of the table; kernels only where they differ from those of the releases below."""
    own = rows(found)
    changed: dict[frozenset[ir.DataType], list[str]] = {}
    for name in sorted({*own, *below}):
        computed = own.get(name)
        if computed is None:  # nothing is lacking any more
            operator, _, version = name.partition("-")
            newest = max(v for o, v in found.legal if o == operator)
            computed = found.legal[operator, int(version or newest)]
        if computed != below.get(name):
            changed.setdefault(computed, []).append(name)
    lines = [
        "[[release]]",
        f'version = "{".".join(found.version.split(".")[:2])}"',
        f"newest_opset = {found.newest_opset}",
        f"newest_ir_version = {found.newest_ir_version}",
        'evidence = "measured"',
        f"missing = {{ {', '.join(f'{name} = {version}' for name, version in sorted(missing(found).items()))} }}",
    ]
    if changed:
        lines.append("[release.kernels]")
    ranked = sorted(changed.items(), key=lambda item: (len(item[0]), [DTYPES.index(one) for one in _in_order(item[0])]))
    for dtypes, names in ranked:
        key = " ".join(dtype.numpy().name for dtype in _in_order(dtypes))
        text = textwrap.wrap(" ".join(names), 116)
        lines.append(f'"{key}" = "{text[0]}"' if len(text) == 1 and len(key) + len(text[0]) < 110 else "")
        if not lines[-1]:
            lines[-1:] = [f'"{key}" = """', *text, '"""']
    return "\n".join(lines)


def _in_order(dtypes: Collection[ir.DataType]) -> list[ir.DataType]:
    return [dtype for dtype in DTYPES if dtype in dtypes]


def lies(found: Measured, facts: Facts) -> list[str]:
    """Where the table says something else than was measured, one line each; empty where it is true."""
    wrong = []
    for what, said, measured in (
        ("newest opset", facts.newest_opset, found.newest_opset),
        ("newest IR version", facts.newest_ir_version, found.newest_ir_version),
    ):
        if said != measured:
            wrong.append(f"{what}: the table says {said}, measured {measured}")
    for (operator, version), legal in sorted(found.legal.items()):
        computed = found.kernels[operator, version]
        row = facts.kernels.row(operator, version)
        gone = version >= facts.without_kernel.get(operator, version + 1)
        said_of = frozenset() if gone else legal if row is None else row & legal
        for dtype in _in_order(said_of ^ computed):
            name = f"{operator}-{version} of {dtype.numpy().name}"
            if dtype in computed:
                wrong.append(f"{name}: computed, the table says it is not")
            else:
                wrong.append(f"{name}: the table says computed; {found.refusals[operator, version, dtype][:200]}")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is wrong, or the entry that would be right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help="only these; all by default")
    parser.add_argument("--entry", action="store_true", help="print the entry of this release for the table")
    options = parser.parse_args(arguments)
    facts = facts_of("onnxruntime")
    found = measure(options.operators or operators())
    if options.entry:
        releases = table_of("onnxruntime")["release"]
        known = version_numbers(found.version)[:2]
        below = next((r for r in releases if version_numbers(r["version"]) < known), None)
        print(entry(found, dict(facts_of("onnxruntime", below["version"]).kernels.rows) if below else {}))
        return 0
    wrong = lies(found, facts)
    print("\n".join([f"{facts.called}, entry {facts.release}: {len(found.legal)} operators and versions", *wrong]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
