"""Sensitivity: what each layer costs when it alone is in int8, as data and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import onnx_ir as ir

from graphforge.ir import origins_of

__all__ = ["SENSITIVITY_FILES", "Layer", "Sensitivity"]

# What is written into a bundle beside the artifact.
SENSITIVITY_FILES = ("sensitivity.json", "sensitivity.svg")
# Bars of the picture; the layers behind them are in the table.
_BARS = 40
_ROW, _LEFT, _BAR, _RIGHT, _TOP = 18, 330, 360, 130, 46
_KEPT, _QUANTISED = "#c2410c", "#2563eb"


@dataclass(frozen=True, slots=True)
class Layer:
    """One node that could be quantised.

    Attributes:
        name: of the node.
        operator: its type.
        module: path of the module that it comes from, "" where that is not known.
        source: file and line.
        noise: the share of an output's root mean square that it is off by when this node alone is quantised, the
            largest of all outputs.
        drop: what the metric loses then; None where it was not measured.
        kept: it stays in float32.
    """

    name: str
    operator: str
    module: str
    source: str
    noise: float
    drop: float | None
    kept: bool

    @classmethod
    def of(cls, node: ir.Node, noise: float, drop: float | None, *, kept: bool) -> Layer:
        """With the origin that the node has."""
        origin = next(iter(origins_of(node)), None)
        source = f"{origin.file}:{origin.line}" if origin is not None and origin.file else ""
        return cls(node.name or "", node.op_type, origin.module if origin else "", source, noise, drop, kept)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "name": self.name,
            "operator": self.operator,
            "module": self.module,
            "source": self.source,
            "noise": self.noise,
            "drop": self.drop,
            "kept": self.kept,
        }


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What was measured.

    Attributes:
        layers: the most sensitive first.
        evaluations: how many models were made and run for it, and for what is kept.
        seconds: all of that took.
        full: the score in float32.
        score: the score of what is delivered.
        bound: what it may lose; None where nothing was said.
    """

    layers: tuple[Layer, ...]
    evaluations: int
    seconds: float
    full: float
    score: float
    bound: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "evaluations": self.evaluations,
            "seconds": round(self.seconds, 2),
            "score": {"float32": self.full, "delivered": self.score, "bound": self.bound},
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def to_svg(self) -> str:
        """A bar for each of the most sensitive layers, on a logarithmic axis: what is kept stands out."""
        shown = self.layers[:_BARS]
        height = _TOP + _ROW * len(shown) + 12
        width = _LEFT + _BAR + _RIGHT
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                f'height="{height}" font-family="sans-serif" font-size="12">',
                "<title>What each layer costs alone in int8</title>",
                f'<rect width="{width}" height="{height}" fill="white"/>',
                *_legend(),
                *_bars(shown),
                "</svg>\n",
            )
        )


def _legend() -> Iterator[str]:
    yield '<text x="8" y="18" font-weight="bold">Noise in the outputs with one layer in int8</text>'
    for place, (colour, words) in enumerate(((_KEPT, "stays in float32"), (_QUANTISED, "is in int8"))):
        x = _LEFT + 150 * place
        yield f'<rect x="{x}" y="28" width="10" height="10" fill="{colour}"/><text x="{x + 15}" y="37">{words}</text>'


def _bars(layers: Sequence[Layer]) -> Iterator[str]:
    seen = [layer.noise for layer in layers if 0 < layer.noise < math.inf]
    low, high = (min(seen), max(seen)) if seen else (1e-6, 1.0)
    span = max(math.log10(high / low), 1.0)
    for place, layer in enumerate(layers):
        y = _TOP + _ROW * place
        share = (
            0.0 if layer.noise <= 0 else min(1.0, 0.06 + 0.94 * (1 + math.log10(max(layer.noise, low) / high) / span))
        )
        label = f"{layer.operator} {layer.module or layer.name}"
        label = label if len(label) <= 48 else f"{label[:20]}…{label[-27:]}"
        words = f"{100 * layer.noise:.2g} %" + ("" if layer.drop is None else f", drop {layer.drop:.3g}")
        yield (
            f"<g><title>{escape(f'{layer.name} {layer.source}'.strip())}</title>"
            f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{_LEFT}" y="{y + 2}" width="{_BAR * share:.1f}" height="{_ROW - 5}" '
            f'fill="{_KEPT if layer.kept else _QUANTISED}"/>'
            f'<text x="{_LEFT + _BAR * share + 6:.1f}" y="{y + 13}">{escape(words)}</text></g>'
        )
