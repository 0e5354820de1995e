"""Writing a graph in an older opset: one file for each version's changes, one for each operator with a long story.

``lower_18.py`` says in opset 17 what opset 18 brought, and so on; ``engine.py`` walks down the versions.
"""

from __future__ import annotations

from graphforge.passes.opset.engine import Obstacle, lower_graph
from graphforge.passes.opset.step import NoLowerForm, Step, StepDown, Values

__all__ = ["NoLowerForm", "Obstacle", "Step", "StepDown", "Values", "lower_graph"]
