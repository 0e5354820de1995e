"""Samples: the inputs that ranges are measured on, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.ranges.reading import feeds_of
from graphforge.runners.arrays import Array
from graphforge.runners.inputs import feeds_for, random_feeds
from graphforge.spec import ShapeSpec

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["METRIC", "PROGRESS", "SAMPLES", "Samples", "samples_for", "samples_of"]

# In a model's meta: the inputs that its ranges are measured on, or a function that gives them, asked once.
SAMPLES = "graphforge.samples"
# In a model's meta: what says how good a model is, larger is better: a function of a function that runs it.
METRIC = "graphforge.metric"
# In a model's meta: called with a line before each step of what takes long.
PROGRESS = "graphforge.progress"
# Random feeds beside the example's, where the user gives no data of the model's kind.
_RANDOM = 3
# Fewer feeds than this are worth a word.
_FEW = 8


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs to measure on.

    Attributes:
        feeds: input name -> array, one dict for each run.
        source: where they come from, in words.
        given: whether the user gave them for this; otherwise ranges are those of made-up data.
        notes: what is to be said of them, one line each.
    """

    feeds: tuple[Mapping[str, Array], ...]
    source: str
    given: bool = False
    notes: tuple[str, ...] = ()


def samples_for(
    shapes: ShapeSpec,
    example: Mapping[str, Array],
    further: Sequence[Mapping[str, Array]] = (),
    *,
    calibration: str | Path | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Samples:
    """The user's calibration data; without any the example, the further inputs and a few random ones like it.

    Raises:
        GraphForgeError: the data cannot be read or does not fit the inputs.
    """
    if calibration is not None:
        feeds = feeds_of(calibration, shapes)
        source = f"{len(feeds)} feeds of calibration data"
        few = f"only {len(feeds)} feeds of calibration data: ranges may be too narrow" if len(feeds) < _FEW else ""
        return Samples(tuple(feeds), source, given=True, notes=(few,) if few else ())
    drawn = [random_feeds(shapes, shapes.example_sizes(), example, seed=seed + n) for n in range(1, 1 + _RANDOM)]
    own = {tensor.name: example[tensor.name] for tensor in shapes.inputs}
    made: list[Mapping[str, Array]] = [own, *further, *(drawn if shapes.inputs else ())]
    return Samples(tuple(made), f"the example and {len(made) - 1} feeds like it, no calibration data was given")


def samples_of(model: ir.Model) -> Samples:
    """The samples that stand in the model's meta; else seeded random ones that fit its inputs.

    Raises:
        GraphForgeError: an input has no type or shape.
    """
    known = model.meta.get(SAMPLES)
    if callable(known):
        known = model.meta[SAMPLES] = known()
    if isinstance(known, Samples):
        return known
    feeds = tuple(feeds_for(model, {}, seed=seed) for seed in range(1 + _RANDOM))
    return Samples(feeds, f"{len(feeds)} random feeds, no inputs were given")
