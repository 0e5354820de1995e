"""Small models for the verification tests: an eager module beside an ONNX file written by hand, no export needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from graphforge.runners.eager import EagerRunner
from graphforge.spec import ShapeSpec, parse_dynamic

ORIGIN = {"conv": "body.conv", "bn": "body.bn", "act": "body.act", "head": "head"}


class Body(torch.nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(4)
        self.act = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.act(self.bn(self.conv(x)))
        return out


class Net(torch.nn.Module):
    """A body, a global mean, a linear head; the class beside the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.head = torch.nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.body(x).mean((2, 3)))
        return {"logits": logits, "label": logits.argmax(-1)}


def net(seed: int = 0) -> Net:
    """A seeded Net whose BatchNorm statistics are not the trivial ones."""
    torch.manual_seed(seed)
    model = Net().eval()
    with torch.no_grad():
        assert model.body.bn.running_mean is not None
        assert model.body.bn.running_var is not None
        model.body.bn.running_mean.uniform_(-0.5, 0.5)
        model.body.bn.running_var.uniform_(0.5, 2.0)
        model.body.bn.weight.uniform_(0.5, 1.5)
    return model


def eager(model: torch.nn.Module, *shape: int) -> EagerRunner:
    """An eager runner with one seeded input ``x``."""
    torch.manual_seed(1)
    return EagerRunner.of(model, (torch.randn(*shape),))


def dynamic(runner: EagerRunner, *texts: str) -> ShapeSpec:
    """The runner's spec with dynamic dims."""
    return runner.inputs.spec().with_dynamic(parse_dynamic(texts))


def write_net(model: Net, path: Path, *, folded: bool = True, batch: str | int = "batch", origins: bool = True) -> Path:
    """The Net as an ONNX file, with BatchNorm folded into the convolution or alone, with origins or without."""
    body = model.body
    weight, bias = body.conv.weight.detach().double(), body.conv.bias
    assert bias is not None
    assert body.bn.running_mean is not None
    assert body.bn.running_var is not None
    arrays = {"w": weight, "b": bias.detach().double()}
    mean, variance = body.bn.running_mean.double(), body.bn.running_var.double()
    if folded:
        factor = body.bn.weight.detach().double() / torch.sqrt(variance + body.bn.eps)
        arrays = {
            "w": weight * factor[:, None, None, None],
            "b": (bias.detach().double() - mean) * factor + body.bn.bias.detach().double(),
        }
        first = [("Conv", "x w b", "n", "conv bn", "pads = [1, 1, 1, 1]")]
    else:
        arrays |= {"scale": body.bn.weight.detach(), "shift": body.bn.bias.detach(), "mean": mean, "var": variance}
        first = [
            ("Conv", "x w b", "c", "conv", "pads = [1, 1, 1, 1]"),
            ("BatchNormalization", "c scale shift mean var", "n", "bn", f"epsilon = {body.bn.eps}"),
        ]
    arrays |= {"hw": model.head.weight.detach(), "hb": model.head.bias.detach()}
    nodes = [
        *first,
        ("Relu", "n", "r", "act", ""),
        ("ReduceMean", "r axes", "m", "", "keepdims = 0"),
        ("Gemm", "m hw hb", "logits", "head", "transB = 1"),
        ("ArgMax", "logits", "label", "", "axis = -1, keepdims = 0"),
    ]
    lines = "\n".join(
        f"{outputs} = {op}<{attributes}>({', '.join(inputs.split())})" if attributes else f"{outputs} = {op}({inputs})"
        for op, inputs, outputs, _, attributes in nodes
    )
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]>\n'
        f"net (float[{batch}, 3, 8, 8] x) => (float[{batch}, 5] logits, int64[{batch}] label) {{\n{lines}\n}}"
    )
    for name, tensor in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(tensor.float().numpy(), name))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    for node, (op, _, _, modules, _) in zip(proto.graph.node, nodes, strict=True):
        node.name = f"node_{op}"
        if not origins:
            continue
        paths = [ORIGIN.get(module, "") for module in modules.split()] or [""]
        add_property(node, "graphforge.module", "\n".join(paths))
        add_property(node, "graphforge.source", "\n".join(f"small.py:{10 + i}" for i, _ in enumerate(paths)))
        if len(paths) > 1:
            add_property(node, "graphforge.origins", str(len(paths)))
    onnx.save(proto, str(path))
    return path


def add_property(node: onnx.NodeProto, key: str, value: str) -> None:
    """One entry of the node's metadata."""
    entry = node.metadata_props.add()
    entry.key, entry.value = key, value


def edit_initializer(path: Path, name: str, index: tuple[int, ...], amount: float) -> None:
    """Change one weight in a file by hand."""
    proto = onnx.load(str(path))
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            array[index] += amount
            tensor.CopyFrom(numpy_helper.from_array(array, name))
            break
    else:
        raise KeyError(name)
    onnx.save(proto, str(path))
