"""Faults in compiled files, and whether verification fails them: what keeps the verdict from going soft.

    scripts/bench mutations                              every network, sixteen faults each
    scripts/bench mutations --only digits_mlp,unet --faults 8 --seed 3

Each network is compiled and its file verified as it is: that must pass.  Then faults are put into the file, one at a
time.  The effect of a fault is what it changes in the file's own results, in units of what rounding does there: the
largest of eager's distance from its float64 run, its spread when its values move by one unit in the last place, and
the distance of the untouched file.  What exceeds ten times that must fail.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
import onnx_ir as ir

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.prepare import example_feeds, prepare, reference_runner
from graphforge.runners.arrays import Array
from graphforge.runners.inputs import random_feeds
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.verify import verify
from graphforge.verify.allowance import as_floats
from graphforge.verify.tolerance import for_model
from graphforge.verify.witness import Witness
from scripts.mutations.faults import Fault, faults_of
from scripts.mutations.networks import NETWORKS, TRAINED, built

__all__ = ["Outcome", "judged"]

# So many times what rounding does, and a fault must fail.
MUST_FAIL = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file.

    Attributes:
        network: its name.
        kind: of the fault; "" for the untouched file.
        where: the node or constant.
        effect: in units of rounding.
        verdict: of verification.
    """

    network: str
    kind: str
    where: str
    effect: float
    verdict: str

    @property
    def is_wrong(self) -> bool:
        """A false alarm, or a fault that had to fail and did not."""
        return self.verdict != "passed" if not self.kind else self.effect > MUST_FAIL and self.verdict != "failed"


def judged(name: str, *, faults: int, seed: int = 0) -> Iterator[Outcome]:
    """The untouched file of a network, then its faults."""
    module, inputs = built(name)
    prepared = prepare(module, inputs)
    reference, shapes, example = reference_runner(prepared), prepared.shapes, example_feeds(prepared)
    with tempfile.TemporaryDirectory(prefix="graphforge-mutations-") as folder:
        bundle = graphforge.compile(module, inputs, verify=False, output=Path(folder) / "bundle")
        proto = onnx.load(bundle.path / "model.onnx")
    allowed = for_model(None, ir.from_proto(proto))
    sets = [example, random_feeds(shapes, shapes.example_sizes(), example)]
    with OnnxRuntimeRunner(proto, threads=1) as artifact:
        untouched = [artifact.run(feeds) for feeds in sets]
        report = verify(reference, artifact, shapes, example, tolerances=allowed)
    yield Outcome(name, "", "", 0.0, report.verdict)
    rounding = [
        _rounding(reference.run(feeds), found, Witness(reference, feeds))
        for feeds, found in zip(sets, untouched, strict=True)
    ]
    for fault in faults_of(proto, faults, seed):
        runner = _runner(fault, proto)
        if runner is None:
            continue
        with runner:
            try:
                changed = [runner.run(feeds) for feeds in sets]
            except GraphForgeError:
                continue  # what no runtime executes cannot be delivered
            effect = max(_effect(*one) for one in zip(untouched, changed, rounding, strict=True))
            if effect == 0:
                continue
            report = verify(reference, runner, shapes, example, tolerances=allowed)
        yield Outcome(name, fault.kind, fault.where, effect, report.verdict)


def _runner(fault: Fault, proto: onnx.ModelProto) -> OnnxRuntimeRunner | None:
    """The file with the fault, where ONNX Runtime loads it."""
    try:
        return OnnxRuntimeRunner(fault.applied(proto), threads=1)
    except GraphForgeError:
        return None


def _rounding(expected: Mapping[str, Array], found: Mapping[str, Array], witness: Witness) -> dict[str, float]:
    """The most that rounding does to each float output."""
    others: list[Mapping[str, Array]] = [found, witness.exact(), *(run.outputs for run in witness.moved(4))]
    return {
        name: max((_apart(array, other[name]) for other in others if name in other), default=0.0)
        for name, array in expected.items()
        if array.dtype.kind not in "biu"
    }


def _effect(before: Mapping[str, Array], after: Mapping[str, Array], rounding: Mapping[str, float]) -> float:
    """How much a fault changes, in units of rounding; a changed integer or shape is out of all proportion."""
    largest = 0.0
    for name, array in before.items():
        other = after[name]
        if array.shape != other.shape or name not in rounding:
            largest = max(largest, 0.0 if np.array_equal(array, other) else np.inf)
        elif array.size:
            largest = max(largest, _apart(array, other) / max(rounding[name], _least(array)))
    return float(largest)


def _least(array: Array) -> float:
    """Half a unit in the last place of the largest element, which is the least that rounding does."""
    largest = float(np.max(np.abs(as_floats(array)), initial=0.0))
    return max(largest * 2.0**-24, 1e-30)


def _apart(one: Array, other: Array) -> float:
    if one.shape != other.shape:
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(as_floats(one).astype(np.float64) - as_floats(other).astype(np.float64))
    return float(np.max(np.nan_to_num(apart, nan=np.inf), initial=0.0))


# -- the tables --------------------------------------------------------------------------------------------------------


def table_of(outcomes: Sequence[Outcome]) -> str:
    """Faults by kind, false alarms by network, and the two sums."""
    faults = [one for one in outcomes if one.kind]
    lines = [
        "| fault | tried | above ten times rounding | failed | undecided | passed | below | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in [*sorted({one.kind for one in faults}), ""]:
        of_kind = [one for one in faults if one.kind == kind or not kind]
        above = Counter(one.verdict for one in of_kind if one.effect > MUST_FAIL)
        below = Counter(one.verdict for one in of_kind if one.effect <= MUST_FAIL)
        numbers = (
            len(of_kind),
            above.total(),
            above["failed"],
            above["undecided"],
            above["passed"],
            below.total(),
            below["failed"],
        )
        lines.append(f"| {kind or '**all**'} | " + " | ".join(map(str, numbers)) + " |")
    lines += ["", "| network | untouched file | faults | above ten times rounding | failed |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(one.network for one in outcomes):
        of_network = [one for one in outcomes if one.network == name]
        untouched = next(one.verdict for one in of_network if not one.kind)
        strong = [one for one in of_network if one.kind and one.effect > MUST_FAIL]
        failed = sum(one.verdict == "failed" for one in strong)
        trained = " (trained)" if name in TRAINED else ""
        lines.append(f"| {name}{trained} | {untouched} | {len(of_network) - 1} | {len(strong)} | {failed} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the tables; exit code 1 when a fault passed or an untouched file did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="networks, separated by commas; all of them otherwise")
    parser.add_argument("--faults", type=int, default=16, help="faults in each network (16)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of faults (0)")
    parser.add_argument("--json", type=Path, help="a file for every single outcome")
    chosen = parser.parse_args(arguments)
    names = chosen.only.split(",") if chosen.only else list(NETWORKS)
    outcomes: list[Outcome] = []
    for name in names:
        start = time.perf_counter()
        found = list(judged(name, faults=chosen.faults, seed=chosen.seed))
        outcomes += found
        print(f"{name}: {len(found) - 1} faults, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        for one in found:
            if one.is_wrong:
                print(f"  WRONG: {one}", file=sys.stderr, flush=True)
    print(table_of(outcomes))
    if chosen.json:
        chosen.json.write_text(json.dumps([_plain(asdict(one)) for one in outcomes], indent=1) + "\n")
    return int(any(one.is_wrong for one in outcomes))


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    return one | {"effect": str(one["effect"]) if not np.isfinite(one["effect"]) else one["effect"]}


if __name__ == "__main__":
    sys.exit(main())
