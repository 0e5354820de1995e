"""Failures in graphs of a thousand nodes, and how few nodes `bisect --nodes` leaves of them.

    scripts/bench reduce                    five planted failures and two real faults of ONNX Runtime
    scripts/bench reduce --only overflow

Each row: how the whole fails, the nodes that are left, how many runs that took, and whether the script that was written
fails alone, run in another folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import graphforge

__all__ = ["CASES", "Case", "judged"]

_LENGTH = 1000
_SHAPE = [1, 2, 4, 4]


@dataclass(frozen=True, slots=True)
class Case:
    """What is put into the graph, between ``before`` and ``after``.

    Attributes:
        nodes: the nodes.
        weights: their constants.
        inputs: inputs that they read beside the graph's own.
        outputs: results that leave the graph beside its own.
        check: the check command; "" asks ONNX Runtime itself.
        domains: domains of operators beside ONNX's own.
        reference: whether ONNX's reference evaluator is asked, too.
    """

    nodes: tuple[onnx.NodeProto, ...]
    weights: tuple[onnx.TensorProto, ...] = ()
    inputs: tuple[onnx.ValueInfoProto, ...] = ()
    outputs: tuple[onnx.ValueInfoProto, ...] = ()
    check: str = ""
    domains: tuple[str, ...] = field(default=())
    reference: bool = False


def _node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), name=f"planted_{kind}", **attributes)


_INF = """
import sys, numpy as np, onnxruntime as ort
found = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"]).run(None, dict(np.load(sys.argv[2])))
sys.exit(9 if any(np.isinf(one).any() for one in found) else 0)
"""


def _narrow() -> Case:
    return Case(
        (
            _node("Cast", "before", "narrow", to=TensorProto.BFLOAT16),
            _node("Erf", "narrow", "error"),
            helper.make_node("Cast", ["error"], ["after"], name="up", to=TensorProto.FLOAT),
        )
    )


def _together() -> Case:
    return Case(
        (_node("Erf", "before", "e"), _node("Elu", "before", "l"), _node("Add", "e l", "after")),
        check="! (grep -q Erf {model} && grep -q Elu {model})",
    )


def _overflow() -> Case:
    return Case(
        (_node("Add", "before hundred", "large"), _node("Exp", "large", "huge"), _node("Min", "huge one", "after")),
        (
            numpy_helper.from_array(np.array(100, np.float32), "hundred"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
        ),
        outputs=(helper.make_tensor_value_info("huge", TensorProto.FLOAT, _SHAPE),),
        check=f"{sys.executable} {{folder}}/inf.py {{{{model}}}} {{{{inputs}}}}",
    )


def _unknown() -> Case:
    return Case(
        (helper.make_node("Blur", ["before"], ["after"], name="planted_Blur", domain="my.ops"),), domains=("my.ops",)
    )


def _sizes() -> Case:
    return Case(
        (
            _node("Reshape", "before wrong", "flat"),
            helper.make_node("Reshape", ["flat", "right"], ["after"], name="back"),
        ),
        (
            numpy_helper.from_array(np.array([5, 7], np.int64), "wrong"),
            numpy_helper.from_array(np.array(_SHAPE, np.int64), "right"),
        ),
    )


def _transposed_product() -> Case:
    """Real: Transpose(1, 0, 2) of an input into a float16 MatMul with a weight ends ONNX Runtime from 1.25 on."""
    return Case(
        (
            _node("Identity", "before", "after"),
            _node("Transpose", "z", "turned", perm=[1, 0, 2]),
            _node("MatMul", "turned half", "product"),
        ),
        (numpy_helper.from_array(np.ones((4, 4), np.float16), "half"),),
        (helper.make_tensor_value_info("z", TensorProto.FLOAT16, [2, 3, 4]),),
        (helper.make_tensor_value_info("product", TensorProto.FLOAT16, [3, 2, 4]),),
    )


def _lost_nan() -> Case:
    """Real: MaxPool loses a NaN that is not the first of its window."""
    holes = np.zeros(_SHAPE, np.float32)
    holes[..., 1::2] = np.nan
    return Case(
        (
            _node("Add", "before holes", "some"),
            _node("MaxPool", "some", "half", kernel_shape=[1, 2], strides=[1, 2]),
            _node("Concat", "half half", "pooled", axis=3),
            _node("IsNaN", "pooled", "lost"),
            _node("Where", "lost five pooled", "after"),
        ),
        (numpy_helper.from_array(holes, "holes"), numpy_helper.from_array(np.array(5, np.float32), "five")),
        outputs=(helper.make_tensor_value_info("after", TensorProto.FLOAT, _SHAPE),),  # what follows hides it
        reference=True,
    )


CASES: dict[str, Callable[[], Case]] = {
    "no kernel for bfloat16": _narrow,
    "two operators together": _together,
    "overflow": _overflow,
    "operator of a domain of its own": _unknown,
    "sizes that do not fit": _sizes,
    "real: float16 Transpose and MatMul": _transposed_product,
    "real: NaN lost by MaxPool": _lost_nan,
}


def _graph(case: Case) -> onnx.ModelProto:
    """A thousand nodes, every eighth of which reads what stands five before it, too; the planted ones in the middle."""
    nodes: list[onnx.NodeProto] = []
    value, values = "x", ["x"]
    for index in range(_LENGTH):
        if index == _LENGTH * 3 // 5:
            nodes.append(helper.make_node("Identity", [value], ["before"], name="into"))
            nodes += case.nodes
            value = "after"
        if index % 8 == 7:
            nodes.append(helper.make_node("Add", [value, values[-5]], [f"v{index}"], name=f"n{index}"))
        else:
            kind = ("Tanh", "Neg", "Sigmoid", "Abs", "Softplus")[index % 5]
            nodes.append(helper.make_node(kind, [value], [f"v{index}"], name=f"n{index}"))
        value = f"v{index}"
        values.append(value)
    nodes.append(helper.make_node("Identity", [value], ["y"], name="last"))
    graph = helper.make_graph(
        nodes,
        "thousand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, _SHAPE), *case.inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, _SHAPE), *case.outputs],
        list(case.weights),
    )
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in case.domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def judged(name: str) -> str:
    """One row of the table."""
    case = CASES[name]()
    with tempfile.TemporaryDirectory(prefix="graphforge-reduce-") as place:
        folder = Path(place)
        onnx.save(_graph(case), folder / "whole.onnx")
        (folder / "inf.py").write_text(_INF)
        check = case.check.format(folder=folder) if "{folder}" in case.check else case.check or None
        start = time.perf_counter()
        report = graphforge.reduce(
            folder / "whole.onnx", check=check, output=folder / "repro", reference=case.reference
        )
        seconds = time.perf_counter() - start
        if report.failure is None:
            return f"| {name} | does not fail | | | | |"
        script = [sys.executable, str(folder / "repro/repro.py")]
        alone = subprocess.run(script, capture_output=True, check=False, cwd="/").returncode
    left = ", ".join(node.partition(" node ")[0] for node in report.nodes)
    how = report.failure.kind if report.failure.kind != "exit code" else report.failure.text
    return f"| {name} | {how} | {report.total} | {left} | {report.runs} | {seconds:.0f} | {alone} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a word in the names of the cases; all of them otherwise")
    chosen = parser.parse_args(arguments)
    print("| failure | how the whole fails | nodes | left | runs | s | the script alone ends with |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in CASES:
        if not chosen.only or chosen.only in name:
            print(judged(name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
