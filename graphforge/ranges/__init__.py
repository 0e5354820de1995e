"""Ranges: what the values of a graph are over sample inputs, measured once for every precision."""

from graphforge.ranges.histogram import Histogram
from graphforge.ranges.measure import Measured, Ranges, measure
from graphforge.ranges.samples import METRIC, PROGRESS, SAMPLES, Samples, samples_of

__all__ = [
    "METRIC",
    "PROGRESS",
    "SAMPLES",
    "Histogram",
    "Measured",
    "Ranges",
    "Samples",
    "measure",
    "samples_of",
]
