"""An optimized file computes the same at the same opset, under the same names, and a failure leaves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest

import graphforge
from graphforge.errors import GraphForgeError, UsageError, VerificationError
from graphforge.ir import Graph
from graphforge.transform import Pass, Rewriter

TEXT = """<ir_version: 8, opset_import: ["" : 13]>
main (float[batch,3,6,6] image) => (float[batch,4,4,4] seen)
   <float[4,3,3,3] kernel, float[4] bias, float[4] scale, float[4] mean, float[4] variance>
{
   [first_conv] seen_by_conv = Conv <kernel_shape: ints = [3, 3]> (image, kernel, bias)
   [first_norm] normed = BatchNormalization (seen_by_conv, scale, mean, mean, variance)
   [nothing] same = Identity (normed)
   [last_relu] seen = Relu (same)
}
"""


def write(path: Path, text: str = TEXT, *, weights: str | None = None) -> Path:
    """The graph of the text as a file, its constants drawn at random; ``weights`` names a file for them."""
    random = np.random.default_rng(0)
    proto = onnx.parser.parse_model(text)
    infos = {info.name: info for info in proto.graph.value_info}
    for name in ("kernel", "bias", "scale", "mean", "variance"):
        if name in infos:
            dims = [dim.dim_value for dim in infos[name].type.tensor_type.shape.dim]
            array = random.uniform(0.5, 1.5, dims).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    kept = [info for info in proto.graph.value_info if info.name not in infos]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    onnx.save(proto, path, save_as_external_data=weights is not None, location=weights, size_threshold=0)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "net.onnx")


def run(path: Path, image: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_smaller_at_the_same_opset_under_the_same_names(model: Path) -> None:
    before = model.read_bytes()
    done = graphforge.optimize(model)
    assert done.path == model.with_name("net.optimized.onnx")
    assert model.read_bytes() == before
    assert files(model.parent) == {"net.onnx", "net.optimized.onnx"}
    assert (done.before.nodes, done.after.nodes) == (4, 2)
    assert (done.before.opset, done.after.opset) == (13, 13)
    assert done.before.operators == {"BatchNormalization": 1, "Conv": 1, "Identity": 1, "Relu": 1}
    assert done.after.operators == {"Conv": 1, "Relu": 1}
    assert done.before.bytes == model.stat().st_size
    assert done.verification["passed"] is True
    proto = onnx.load(done.path)
    onnx.checker.check_model(proto, full_check=True)
    assert [entry.version for entry in proto.opset_import] == [13]
    assert "last_relu" in {node.name for node in proto.graph.node}
    assert not any(node.metadata_props for node in proto.graph.node)
    image = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(run(done.path, image), run(model, image), rtol=1e-4, atol=1e-5)


def test_another_opset_on_request(model: Path) -> None:
    done = graphforge.optimize(model, model.with_name("new.onnx"), opset=21)
    assert done.after.opset == 21
    assert onnx.load(done.path).opset_import[0].version == 21


def test_an_opset_that_is_not_written_becomes_the_nearest_and_is_noted(tmp_path: Path) -> None:
    done = graphforge.optimize(write(tmp_path / "old.onnx", TEXT.replace('"" : 13', '"" : 9')))
    assert done.after.opset == 11
    assert any(note.startswith("the file is of opset 9, the new one of 11") for note in done.notes)


def test_dims_that_were_compared_at_one_size_are_noted(model: Path) -> None:
    note = "axis 0 of input image may have any size and was compared at one"
    assert any(note in one for one in graphforge.optimize(model).notes)
    promised = graphforge.optimize(model, dynamic_shapes={"image": {0: (1, 3)}})
    assert not any(note in one for one in promised.notes)
    assert {trial["inputs"]["image"][0] for trial in promised.verification["trials"]} == {1, 2, 3}


def test_nothing_to_gain_is_said(model: Path) -> None:
    again = graphforge.optimize(graphforge.optimize(model).path)
    assert again.before.operators == again.after.operators
    assert any("nothing to gain" in note for note in again.notes)


def test_large_weights_lie_beside_the_new_file_under_its_name(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphforge.targets.onnx.write import write_onnx

    assert write_onnx.__kwdefaults__ is not None
    monkeypatch.setitem(write_onnx.__kwdefaults__, "external_bytes", 100)
    monkeypatch.setattr("graphforge.targets.onnx.write._STREAMED_BYTES", 0)
    done = graphforge.optimize(model, model.parent / "new" / "big.onnx")
    assert files(model.parent / "new") == {"big.onnx", "big.onnx.data"}
    assert done.after.bytes == sum(path.stat().st_size for path in (model.parent / "new").iterdir())
    image = np.ones((1, 3, 6, 6), np.float32)
    np.testing.assert_allclose(run(done.path, image), run(model, image), rtol=1e-4, atol=1e-5)


def test_external_data_of_the_original_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", weights="weights.bin")
    done = graphforge.optimize(path)
    assert done.before.bytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size


def test_small_weights_that_lay_in_a_file_of_their_own_come_along(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 13]>
    main (float[1,3,6,6] image) => (float[1,4,4,4] seen) <float[4,3,3,3] kernel, float[4] bias>
    { seen = Conv (image, kernel, bias) }"""
    path = write(tmp_path / "net.onnx", text, weights="weights.bin")
    image = np.ones((1, 3, 6, 6), np.float32)
    expected = run(path, image)
    (tmp_path / "elsewhere").mkdir()
    done = graphforge.optimize(path, tmp_path / "elsewhere" / "net.onnx")
    (tmp_path / "weights.bin").unlink()
    np.testing.assert_array_equal(run(done.path, image), expected)
    assert files(done.path.parent) == {"net.onnx"}


