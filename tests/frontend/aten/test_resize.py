"""Interpolation picks and mixes the very pixels that eager does, for sizes and factors, fixed and dynamic."""

from __future__ import annotations

import random
from typing import Any

import onnx
import onnx_ir
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graphforge.errors import GraphForgeError
from tests.frontend.helpers import lower_and_compare


def _image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(6)).to(dtype)


_FORMS: list[dict[str, Any]] = [
    {"mode": "nearest"},
    {"mode": "nearest-exact"},
    {"mode": "bilinear"},
    {"mode": "bilinear", "align_corners": True},
    {"mode": "bilinear", "antialias": True},
    {"mode": "bicubic"},
    {"mode": "bicubic", "align_corners": True},
    {"mode": "bicubic", "antialias": True},
]
_DYNAMIC = {"x": {0: (1, 4), 2: (8, 64), 3: (8, 64)}}
_OTHERS = [(_image(1, 3, 20, 9),), (_image(3, 3, 33, 64),)]
# coordinates are computed in another order: a slope of a few units times a rounding of 1e-6
_ROUGH = 1e-4


def _tolerance(form: dict[str, Any]) -> float | None:
    return None if form["mode"].startswith("nearest") else _ROUGH


@pytest.mark.parametrize("form", _FORMS, ids=str)
def test_fixed_sizes(form: dict[str, Any]) -> None:
    """Seeded sizes and factors, among them those where rounding in another order picks another pixel."""
    draw = random.Random(7)
    for _ in range(3):
        x = _image(1, 2, draw.randint(2, 30), draw.randint(2, 30))
        size = (draw.randint(2, 60), draw.randint(2, 60))
        factor = draw.choice([2, 3, 0.5, 1.5, 0.7, 2.3, 1.25])

        def forward(x: Tensor, size: tuple[int, int] = size, factor: float = factor) -> tuple[Tensor, Tensor, Tensor]:
            by_factor = functional.interpolate(x, scale_factor=factor, **form)
            recomputed = functional.interpolate(x, scale_factor=factor, recompute_scale_factor=True, **form)
            return functional.interpolate(x, size=size, **form), by_factor, recomputed

        lower_and_compare(forward, (x,), atol=_tolerance(form))


@pytest.mark.parametrize("form", _FORMS, ids=str)
def test_dynamic_sizes(form: dict[str, Any]) -> None:
    def forward(x: Tensor) -> list[Tensor]:
        half = x[:, :, ::2, ::2]
        results = [
            functional.interpolate(x, scale_factor=1.5, **form),
            functional.interpolate(half, size=x.shape[2:], **form),
        ]
        if form["mode"] != "bicubic":  # which torch captures slowly
            results += [
                functional.interpolate(x, scale_factor=2, **form),
                functional.interpolate(x, scale_factor=(0.5, 1), **form),
                functional.interpolate(x, size=(7, 30), **form),
            ]
        return results

    lower_and_compare(forward, (_image(2, 3, 13, 17),), dynamic=_DYNAMIC, other_inputs=_OTHERS, atol=_tolerance(form))


@pytest.mark.parametrize("form", _FORMS[:4], ids=str)
def test_doubling_is_one_node(form: dict[str, Any]) -> None:
    def forward(x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, **form)

    outcome = lower_and_compare(
        forward, (_image(2, 3, 13, 17),), dynamic=_DYNAMIC, other_inputs=_OTHERS, atol=_tolerance(form)
    )
    assert outcome.counts == {"Resize": 1}


def test_nearest_where_a_division_rounds_the_other_way() -> None:
    """ONNX Runtime divides by the scale, torch multiplies by its inverse: 2 -> 82 differs in one row of 82."""
    for have, wanted in ((2, 82), (3, 123), (10, 6), (5, 205)):
        lower_and_compare(lambda x, n=wanted: functional.interpolate(x, size=(n, n)), (_image(1, 1, have, have),))


def test_a_factor_that_changes_nothing_copies() -> None:
    """1.25 times 3 is 3 again: eager copies, whatever the factor says about coordinates."""
    for mode in ("nearest", "bilinear"):
        lower_and_compare(lambda x, m=mode: functional.interpolate(x, scale_factor=1.25, mode=m), (_image(1, 2, 3, 9),))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_factor_that_may_change_nothing(mode: str) -> None:
    """Linear interpolation then copies in torch, cubic does not; ONNX Runtime's Resize copies where no size changes."""
    lower_and_compare(
        lambda x: functional.interpolate(x, scale_factor=1.25, mode=mode),
        (_image(1, 2, 8, 3),),
        dynamic={"x": {2: (2, 64)}},
        other_inputs=[(_image(1, 2, height, 3),) for height in (2, 3, 4, 9, 64)],
        atol=_ROUGH,
    )
    lower_and_compare(lambda x: functional.interpolate(x, scale_factor=1.2, mode=mode), (_image(1, 2, 4, 3),))


