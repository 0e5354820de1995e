"""A target for a toy runtime: a program of lines, `result = Operator(values)`, that numpy runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError, UsageError
from graphforge.targets import EmitResult, TargetOptions, option

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.spec import ShapeSpec
    from graphforge.transform import Pass

OPSET = 17


@dataclass(frozen=True, slots=True)
class ToyOptions:
    """What users can ask: --precision NAME, --option NAME=VALUE, or the same from Python."""

    precision: str = option(
        "fp32",
        values={"fp32": "everything in float32", "fp16_weights": "weights stored in float16, half the size"},
        help="how numbers are stored",
    )
    indent: int = option(0, help="spaces per level in program.json")
    compress: bool = option(False, help="zip the weights")


class ToyTarget:
    """One folder: program.json and weights.npz."""

    name = "toy"
    makes = "program for the toy runtime"
    options = ToyOptions
    tables = (str(Path(__file__).with_name("operators.toml")),)

    def available(self) -> str | None:
        """None: it needs numpy only.  A vendor's package would be looked for here, and imported in the methods."""
        return None

    def pipeline(self, options: TargetOptions) -> list[Pass]:
        """To opset 17, in operators that ONNX has."""
        from graphforge.passes.eliminate_dead_code import EliminateDeadCode
        from graphforge.passes.legalise_opset import LegaliseOpset
        from graphforge.targets.semantic import semantic_passes

        if options.opset not in (None, OPSET):
            raise UsageError(f"opset {options.opset} was asked for, but the toy runtime reads {OPSET}")
        return [*semantic_passes(options), LegaliseOpset(opset=OPSET), EliminateDeadCode()]

    def emit(self, model: ir.Model, folder: Path, options: TargetOptions, shapes: ShapeSpec) -> EmitResult:
        """Write the program, or name the node that the runtime has nothing for."""
        from graphforge.ir import origins_of
        from graphforge.targets.onnx.naming import assign_names

        own: ToyOptions = options.own
        assign_names(model)
        lines = []
        for node in model.graph:
            if node.op_type not in OPERATORS:
                raise GraphForgeError(
                    f"the toy runtime has no {node.op_type}",
                    *(f"it comes from {origin.describe()}" for origin in origins_of(node)),
                    f"it takes {', '.join(OPERATORS)}",
                )
            lines.append(
                {
                    "operator": node.op_type,
                    "inputs": [value.name for value in node.inputs if value is not None],
                    "attributes": {name: attribute.value for name, attribute in node.attributes.items()},
                    "result": node.outputs[0].name,
                }
            )
        stored = {"fp32": np.float32, "fp16_weights": np.float16}[own.precision]
        tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
        weights = {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}
        arrays = [array.astype(stored) if array.dtype == np.float32 else array for array in weights.values()]
        program = {"weights": list(weights), "lines": lines, "outputs": [value.name for value in model.graph.outputs]}
        (folder / "program.json").write_text(json.dumps(program, indent=own.indent or None))
        (np.savez_compressed if own.compress else np.savez)(folder / "weights.npz", *arrays)
        return EmitResult(files=("program.json", "weights.npz"), facts={"lines": len(lines)})

    def runner(self, folder: Path) -> ToyRunner | None:
        """The runtime itself: `graphforge compile` compares it with the eager model, `graphforge run` runs it."""
        return ToyRunner(folder)

    def runs_here(self, folder: Path | None = None) -> str | None:
        """None: where numpy is, the toy runtime runs."""
        return None


class ToyRunner:
    """The toy runtime."""

    name = "toy runtime"

    def __init__(self, folder: Path) -> None:
        self.program = json.loads((folder / "program.json").read_text())
        with np.load(folder / "weights.npz") as arrays:
            weights = [_wide(arrays[name]) for name in arrays.files]
        self.weights = dict(zip(self.program["weights"], weights, strict=True))

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """The outputs by name."""
        values = {**self.weights, **feeds}
        for line in self.program["lines"]:
            operands = (values[name] for name in line["inputs"])
            values[line["result"]] = OPERATORS[line["operator"]](*operands, **line["attributes"])
        return {name: values[name] for name in self.program["outputs"]}

    def close(self) -> None:
        """Nothing to let go."""


def _wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _gemm(a: Any, b: Any, c: Any = 0, *, alpha: float = 1, beta: float = 1, transA: int = 0, transB: int = 0) -> Any:
    product = (a.T if transA else a) @ (b.T if transB else b)
    return np.float32(alpha) * product + np.float32(beta) * c


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Gemm": _gemm,
    "MatMul": np.matmul,
    "Mul": np.multiply,
    "Relu": lambda x: np.maximum(x, 0),
}
