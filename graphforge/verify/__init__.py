"""Verification: runners, comparison at every promised size, layer-wise diff, opset audit, profile, bisection, report.

Importing this package is cheap; torch, onnxruntime and polygraphy are imported by the functions that need them.
"""

from __future__ import annotations

from graphforge.runners.eager import EagerRunner
from graphforge.runners.inputs import random_feeds
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.verify.compare import OutputComparison, compare_arrays
from graphforge.verify.numeric_check import NumericCheck
from graphforge.verify.shapes import SizeAssignment, SizePlan, plan_sizes
from graphforge.verify.tolerance import Tolerance, Tolerances
from graphforge.verify.verify import Trial, VerificationReport, compare_outputs, verify

__all__ = [
    "EagerRunner",
    "NumericCheck",
    "OnnxRuntimeRunner",
    "OutputComparison",
    "SizeAssignment",
    "SizePlan",
    "Tolerance",
    "Tolerances",
    "Trial",
    "VerificationReport",
    "compare_arrays",
    "compare_outputs",
    "plan_sizes",
    "random_feeds",
    "verify",
]
