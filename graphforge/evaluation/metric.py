"""What a metric is, and how one of the user's own is read from a file.

A metric makes a record of each sample, which is plain data, and figures of all the records.  Ten lines are one:

    class Within:
        "Share of keypoints that are within 5 pixels."

        def record(self, seen):
            truth = np.reshape(seen.sample.truth["keypoints"], (-1, 3))
            apart = np.linalg.norm(seen.found.keypoints[0] - truth[:, :2], axis=1)
            return [int((apart[truth[:, 2] > 0] < 5).sum()), int((truth[:, 2] > 0).sum())]

        def figures(self, records):
            hits, count = np.sum(records, axis=0)
            return {"within 5 px": hits / count}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from graphforge.errors import UsageError, argument
from graphforge.evaluation.samples import Sample
from graphforge.runtime.detections import Detections
from graphforge.runtime.files import Array
from graphforge.runtime.model import Row
from graphforge.user_files import load_file

__all__ = ["Metric", "Seen", "metric_of_file"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model says of one sample.

    Attributes:
        sample: the picture, and what is known of it.
        outputs: the model's, by name; those of this sample where it is one of a batch.
        found: the detections among them, in the picture's pixels; None where there are none that are known.
        row: how the picture lies in the model's input.
    """

    sample: Sample
    outputs: Mapping[str, Array]
    found: Detections | None
    row: Row


@runtime_checkable
class Metric(Protocol):
    """How good results are."""

    def record(self, seen: Seen) -> Any:
        """What is kept of one sample: plain data, which JSON can hold."""
        ...

    def figures(self, records: Sequence[Any]) -> Mapping[str, float]:
        """The figures of all samples, in the order in which they are printed."""
        ...


def metric_of_file(text: str) -> Metric:
    """A metric of the user's own, ``FILE.py:Class``.

    Raises:
        UsageError: there is no such file or class, or it is not a metric.
    """
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not Path(path).is_file():
        raise UsageError(f"{argument('metric')} {text!r}: there is no such file", "write it as FILE.py:Class")
    module = load_file(Path(path), failed=f"metric {text!r} cannot be read")
    made = getattr(module, name, None)
    if made is None:
        raise UsageError(f"{argument('metric')}: {path!r} has no {name!r}")
    metric = made() if isinstance(made, type) else made
    if not isinstance(metric, Metric):
        raise UsageError(
            f"{argument('metric')}: {name!r} is not a metric", "one has the methods record(seen) and figures(records)"
        )
    return metric
