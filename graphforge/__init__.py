"""GraphForge: PyTorch models in, verified ONNX, TensorRT, OpenVINO and MagicMind models out.

Everything public is reachable from here and loaded on first use, so that `import graphforge` costs nothing:
neither torch nor onnx is imported until a name below is asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphforge.bundle import Bundle as Bundle
    from graphforge.compile import compile as compile
    from graphforge.declaring import custom_ops as custom_ops
    from graphforge.declaring import declarations as declarations
    from graphforge.declaring import substitutions as substitutions
    from graphforge.declaring import withdraw as withdraw
    from graphforge.errors import CaptureError as CaptureError
    from graphforge.errors import GraphForgeError as GraphForgeError
    from graphforge.errors import InternalError as InternalError
    from graphforge.errors import LoweringError as LoweringError
    from graphforge.errors import UndecidedError as UndecidedError
    from graphforge.errors import UsageError as UsageError
    from graphforge.errors import UserCodeError as UserCodeError
    from graphforge.errors import VerificationError as VerificationError
    from graphforge.frontend.load import load_model as load_model
    from graphforge.frontend.substitution import Substitution as Substitution
    from graphforge.frontend.substitution import substitute as substitute
    from graphforge.limiting import limits as limits
    from graphforge.ops.custom_op import CustomOp as CustomOp
    from graphforge.ops.custom_op import TensorFact as TensorFact
    from graphforge.ops.custom_op import custom_op as custom_op
    from graphforge.optimization import optimize as optimize
    from graphforge.spec import DimRange as DimRange
    from graphforge.spec import ShapeSpec as ShapeSpec
    from graphforge.spec import TensorSpec as TensorSpec
    from graphforge.transform import Pass as Pass
    from graphforge.transform import Pipeline as Pipeline
    from graphforge.transform import Rewriter as Rewriter
    from graphforge.transform import Rule as Rule
    from graphforge.verbs.bisect import bisect as bisect
    from graphforge.verbs.diff import diff as diff
    from graphforge.verbs.evaluate import evaluate as evaluate
    from graphforge.verbs.explain import explain as explain
    from graphforge.verbs.inspect import inspect as inspect
    from graphforge.verbs.lint import lint as lint
    from graphforge.verbs.opset import opset as opset
    from graphforge.verbs.pipeline import pipeline as pipeline
    from graphforge.verbs.profile import profile as profile
    from graphforge.verbs.profile import profile_layers as profile_layers
    from graphforge.verbs.profile import profile_on_pictures as profile_on_pictures
    from graphforge.verbs.reduce import reduce as reduce
    from graphforge.verbs.report import report as report
    from graphforge.verbs.run import run as run
    from graphforge.verify.tolerance import Tolerances as Tolerances

__version__ = "0.1.0"

# A clone without symbolic links (a zip archive, git on Windows) has no graphforge/passes and graphforge/ops; there the
# folders beside this one are the packages.  An installed graphforge and an ordinary clone have both, and pay one look.
if not all((Path(__file__).with_name(_name) / "__init__.py").is_file() for _name in ("passes", "ops")):
    from graphforge._clone import find_folders_beside

    find_folders_beside(Path(__file__).resolve().parent.parent)

_HOME = {
    "Bundle": "graphforge.bundle",
    "CaptureError": "graphforge.errors",
    "CustomOp": "graphforge.ops.custom_op",
    "DimRange": "graphforge.spec",
    "GraphForgeError": "graphforge.errors",
    "InternalError": "graphforge.errors",
    "LoweringError": "graphforge.errors",
    "Pass": "graphforge.transform",
    "Pipeline": "graphforge.transform",
    "Rewriter": "graphforge.transform",
    "Rule": "graphforge.transform",
    "ShapeSpec": "graphforge.spec",
    "Substitution": "graphforge.frontend.substitution",
    "TensorFact": "graphforge.ops.custom_op",
    "TensorSpec": "graphforge.spec",
    "Tolerances": "graphforge.verify.tolerance",
    "UsageError": "graphforge.errors",
    "UserCodeError": "graphforge.errors",
    "UndecidedError": "graphforge.errors",
    "VerificationError": "graphforge.errors",
    "bisect": "graphforge.verbs.bisect",
    "compile": "graphforge.compile",
    "custom_op": "graphforge.ops.custom_op",
    "custom_ops": "graphforge.declaring",
    "declarations": "graphforge.declaring",
    "diff": "graphforge.verbs.diff",
    "evaluate": "graphforge.verbs.evaluate",
    "explain": "graphforge.verbs.explain",
    "inspect": "graphforge.verbs.inspect",
    "limits": "graphforge.limiting",
    "lint": "graphforge.verbs.lint",
    "load_model": "graphforge.frontend.load",
    "opset": "graphforge.verbs.opset",
    "optimize": "graphforge.optimization",
    "pipeline": "graphforge.verbs.pipeline",
    "profile": "graphforge.verbs.profile",
    "profile_layers": "graphforge.verbs.profile",
    "profile_on_pictures": "graphforge.verbs.profile",
    "reduce": "graphforge.verbs.reduce",
    "report": "graphforge.verbs.report",
    "run": "graphforge.verbs.run",
    "substitute": "graphforge.frontend.substitution",
    "substitutions": "graphforge.declaring",
    "withdraw": "graphforge.declaring",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


class _Package(ModuleType):
    """This package, with one rule: `graphforge.compile` is the function, never the module it lives in.

    The import system binds every submodule to its name in the package once it is loaded; without this rule,
    `from graphforge.compile import Bundle` would turn `graphforge.compile(...)` into a call of a module.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name == "compile" and isinstance(value, ModuleType):
            value = value.compile
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
