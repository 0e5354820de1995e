"""The ONNX target: a file that ONNX Runtime loads, at the opset asked for."""

from __future__ import annotations

from graphforge.targets.onnx.target import OnnxTarget

__all__ = ["OnnxTarget"]
