"""What fold-constants computes is what ONNX's own operator tests expect, wherever it computes at all."""

from __future__ import annotations

import collections
import warnings

import numpy as np
import onnx_ir

from graphforge.errors import GraphForgeError
from graphforge.onnx_io.importing import import_onnx_proto
from graphforge.passes._evaluate import evaluate
from graphforge.passes.fold_constants import FoldConstants
from graphforge.transform import Pipeline, is_constant
from tests.onnx_io import onnx_suite


def test_onnx_operator_tests_with_their_inputs_as_constants() -> None:
    compared: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for case in onnx_suite.find_cases(["node"]):
        proto, data_sets = case.load()
        inputs, outputs = data_sets[0]
        if not inputs or any(not isinstance(array, np.ndarray) for array in (*inputs, *outputs)):
            continue
        try:
            model = import_onnx_proto(proto, case.name)
        except GraphForgeError:
            continue  # what cannot be imported is the import's own test
        values = list(model.graph.inputs)
        if len(values) != len(inputs):
            continue
        model.graph.inputs.clear()
        for value, array in zip(values, inputs, strict=True):
            value.const_value = onnx_ir.Tensor(np.array(array, order="C"), dtype=value.dtype, name=value.name)
            value.shape = onnx_ir.Shape(array.shape)
            model.graph.register_initializer(value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Pipeline([FoldConstants()]).run(model)
        for value, expected in zip(model.graph.outputs, outputs, strict=True):
            producer = value.producer()
            source = producer.inputs[0] if producer is not None and producer.op_type == "Identity" else None
            if source is None or not is_constant(source) or source.const_value is None:
                continue  # not computed here
            compared[case.name.removeprefix("test_").split("_")[0]] += 1
            if not _agree(source.const_value.numpy(), expected, max(case.rtol, 1e-3), max(case.atol, 1e-6)):
                wrong.append(case.name)
    assert wrong == []
    # The comparison is empty without this: there are some 1,200 results of more than 100 families of operators.
    assert compared.total() > 1000
    assert len(compared) > 100


def _agree(found: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> bool:
    if found.shape != expected.shape or found.dtype.itemsize != expected.dtype.itemsize:
        return False
    if found.dtype.kind in "fV":
        one, other = found.astype(np.float64), expected.astype(np.float64)
        return bool(np.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True))
    return bool(np.array_equal(found, expected))


def test_what_was_an_attribute_in_older_opsets_is_read() -> None:
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    value = onnx_ir.Value(name="x", type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))

    def evaluated(op_type: str, outputs: int = 1, **attributes: int | list[int]) -> list[np.ndarray]:
        told = [
            onnx_ir.AttrInt64(name, given) if isinstance(given, int) else onnx_ir.AttrInt64s(name, given)
            for name, given in attributes.items()
        ]
        return evaluate(onnx_ir.Node("", op_type, [value], told, num_outputs=outputs), [array], 11)

    np.testing.assert_array_equal(evaluated("ReduceMax", axes=[2], keepdims=0)[0], array.max(2))
    np.testing.assert_array_equal(evaluated("ReduceSum", axes=[1])[0], array.sum(1, keepdims=True))
    np.testing.assert_array_equal(evaluated("Squeeze", axes=[0])[0], array[0])
    np.testing.assert_array_equal(evaluated("Unsqueeze", axes=[0])[0], array[None])
    assert [part.shape[2] for part in evaluated("Split", outputs=2, axis=2, split=[1, 2])] == [1, 2]
