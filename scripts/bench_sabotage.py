"""Faults in compiled files, and whether `diff` names the node, the module and the line.

    scripts/bench sabotage                              every network, sixteen faults each, and the controls
    scripts/bench sabotage --only digits_mlp,unet --faults 8 --seed 3

Each network is compiled.  Controls, where nothing may be blamed: the file as it is, without its metadata, after
onnxsim, onnxslim and ONNX Runtime's own optimizer, and what torch's own exporter makes of the model, simplified too.
Then faults are put into the file, one at a time; those that change an output by less than a thousandth of its largest
magnitude are left out.  What is named first is right when it is the very node (one that reads the constant), its
module and its line.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
import onnx_ir as ir

import graphforge
from graphforge.diagnosis import MEMORY, Artifact, Diagnosis, diagnose, tape_of_file
from graphforge.errors import GraphForgeError
from graphforge.ir.origin import Origin, origins_of
from graphforge.onnx_io.origins import read_origins
from graphforge.prepare import example_feeds, prepare
from graphforge.runners.arrays import Array
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.runners.recorded import read_manifest
from graphforge.verbs.diff import reference_values
from scripts.mutations.faults import Fault, faults_of
from scripts.mutations.networks import built as built_for_mutations
from scripts.sabotage_networks import MORE

__all__ = ["CONTROLS", "NETWORKS", "Outcome", "judged"]

Asked: TypeAlias = Callable[[onnx.ModelProto], Diagnosis]

# What a fault changes at least, as a share of an output's largest magnitude.
ABOVE = 1e-3
# Network -> form of its outputs.  A padded detector is another file than a ragged one.
NETWORKS: dict[str, str | None] = {
    "digits_mlp": None,
    "digits_cnn": None,
    "digits_lstm": None,
    "digits_gru": None,
    "digits_attention": None,
    "digit_detector": None,
    "digit_detector (padded)": "padded",
    "mobile_block": None,
    "unet": None,
    "diffusion_block": None,
    "llama_block": None,
    "super_resolution": None,
    "warp": None,
    "grid_detector": None,
    "word_bag": None,
    **dict.fromkeys(MORE, None),
}
CONTROLS = (
    "untouched",
    "without metadata",
    "onnxsim",
    "onnxslim",
    "ONNX Runtime's optimizer",
    "stock",
    "stock, onnxsim",
    # the other way round: that file is the reference, and ours is held against it
    "stock as the reference",
    "stock, onnxsim as the reference",
    "onnxslim as the reference",
)
_REVERSED = " as the reference"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was said of one file.

    Attributes:
        network: its name.
        kind: of the fault, or the control.
        where: the node or constant; "" for a control.
        said: what was named, or the verdict.
        module: the module named is the right one.
        line: the line named is the right one.
        node: the node named is the right one.
        state: ``named``, ``not named``, ``missed`` (said to agree), ``crashed``; for a control ``clean`` or ``blamed``.
        seconds: what it took.
    """

    network: str
    kind: str
    where: str
    said: str
    module: bool
    line: bool
    node: bool
    state: str
    seconds: float


def built(name: str) -> tuple[Any, tuple[Any, ...]]:
    """A network with its inputs."""
    plain = name.partition(" (")[0]
    return MORE[plain]() if plain in MORE else built_for_mutations(plain)


