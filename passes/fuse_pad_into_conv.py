"""Let the operator pad by itself.    conv(pad(x, p), pads=q) ==> conv(x, pads=p + q)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphforge.ir import Graph, Node, constant_of
from graphforge.transform import Match, NoMatch, Pass, Rewriter, Rule, int_attribute, ints_attribute, is_op, rank_of

__all__ = ["FusePadIntoConv"]


@dataclass(frozen=True)
class FusePadIntoConv(Pass):
    """Conv always; AveragePool where padding counts; MaxPool where what is padded never wins."""

    name: ClassVar[str] = "fuse-pad-into-conv"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Fuse them in the graph and its bodies."""
        rewriter.apply(_RULES, graph)


class PadThen(Rule):
    """then(pad(x))"""

    def __init__(self, then: str) -> None:
        self.then = then

    @property
    def name(self) -> str:
        """How messages call the rule."""
        return f"Pad{self.then}"

    def pattern(self, op: Any, x: Any) -> Any:
        return op.node(self.then, op.Pad(x, ..., _name="pad"), ..., _name="then")

    def check(self, m: Match) -> Match | NoMatch:
        mode = m.pad.attributes.get("mode")
        if mode is not None and mode.as_string() != "constant":
            return m.no(f"the Pad is of mode {mode.as_string()}", m.pad)
        amounts = _amounts(m.pad)
        if isinstance(amounts, str):
            return m.no(amounts, m.pad)
        before, after = amounts
        if any(before[:2]) or any(after[:2]):
            return m.no("the Pad also pads the batch or the channels", m.pad)
        if min(*before, *after) < 0:
            return m.no("the Pad crops", m.pad)
        auto = m.then.attributes.get("auto_pad")
        if auto is not None and auto.as_string() not in ("NOTSET", "VALID"):
            return m.no("the operator pads by its own rule (auto_pad)")
        reason = self._value_refused(m, before, after)
        if reason is not None:
            return m.no(reason)
        spatial = len(before) - 2
        known = ints_attribute(m.then, "pads") or (0,) * (2 * spatial)
        total = [known[place] + amount for place, amount in enumerate((*before[2:], *after[2:]))]
        return m.having(total=total)

    def _value_refused(self, m: Match, before: list[int], after: list[int]) -> str | None:
        """Why what is padded is not what the operator would pad, None when it is."""
        value = m.pad.inputs[2] if len(m.pad.inputs) > 2 else None
        array = np.zeros(()) if value is None else constant_of(value, limit=1)
        if array is None:
            return "the value that is padded is not constant"
        number = float(array.reshape(-1)[0])
        if self.then == "Conv":
            return None if number == 0 else f"Conv pads zeros, not {number}"
        known = any(ints_attribute(m.then, "pads") or ())
        if self.then == "AveragePool":
            if number != 0:
                return f"AveragePool pads zeros, not {number}"
            if int_attribute(m.then, "ceil_mode", 0):
                return "in ceil mode windows beyond the padding are counted otherwise"
            if known and not int_attribute(m.then, "count_include_pad", 0):
                return "the AveragePool counts one padding and not the other"
            return self._too_wide(m, before, after)
        if len(m.then.outputs) > 1:
            return "the indices of the MaxPool would count otherwise"
        if number != -np.inf and not (number == 0 and _never_negative(m.x.producer()) and not known):
            return "what is padded may win in the MaxPool"
        if int_attribute(m.then, "ceil_mode", 0):
            return "in ceil mode windows beyond the padding are counted otherwise"
        return self._too_wide(m, before, after)

    def _too_wide(self, m: Match, before: list[int], after: list[int]) -> str | None:
        kernel = ints_attribute(m.then, "kernel_shape") or ()
        known = ints_attribute(m.then, "pads") or (0,) * (2 * len(kernel))
        amounts = (*before[2:], *after[2:])
        # Runtimes refuse a padding that fills a whole window.
        if any(
            extra + own >= kernel[place % len(kernel)]
            for place, (extra, own) in enumerate(zip(amounts, known, strict=True))
        ):
            return "the padding is as wide as the window"
        return None

    def rewrite(self, op: Any, m: Match) -> Any:
        attributes = {name: attribute.value for name, attribute in m.then.attributes.items()}
        attributes["pads"] = m.total
        attributes.pop("auto_pad", None)
        if self.then == "AveragePool":
            attributes["count_include_pad"] = 1
        return op.node(self.then, [m.x, *m.then.inputs[1:]], **attributes)


def _amounts(pad: Node) -> tuple[list[int], list[int]] | str:
    """How much is padded before and after each axis; else why it is unknown."""
    rank = rank_of(pad.inputs[0])
    pads = constant_of(pad.inputs[1])
    if rank is None or pads is None:
        return "how much is padded is not constant, or the rank is unknown"
    axes = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        given = constant_of(pad.inputs[3])
        if given is None:
            return "the axes of the Pad are not constant"
        axes = [int(axis) % rank for axis in given]
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[place]), int(pads[place + len(axes)])
    return before, after


def _never_negative(node: Node | None) -> bool:
    return is_op(node, "Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs")


_RULES = (PadThen("Conv"), PadThen("AveragePool"), PadThen("MaxPool"))
