"""Passes made unsound, and whether `bisect` names the pass and the rewrite, and its replay line shows them again.

    scripts/bench bisect                        a CNN, a transformer, a detector and a padded one
    scripts/bench bisect --only bert --each 3

Each pass of the pipeline, canonical or the target's, that rewrites something in the network is made unsound at one of
its rewrites: what it puts in place goes through a cosine.  What changes no output is not counted.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnx_ir as ir

import graphforge
from graphforge.cli.main import run
from graphforge.transform import Rewriter
from scripts.mutations.networks import built
from scripts.sabotage_networks import MORE

__all__ = ["NETWORKS", "Place", "judged", "places_of", "unsound"]

# Network -> what is asked of the target.
NETWORKS: dict[str, dict[str, Any]] = {
    "digits_cnn": {},
    "mobile_block": {"opset": 13},
    "bert": {"opset": 16},
    "digit_detector": {},
    "digit_detector, padded, portable NMS": {"outputs": "padded", "nms": "portable", "opset": 17},
}
_REPLACE = Rewriter.replace


@dataclass(frozen=True, slots=True)
class Place:
    """A rewrite: what a pass puts in the place of one value."""

    pass_name: str
    value: str


def _made(name: str) -> tuple[Any, Any]:
    plain = name.partition(",")[0]
    return MORE[plain]() if plain in MORE else built(plain)


@contextmanager
def _replacing(how: Callable[..., Any]) -> Iterator[None]:
    patched: Any = Rewriter
    patched.replace = how
    try:
        yield
    finally:
        patched.replace = _REPLACE


def _told(nodes: Any, values: Any) -> tuple[ir.Node, list[Any]] | None:
    """The root and the values, where the first of these is of floats."""
    root = nodes if isinstance(nodes, ir.Node) else next(iter(nodes))
    listed = [values] if isinstance(values, ir.Value) else [] if isinstance(values, dict) else list(values)
    old = root.outputs[0]
    if not listed or listed[0] is None or ir.DataType.FLOAT not in (old.dtype, listed[0].dtype):
        return None
    return root, listed


def places_of(name: str) -> list[Place]:
    """The rewrites of every pass, as a compilation of the network makes them."""
    found: dict[Place, None] = {}

    def watched(self: Rewriter, nodes: Any, values: Any) -> Any:
        told = _told(nodes, values)
        if told is not None and told[0].outputs[0].name:
            found[Place(self.pass_name, str(told[0].outputs[0].name))] = None
        return _REPLACE(self, nodes, values)

    module, inputs = _made(name)
    with _replacing(watched), tempfile.TemporaryDirectory() as folder:
        graphforge.compile(module, inputs, verify=False, output=Path(folder) / "out", **NETWORKS[name])
    return list(found)


@contextmanager
def unsound(place: Place) -> Iterator[None]:
    """Inside, that rewrite of that pass is wrong."""

    def spoilt(self: Rewriter, nodes: Any, values: Any) -> Any:
        told = _told(nodes, values)
        if told is not None and self.pass_name == place.pass_name and told[0].outputs[0].name == place.value:
            root, listed = told
            values = [self.builder(root).Cos(listed[0]), *listed[1:]]
        return _REPLACE(self, nodes, values)

    with _replacing(spoilt):
        yield


def judged(name: str, place: Place) -> tuple[str, str, str]:
    """Whether the pass, the rewrite and the replay line are right: yes, no, or "" where the fault changes nothing."""
    module, inputs = _made(name)
    with unsound(place), tempfile.TemporaryDirectory() as folder:
        report = graphforge.bisect(module, inputs, output=Path(folder) / "kept", **NETWORKS[name])
        if report.clean:
            return "", "", ""
        guilty = "" if report.guilty is None else report.passes[report.guilty]
        right = guilty.partition("{")[0] == place.pass_name
        rewrite = report.rewrite
        named = rewrite is not None and place.value in rewrite.rewrite.names
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(io.StringIO()):
            code = run([*shlex.split(report.replay)[1:], "--json"]) if report.replay else -1
        again = json.loads(said.getvalue()) if said.getvalue() else {}
        replayed = code == 1 and again.get("passes") == [guilty] and bool(again.get("rewrite"))
        replayed = replayed and place.value in again["rewrite"]["names"]
    return _word(right), _word(named), _word(replayed)


def _word(yes: bool) -> str:
    return "yes" if yes else "no"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one row for each pass that was made unsound; exit code 1 where one was not named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one network; all of them otherwise")
    parser.add_argument("--each", type=int, default=1, help="so many rewrites of each pass")
    chosen = parser.parse_args(arguments)
    print("| network | pass made unsound | rewrite of | pass named | rewrite named | replay line works |")
    print("|---|---|---|---|---|---|", flush=True)
    counts = {"tried": 0, "no effect": 0, "named": 0}
    for name in [chosen.only] if chosen.only else NETWORKS:
        by_pass: dict[str, list[Place]] = {}
        for place in places_of(name):
            by_pass.setdefault(place.pass_name, []).append(place)
        for places in by_pass.values():
            for place in places[-chosen.each :]:
                found = judged(name, place)
                counts["tried"] += bool(found[0])
                counts["no effect"] += not found[0]
                counts["named"] += found == ("yes", "yes", "yes")
                if found[0]:
                    print(f"| {name} | {place.pass_name} | {place.value} | {' | '.join(found)} |", flush=True)
    print(
        f"| **all** | {counts['tried']}, {counts['no effect']} more changed no output | | {counts['named']} whole | | |"
    )
    return int(counts["named"] != counts["tried"])


if __name__ == "__main__":
    sys.exit(main())