def judged(name: str, *, faults: int, seed: int = 0, controls: Sequence[str] = CONTROLS) -> Iterator[Outcome]:
    """The controls of a network, then its faults."""
    module, inputs = built(name)
    with tempfile.TemporaryDirectory(prefix="graphforge-sabotage-") as place:
        folder = Path(place) / "bundle"
        graphforge.compile(module, inputs, verify=False, outputs=NETWORKS[name], output=folder)
        proto = onnx.load(folder / "model.onnx")
        prepared = prepare(module, inputs)
        feeds, manifest = example_feeds(prepared), read_manifest(folder)
        values = reference_values(prepared, manifest, MEMORY)
        tape = values.tape_of(feeds)

        def asked(file: onnx.ModelProto) -> Diagnosis:
            artifact = Artifact(OnnxRuntimeRunner(file, threads=1))
            padding = manifest["padding"] if "num_dets" in artifact.outputs else ()  # others write ragged outputs
            return diagnose(tape, artifact, feeds, padding=padding, twin=values.twin)

        def asked_in_reverse(file: onnx.ModelProto) -> Diagnosis:
            padding = manifest["padding"]
            other = tape_of_file(Artifact(OnnxRuntimeRunner(file, threads=1)), feeds, memory=MEMORY, padding=padding)
            ours = Artifact(OnnxRuntimeRunner(proto, threads=1))
            try:
                return diagnose(other, ours, feeds, padding=padding)
            finally:
                other.close()

        for control in controls:
            changed = controlled(control.removesuffix(_REVERSED), proto, Path(place), module, inputs)
            if changed is not None:
                how = asked_in_reverse if control.endswith(_REVERSED) else asked
                yield _judged_control(name, control, changed, how)
        sets = [feeds]
        before = _run(proto, sets)
        tried = 0
        for fault in faults_of(proto, 10_000, seed):
            if tried == faults:
                break
            changed = fault.applied(proto)
            if not _is_above(before, changed, sets):
                continue
            tried += 1
            yield _judged_fault(name, fault, changed, _guilty(proto, changed), asked)


def controlled(
    control: str, proto: onnx.ModelProto, folder: Path, module: Any, inputs: tuple[Any, ...]
) -> onnx.ModelProto | None:
    """The file after what the control does to it; None where its tool does not run here."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if control == "untouched":
        return copy
    if control == "without metadata":
        for node in copy.graph.node:
            del node.metadata_props[:]
        return copy
    try:
        if control.startswith("stock"):
            copy = _stock(module, inputs, folder / "stock.onnx")
        if control == "stock":
            return copy
        if control in ("onnxsim", "stock, onnxsim"):
            import onnxsim

            simplified: onnx.ModelProto = onnxsim.simplify(copy)[0]
            return simplified
        if control == "onnxslim":
            import onnxslim

            slim: onnx.ModelProto = onnxslim.slim(copy)
            return slim
    except Exception as error:  # ImportError, or the tool does not take the file
        print(f"  {control}: {type(error).__name__}: {str(error)[:80]}", file=sys.stderr)
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def _stock(module: Any, inputs: tuple[Any, ...], path: Path) -> onnx.ModelProto:
    """What torch's own exporter writes."""
    import torch

    if path.is_file():
        return onnx.load(path)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, str(path), dynamo=True, verbose=False, external_data=False)
    return onnx.load(path)


def _judged_control(name: str, control: str, proto: onnx.ModelProto, asked: Asked) -> Outcome:
    start = time.perf_counter()
    try:
        report = asked(proto)
        state, said = ("blamed" if report.causes or not report.agrees else "clean"), report.summary()
    except Exception as error:  # a crash is one of the outcomes that are counted
        state, said = "crashed", f"{type(error).__name__}: {error}"
    return Outcome(name, control, "", said, False, False, False, state, time.perf_counter() - start)


def _judged_fault(
    name: str,
    fault: Fault,
    proto: onnx.ModelProto,
    guilty: Sequence[tuple[str, tuple[Origin, ...]]],
    asked: Asked,
) -> Outcome:
    start = time.perf_counter()
    try:
        report = asked(proto)
    except Exception as error:  # as above
        said = f"{type(error).__name__}: {error}"
        return Outcome(name, fault.kind, fault.where, said, False, False, False, "crashed", time.perf_counter() - start)
    seconds = time.perf_counter() - start
    cause = report.first_departure
    if cause is None:
        state = "missed" if report.agrees else "not named"
        return Outcome(name, fault.kind, fault.where, report.summary(), False, False, False, state, seconds)
    told = cause.to_dict()
    right_module = any(told["module"] == origin.module for _, origins in guilty for origin in origins)
    right_line = any(told["source"] == origin.source for _, origins in guilty for origin in origins)
    right_node = any(f"'{node}'" in cause.node for node, _ in guilty)
    said = report.describe_first_departure()
    return Outcome(name, fault.kind, fault.where, said, right_module, right_line, right_node, "named", seconds)


