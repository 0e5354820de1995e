"""Files of every kind that a door takes, to be damaged: networks as ONNX, archives of torch, arrays, a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

__all__ = ["write_seeds"]

NET = "import torch\n\n\ndef build(width=2):\n    return torch.nn.Linear(3, width).eval()\n"


class _Mixed(nn.Module):
    """Convolutions, a pool, a resize, attention, reductions and shapes taken from inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.interpolate(self.stem(x), scale_factor=2.0)
        tokens = y.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return torch.softmax(self.head(tokens.mean(1)), -1).reshape(x.shape[0], -1)


class _Gated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(x, (1, 2))
        top = torch.topk(padded, 2).values
        return torch.where(top > 0, top, top * 2).cumsum(-1)[:, 1:]


def write_seeds(folder: Path) -> dict[str, list[Path]]:
    """Write them into a folder; by the kind of their damage."""
    import graphforge

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(NET)
    torch.manual_seed(0)
    bundle = graphforge.compile(
        _Mixed().eval(), torch.randn(2, 3, 8, 8), dynamic_shapes="x:0=1..4", output=folder / "a"
    )
    shutil.copy(bundle.path / "model.onnx", folder / "mixed.onnx")
    graphforge.compile(_Gated(), torch.randn(2, 5), output=folder / "b")
    shutil.copy(folder / "b" / "model.onnx", folder / "gated.onnx")
    for name, make in _BY_HAND.items():
        (folder / name).write_bytes(make().SerializeToString())
    x = torch.randn(4, 3)
    program = torch.export.export(nn.Linear(3, 2), (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=9)},))
    torch.export.save(program, folder / "linear.pt2")
    torch.jit.save(torch.jit.trace(nn.Linear(3, 2), x), str(folder / "linear.pt"))
    torch.save(nn.Linear(3, 2).state_dict(), folder / "linear.pth")
    np.savez(folder / "x.npz", x=x.numpy())
    np.save(folder / "x.npy", x.numpy())
    linear = graphforge.compile(nn.Linear(3, 2), x, dynamic_shapes="input:0=1..8", output=folder / "bundle")
    assert json.loads((linear.path / "manifest.json").read_text())
    return {
        "onnx": sorted(folder.glob("*.onnx")),
        "pt2": [folder / "linear.pt2"],
        "pt": [folder / "linear.pt"],
        "pth": [folder / "linear.pth"],
        "npz": [folder / "x.npz", folder / "x.npy"],
        "manifest": [folder / "bundle" / "manifest.json"],
    }


def _model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any],
    shape: Sequence[int | str] = ("n", 3),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, functions=list(functions), opset_imports=opsets, ir_version=8)


def _branches() -> onnx.ModelProto:
    def body(operator: str, name: str) -> onnx.GraphProto:
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["x"], [name])], name, [], [info])

    step = helper.make_graph(
        [helper.make_node("Mul", ["state", "two"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
        "step",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["p"]),
        helper.make_node("If", ["p"], ["z"], then_branch=body("Neg", "t"), else_branch=body("Abs", "e")),
        helper.make_node("Loop", ["times", "yes", "z"], ["y"], body=step),
    ]
    return _model(nodes, {"zero": np.float32(0), "two": np.float32(2), "times": np.int64(3), "yes": np.array(True)})


def _functions() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    inner = helper.make_function("mine", "Inner", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)
    calls = [helper.make_node("Inner", [one], [to], domain="mine") for one, to in (("a", "m"), ("m", "b"))]
    outer = helper.make_function("mine", "Outer", ["a"], ["b"], calls, opsets)
    return _model([helper.make_node("Outer", ["x"], ["y"], domain="mine")], {}, functions=[inner, outer])


def _shapes() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"], axis=0),
        helper.make_node("Concat", ["rows", "minus"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["flat"]),
        helper.make_node("Slice", ["flat", "zero", "two", "one"], ["cut"]),
        helper.make_node("Pad", ["cut", "pads"], ["padded"]),
        helper.make_node("Tile", ["padded", "times"], ["tiled"]),
        helper.make_node("Transpose", ["tiled"], ["turned"], perm=[1, 0]),
        helper.make_node("Split", ["turned"], ["a", "b"], axis=0),
        helper.make_node("Unsqueeze", ["a", "one"], ["y"]),
    ]
    constants = {"zero": [0], "one": [1], "two": [2], "minus": [-1], "pads": [0, 1, 0, 1], "times": [2, 1]}
    return _model(nodes, {name: np.array(value, np.int64) for name, value in constants.items()})


def _windows() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[1, 1], pads=[1, 1, 1, 1], group=1),
        helper.make_node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("ConvTranspose", ["p", "v"], ["t"], strides=[2, 2]),
        helper.make_node("Resize", ["t", "", "scales"], ["r"], mode="nearest"),
        helper.make_node("DepthToSpace", ["r"], ["d"], blocksize=2),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "v": rng.standard_normal((4, 4, 2, 2)).astype(np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    return _model(nodes, constants, ("n", 3, 8, 8))


_BY_HAND: dict[str, Callable[[], onnx.ModelProto]] = {
    "branches.onnx": _branches,
    "functions.onnx": _functions,
    "shapes.onnx": _shapes,
    "windows.onnx": _windows,
}