@pytest.mark.parametrize("factor", [2.3, 1.12, 0.7])
def test_nearest_by_a_factor_that_keeps_or_doubles_the_size(factor: float) -> None:
    """torch copies in pictures, goes by the factor in sequences, and in volumes by what lies where in memory."""
    channels_last = _image(1, 4, 3, 3, 3).to(memory_format=torch.channels_last_3d)
    for x in (_image(1, 2, 3), _image(1, 2, 8), _image(1, 2, 3, 8), _image(1, 5, 3, 3, 8), channels_last):
        lower_and_compare(lambda x: functional.interpolate(x, scale_factor=factor), (x,))
    lengths = [(_image(1, 2, length),) for length in range(2, 10)]
    lower_and_compare(
        lambda x: functional.interpolate(x, scale_factor=factor),
        (_image(1, 2, 6),),
        dynamic={"x": {2: (2, 9)}},
        other_inputs=lengths,
    )


def test_a_size_beside_a_factor() -> None:
    """Positions go by the factor, and the number of them by the size."""

    def forward(x: Tensor) -> Any:
        aten = torch.ops.aten
        size = [x.shape[2] + 1, 9]
        return [
            aten.upsample_nearest2d.default(x, size, 1.9, 2.0),
            aten.upsample_bilinear2d.default(x, size, False, 1.9, 2.0),
            aten.upsample_bicubic2d.default(x, size, False, 1.9, 2.0),
        ]

    others = [(_image(1, 2, height, 7),) for height in (3, 4, 9)]
    lower_and_compare(forward, (_image(1, 2, 6, 7),), atol=_ROUGH)
    dynamic = {"x": {2: (3, 9)}}
    lower_and_compare(forward, (_image(1, 2, 6, 7),), dynamic=dynamic, other_inputs=others, atol=_ROUGH)


def test_area_of_a_sequence_of_any_length() -> None:
    def forward(x: Tensor) -> Any:
        doubled = functional.interpolate(x, scale_factor=2.0, mode="area")
        return doubled, functional.adaptive_avg_pool1d(x, x.shape[2] - 2)

    others = [(_image(1, 2, length),) for length in (4, 5, 9)]
    lower_and_compare(forward, (_image(1, 2, 6),), dynamic={"x": {2: (4, 9)}}, other_inputs=others)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 9), (9, 1), (3, 1), (1, 1)])
def test_antialias_towards_one_pixel(size: tuple[int, int], mode: str) -> None:
    outcome = lower_and_compare(
        lambda x: functional.interpolate(x, size=size, mode=mode, antialias=True), (_image(1, 2, 6, 5),), atol=_ROUGH
    )
    told = any("antialias to one column" in note for note in outcome.lowered.notes)
    assert told == (size in ((9, 1), (3, 1), (1, 1)))


def test_other_ranks_and_dtypes() -> None:
    sequence, volume = _image(2, 3, 11), _image(1, 2, 4, 5, 6)
    for factor in (2, 1.5):
        lower_and_compare(
            lambda s, v, f=factor: [
                functional.interpolate(s, scale_factor=f, mode="linear"),
                functional.interpolate(s, scale_factor=f),
                functional.interpolate(v, scale_factor=f, mode="trilinear", align_corners=True),
                functional.interpolate(v, scale_factor=f),
            ],
            (sequence, volume),
            atol=_ROUGH,
        )
    half = _image(1, 3, 9, 10, dtype=torch.float16)
    for form in (_FORMS[0], _FORMS[2], _FORMS[5]):
        lower_and_compare(lambda x, f=form: functional.interpolate(x, scale_factor=1.5, **f), (half,), atol=4e-3)
        lower_and_compare(lambda x, f=form: functional.interpolate(x, scale_factor=1.5, **f), (half.double(),))
    lower_and_compare(lambda x: functional.interpolate(x, scale_factor=2), ((half * 50).to(torch.uint8),))


def test_antialias_with_aligned_corners() -> None:
    """ONNX has no such coordinates: weights as matrices."""
    form: dict[str, Any] = {"mode": "bilinear", "align_corners": True, "antialias": True}
    lower_and_compare(lambda x: functional.interpolate(x, size=(5, 20), **form), (_image(1, 2, 12, 9),), atol=_ROUGH)


def test_smooth_bytes_are_refused() -> None:
    x = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(GraphForgeError, match="float32"):
        lower_and_compare(lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"), (x,))


@pytest.mark.parametrize("method", ["export-strict", "trace"])
def test_decomposed_forms(method: str) -> None:
    for form in (_FORMS[0], _FORMS[2], _FORMS[5]):
        lower_and_compare(
            lambda x, f=form: functional.interpolate(x, scale_factor=1.5, **f),
            (_image(1, 3, 9, 10),),
            method=method,
            atol=_ROUGH,
        )


@pytest.mark.parametrize("sizes", [(96, 320), (7, 13), (3, 10), (11, 5), (49, 48)])
def test_the_sizes_are_those_that_shape_inference_finds(sizes: tuple[int, int]) -> None:
    """It multiplies by the scale in double precision, where 96 * float32(320 / 96) is a little less than 320."""
    have, wanted = sizes
    for form in ({"size": wanted}, {"scale_factor": wanted / have}):
        got = lower_and_compare(
            lambda x, f=form: functional.interpolate(x, mode="bilinear", **f), (_image(1, 1, have, have),), atol=_ROUGH
        )
        onnx.checker.check_model(onnx_ir.to_proto(got.model), full_check=True)
