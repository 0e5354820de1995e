"""Whose fault a failure is: the file's where ONNX has something against it, and never for want of memory."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphforge.errors import GraphForgeError
from graphforge.onnx_io.blame import blaming


def _file(tmp_path: Path, operator: str) -> Path:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)
    return path


def test_a_failure_over_an_invalid_file_is_the_files(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match=r"net\.onnx is not valid ONNX"), blaming(_file(tmp_path, "Relux")):
        raise IndexError("list index out of range")


def test_a_failure_over_a_valid_file_stays_ours(tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="out of range"), blaming(_file(tmp_path, "Relu")):
        raise IndexError("list index out of range")


def test_want_of_memory_is_no_fault_of_an_invalid_file(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="64 GB"), blaming(_file(tmp_path, "Relux")):
        raise MemoryError("64 GB for a table")
