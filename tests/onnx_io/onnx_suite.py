"""ONNX's own test-suite as the onnx package carries it: every case imported, optimised, executed and compared.

Used by the ordinary tests (a fifth of it) and by ``scripts/bench_onnx_suite.py`` (all of it).
"""

from __future__ import annotations

import fnmatch
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx.backend.test import loader

from graphforge.errors import GraphForgeError, InternalError
from graphforge.onnx_io.importing import import_onnx_proto
from graphforge.runners.session import new_session

__all__ = [
    "KINDS",
    "Case",
    "KnownException",
    "Outcome",
    "Tally",
    "difference",
    "exceptions",
    "find_cases",
    "judge",
    "proto_of",
    "run_case",
    "run_cases",
    "run_onnxruntime",
    "run_reference",
    "sample",
]

KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple", "light")
_EXCEPTIONS = Path(__file__).parent / "onnx_node_exceptions.toml"


@dataclass(frozen=True)
class Case:
    """One case: a model with inputs and expected outputs.

    Attributes:
        kind: the set it is from.
        name: its name there.
        load: gives a fresh model and the data sets (inputs, expected outputs).
        rtol: relative tolerance that the set states.
        atol: absolute tolerance that the set states.
    """

    kind: str
    name: str
    load: Callable[[], tuple[onnx.ModelProto, list[tuple[list[Any], list[Any]]]]]
    rtol: float
    atol: float


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        engine: what executed it: ``onnxruntime``, or ``reference`` where ONNX Runtime cannot; "" when nothing did.
        problem: "" when the outputs are the expected ones, else what is wrong.
        why_reference: why ONNX Runtime did not execute it, "" when it did.
    """

    engine: str
    problem: str = ""
    why_reference: str = ""


def find_cases(kinds: Sequence[str] = KINDS) -> list[Case]:
    """All cases of the given sets, in the order of their names."""
    cases: list[Case] = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for kind in kinds:
            found = _light_cases() if kind == "light" else map(_case, loader.load_model_tests(kind=kind))
            cases.extend(sorted(found, key=lambda case: case.name))
    return cases


def _case(test: Any) -> Case:
    def load() -> tuple[onnx.ModelProto, list[tuple[list[Any], list[Any]]]]:
        if test.model is not None:
            model = onnx.ModelProto()
            model.CopyFrom(test.model)
            return model, [(_arrays(inputs), _arrays(outputs)) for inputs, outputs in test.data_sets]
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        return model, [_data_set(model, path) for path in sorted(folder.glob("test_data_set_*"))]

    return Case(test.kind, test.name, load, test.rtol, test.atol)


def _arrays(values: Sequence[Any]) -> list[Any]:
    return [onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value for value in values]


def _light_cases() -> Iterator[Case]:
    """Well-known networks with generated weights; input as the onnx package generates it, output as it stores it."""
    folder = Path(loader.DATA_DIR) / "light"
    for path in sorted(folder.glob("*.onnx")):
        expected = folder / f"{path.stem}_output_0.pb"

        def load(
            path: Path = path, expected: Path = expected
        ) -> tuple[onnx.ModelProto, list[tuple[list[Any], list[Any]]]]:
            model = onnx.load(path)
            known = {tensor.name for tensor in model.graph.initializer}
            (info,) = [info for info in model.graph.input if info.name not in known]
            shape = tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
            size = int(np.prod(shape))
            data = (np.arange(size, dtype=np.float32) / np.float32(size)).reshape(shape)
            tensor = onnx.TensorProto.FromString(expected.read_bytes())
            return model, [([data], [onnx.numpy_helper.to_array(tensor)])]

        yield Case("light", path.stem, load, 1e-3, 1e-5)


def _data_set(model: onnx.ModelProto, folder: Path) -> tuple[list[Any], list[Any]]:
    def read(prefix: str, infos: Sequence[onnx.ValueInfoProto]) -> list[Any]:
        values: list[Any] = []
        for position in range(len(list(folder.glob(f"{prefix}_*.pb")))):
            data = (folder / f"{prefix}_{position}.pb").read_bytes()
            kind = infos[position].type.WhichOneof("value")
            if kind == "sequence_type":
                values.append(onnx.numpy_helper.to_list(onnx.SequenceProto.FromString(data)))
            elif kind == "optional_type":
                values.append(onnx.numpy_helper.to_optional(onnx.OptionalProto.FromString(data)))
            else:
                values.append(onnx.numpy_helper.to_array(onnx.TensorProto.FromString(data)))
        return values

    return read("input", model.graph.input), read("output", model.graph.output)


def run_case(case: Case, transform: Callable[[ir.Model], None]) -> Outcome:
    """Import the case's model, transform it, execute it and compare with the expected outputs."""
    proto, data_sets = case.load()
    try:
        model = import_onnx_proto(proto, case.name)
        transform(model)
    except GraphForgeError as error:
        return Outcome("", f"refused: {error.message}")
    except InternalError as error:
        return Outcome("", f"crashed: {error}")
    return judge(case, proto_of(model), data_sets)


