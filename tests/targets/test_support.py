"""The tables of what other runtimes take: well formed, sourced, and right about what can be checked here."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import onnxruntime
import pytest

from graphforge.errors import UsageError
from graphforge.ir import HOME_OPSET
from graphforge.ir.versions import versions_of
from graphforge.targets.support import TARGETS, runtimes

TABLES = sorted(file.name for file in files("graphforge.targets.tables").iterdir() if file.name.endswith(".toml"))


def test_every_target_has_a_table() -> None:
    assert sorted(f"{name}.toml" for name in TARGETS) == TABLES


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
    assert openvino.judge("Swish", 24) == "supported"
    assert openvino.judge("TensorScatter", 24) == "unknown"
    assert openvino.judge("mine::Sparkle", 0) == "unknown"
    assert openvino.reads(26)
    assert not openvino.reads(27)
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


def test_the_installed_onnx_runtime_comes_first() -> None:
    first, *others = runtimes("onnxruntime")
    assert onnxruntime.__version__.startswith(first.title.removeprefix("ONNX Runtime ") + ".")
    assert first.newest_opset is not None
    assert first.newest_opset >= HOME_OPSET
    assert any(other.title == "ONNX Runtime 1.18 to 1.20" for other in others)
    assert len({other.title for other in others}) == len(others)


def test_an_operator_without_a_kernel_is_not_ready() -> None:
    """MaxRoiPool of 22 was called ready: the verb `opset` had a table of its own."""
    first = runtimes("onnxruntime")[0]
    assert first.judge("MaxRoiPool", 22) == "unsupported"
    assert first.judge("MaxRoiPool", 1) == "supported"
    assert first.judge("RoiAlign", 22) == "unsupported"
    assert first.judge("RoiAlign", 16) == "supported"


def test_tensorrt_is_asked() -> None:
    (tensorrt,) = runtimes("tensorrt")
    assert tensorrt.evidence == "asked"
    verdicts = {tensorrt.judge("Conv", 11), tensorrt.judge("StringNormalizer", 10)}
    assert verdicts in ({"unknown"}, {"supported", "unsupported"})  # not installed, or installed and asked
    assert tensorrt.note
