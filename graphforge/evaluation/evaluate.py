"""A model on the samples of a data set: prepared, run, recorded, and the figures of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphforge.evaluation.metric import Metric, Seen
from graphforge.evaluation.records import Records
from graphforge.evaluation.samples import Sample
from graphforge.runtime.detections import detections_of
from graphforge.runtime.files import Array
from graphforge.runtime.model import PictureModel

__all__ = ["Side", "evaluate_side"]


@dataclass(frozen=True, slots=True)
class Side:
    """The figures of one model.

    Attributes:
        name: the bundle's folder, or ``eager``.
        figures: by name.
        seconds: the run took, of the samples that were not done before.
        resumed: samples that an earlier run had done.
    """

    name: str
    figures: Mapping[str, float]
    seconds: float
    resumed: int


def evaluate_side(
    name: str,
    model: PictureModel,
    samples: Sequence[Sample],
    metric: Metric,
    *,
    batch: int = 1,
    records: Path | None = None,
    about: Mapping[str, Any],
    begin: Callable[[str], None],
) -> Side:
    """Run a model on every sample.

    Args:
        name: what it is called.
        model: what runs.
        samples: pictures, or boxes of pictures.
        metric: what is looked at.
        batch: so many at once, where the bundle takes that.
        records: a file of what is done, read and carried on with.
        about: what is evaluated with what, as that file has it.
        begin: told of progress.

    Raises:
        GraphForgeError: a picture cannot be read, or the outputs are not what the metric looks at.
    """
    started = time.perf_counter()
    with Records(records, about) as done:
        resumed = len(done.done)
        left = [sample for sample in samples if sample.name not in done.done]
        for group in _groups(left, min(batch, model.most)):
            begin(f"{name}: {len(done.done) + 1} of {len(samples)}")
            for seen in _seen(model, group):
                done.keep(seen.sample.name, metric.record(seen))
        figures = metric.figures([done.done[sample.name] for sample in samples])
    plain = {key: float(value) for key, value in figures.items()}
    return Side(name, plain, time.perf_counter() - started, resumed)


def _groups(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for first in range(0, len(samples), size):
        yield samples[first : first + size]


def _seen(model: PictureModel, samples: Sequence[Sample]) -> Iterator[Seen]:
    """What a model says of some samples, in as few runs as their sizes allow."""
    rows = [model.row(model.pixels(sample.path), sample.box) for sample in samples]
    at = 0
    for some, outputs in model.runs(rows):
        batch = model.batch_of(len(some))
        images = detections_of(outputs, some[0].size) or []
        for number, row in enumerate(some):
            found = None
            if number < len(images):
                found = images[number].on_picture(row.placement, row.picture, row.size)
            yield Seen(samples[at], _of_one(outputs, number, batch), found, row)
            at += 1


def _of_one(outputs: Mapping[str, Array], number: int, batch: int) -> dict[str, Array]:
    """The outputs of one sample: its row where there is one for each."""
    return {
        name: np.asarray(array[number]) if array.ndim and array.shape[0] == batch else array
        for name, array in outputs.items()
    }
