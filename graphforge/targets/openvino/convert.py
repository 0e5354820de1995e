"""An ONNX file as OpenVINO's own format: read by its ONNX frontend, saved as .xml (graph) and .bin (weights)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError, argument
from graphforge.last_step import entering
from graphforge.runners.survey import is_doubted, try_first
from graphforge.targets.openvino.blame import places
from graphforge.targets.openvino.vendor import PACKAGE, core, load, told

__all__ = ["Converted", "convert"]


@dataclass(frozen=True, slots=True)
class Converted:
    """What OpenVINO made of the file.

    Attributes:
        version: of OpenVINO.
        inputs: names of what goes in; an input that nothing reads is not among them.
        outputs: names of what comes out, in the order of the ONNX file.
        operators: OpenVINO's own operators and how often each occurs.
    """

    version: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: dict[str, int]


def convert(onnx_file: Path, xml_file: Path, outputs: tuple[str, ...], *, fp16_weights: bool) -> Converted:
    """Write ``xml_file`` and the .bin beside it.

    ``read_model`` and not ``convert_model``, which sends telemetry.

    Raises:
        GraphForgeError: OpenVINO does not take the file; names the nodes it speaks of.
    """
    from collections import Counter

    vendor = load()
    if is_doubted():
        what = f"read {onnx_file.name}"
        try_first(PACKAGE, "graphforge.targets.openvino.trial", what, onnx_file, onnx=str(onnx_file.absolute()))
    runtime = core()
    entering(PACKAGE, f"read {onnx_file.name}", onnx_file)
    try:
        model = runtime.read_model(str(onnx_file))
    except RuntimeError as error:
        raise GraphForgeError(
            f"OpenVINO {_version(vendor)} does not take the model: {told(error)}",
            *places(str(error), onnx_file),
            f"`graphforge opset MODEL` with {argument('target', PACKAGE)} tells what of a model it takes",
        ) from None
    if len(model.outputs) != len(outputs):
        raise GraphForgeError(
            f"OpenVINO {_version(vendor)} made {len(model.outputs)} outputs of {len(outputs)}: {', '.join(outputs)}"
        )
    entering(PACKAGE, f"save {xml_file.name}", onnx_file)
    try:
        vendor.save_model(model, str(xml_file), compress_to_fp16=fp16_weights)
    except RuntimeError as error:
        raise GraphForgeError(f"OpenVINO cannot write {xml_file}: {told(error)}") from None
    kinds = Counter(str(operation.get_type_name()) for operation in model.get_ops())
    return Converted(_version(vendor), tuple(_names(model)), outputs, dict(sorted(kinds.items())))


def _names(model: Any) -> Iterator[str]:
    for port in model.inputs:
        yield port.any_name


def _version(vendor: Any) -> str:
    """``2026.4.1`` of ``2026.4.1-22982-e213a147257-releases/2026/4``."""
    return str(vendor.__version__).partition("-")[0]
