"""How long graphs of growing size take in our default pipeline, beside onnxsim, onnxslim and onnxscript's optimizer.

    python scripts/bench_scale.py                                   # all kinds at 10k nodes, ours at 30k and 100k too
    python scripts/bench_scale.py --sizes 1000 10000 --kinds mixed --tools ours onnxsim --timeout 60

Each cell is a process of its own: load, optimise, save; CPU seconds, peak memory and the nodes that are left.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# What all four tools read; every operator used here means the same at our home opset.
OPSET = 18
TOOLS = ("ours", "onnxsim", "onnxslim", "onnxscript")


class GraphWriter:
    """Collects nodes; ``node`` returns the name of what it computes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """Add a constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def vector(self) -> str:
        """A constant of eight floats that no other equals."""
        return self.constant(self.random.standard_normal(8).astype(np.float32))

    def model(self, output: str) -> onnx.ModelProto:
        """The model, which ends in an Identity of ``output``."""
        self.nodes.append(helper.make_node("Identity", [output], ["y"]))
        info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])
        graph = helper.make_graph(self.nodes, "scale", [info], [result], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def chain(g: GraphWriter, x: str) -> str:
    """x * c + d: nothing to do but to read it."""
    return g.node("Add", g.node("Mul", x, g.vector()), g.vector())


def shape(g: GraphWriter, x: str) -> str:
    """Reshape to a shape that is put together at run time, and back."""
    dims = g.node("Shape", x)
    one, axis = g.constant(np.array(1)), g.constant(np.array([0]))
    width = g.node("Unsqueeze", g.node("Gather", dims, one), axis)
    target = g.node("Concat", g.constant(np.array([-1])), width, axis=0)
    return g.node("Relu", g.node("Mul", g.node("Reshape", x, target), g.vector()))


def transpose(g: GraphWriter, x: str) -> str:
    """Two transposes that undo each other."""
    return g.node("Transpose", g.node("Transpose", g.node("Relu", x), perm=[1, 0]), perm=[1, 0])


def constchain(g: GraphWriter, x: str) -> str:
    """A chain of constants, then one node that uses it."""
    value = g.vector()
    for _ in range(16):
        value = g.node("Add", value, g.vector())
    return g.node("Mul", x, value)


def dup(g: GraphWriter, x: str) -> str:
    """The same thing three times."""
    weight = g.vector()
    terms = [g.node("Sigmoid", g.node("Mul", x, weight)) for _ in range(3)]
    return g.node("Add", g.node("Add", terms[0], terms[1]), terms[2])


def mixed(g: GraphWriter, x: str) -> str:
    """A bit of everything."""
    for part in (chain, shape, transpose, constchain, dup):
        x = part(g, x)
    return x


KINDS: dict[str, Callable[[GraphWriter, str], str]] = {
    function.__name__: function for function in (mixed, chain, shape, transpose, constchain, dup)
}


def generate(kind: str, nodes: int) -> onnx.ModelProto:
    """A model of about that many nodes."""
    writer = GraphWriter()
    value = "x"
    while len(writer.nodes) < nodes:
        value = KINDS[kind](writer, value)
    return writer.model(value)


def run_ours(source: Path, target: Path) -> int:
    """Our default pipeline."""
    import onnx_ir as ir

    from graphforge.ir import HOME_OPSET
    from graphforge.passes import default_pipeline
    from graphforge.transform import Pipeline, count_nodes

    model = ir.load(source)
    model.graph.opset_imports[""] = HOME_OPSET
    Pipeline(default_pipeline()).run(model)
    ir.save(model, target)
    return count_nodes(model)


def run_onnxsim(source: Path, target: Path) -> int:
    """onnxsim with its defaults."""
    import onnxsim

    model, _ = onnxsim.simplify(str(source))
    onnx.save(model, target)
    return len(model.graph.node)


def run_onnxslim(source: Path, target: Path) -> int:
    """onnxslim with its defaults."""
    import onnxslim

    model = onnxslim.slim(str(source))
    onnx.save(model, target)
    return len(model.graph.node)


def run_onnxscript(source: Path, target: Path) -> int:
    """onnxscript's optimizer with its defaults."""
    import onnx_ir as ir
    from onnxscript import optimizer

    model = ir.load(source)
    optimizer.optimize(model)
    ir.save(model, target)
    return len(model.graph)


def cell(tool: str, source: Path, target: Path) -> dict[str, float]:
    """One measurement, in this process; imports are not counted."""
    run = {"ours": run_ours, "onnxsim": run_onnxsim, "onnxslim": run_onnxslim, "onnxscript": run_onnxscript}[tool]
    warm = source.with_name(f"warm-{os.getpid()}.onnx")
    onnx.save(generate("chain", 4), warm)
    run(warm, target)
    started = time.process_time()
    nodes = run(source, target)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "nodes": nodes, "gib": peak}


def measure(tool: str, source: Path, timeout: float) -> str:
    """One cell of the table, in a process of its own."""
    command = [sys.executable, __file__, "--cell", tool, str(source), str(source.with_suffix(f".{tool}.onnx"))]
    here = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return f"over {timeout:.0f} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"fails: {lines[-1][:40]}"
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    return f"{facts['seconds']:.2f} s {facts['gib']:.1f} GiB → {facts['nodes']:.0f}"


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[10_000, 30_000, 100_000])
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS)
    parser.add_argument("--timeout", type=float, default=120.0, help="wall seconds per cell")
    parser.add_argument("--cell", nargs=3, metavar=("TOOL", "SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        tool, source, target = options.cell
        print(json.dumps(cell(tool, Path(source), Path(target))))
        return
    print("| graph | nodes | " + " | ".join(options.tools) + " |")
    print("|---|---|" + "---|" * len(options.tools))
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            late: set[str] = set()
            for size in sorted(options.sizes):
                model = generate(kind, size)
                source = Path(folder) / f"{kind}-{size}.onnx"
                onnx.save(model, source)
                row = []
                for tool in options.tools:
                    # What was too slow is not asked again with more.
                    text = "-" if tool in late else measure(tool, source, options.timeout)
                    if text.startswith("over"):
                        late.add(tool)
                    row.append(text)
                print(f"| {kind} | {len(model.graph.node)} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