def proto_of(model: ir.Model) -> onnx.ModelProto:
    """The model as ONNX; nodes lose their names, which need not be different before a file is written."""
    for node in model.graph.all_nodes():
        node.name = None
    return ir.to_proto(model)


def judge(case: Case, made: onnx.ModelProto, data_sets: Sequence[tuple[list[Any], list[Any]]]) -> Outcome:
    """Execute a model and compare with the expected outputs.

    Where ONNX Runtime cannot execute it or computes something else, the reference evaluator has a try as well: the
    outcome then says whether the model is right at least there.
    """
    outcome = Outcome("", "there is nothing to compare")
    for inputs, expected in data_sets:
        feeds = dict(zip([info.name for info in made.graph.input], inputs, strict=False))
        outcome = _one(case, made, feeds, expected)
        if outcome.problem:
            break
    return outcome


def _one(case: Case, made: onnx.ModelProto, feeds: dict[str, Any], expected: list[Any]) -> Outcome:
    try:
        got = run_onnxruntime(made, feeds)
    except _Unsupported as error:
        return _by_reference(case, made, feeds, expected, str(error))
    problem = difference(expected, got, case.rtol, case.atol)
    if not problem:
        return Outcome("onnxruntime")
    if not difference(_shapes(expected), _shapes(got), 0, 0):
        reference = _by_reference(case, made, feeds, expected, f"differs: {problem}")
        return Outcome("onnxruntime", problem, reference.problem or _REFERENCE_AGREES)
    return Outcome("onnxruntime", problem)


_REFERENCE_AGREES = "the reference evaluator gives the expected output"


def _by_reference(case: Case, made: onnx.ModelProto, feeds: dict[str, Any], expected: list[Any], why: str) -> Outcome:
    try:
        got = run_reference(made, feeds)
    except Exception as error:  # the reference evaluator raises whatever numpy does
        return Outcome("", f"nothing executes it: {why}; reference: {type(error).__name__}: {str(error)[:200]}", why)
    return Outcome("reference", difference(expected, got, case.rtol, case.atol), why)


def _shapes(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_shapes(item) for item in value]
    return None if value is None else [np.asarray(value).dtype.str, *map(str, np.asarray(value).shape)]


