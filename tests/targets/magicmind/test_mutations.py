"""Every rule earns its keep: break a bundle in one way, and see that the linter and the stand-in notice.

The stand-in does not know the rules that only a linter can know (advice), the linter does not run anything; ``by`` says
who must notice what.  The last test prints the score.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphforge.targets.magicmind.lint import CHECKS, Severity, lint, sorted_checks
from tests.targets.magicmind.bundles import (
    dynamic_bundle,
    edit_json,
    edit_model,
    edit_text,
    pinned_bundle,
    quantised_bundle,
    run_scripts,
    static_bundle,
)

LINT, STAND_IN, BOTH = ("lint",), ("stand-in",), ("lint", "stand-in")


@dataclass(frozen=True)
class Mutation:
    """One way to break a bundle.

    Attributes:
        rule: the rule it breaks.
        name: what is done.
        base: which bundle.
        by: who must notice.
        apply: does it.
        severity: how the linter must rate it.
    """

    rule: str
    name: str
    base: str
    by: tuple[str, ...]
    apply: Callable[[Path], None]
    severity: Severity = Severity.ERROR


def model_edit(edit: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    return lambda folder: edit_model(folder, lambda model: void(edit(model)))


def config_edit(**values: Any) -> Callable[[Path], None]:
    """Set values of build_config.json; None deletes a key."""

    def edit(config: dict[str, Any]) -> None:
        for key, value in values.items():
            if value is None:
                del config[key]
            else:
                config[key] = value

    return lambda folder: edit_json(folder, "build_config.json", edit)


def bundle_edit(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder, "bundle.json", lambda bundle: void(edit(bundle)))


def script_edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: edit_text(folder, name, old, new)


def text_edit(old: str, new: str) -> Callable[[Path], None]:
    """Change the text of build_config.json, as written by hand."""
    return lambda folder: edit_text(folder, "build_config.json", old, new)


def void(_: object) -> None:
    """Let lambdas be statements."""


# Edits of the model.  The graph is x -> Conv -> Relu -> y.


def set_opset(version: int) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return edit


def add_before_output(*nodes: onnx.NodeProto, **weights: np.ndarray) -> Callable[[onnx.ModelProto], None]:
    """Put nodes between the Relu and the output; the first reads ``relu``, the last writes ``y``."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "relu"
        model.graph.node.extend(nodes)
        for name, values in weights.items():
            model.graph.initializer.append(numpy_helper.from_array(values, name))

    return edit


def node(op_type: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, list(inputs), [output], name=f"added/{op_type}/{output}", **attributes)


def custom_domain(model: onnx.ModelProto) -> None:
    add_before_output(node("Sparkle", "relu", domain="mine"))(model)
    model.opset_import.append(helper.make_opsetid("mine", 1))


def newer_forms(model: onnx.ModelProto) -> None:
    """Unsqueeze and Squeeze with axes as an input: opset 13, and said so."""
    set_opset(13)(model)
    nodes = (node("Unsqueeze", "relu", "axes", output="u"), node("Squeeze", "u", "axes"))
    add_before_output(*nodes, axes=np.array([0]))(model)


def axes_input_at_11(model: onnx.ModelProto) -> None:
    nodes = (node("Unsqueeze", "relu", "axes", output="u"), node("Squeeze", "u", "axes"))
    add_before_output(*nodes, axes=np.array([0]))(model)


def to_double(model: onnx.ModelProto) -> None:
    add_before_output(
        node("Cast", "relu", output="d", to=TensorProto.DOUBLE),
        node("Sqrt", "d", output="s"),
        node("Cast", "s", to=TensorProto.FLOAT),
    )(model)


def big_constant(model: onnx.ModelProto) -> None:
    add_before_output(
        node("Cast", "relu", output="i", to=TensorProto.INT64),
        node("Add", "i", "big", output="j"),
        node("Cast", "j", to=TensorProto.FLOAT),
        big=np.array([2**40]),
    )(model)


def unused_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**63 - 1]), "left_over"))


