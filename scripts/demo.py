"""The demo: MTCNN's trained networks on a real photo, compiled, verified, and taken down every road.

Every step is a `graphforge` command, printed before it runs, so that each can be repeated by hand; MODEL is a function
of this file.  Bundles are left under out/demo.  Ends with exit code 1 when anything is not as it should be.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

OUT = Path("out/demo")
_CHANGED = "conv3"  # the module of O-Net whose weight the demo falsifies in the ONNX file


@functools.cache
def _detector() -> Any:
    """MTCNN with its trained weights (facenet-pytorch)."""
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()  # facenet-pytorch imports torchvision
    import facenet_pytorch

    return facenet_pytorch.MTCNN(keep_all=True).eval()


@functools.cache
def _photo() -> Any:
    import skimage.data
    from PIL import Image

    return Image.fromarray(skimage.data.astronaut())


def _with_its_input(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """One of the three networks and what it is really given while MTCNN looks at the photo."""
    detector = _detector()
    network: torch.nn.Module = getattr(detector, name)
    seen: list[torch.Tensor] = []
    hook = network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    try:
        detector.detect(_photo())
    finally:
        hook.remove()
    return network, (seen[0],)


def pnet() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """Proposals: the whole photo, scaled down."""
    return _with_its_input("pnet")


def rnet() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """Refinement: every proposal as a 24 x 24 crop."""
    return _with_its_input("rnet")


def onet() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """Output: every refined proposal as a 48 x 48 crop; box, five landmarks, probability."""
    return _with_its_input("onet")


class _Compiled(torch.nn.Module):
    """A compiled network where MTCNN expects a module."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

        self.dtype = torch.nn.Parameter(torch.zeros(()))  # MTCNN asks its networks' parameters for their dtype
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        feeds = {self.session.get_inputs()[0].name: images.numpy()}
        return tuple(torch.from_numpy(output) for output in self.session.run(None, feeds))


def _graphforge(*arguments: str, expected: int = 0) -> None:
    """Print a command, run it here (torch is loaded only once), and see that it ends as it should."""
    from graphforge.cli.main import run

    print(f"\n$ {shlex.join(['graphforge', *arguments])}", flush=True)
    code = run(arguments)
    if code != expected:
        raise SystemExit(f"demo: the command ended with exit code {code}, expected {expected}")


def _compile(name: str, dynamic: str, *more: str, output: str | None = None) -> None:
    command = ("compile", f"scripts/demo.py:{name}", "--dynamic", dynamic)
    _graphforge(*command, *more, "-o", str(OUT / (output or name)))


def _compile_networks() -> None:
    _compile("pnet", "x:0=1..4,2=24..640,3=24..640")
    _compile("rnet", "x:0=1..512")
    _compile("onet", "x:0=1..64")


def _detect_with_compiled_networks() -> None:
    """The main job's proof: the face that eager finds, found by the three compiled files."""
    detector = _detector()
    boxes, probabilities = detector.detect(_photo())
    eager = [getattr(detector, name) for name in ("pnet", "rnet", "onet")]
    for name in ("pnet", "rnet", "onet"):
        setattr(detector, name, _Compiled(OUT / name / "model.onnx"))
    try:
        compiled_boxes, compiled_probabilities = detector.detect(_photo())
    finally:
        for name, network in zip(("pnet", "rnet", "onet"), eager, strict=True):
            setattr(detector, name, network)
    print("\nfaces in the photo (box, probability)")
    for label, found in (("eager   ", (boxes, probabilities)), ("compiled", (compiled_boxes, compiled_probabilities))):
        for box, probability in zip(*found, strict=True):
            print(f"  {label}  {[round(float(edge), 2) for edge in box]}  {float(probability):.6f}")
    same = len(boxes) == len(compiled_boxes) == 1 and np.allclose(
        boxes.astype(float), compiled_boxes.astype(float), atol=0.01
    )
    if not same:
        raise SystemExit("demo: the compiled networks do not find the same face")


def _tensorrt() -> None:
    from graphforge.targets import get_target

    reason = get_target("tensorrt").available()
    if reason is not None:
        print(f"\nTensorRT is left out: {reason}")
        return
    options = ("--target", "tensorrt", "--option", "compute_capabilities=SM86,SM89")
    _compile("onet", "x:0=1..64", *options, output="onet-tensorrt")


def _magicmind() -> None:
    _compile("onet", "x:0=1..64", "--target", "magicmind", output="onet-magicmind")


def _diff() -> None:
    """Falsify one weight in the file by hand; the diff must point at its module."""
    import onnx

    from graphforge.cli.main import run

    model = onnx.load(OUT / "onet" / "model.onnx")
    weight = next(item for item in model.graph.initializer if item.name.startswith(f"{_CHANGED}.weight"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    edited = OUT / "onet-edited.onnx"
    onnx.save(model, edited)
    print(f"\n{weight.name}[0] was changed by hand in {edited}")
    command = ("diff", "scripts/demo.py:onet", "--against", str(edited))
    _graphforge(*command, expected=1)
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer):
        run([*command, "--json"])
    marked = json.loads(answer.getvalue())["first_departure"]["module"]
    if marked != _CHANGED:
        raise SystemExit(f"demo: the diff marks {marked!r}, but {_CHANGED!r} was changed")


def _opset_and_profile() -> None:
    _graphforge("opset", str(OUT / "onet" / "model.onnx"))
    _graphforge("profile", str(OUT / "onet"), "scripts/demo.py:onet", "--runs", "50")


def main(names: Sequence[str]) -> None:
    """Run the steps (all, or those named) and tell how long each took."""
    steps: dict[str, Callable[[], None]] = {
        "compile": _compile_networks,
        "detect": _detect_with_compiled_networks,
        "tensorrt": _tensorrt,
        "magicmind": _magicmind,
        "diff": _diff,
        "opset": _opset_and_profile,
    }
    unknown = [name for name in names if name not in steps]
    if unknown:
        raise SystemExit(f"demo: there is no step {unknown[0]!r}; the steps are: {', '.join(steps)}")
    started = time.perf_counter()
    for name in names or steps:
        steps[name]()
    print(f"\ndemo: done in {time.perf_counter() - started:.0f} s; bundles are in {OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
