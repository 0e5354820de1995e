"""Instruments: what looks on between passes.  Passes stay pure; checking, timing and telling happen here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphforge.errors import GraphForgeError, argument
from graphforge.ir import HOME_OPSET
from graphforge.ir.versions import ir_version_for
from graphforge.transform.base import Pass
from graphforge.transform.pipeline import PassRecord

__all__ = ["NumericCheck", "run_in_onnxruntime"]


@dataclass
class NumericCheck:
    """Runs the graph in ONNX Runtime around each pass and raises at the first pass that changes a result.

    Attributes:
        feeds: inputs by name; None draws seeded ones, with ``sizes`` for named dims (2 where a name is missing).
        sizes: sizes of named dims.
        seed: of the drawn inputs.
        tolerance: relative to the largest magnitude of an output; None goes by its dtype.
    """

    feeds: Mapping[str, np.ndarray] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    tolerance: float | None = None
    notes: list[str] = field(default_factory=list)
    _expected: dict[str, np.ndarray] | None = field(default=None, repr=False)

    def before(self, pass_: Pass, model: ir.Model) -> None:
        """Take the results before the first pass; later ones are compared to those of the pass before."""
        if self.feeds is None:
            self.feeds = draw_feeds(model, self.sizes, self.seed)
        if self._expected is None:
            self._expected = run_in_onnxruntime(model, self.feeds)

    def after(self, pass_: Pass, model: ir.Model, record: PassRecord) -> None:
        """Compare; integers and booleans must be equal.

        Raises:
            GraphForgeError: a result is different, or the graph does not run any more.
        """
        if not record.changes:
            return
        assert self._expected is not None
        assert self.feeds is not None
        try:
            found = run_in_onnxruntime(model, self.feeds)
        except Exception as error:
            raise GraphForgeError(
                f"after pass {pass_.name} the graph does not run in ONNX Runtime any more: {error}",
                f"leave the pass out, or report it with: {argument('pipeline', record.spec)}",
            ) from error
        if list(found) != list(self._expected):
            raise GraphForgeError(f"pass {pass_.name} changes the outputs from {list(self._expected)} to {list(found)}")
        for name, expected in self._expected.items():
            problem = compare_arrays(expected, found[name], self.tolerance)
            if problem is not None:
                raise GraphForgeError(
                    f"pass {pass_.name} changes output {name!r}: {problem}",
                    f"leave the pass out, or report it with: {argument('pipeline', record.spec)}",
                )
        self._expected = found


# Relative to the largest magnitude of an output: a pass may reorder sums, nothing else.
_TOLERANCES = {"float64": 1e-9, "float32": 2e-5, "float16": 1e-2}


def compare_arrays(expected: np.ndarray, found: np.ndarray, tolerance: float | None = None) -> str | None:
    """How two results differ, None when they do not."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"expected {expected.dtype}{list(expected.shape)}, got {found.dtype}{list(found.shape)}"
    if expected.dtype.kind != "f":
        return None if np.array_equal(expected, found) else f"{int((expected != found).sum())} elements differ"
    if not np.array_equal(np.isfinite(expected), np.isfinite(found)):
        return "NaN or infinity stands in other places"
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        return "NaN or infinity is of another kind"
    if not finite.any():
        return None
    allowed = tolerance if tolerance is not None else _TOLERANCES.get(str(expected.dtype), 2e-2)
    one, other = expected[finite].astype(np.float64), found[finite].astype(np.float64)
    scale = max(float(np.abs(one).max()), 1e-6)
    worst = float(np.abs(one - other).max()) / scale
    return (
        None if worst <= allowed else f"largest difference {worst:.3g} of the largest magnitude, allowed {allowed:.3g}"
    )


def draw_feeds(model: ir.Model, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Seeded inputs for a model: normal floats, small non-negative integers, random booleans."""
    random = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if value.dtype is None or value.shape is None or value.name is None:
            raise GraphForgeError(f"input {value.name!r} has no type and shape, so nothing can be drawn for it")
        shape = [dim if isinstance(dim, int) else sizes.get(dim.value or "", 2) for dim in value.shape.dims]
        dtype = value.dtype.numpy()
        if dtype.kind == "b":
            feeds[value.name] = random.integers(0, 2, shape).astype(bool)
        elif dtype.kind in "iu":
            feeds[value.name] = random.integers(0, 3, shape).astype(dtype)
        else:
            feeds[value.name] = random.standard_normal(shape).astype(dtype)
    return feeds


# protobuf takes no message of 2 GiB or more.
_LARGEST = 2**31 - 2**20


def _for_session(model: ir.Model, folder: Path) -> bytes | str:
    """The model in memory, or as a file where it is too large for that."""
    # that of its opset: what reads the one reads the other
    newest = min(model.ir_version, ir_version_for(model.graph.opset_imports.get("", HOME_OPSET)))
    values = model.graph.initializers.values()
    if sum(value.const_value.nbytes for value in values if value.const_value is not None) < _LARGEST:
        proto = ir.to_proto(model)
        proto.ir_version = newest
        return bytes(proto.SerializeToString())
    stated, model.ir_version = model.ir_version, newest
    try:
        ir.save(model, folder / "model.onnx", external_data="weights")
    finally:
        model.ir_version = stated
    return str(folder / "model.onnx")


def run_in_onnxruntime(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of the model, run without ONNX Runtime's own optimisations.

    Raises:
        GraphForgeError: ONNX Runtime does not load the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what fails raises, no need to print it as well
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        try:
            session = onnxruntime.InferenceSession(
                _for_session(model, Path(folder)), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime raises a class of its own for each status code
            raise GraphForgeError(
                f"ONNX Runtime does not load the model: {str(error).strip()}",
                f"passes are checked by running the graph between them; leave {argument('check_passes')} out here",
            ) from error
    wanted = {entry.name for entry in session.get_inputs()}
    results = session.run(None, {name: array for name, array in feeds.items() if name in wanted})
    return {entry.name: np.asarray(result) for entry, result in zip(session.get_outputs(), results, strict=True)}
