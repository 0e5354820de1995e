"""Run one pass on a small graph: sound before and after, same numbers, nothing left for a second run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphforge.ir import Model, from_text, infer_node, nodes_of, verify_graph
from graphforge.transform import Instrument, Pass, PassRecord, Pipeline, VerifyGraph
from graphforge.verify import NumericCheck, Tolerances

__all__ = ["STRICT", "Outcome", "parse", "run"]

HEADER = '<ir_version: 10, opset_import: ["" : 26]>\n'


def parse(body: str, weights: Mapping[str, np.ndarray] | None = None) -> Model:
    """A model from the text after the header, with types and shapes worked out."""
    named = "".join(
        f"# weight {name} {_NAMES[str(array.dtype)]}[{','.join(str(size) for size in array.shape)}]\n"
        for name, array in (weights or {}).items()
    )
    model = from_text(named + HEADER + body, weights=weights)
    for node in nodes_of(model.graph):
        infer_node(node, 26)
    verify_graph(model)
    return model


# A pass may reorder sums, nothing else: the share of the largest magnitude alone.
STRICT = Tolerances().loosen(because="a pass may reorder sums", rtol=0.0)

_NAMES = {"float32": "float", "float16": "float16", "float64": "double", "int64": "int64"}


@dataclass(frozen=True)
class Outcome:
    """What a pass made of a graph."""

    model: Model
    record: PassRecord

    @property
    def ops(self) -> list[str]:
        """The operators that are left, in order, bodies included."""
        return [node.op_type for node in nodes_of(self.model.graph)]

    @property
    def reasons(self) -> list[str]:
        """Why rewrites declined."""
        return [miss.reason for miss in self.record.near_misses]


def run(
    pass_: Pass | Sequence[Pass],
    body: str | Model,
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    sizes: Mapping[str, int] | None = None,
    feeds: Mapping[str, np.ndarray] | None = None,
    numbers: bool = True,
) -> Outcome:
    """Run a pass (or several; the record is that of the last) and check all that holds for every pass."""
    passes = [pass_] if isinstance(pass_, Pass) else list(pass_)
    model = parse(body, weights) if isinstance(body, str) else body
    outputs = [value.name for value in model.graph.outputs]
    instruments: list[Instrument] = [VerifyGraph()]
    if numbers:
        instruments.append(NumericCheck(feeds, sizes=sizes or {}, tolerances=STRICT))
    record = Pipeline(passes).run(model, instruments)[-1]
    assert [value.name for value in model.graph.outputs] == outputs
    again = Pipeline(passes).run(model, [VerifyGraph()])
    assert [(one.name, one.changes) for one in again if one.changes] == []
    return Outcome(model, record)
