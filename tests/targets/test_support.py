"""The tables of what other runtimes take: well formed, sourced, and right about what can be checked here."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import onnx
import onnxruntime
import pytest
from onnx import helper

from graphforge.errors import UsageError
from graphforge.ir import HOME_OPSET
from graphforge.ir.versions import versions_of
from graphforge.targets.support import TARGETS, runtimes

TABLES = sorted(file.name for file in files("graphforge.targets").joinpath("tables").iterdir())


def test_every_target_but_the_asked_one_has_a_table() -> None:
    assert sorted(f"{name}.toml" for name in TARGETS if name != "tensorrt") == TABLES


@pytest.mark.parametrize("name", TABLES)
def test_table_names_its_document_and_knows_only_operators_of_onnx(name: str) -> None:
    table = tomllib.loads(files("graphforge.targets").joinpath("tables", name).read_text())
    assert table["document"]
    assert table["url"].startswith("https://")
    assert table["evidence"] in ("documented", "measured", "observed")
    assert table["unlisted"] in ("supported", "unsupported", "unknown")
    supported, unsupported = table.get("supported", "").split(), table.get("unsupported", "").split()
    assert len(set(supported)) == len(supported)
    assert not set(supported) & set(unsupported)
    named = {*supported, *unsupported, *table.get("limits", {})}
    named |= {operator for release in table.get("release", ()) for operator in release.get("missing", {})}
    assert not [operator for operator in named if not versions_of(operator)]


def test_verdicts() -> None:
    (openvino,), (coreml,), (ncnn,) = (runtimes(name) for name in ("openvino", "coreml", "ncnn"))
    assert openvino.judge("Mish", 18) == "supported"
    assert openvino.judge("DeformConv", 19) == "unsupported"
    assert openvino.judge("Swish", 24) == "unknown"
    assert openvino.judge("mine::Sparkle", 0) == "unknown"
    assert openvino.reads(23)
    assert not openvino.reads(24)
    assert coreml.judge("NonMaxSuppression", 11) == "unsupported"
    assert ncnn.judge("Conv", 11) == "unknown"


def test_magicmind_reads_11_only_and_says_what_has_no_evidence() -> None:
    (magicmind,) = runtimes("magicmind")
    assert [opset for opset in range(7, 27) if magicmind.reads(opset)] == [11]
    assert magicmind.judge("Conv", 11) == "supported"
    assert magicmind.judge("CumSum", 11) == "unsupported"
    assert magicmind.judge("Einsum", 11) == "unknown"
    assert magicmind.judge("mine::Sparkle", 0) == "unsupported"


def test_unknown_target_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing is known of target 'opnvino'") as caught:
        runtimes("opnvino")
    assert "did you mean 'openvino'?" in caught.value.notes


def test_installed_onnx_runtime_is_as_the_table_has_it() -> None:
    """The measured row: it loads the newest opset, and not RoiAlign as opset 22 has it."""
    first = runtimes("onnxruntime")[0]
    if onnxruntime.__version__.rpartition(".")[0] != first.title.removeprefix("ONNX Runtime "):
        pytest.skip(f"the table measures {first.title}, installed is {onnxruntime.__version__}")
    assert first.newest_opset == HOME_OPSET
    for opset, verdict in ((HOME_OPSET, "unsupported"), (21, "supported")):
        version = max(version for version in versions_of("RoiAlign") if version <= opset)
        assert first.judge("RoiAlign", version) == verdict
        assert _loads(opset) == (verdict == "supported")


def _loads(opset: int) -> bool:
    shapes = {"x": [1, 2, 8, 8], "rois": [1, 4], "batch": [1]}
    kinds = {"batch": onnx.TensorProto.INT64}
    inputs = [
        helper.make_tensor_value_info(name, kinds.get(name, onnx.TensorProto.FLOAT), shape)
        for name, shape in shapes.items()
    ]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("RoiAlign", [*shapes], ["y"])], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors are of several C++ kinds
        if "Could not find an implementation" in str(error):
            return False
        raise
    return True


def test_tensorrt_is_asked() -> None:
    (tensorrt,) = runtimes("tensorrt")
    assert tensorrt.evidence == "asked"
    verdicts = {tensorrt.judge("Conv", 11), tensorrt.judge("StringNormalizer", 10)}
    assert verdicts in ({"unknown"}, {"supported", "unsupported"})  # not installed, or installed and asked
    assert tensorrt.note