def integers(model: onnx.ModelProto) -> None:
    add_before_output(
        node("Cast", "relu", output="i", to=TensorProto.INT64),
        node("Cast", "i", to=TensorProto.FLOAT),
    )(model)


def int64_without_conversion(folder: Path) -> None:
    edit_model(folder, integers)
    config_edit(opt_config={"type64to32_conversion": False})(folder)


def slice_sentinel(model: onnx.ModelProto) -> None:
    nodes = (node("Slice", "relu", "starts", "ends"),)
    add_before_output(*nodes, starts=np.array([0]), ends=np.array([2**63 - 1]))(model)


def int64_input(model: onnx.ModelProto) -> None:
    """Another input, which is added on."""
    value = helper.make_tensor_value_info("count", TensorProto.INT64, [1])
    model.graph.input.append(value)
    add_before_output(node("Cast", "count", output="c", to=TensorProto.FLOAT), node("Add", "relu", "c"))(model)


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.output.append(model.graph.output[0])


def unname_node(model: onnx.ModelProto) -> None:
    model.graph.node[0].name = ""


def same_name(model: onnx.ModelProto) -> None:
    model.graph.node[0].name = model.graph.node[1].name


def wrong_output_shape(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 15


def bake_width(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 16


def weights_as_inputs(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))


def external_weights(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    edit_json(folder, "bundle.json", void)


def scores(model: onnx.ModelProto) -> None:
    add_before_output(
        node("Reshape", "relu", "flat", output="f"),
        helper.make_node("TopK", ["f", "k"], ["y", "places"], name="added/TopK"),
        flat=np.array([1, -1]),
        k=np.array([3]),
    )(model)


def resize(model: onnx.ModelProto) -> None:
    add_before_output(node("Resize", "relu", "", "scales", mode="cubic"), scales=np.array([1, 1, 2, 2], np.float32))(
        model
    )


def flatten(model: onnx.ModelProto) -> None:
    add_before_output(node("Flatten", "relu"))(model)
    model.graph.output[0].type.tensor_type.ClearField("shape")


def open_reshape(model: onnx.ModelProto) -> None:
    add_before_output(node("Reshape", "relu", "sizes"), sizes=np.array([0, 8, 16, -1]))(model)


def set_range(folder: Path, end: str, sizes: list[int]) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["dim_range"]["0"][end] = sizes

    edit_json(folder, "build_config.json", edit)


def normalise(mean: list[float], var: list[float]) -> Callable[[Path], None]:
    return config_edit(insert_bn_before_firstnode={"0": {"mean": mean, "var": var}})


def relu_first(folder: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node.insert(0, helper.make_node("Relu", ["x"], ["r"], name="added/Relu"))
        model.graph.node[1].input[0] = "r"

    edit_model(folder, edit)
    normalise([1.0, 2.0, 3.0], [10.0, 10.0, 10.0])(folder)


def precision(**values: str) -> Callable[[Path], None]:
    return config_edit(precision_config={"precision_mode": "qint8_mixed_float16", **values})


def asymmetric_eqnm(folder: Path) -> None:
    precision(activation_quant_algo="asymmetric")(folder)
    bundle_edit(lambda bundle: bundle["calibration"].update(algorithm="EQNM_ALGORITHM"))(folder)


def resample(change: Callable[[np.ndarray], np.ndarray], *, only: str = "*") -> Callable[[Path], None]:
    """Change stored calibration samples."""

    def apply(folder: Path) -> None:
        files = sorted((folder / "calib/0").glob(f"{only}.npy"))
        assert files
        for file in files:
            np.save(file, change(np.load(file)))

    return apply


def keep_samples(count: int, *, per_feed: int = 1) -> Callable[[Path], None]:
    def edit(bundle: dict[str, Any]) -> None:
        stream = bundle["calibration"]["inputs"][0]
        stream.update(files=stream["files"][:count], files_per_feed=per_feed)

    return bundle_edit(edit)


def drop_calibration(bundle: dict[str, Any]) -> None:
    bundle["calibration"] = None


def swap_steps(folder: Path) -> None:
    """Build first, calibrate afterwards."""
    text = (folder / "build_mm.py").read_text()
    calibrates = text[
        text.index('    if bundle["calibration"] is not None:') : text.index("    builder = mm.Builder()")
    ]
    written = '    print(f"wrote {output}")\n'
    assert written in text
    text = text.replace(calibrates, "").replace(written, calibrates + written)
    (folder / "build_mm.py").write_text(text)


def pin_late(folder: Path) -> None:
    """Keep nodes in float32 once the calibration is done."""
    pins, builds = '    pin_to_float32(network, bundle["pins"])\n', "    builder = mm.Builder()\n"
    edit_text(folder, "build_mm.py", pins, "")
    edit_text(folder, "build_mm.py", builds, pins + builds)


def with_nan(sample: np.ndarray) -> np.ndarray:
    sample[0, 0, 0, 0] = np.nan
    return sample


def shorten_bin(folder: Path) -> None:
    file = folder / "calib/0/0004.bin"
    file.write_bytes(file.read_bytes()[:-8])


def loop_of(kind: str) -> Callable[[onnx.ModelProto], None]:
    """Draw noise of the shape of the Relu and add it."""
    return add_before_output(node(kind, "relu", output="noise"), node("Add", "relu", "noise"))


WARNING, NOTE = Severity.WARNING, Severity.NOTE

MUTATIONS = [
    Mutation("G1", "opset 13", "static", BOTH, model_edit(newer_forms)),
    Mutation("G1", "opset 9", "static", BOTH, model_edit(set_opset(9)), WARNING),
    Mutation("G1", "opset 12", "static", LINT, model_edit(set_opset(12)), NOTE),
    Mutation("G2", "custom domain", "static", BOTH, model_edit(custom_domain)),
    Mutation("G3", "axes as input", "static", BOTH, model_edit(axes_input_at_11)),
    Mutation("G4", "float64", "static", BOTH, model_edit(to_double)),
    Mutation("G4", "int64 without conversion", "static", BOTH, int64_without_conversion),
    Mutation("G5", "int64 input", "static", LINT, model_edit(int64_input), WARNING),
    Mutation("G6", "constant beyond int32", "static", BOTH, model_edit(big_constant)),
    Mutation("G6", "unused constant beyond int32", "static", BOTH, model_edit(unused_constant)),
    Mutation("G6", "Slice to 2**63-1", "static", LINT, model_edit(slice_sentinel), WARNING),
    Mutation(
        "G7",
        "CumSum",
        "static",
        BOTH,
        model_edit(add_before_output(node("CumSum", "relu", "axis"), axis=np.array(1))),
    ),
    Mutation(
        "G7", "operator no sample shows", "static", LINT, model_edit(add_before_output(node("Selu", "relu"))), WARNING
    ),
    Mutation("G8", "TopK in int8", "quantised", LINT, model_edit(scores), WARNING),
    Mutation("G9", "random noise", "static", LINT, model_edit(loop_of("RandomUniformLike")), WARNING),
    Mutation("G10", "cubic Resize", "static", LINT, model_edit(resize), WARNING),
    Mutation("G11", "Flatten with dynamic batch", "dynamic", LINT, model_edit(flatten), WARNING),
    Mutation("G11", "Reshape with -1 beside a dynamic dim", "dynamic", LINT, model_edit(open_reshape), WARNING),
    Mutation("G12", "output twice", "static", LINT, model_edit(rename_input)),
    Mutation("G13", "HardSwish at opset 11", "static", BOTH, model_edit(add_before_output(node("HardSwish", "relu")))),
    Mutation("G14", "weights in another file", "static", BOTH, external_weights, WARNING),
    Mutation("G15", "weights as inputs", "static", LINT, model_edit(weights_as_inputs), NOTE),
    Mutation("G16", "width baked in", "dynamic", BOTH, model_edit(bake_width)),
    Mutation("G17", "node without name", "static", BOTH, model_edit(unname_node)),
    Mutation("G17", "two nodes of one name", "static", BOTH, model_edit(same_name)),
    Mutation("G17", "wrong output shape", "static", BOTH, model_edit(wrong_output_shape)),
    Mutation("C1", "unknown key", "static", BOTH, config_edit(precision="force_float16")),
    Mutation("C1", 'the text "true"', "static", BOTH, config_edit(graph_shape_mutable="true")),
    Mutation("C1", "unknown key inside", "static", BOTH, config_edit(opt_config={"type64to32": True})),
    Mutation("C1", "key twice", "static", BOTH, text_edit('"archs":', '"archs": ["mtp_592"], "archs":')),
    Mutation("C2", "README's typo", "static", BOTH, config_edit(precision_config={"precision_mode": "forced_float32"})),
    Mutation("C2", "preference", "static", BOTH, config_edit(computation_preference="quick")),
    Mutation("C3", "product name", "static", BOTH, config_edit(archs=["mlu370"])),
    Mutation("C3", "no clusters", "static", BOTH, config_edit(archs=[{"mtp_372": [0]}])),
    Mutation("C3", "dotted name", "static", BOTH, config_edit(archs=["tp_322.10"]), WARNING),
    Mutation("C3", "more clusters than a card has", "static", LINT, config_edit(archs=[{"mtp_372": [12]}]), NOTE),
    Mutation("C4", "max below min", "dynamic", BOTH, lambda folder: set_range(folder, "max", [1, 3, 16, 7])),
    Mutation("C4", "build dims outside", "dynamic", BOTH, lambda folder: set_range(folder, "min", [3, 3, 16, 8])),
    Mutation("C4", "wrong rank", "dynamic", BOTH, lambda folder: set_range(folder, "min", [1, 3, 8])),
    Mutation("C4", "no max", "dynamic", BOTH, config_edit(dim_range={"0": {"min": [1, 3, 16, 8]}})),
    Mutation(
        "C4",
        "input that does not exist",
        "dynamic",
        BOTH,
        config_edit(
            dim_range={
                "0": {"min": [1, 3, 16, 8], "max": [8, 3, 16, 64]},
                "1": {"min": [1], "max": [1]},
            }
        ),
    ),
    Mutation(
        "G16",
        "range in NHWC",
        "dynamic",
        BOTH,
        config_edit(dim_range={"0": {"min": [1, 16, 8, 3], "max": [8, 16, 64, 3]}}),
    ),
    Mutation("C6", "two varying dims", "dynamic", LINT, lambda folder: None, NOTE),
    Mutation("C7", "range on an immutable graph", "dynamic", BOTH, config_edit(graph_shape_mutable=False)),
    Mutation("C8", "no range", "dynamic", BOTH, config_edit(dim_range=None)),
    Mutation("C9", "no calibration", "quantised", BOTH, bundle_edit(drop_calibration)),
    Mutation(
        "C9", "made-up ranges", "quantised", LINT, config_edit(custom_ranges={"": {"max": [1], "min": [-1]}}), WARNING
    ),
    Mutation("C10", "EQNM with asymmetric", "quantised", BOTH, asymmetric_eqnm),
    Mutation("C11", "not as many as channels", "static", BOTH, normalise([1.0, 2.0], [10.0, 10.0])),
    Mutation("C11", "std of 0..1 beside a mean of 0..255", "static", LINT, normalise([123.0] * 3, [0.05] * 3), WARNING),
    Mutation("C11", "a bundle that feeds floats", "static", LINT, normalise([123.0] * 3, [3000.0] * 3)),
    Mutation(
        "C11", "std of 0..255 in place of its square", "static", LINT, normalise([123.0] * 3, [58.0] * 3), WARNING
    ),
    Mutation("C11", "first layer is no Conv", "static", BOTH, relu_first),
    Mutation(
        "C12",
        "to the layout it has",
        "static",
        BOTH,
        config_edit(convert_input_layout={"0": {"src": "NCHW", "dst": "NCHW"}}),
    ),
    Mutation(
        "C12",
        "layout of another rank",
        "static",
        BOTH,
        config_edit(convert_input_layout={"0": {"src": "NCT", "dst": "NTC"}}),
    ),
    Mutation("C13", "conversion not asked for", "static", LINT, config_edit(opt_config={})),
    Mutation("C15", "edge chip without compiler", "static", BOTH, config_edit(archs=["tp_322"])),
    Mutation(
        "C16",
        "Exp in float16",
        "float16",
        LINT,
        model_edit(add_before_output(node("Exp", "relu"))),
        WARNING,
    ),
    Mutation(
        "C17", "pin that no node has", "quantised", BOTH, bundle_edit(lambda bundle: bundle.update(pins=["sqrt"]))
    ),
    Mutation("K1", "samples in uint8", "quantised", BOTH, resample(lambda s: s.astype(np.uint8))),
    Mutation("K1", "samples in NHWC", "quantised", BOTH, resample(lambda s: s.transpose(0, 2, 3, 1).copy())),
    Mutation("K1", "samples in float64", "quantised", BOTH, resample(lambda s: s.astype(np.float64))),
    Mutation("K1", "one sample of another size", "quantised", BOTH, resample(lambda s: s[:, :, :8], only="0004")),
    Mutation("K1", "Fortran order", "quantised", LINT, resample(np.asfortranarray)),
    Mutation(
        "K1",
        "missing file",
        "quantised",
        BOTH,
        lambda folder: (folder / "calib/0/0002.npy").unlink(),
    ),
    Mutation("K2", "no whole batch", "quantised", BOTH, keep_samples(3, per_feed=4)),
    Mutation("K2", "left-over samples", "quantised", LINT, keep_samples(9, per_feed=2), WARNING),
    Mutation("K3", "pixels instead of normalised floats", "quantised", LINT, resample(lambda s: s * 255), WARNING),
    Mutation("K5", "nothing but zeros", "quantised", LINT, resample(np.zeros_like)),
    Mutation("K5", "a NaN", "quantised", LINT, resample(with_nan, only="0003")),
    Mutation("K6", "a .bin that is too short", "quantised", LINT, shorten_bin),
    Mutation("K6", "other numbers in the .bin", "quantised", LINT, resample(lambda s: s * 0.5)),
    Mutation("K6", "no .bin", "quantised", LINT, lambda folder: (folder / "calib/0/0002.bin").unlink()),
    Mutation("K4", "few samples", "quantised", LINT, keep_samples(2), NOTE),
    Mutation(
        "S1",
        "model not compared to None",
        "static",
        LINT,
        script_edit("build_mm.py", "if model is None", "if not model"),
    ),
    Mutation("S2", "calibrate after the build", "quantised", BOTH, swap_steps),
    Mutation("S2", "pins after the calibration", "pinned", LINT, pin_late),
    Mutation(
        "S3", "imports torch", "static", LINT, script_edit("build_mm.py", "import json", "import json\nimport torch")
    ),
    Mutation(
        "S3",
        "walrus",
        "static",
        LINT,
        script_edit("run_mm.py", "import json", "import json\nif (n := 1): pass"),
    ),
    Mutation("S3", "script missing", "static", LINT, lambda folder: (folder / "run_mm.py").unlink()),
    Mutation(
        "S4", "mm_run without dims", "static", LINT, script_edit("bench.sh", "--input_dims", "--batch_size"), WARNING
    ),
]

# Mistakes that people make by hand, by what the mutations call them; every one must be found.
MADE_BY_HAND = {
    'the text "true"',
    "max below min",
    "range in NHWC",
    "unknown key",
    "no calibration",
    "samples in uint8",
    "pixels instead of normalised floats",
    "nothing but zeros",
    "a NaN",
    "a .bin that is too short",
    "walrus",
    "pins after the calibration",
    "pin that no node has",
    "opset 13",
    "custom domain",
    "EQNM with asymmetric",
    "product name",
    "conversion not asked for",
    "a bundle that feeds floats",
    "std of 0..255 in place of its square",
}

# Rules of which only the stand-in can know, or that a script breaks in ways the linter does not see.
STAND_IN_ONLY = {
    "wrong name of a method": ("build_mm.py", "network.get_input_count()", "network.input_count()"),
    "truth of a Status": ("build_mm.py", "    if not status.ok():", "    if not status:"),
    "dims as a string": ("build_mm.py", 'mm.Dims(tuple(entry["dims"]))', "mm.Dims(str(entry['dims']))"),
    "dims not as Dims": ("build_mm.py", 'mm.Dims(tuple(entry["dims"]))', 'tuple(entry["dims"])'),
    "kind of another format": ("build_mm.py", "mm.ModelKind.kOnnx", "mm.ModelKind.kPytorch"),
    "no device active": ("run_mm.py", 'check(device.active(), f"activating device {device_id}")', "pass"),
    "outputs bound by the names of the ONNX file": (
        "run_mm.py",
        "found[index], expected",
        'found[model.get_output_names().index("y")], expected',
    ),
    "outputs read before the queue is synchronised": (
        "run_mm.py",
        'check(queue.sync(), "waiting for the device")',
        "pass",
    ),
    "inputs not copied to the device": ("run_mm.py", "inputs[index].to(device)", "None"),
    "device of another kind": ("run_mm.py", '"MLU"', '"GPU"'),
}
QUANTISED_ONLY = {
    "calibrator without its base": ("build_mm.py", "        super().__init__()\n", ""),
    "no algorithm": (
        "build_mm.py",
        'check(calibrator.set_quantization_algorithm(algorithm), "setting the quantization algorithm")',
        "pass",
    ),
    "stream that does not end": ("build_mm.py", "        self._next += 1\n", ""),
    "stream that cannot start again": (
        "build_mm.py",
        "        self._next = 0\n        self._sample = None\n        return",
        "        return",
    ),
    "device not active": ("build_mm.py", 'check(device.active(), f"activating device {device_id}")', "pass"),
    "wrong type said": ("build_mm.py", "return self._dtype", "return mm.DataType.INT32"),
    "fold changed after calibration": (
        "build_mm.py",
        "    builder = mm.Builder()\n",
        "    builder = mm.Builder()\n"
        "    check(config.parse_from_string('{\"opt_config\": {\"conv_scale_fold\": true}}'), 'fold')\n",
    ),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    static_bundle(folder / "static")
    dynamic_bundle(folder / "dynamic")
    quantised_bundle(folder / "quantised")
    pinned_bundle(folder / "pinned")
    static_bundle(folder / "float16", precision="force_float16")
    return folder


def broken(bases: Path, base: str, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    shutil.copytree(bases / base, folder)
    return folder


@pytest.mark.parametrize("base", ["static", "dynamic", "quantised", "pinned", "float16"])
def test_unbroken_bundles_are_clean(base: str, bases: Path, tmp_path: Path) -> None:
    folder = broken(bases, base, tmp_path)
    assert [str(finding) for finding in lint(folder) if finding.severity is not NOTE] == []
    outcome = run_scripts(folder)
    assert outcome.is_clean, outcome


SCORE: dict[tuple[str, str], list[bool]] = {}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.rule}-{mutation.name}")
def test_mutation_is_noticed(mutation: Mutation, bases: Path, tmp_path: Path) -> None:
    folder = broken(bases, mutation.base, tmp_path)
    mutation.apply(folder)
    if "lint" in mutation.by:
        findings = lint(folder)
        noticed = any(f.rule == mutation.rule and f.severity is mutation.severity for f in findings)
        SCORE.setdefault(("lint", mutation.rule), []).append(noticed)
        assert noticed, [str(finding) for finding in findings]
    if "stand-in" in mutation.by:
        outcome = run_scripts(folder)
        SCORE.setdefault(("stand-in", mutation.rule), []).append(not outcome.is_clean)
        assert not outcome.is_clean, outcome.output


@pytest.mark.parametrize(("script", "old", "new"), STAND_IN_ONLY.values(), ids=STAND_IN_ONLY)
def test_stand_in_notices_a_wrong_script(script: str, old: str, new: str, bases: Path, tmp_path: Path) -> None:
    folder = broken(bases, "static", tmp_path)
    edit_text(folder, script, old, new)
    assert not run_scripts(folder).is_clean


@pytest.mark.parametrize(("script", "old", "new"), QUANTISED_ONLY.values(), ids=QUANTISED_ONLY)
def test_stand_in_notices_a_wrong_calibration(script: str, old: str, new: str, bases: Path, tmp_path: Path) -> None:
    folder = broken(bases, "quantised", tmp_path)
    edit_text(folder, script, old, new)
    assert not run_scripts(folder).is_clean


def _checks(script: str) -> list[tuple[str, str, str]]:
    """Every ``check(CALL, ...)`` of a script: what it is, its text, and the bare call."""
    import graphforge.targets.magicmind.onboard as onboard

    text = (Path(onboard.__file__).parent / script).read_text()
    found = []
    for part in ast.walk(ast.parse(text)):
        is_check = isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "check"
        if is_check and isinstance(part, ast.Call) and isinstance(part.args[0], ast.Call):
            whole, bare = ast.get_source_segment(text, part), ast.get_source_segment(text, part.args[0])
            assert whole is not None
            assert bare is not None
            found.append((script, whole, bare))
    return found


SCRIPT_CHECKS = [*_checks("build_mm.py"), *_checks("run_mm.py")]


@pytest.mark.parametrize(("script", "whole", "bare"), SCRIPT_CHECKS, ids=lambda text: text[:60])
def test_unchecked_status_is_noticed(script: str, whole: str, bare: str, bases: Path, tmp_path: Path) -> None:
    folder = broken(bases, "pinned", tmp_path)
    edit_text(folder, script, whole, bare)
    noticed = any(finding.rule == "S1" for finding in lint(folder))
    SCORE.setdefault(("lint", "S1"), []).append(noticed)
    assert noticed
    outcome = run_scripts(folder, build_arguments=("--remote", "host:9009") if "remote" in whole else ())
    SCORE.setdefault(("stand-in", "S1"), []).append(not outcome.is_clean)
    assert not outcome.is_clean


def test_calibration_on_a_remote_device(bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MAGICMIND_DEVICES", "0")
    folder = broken(bases, "pinned", tmp_path)
    assert run_scripts(folder, ("build_mm.py",), build_arguments=("--remote", "10.0.0.1:9009")).is_clean
    outcome = run_scripts(folder, ("build_mm.py",), build_arguments=("--remote", "nowhere"))
    assert "setting the remote device nowhere failed" in outcome.output


def test_every_rule_is_broken_by_a_mutation() -> None:
    assert {mutation.rule for mutation in MUTATIONS} == set(CHECKS)


def test_the_twenty_mistakes_made_by_hand_are_among_them() -> None:
    """Each is linted by `test_mutation_is_noticed`, a Status that nobody asks by `test_unchecked_status_is_noticed`."""
    found_by_lint = {mutation.name for mutation in MUTATIONS if "lint" in mutation.by}
    assert found_by_lint >= MADE_BY_HAND
    assert len(MADE_BY_HAND) == 20


def test_score(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints who noticed how many of what; runs last, over what the tests above found."""
    if not SCORE:
        pytest.skip("no mutation was run in this process")
    with capsys.disabled():
        print("\nmutation score (noticed / made):")
        for check in sorted_checks():
            row = [
                f"{who} {sum(SCORE[who, check.id])}/{len(SCORE[who, check.id])}"
                for who in ("lint", "stand-in")
                if (who, check.id) in SCORE
            ]
            print(f"  {check.id:4} {check.title:62} {', '.join(row)}")
    assert all(all(results) for results in SCORE.values())


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"x = " + b"-" * 100_000 + b"1", b"(" * 20_000], ids=["no text", "minus", "brackets"]
)
def test_a_script_that_is_no_python_is_a_finding(content: bytes, tmp_path: Path) -> None:
    static_bundle(tmp_path)
    for name in ("build_mm.py", "run_mm.py", "bench.sh"):
        (tmp_path / name).write_bytes(content)
    found = [finding for finding in lint(tmp_path) if finding.rule == "S3"]
    assert [finding.message.startswith("not Python") for finding in found] == [True, True]
