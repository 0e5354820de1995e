"""Legalise ONNX's own node tests to every lower opset and run them: counts, refusals with reasons, wrong results.

    scripts/bench opsets [--opset N] [--match TEXT] [--as-they-are]

Every case is imported, optimised and legalised; what stands there must pass onnx.checker in full and give the expected
output.  Small inputs (axes, shapes, sizes) are made constants first, as they are in models; not so with --as-they-are.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx

from graphforge.errors import GraphForgeError
from graphforge.ir import HOME_OPSET
from graphforge.onnx_io.importing import import_onnx_proto
from graphforge.passes import default_pipeline
from graphforge.passes.legalise_opset import LegaliseOpset
from graphforge.passes.opset.engine import LOWEST_OPSET
from graphforge.transform import Pipeline
from tests.onnx_io import onnx_suite

# Inputs of at most this many elements, in at most one dim, are arguments of the operator rather than data.
_SMALL = 16

DataSets = list[tuple[list[Any], list[Any]]]


def freeze_arguments(model: onnx.ModelProto, data_sets: DataSets) -> DataSets:
    """Make the small inputs after the first constants of the model; returns the data sets without them."""
    if len(data_sets) != 1:
        return data_sets
    inputs, expected = data_sets[0]
    kept, values = [], []
    for position, (info, value) in enumerate(zip(list(model.graph.input), inputs, strict=False)):
        plain = isinstance(value, np.ndarray) and value.ndim <= 1 and value.size <= _SMALL and value.dtype != object
        if position > 0 and plain:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, info.name))
        else:
            kept.append(info)
            values.append(value)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return [(values, expected)]


def run_opset(cases: list[onnx_suite.Case], opset: int, *, freeze: bool) -> tuple[Counter[str], dict[str, list[str]]]:
    """Outcomes by kind; reasons of refusals and problems with the cases they befell."""
    counts: Counter[str] = Counter()
    reasons: dict[str, list[str]] = defaultdict(list)
    pipeline = Pipeline([*default_pipeline(), LegaliseOpset(opset)])
    for case in cases:
        proto, data_sets = case.load()
        checkable = _is_valid(proto)
        if freeze:
            data_sets = freeze_arguments(proto, data_sets)
        try:
            model = import_onnx_proto(proto, case.name)
            pipeline.run(model)
        except GraphForgeError as error:
            counts["no lower form"] += 1
            reason = error.notes[0].partition(" needs ")[2] if error.notes else error.message
            reasons["no lower form: " + re.sub(r"'[^']*'", "'..'", reason)].append(case.name)
            continue
        made = onnx_suite.proto_of(model)
        problem = _check(made) if checkable else ""
        if not problem:
            outcome = onnx_suite.judge(case, made, data_sets)
            counts[outcome.engine or "executed nowhere"] += not outcome.problem
            problem = outcome.problem
        if problem:
            counts["WRONG"] += 1
            reasons[f"WRONG: {problem}"].append(case.name)
    return counts, reasons


def _is_valid(proto: onnx.ModelProto) -> bool:
    """Whether the case itself passes the checker (one does not, for a slip in an operator's definition)."""
    return not _check(proto)


def _check(proto: onnx.ModelProto) -> str:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return "checker: " + " ".join(str(error).split())[:200]
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--opset", type=int, action="append", help="only this opset (may be repeated)")
    parser.add_argument("--match", default="", help="only cases whose name contains this")
    parser.add_argument("--as-they-are", action="store_true", help="do not make small inputs constants")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    known = onnx_suite.exceptions()
    cases = [
        case
        for case in onnx_suite.find_cases(["node"])
        if options.match in case.name and not any(exception.covers(case) for exception in known)
    ]
    print(f"{len(cases)} cases (the known exceptions of the suite are left out)")
    wrong = 0
    for opset in options.opset or range(HOME_OPSET - 1, LOWEST_OPSET - 1, -1):
        started = time.perf_counter()
        counts, reasons = run_opset(cases, opset, freeze=not options.as_they_are)
        parts = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        print(f"opset {opset}: {parts} ({time.perf_counter() - started:.0f} s)", flush=True)
        for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            print(f"    {len(names)} x {reason}: {shown}")
        wrong += counts["WRONG"]
    print(f"wrong results: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