def test_weights_in_a_file_of_their_own_are_there_between_passes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "net.onnx", weights="weights.bin")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # relative names of files mean nothing here
    bundle = graphforge.compile(path, check_passes=True, output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"] is True


@pytest.mark.parametrize("given", ["net.py:build", "net.pt2", "torchvision:resnet18"])
def test_what_is_not_an_onnx_file_is_sent_to_compile(given: str) -> None:
    with pytest.raises(UsageError, match="optimize takes an ONNX file") as caught:
        graphforge.optimize(given)
    assert caught.value.notes == (f"any other model is compiled: graphforge compile {given}",)


def test_places_that_the_new_file_cannot_go_to(model: Path) -> None:
    with pytest.raises(GraphForgeError, match="is the original"):
        graphforge.optimize(model, model.parent / "." / "net.onnx")
    with pytest.raises(UsageError, match=r"must be called NAME\.onnx"):
        graphforge.optimize(model, model.with_name("new.bin"))
    (model.parent / "folder.onnx").mkdir()
    with pytest.raises(GraphForgeError, match="is a folder"):
        graphforge.optimize(model, model.with_name("folder.onnx"))
    with pytest.raises(GraphForgeError, match="cannot write to"):
        graphforge.optimize(model, model / "below" / "a_file.onnx")
    with pytest.raises(GraphForgeError, match=r"missing\.onnx' does not exist"):
        graphforge.optimize(model.with_name("missing.onnx"))


def test_a_truncated_file_leaves_nothing(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:200])
    with pytest.raises(GraphForgeError, match="not an ONNX model, or it is truncated"):
        graphforge.optimize(model, model.parent / "new" / "net.onnx")
    assert files(model.parent) == {"net.onnx"}


@dataclass(frozen=True)
class Wrong(Pass):
    """Relu becomes Abs."""

    name: ClassVar[str] = "wrong"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        for node in graph:
            if node.op_type == "Relu":
                rewriter.replace(node, rewriter.builder(node).Neg(node.inputs[0]))


def test_a_file_that_computes_something_else_is_not_delivered(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import graphforge.passes

    standing = model.parent / "new.onnx"
    standing.write_bytes(b"what was there before")
    monkeypatch.setattr(graphforge.passes, "default_pipeline", lambda: [Wrong()])
    with pytest.raises(VerificationError) as caught:
        graphforge.optimize(model, standing)
    assert (
        f"graphforge compile {model} can keep what was made, and graphforge bisect finds the pass" in caught.value.notes
    )
    assert standing.read_bytes() == b"what was there before"
    assert files(model.parent) == {"net.onnx", "new.onnx"}
    graphforge.optimize(model, standing, verify=False)  # what nobody compares is delivered, and says so
    assert standing.read_bytes() != b"what was there before"
