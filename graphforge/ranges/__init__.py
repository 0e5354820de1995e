"""Ranges: what the values of a graph are over sample inputs, measured once for every precision."""

from graphforge.ranges.histogram import Histogram
from graphforge.ranges.measure import Measured, Ranges, measure
from graphforge.ranges.samples import METRIC, SAMPLES, Samples, samples_of

__all__ = ["METRIC", "SAMPLES", "Histogram", "Measured", "Ranges", "Samples", "measure", "samples_of"]
