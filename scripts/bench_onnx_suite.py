"""Run all of ONNX's own tests through import and the default pipeline; print the count and every exception.

scripts/bench onnx_suite [--kind node] [--pipeline SPEC] [--fallbacks]
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnx_ir as ir

from graphforge.passes import default_pipeline
from graphforge.transform import Pipeline
from tests.onnx_io import onnx_suite


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kind", action="append", choices=onnx_suite.KINDS, help="only this set (may be repeated)")
    parser.add_argument("--pipeline", help="passes to run instead of the default ones; '' for none")
    parser.add_argument("--fallbacks", action="store_true", help="also list why ONNX Runtime could not execute")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    pipeline = Pipeline(default_pipeline()) if options.pipeline is None else Pipeline.parse(options.pipeline)

    def optimise(model: ir.Model) -> None:
        pipeline.run(model)

    started = time.perf_counter()
    cases = onnx_suite.find_cases(options.kind or onnx_suite.KINDS)
    loaded = time.perf_counter()
    tally = onnx_suite.run_cases(cases, optimise)
    print(f"passes: {pipeline.spec() or 'none'}")
    for line in tally.lines():
        print(line)
    if options.fallbacks:
        for why, count in tally.fallbacks.most_common():
            print(f"  reference evaluator, {count} cases: {why}")
    print(f"{loaded - started:.1f} s to load, {time.perf_counter() - loaded:.1f} s to run")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