def run_reference(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """Outputs by onnx's reference evaluator."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(onnx.reference.ReferenceEvaluator(proto).run(None, feeds))


class _Unsupported(Exception):
    """ONNX Runtime cannot execute this."""


_RAW = {
    "bfloat16": (onnx.TensorProto.BFLOAT16, np.uint16),
    "float8_e4m3fn": (onnx.TensorProto.FLOAT8E4M3FN, np.uint8),
    "float8_e4m3fnuz": (onnx.TensorProto.FLOAT8E4M3FNUZ, np.uint8),
    "float8_e5m2": (onnx.TensorProto.FLOAT8E5M2, np.uint8),
    "float8_e5m2fnuz": (onnx.TensorProto.FLOAT8E5M2FNUZ, np.uint8),
}
_RAW_OUT = {
    "tensor(bfloat16)": ml_dtypes.bfloat16,
    "tensor(float8e4m3fn)": ml_dtypes.float8_e4m3fn,
    "tensor(float8e4m3fnuz)": ml_dtypes.float8_e4m3fnuz,
    "tensor(float8e5m2)": ml_dtypes.float8_e5m2,
    "tensor(float8e5m2fnuz)": ml_dtypes.float8_e5m2fnuz,
}


def run_onnxruntime(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """Outputs by ONNX Runtime.

    Raises:
        _Unsupported: it has no kernel for an operator, or Python cannot hand over or read a type.
    """

    try:
        session = new_session(proto)
        wanted = {info.name for info in session.get_inputs()}
        plain = all(_is_plain(value) for value in feeds.values())
        raw = any(info.type in _RAW_OUT for info in session.get_outputs())
        if plain and not raw:
            given = {
                name: value if isinstance(value, list) else np.asarray(value)
                for name, value in feeds.items()
                if name in wanted
            }
            return list(session.run(None, given))
        values = {name: _ort_value(value) for name, value in feeds.items() if name in wanted}
        return [_from_ort(value) for value in session.run_with_ort_values(None, values)]
    except Exception as error:  # ONNX Runtime's errors have no public base class
        raise _Unsupported(" ".join(str(error).split())[:300]) from error


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return value is not None and np.asarray(value).dtype.kind in "biufcOSU" and not _is_extended(np.asarray(value))


def _is_extended(array: np.ndarray) -> bool:
    return array.dtype.type.__module__.startswith("ml_dtypes")


def _ort_value(value: Any) -> Any:
    import onnxruntime

    if value is None or isinstance(value, list):
        raise _Unsupported("this input cannot be handed to ONNX Runtime from Python")
    array = np.asarray(value, order="C")
    if not _is_extended(array):
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    if array.dtype.name not in _RAW:
        raise _Unsupported(f"{array.dtype.name} cannot be handed to ONNX Runtime from Python")
    element, plain = _RAW[array.dtype.name]
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(plain), element)


def _from_ort(value: Any) -> Any:
    kind = value.data_type()
    if kind not in _RAW_OUT:
        return value.numpy()
    import ctypes

    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, dtype=_RAW_OUT[kind]).reshape(tuple(value.shape()))


def difference(expected: Any, got: Any, rtol: float, atol: float) -> str:
    """What is different, "" when nothing is."""
    if isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple) or len(got) < len(expected):
            return f"expected {len(expected)} items, got {got if got is None else type(got).__name__}"
        for position, (one, other) in enumerate(zip(expected, got, strict=False)):
            problem = difference(one, other, rtol, atol)
            if problem:
                return f"item {position}: {problem}"
        return ""
    if isinstance(expected, dict):
        return "" if expected == got else "the maps differ"
    if expected is None or got is None:
        return "" if expected is got else f"expected {type(expected).__name__}, got {type(got).__name__}"
    one, other = np.asarray(expected), np.asarray(got)
    if one.shape != other.shape:
        return f"expected shape {one.shape}, got {other.shape}"
    text = one.dtype.kind in "OSU"
    if text:
        same = [str(item) for item in one.reshape(-1)] == [str(item) for item in other.reshape(-1)]
        return "" if same else "the strings differ"
    if one.dtype != other.dtype:
        return f"expected {one.dtype}, got {other.dtype}"
    if _is_extended(one):
        one, other = one.astype(np.float32), other.astype(np.float32)
    with np.errstate(all="ignore"):
        close = np.isclose(other, one, rtol=rtol, atol=atol, equal_nan=True) if one.dtype.kind in "fc" else one == other
        if close.all():
            return ""
        worst = np.abs(one.astype(np.complex128) - other.astype(np.complex128))
    finite = worst[np.isfinite(worst)]
    return f"{int((~close).sum())} of {close.size} elements differ, at most by {finite.max() if finite.size else 'nan'}"


@dataclass(frozen=True)
class KnownException:
    """Cases that are known not to give the expected output in ONNX Runtime.

    Attributes:
        pattern: ``kind/name`` with wildcards.
        reason: why.
        holds: what still has to hold: ``reference`` (the reference evaluator gives the expected output on the same
            graph), ``shape`` (outputs have the expected types and shapes), ``imports`` (it is imported and optimised).
    """

    pattern: str
    reason: str
    holds: str

    def covers(self, case: Case) -> bool:
        """Whether the case is one of them."""
        return fnmatch.fnmatchcase(f"{case.kind}/{case.name}", self.pattern)

    def unmet(self, outcome: Outcome) -> str:
        """What does not hold that should, "" when all is as known."""
        if not outcome.problem:
            return "passes, yet it is listed as an exception: take it off the list"
        if outcome.problem.startswith(("refused", "crashed")):
            return outcome.problem
        if self.holds == "reference" and outcome.why_reference != _REFERENCE_AGREES:
            return f"{outcome.problem}; reference: {outcome.why_reference}"
        if self.holds == "shape" and "elements differ" not in outcome.problem:
            return outcome.problem
        return ""


def exceptions() -> list[KnownException]:
    """The known exceptions, from the data file."""
    data = tomllib.loads(_EXCEPTIONS.read_text())
    return [
        KnownException(pattern, entry["reason"], entry["holds"])
        for entry in data["exception"]
        for pattern in entry["cases"]
    ]


@dataclass
class Tally:
    """Outcomes of many cases."""

    passed: Counter[str]
    excepted: dict[str, list[str]]
    failed: dict[str, str]
    fallbacks: Counter[str]

    def lines(self) -> Iterator[str]:
        """The count, then the exceptions with their reasons, then the failures."""
        excepted = sum(map(len, self.excepted.values()))
        total = sum(self.passed.values()) + excepted + len(self.failed)
        by_engine = ", ".join(f"{count} in {engine}" for engine, count in sorted(self.passed.items()))
        yield f"{total} cases: {by_engine}, {excepted} exceptions, {len(self.failed)} failures"
        for reason, names in self.excepted.items():
            yield f"  exception: {reason}: {', '.join(names)}"
        for name, problem in self.failed.items():
            yield f"  FAILED {name}: {problem}"


def run_cases(cases: Sequence[Case], transform: Callable[[ir.Model], None]) -> Tally:
    """Run cases and sort their outcomes into passed, known exceptions and failures."""
    known = exceptions()
    tally = Tally(Counter(), {}, {}, Counter())
    for case in cases:
        outcome = run_case(case, transform)
        name = f"{case.kind}/{case.name}"
        exception = next((entry for entry in known if entry.covers(case)), None)
        if exception is not None:
            unmet = exception.unmet(outcome)
            if unmet:
                tally.failed[name] = unmet
            else:
                tally.excepted.setdefault(exception.reason, []).append(name)
        elif outcome.problem:
            tally.failed[name] = outcome.problem
        else:
            tally.passed[outcome.engine] += 1
            if outcome.engine == "reference":
                tally.fallbacks[outcome.why_reference] += 1
    return tally


def sample(cases: Sequence[Case], parts: int, seed: int) -> list[Case]:
    """One case in ``parts``, the same for the same seed, spread over the names."""
    chosen = np.random.default_rng(seed).permutation(len(cases))[: max(1, len(cases) // parts)]
    return [cases[index] for index in sorted(chosen)]