def _guilty(before: onnx.ModelProto, after: onnx.ModelProto) -> list[tuple[str, tuple[Origin, ...]]]:
    """The nodes that a fault is about, with their origins: those that changed, or that read a constant that did."""
    was = {tensor.name: tensor for tensor in before.graph.initializer}
    changed = {tensor.name for tensor in after.graph.initializer if tensor != was[tensor.name]}
    found = []
    for node, other, twin in zip(before.graph.node, after.graph.node, ir.from_proto(before).graph, strict=True):
        if node != other or changed & set(node.input):
            read_origins(twin)
            found.append((node.name, origins_of(twin)))
    return found


def _run(proto: onnx.ModelProto, sets: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    with OnnxRuntimeRunner(proto, threads=1) as runner:
        return [runner.run(feeds) for feeds in sets]


def _is_above(
    before: Sequence[Mapping[str, Array]], proto: onnx.ModelProto, sets: Sequence[Mapping[str, Array]]
) -> bool:
    try:
        after = _run(proto, sets)
    except GraphForgeError:
        return False  # what no runtime executes cannot be delivered
    return any(
        _share(array, other[name]) > ABOVE
        for one, other in zip(before, after, strict=True)
        for name, array in one.items()
    )


def _share(one: Array, other: Array) -> float:
    if one.shape != other.shape:
        return np.inf
    if not one.size:
        return 0.0
    if one.dtype.kind in "biu":
        return 0.0 if np.array_equal(one, other) else np.inf
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    largest = float(np.max(np.abs(one.astype(np.float64)), initial=0.0)) or 1e-30
    return float(np.max(np.nan_to_num(apart, nan=np.inf))) / largest


# -- the tables --------------------------------------------------------------------------------------------------------


def table_of(outcomes: Sequence[Outcome]) -> str:
    """By network: the controls, and how many of the faults are named."""
    lines = [
        "| network | controls clean | faults | module and line | node | missed | crashed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [*dict.fromkeys(one.network for one in outcomes), ""]:
        mine = [one for one in outcomes if one.network == name or not name]
        controls = [one for one in mine if not one.where]
        faults = [one for one in mine if one.where]
        clean = sum(one.state == "clean" for one in controls)
        place = sum(one.module and one.line for one in faults)
        numbers = (
            f"{clean} of {len(controls)}",
            len(faults),
            place,
            sum(one.node for one in faults),
            sum(one.state == "missed" for one in faults),
            sum(one.state == "crashed" for one in mine),
        )
        lines.append(f"| {name or '**all**'} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the table; exit code 1 when something healthy is blamed, missed or ends in a crash."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="networks, separated by commas; all of them otherwise")
    parser.add_argument("--faults", type=int, default=16, help="faults in each network (16)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of faults (0)")
    parser.add_argument("--no-controls", action="store_true", help="the faults only")
    parser.add_argument("--json", type=Path, help="a file for every single outcome")
    chosen = parser.parse_args(arguments)
    names = chosen.only.split(",") if chosen.only else list(NETWORKS)
    outcomes: list[Outcome] = []
    for name in names:
        start = time.perf_counter()
        found = list(
            judged(name, faults=chosen.faults, seed=chosen.seed, controls=() if chosen.no_controls else CONTROLS)
        )
        outcomes += found
        print(f"{name}: {len(found)} files, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        for one in found:
            if one.state in ("blamed", "crashed", "missed") or (
                one.where and not (one.module and one.line and one.node)
            ):
                right = "".join(word for word in ("module ", "line ", "node ") if getattr(one, word.strip()))
                print(
                    f"  {one.state}: {one.kind}, {one.where} [right: {right or '-'}] -> {one.said}",
                    file=sys.stderr,
                    flush=True,
                )
    print(table_of(outcomes))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    return int(any(one.state in ("blamed", "crashed", "missed") for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
