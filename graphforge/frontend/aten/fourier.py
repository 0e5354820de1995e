"""Fourier transforms: refused, since what they return is complex."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []


@lowers(
    "aten._fft_r2c.default",
    "aten._fft_c2r.default",
    "aten._fft_c2c.default",
    "aten.stft.default",
    "aten.stft.center",
    "aten.istft.default",
)
def transform(op: Emitter, *_: Any, **__: Any) -> ir.Value:
    """Refused.

    Raises:
        LoweringError: always.
    """
    raise op.fail(
        "complex numbers have no form in an artifact",
        "a spectrum of real input is a product with a fixed basis: Conv1d with cosines and sines as its weights",
        "or leave the transform to preprocessing and compile the model from there on",
    )
