"""Views, indexing and scattering at several sizes of one artifact: nothing is baked in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional

from graphforge.errors import CaptureError, LoweringError
from tests.frontend.helpers import Dynamic, lower_and_compare, lower_only

_IMAGE: Dynamic = {"x": {0: (1, 9), 2: (4, 64), 3: (4, 64)}}
_EVEN: Dynamic = {"x": {0: (1, 9), 2: (4, 64, 4)}}


def _image(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator)


def _reshapes(x: torch.Tensor) -> Any:
    return [
        x.view(x.size(0), -1),
        x.reshape(x.shape[0], -1, x.shape[3]),
        x.view(-1, x.shape[2]),
        x.flatten(2).transpose(1, 2),
        x.flatten(0, 1),
        x.flatten(1).unflatten(1, (3, -1)),
        x.flatten(),
        x.flatten(2).unflatten(2, (x.shape[2], x.shape[3])),
    ]


def _window_partition(x: torch.Tensor) -> Any:
    x = x.permute(0, 2, 3, 1)
    b, h, w, c = x.shape
    x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    return x.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)


def _broadcasts(x: torch.Tensor) -> Any:
    return [
        torch.ones(1, 1, 4).expand(x.shape[0], -1, -1),
        x[:, :1].expand(-1, 5, x.shape[2], x.shape[3]),
        x[:1, :, :1].expand_as(x),
        *torch.broadcast_tensors(x, x[0, :, :1]),
    ]


def _slices(x: torch.Tensor) -> Any:
    return [
        x[:, :, 1:],
        x[:, :, :-1],
        x[:, :, -3:],
        x[:, :, ::2],
        x[..., : x.shape[3] - 1],
        x[-1],
        x[:, :, -1],
        x.select(2, -2),
        x.narrow(2, 1, x.shape[2] - 1),
        x.narrow(2, -2, 2),
    ]


def _pieces(x: torch.Tensor) -> Any:
    return [*x.chunk(3, 1), *x.split([x.shape[2] - 2, 2], 2), *x.unbind(1), x.unfold(2, 3, 1)]


def _positions(x: torch.Tensor) -> Any:
    rows, columns = torch.meshgrid(torch.arange(x.shape[2]), torch.arange(x.shape[3]), indexing="ij")
    return [rows, columns, x.new_zeros(x.shape[0], 4), x.new_ones(x.shape[2], x.shape[3]), torch.arange(x.shape[2])]


def _joins(x: torch.Tensor) -> Any:
    return [
        torch.cat([x, x], 2),
        torch.cat([x, x[:, :, :1]], 2),
        torch.stack([x, x, x], 2),
        torch.stack([x, x], 0),
        torch.stack([x, x, x], 4),
        torch.hstack([x, x]),
    ]


def _pads(x: torch.Tensor) -> Any:
    return [
        functional.pad(x, (1, 2)),
        functional.pad(x, (0, (8 - x.shape[3] % 8) % 8, 0, (8 - x.shape[2] % 8) % 8)),
        functional.pad(x, (1, 1, 1, 1), mode="reflect"),
        functional.pad(x, (-1, 2), value=3.0),
    ]


def _moves(x: torch.Tensor) -> Any:
    return [
        x.roll((-2, 3), (2, 3)),
        x.roll(x.shape[2] // 2, 2),
        x.roll(1),
        x.roll(100, 2),
        x.flip(2),
        x.flip(-1, 0),
        x.rot90(1, (2, 3)),
        x.repeat(1, 1, 2, 1),
        x.repeat_interleave(2, 2),
        x.repeat_interleave(3, dim=0),
    ]


def _diagonals(x: torch.Tensor) -> Any:
    return [
        x.diagonal(0, 2, 3),
        x.diagonal(1, 2, 3),
        x.diagonal(-2, 2, 3),
        torch.diag_embed(x[0, 0]),
        torch.diag_embed(x[0, 0], 1),
        torch.diag_embed(x[0, 0], -2),
        x.triu(1),
        x.tril(-1),
    ]


def _pixels(x: torch.Tensor) -> Any:
    return [
        functional.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
        functional.pixel_unshuffle(x, 2),
        functional.pixel_unshuffle(x[:, :1], 2),
        functional.channel_shuffle(x, 3),
        functional.pixel_shuffle(x.repeat(1, 4, 1, 1).long(), 2),
    ]


def _orders(x: torch.Tensor) -> Any:
    return [*x.sort(2), *x.topk(2, 3), *x.median(2), x.median(), x.argsort(3), *x.kthvalue(3, 2)]


def _indices(x: torch.Tensor) -> Any:
    return [
        x[:, :, torch.arange(x.shape[2]) - 1],
        x[torch.arange(x.shape[0]), 0],
        x[:, [0, 2]],
        x[:, :, [[0], [1]], [0, -1]],
        x[torch.arange(x.shape[0]), :, x.flatten(1).argmax(1) % 4],
        x.index_select(2, torch.tensor([-1 % 3, 0])),
        functional.one_hot(x.argmax(1), 3),
    ]


def _masks(x: torch.Tensor) -> Any:
    return [
        x[x > 0],
        x[:, :, x[0, 0, :, 0] > 0],
        x.masked_select(x > 1),
        x.nonzero(),
        x.masked_scatter(x > 0, x.flip(0)),
        x.masked_fill(x[:1] > 0, -1),
        *torch.where(x > 0),
        (x[x > 0] * 2).view(-1, 1).expand(-1, 3),
        torch.unique((x * 2).long()),
        x[:, :, : (x[0, 0, 0, 0] > 0).long().item() + 1],
    ]


def _writes(x: torch.Tensor) -> Any:
    return [
        x.index_put((x > 0,), torch.tensor(1.0)),
        x.index_put((torch.arange(x.shape[0]),), torch.tensor(2.0)),
        x.index_put((torch.arange(x.shape[0]), torch.tensor(1)), x[0, 0], accumulate=True),
        x.index_add(2, torch.arange(2), x[:, :, :2]),
        x.index_fill(3, torch.tensor([0, 1]), 5.0),
        x.index_copy(2, torch.tensor([1, 0]), x[:, :, 2:4]),
        torch.slice_scatter(x, x[:, :, 1:], 2, 0, -1),
        torch.select_scatter(x, x[:, :, 0], 2, -1),
        torch.diagonal_scatter(x, x.diagonal(0, 2, 3) * 2, 0, 2, 3),
    ]


def _arithmetic(x: torch.Tensor) -> Any:
    height, width = x.shape[2], x.shape[3]
    return [
        x[:, :, : height - height % 2],
        x + max(width, 5) + min(height, 7) + height**2,
        x * (height // 3) / (width % 3 + 1),
        x + (height - 70) // 4,
        x.new_full((height // 2 + 1,), width / 2),
    ]


@pytest.mark.parametrize(
    "function",
    [
        _reshapes,
        _broadcasts,
        _slices,
        _pieces,
        _positions,
        _joins,
        _pads,
        _moves,
        _diagonals,
        _orders,
        _indices,
        _masks,
        _writes,
        _arithmetic,
    ],
)
def test_at_three_sizes(function: Callable[[torch.Tensor], Any]) -> None:
    lower_and_compare(
        function, [_image(2, 3, 8, 10)], dynamic=_IMAGE, other_inputs=[[_image(1, 3, 5, 7)], [_image(3, 3, 12, 6)]]
    )


@pytest.mark.parametrize("function", [_window_partition, _pixels])
def test_at_three_even_sizes(function: Callable[[torch.Tensor], Any]) -> None:
    lower_and_compare(
        function, [_image(2, 3, 8, 12)], dynamic=_EVEN, other_inputs=[[_image(1, 3, 4, 12)], [_image(3, 3, 16, 12)]]
    )


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        (lambda x: x.view(x.size(0), -1), {"Reshape": 1}),
        (lambda x: x.reshape(x.shape[0], 8, -1), {"Reshape": 1}),
        (lambda x: x.flatten(1), {"Reshape": 1}),
        (lambda x: x.view(x.shape[0], 2, 2, 6).permute(2, 0, 1, 3), {"Reshape": 1, "Transpose": 1}),
        (lambda x: x.reshape(-1, 6).reshape(x.shape[0], 4, 6), {"Reshape": 2}),
        (lambda x: x[:, :2].expand(x.shape[0], -1, 6), {"Slice": 1}),
        (
            lambda x: x.unsqueeze(3).expand(-1, -1, -1, 16).roll((1, 1), (1, 2)),
            {"Unsqueeze": 1, "Expand": 1, "Gather": 2},
        ),
        (lambda x: x.roll(1, 2), {"Slice": 2, "Concat": 1}),
        (lambda x: x.chunk(2, 1)[0], {"Split": 1}),
        (lambda x: torch.stack([x, x, x, x], 1), {"Concat": 1, "Reshape": 1}),
    ],
)
def test_a_dynamic_batch_needs_no_shape_arithmetic(
    function: Callable[[torch.Tensor], Any], counts: Mapping[str, int]
) -> None:
    outcome = lower_and_compare(
        function, [_image(2, 4, 6)], dynamic={"x": {0: (1, 9)}}, other_inputs=[[_image(5, 4, 6)]]
    )
    assert outcome.counts == counts


@pytest.mark.parametrize(
    ("function", "shape", "match"),
    [
        (lambda x: x[..., 1:].as_strided((2, 2), (1, 2)), (2, 3, 8, 4), "strides of a dynamic tensor"),
        (lambda x: x[:, 1:].as_strided((2, 2), (1, 2)), (2, 3, 8, 4), "strides of a dynamic tensor"),
    ],
)
def test_what_needs_fixed_sizes_says_so(
    function: Callable[[torch.Tensor], Any], shape: Sequence[int], match: str
) -> None:
    with pytest.raises(LoweringError, match=match):
        lower_only(function, [_image(*shape)], dynamic={"x": {2: (4, 64)}})


@pytest.mark.parametrize(
    "bounds", [(-8, 0), (2, -3), (5, 2), (-2, -5), (0, -4), (3, None)], ids=lambda bounds: f"{bounds[0]}..{bounds[1]}"
)
def test_a_write_to_a_slice_that_may_be_empty(bounds: tuple[int, int | None]) -> None:
    def forward(x: torch.Tensor) -> Any:
        y = x * 1
        y[:, slice(*bounds)] = 0
        return y + 1

    others = [(_image(2, length, 3),) for length in range(8, 14)]
    dynamic: Dynamic = {"x": {1: (8, 13)}}
    lower_and_compare(forward, (_image(2, 10, 3),), dynamic=dynamic, other_inputs=others, method="auto")


@pytest.mark.parametrize(("size", "step"), [(1, 1), (2, 3), (2, 2), (3, 9)])
def test_a_write_through_windows_of_a_dynamic_dim(size: int, step: int) -> None:
    def forward(x: torch.Tensor) -> Any:
        y = x * 1
        y.unfold(1, size, step).mul_(torch.arange(2.0, 2 + size))
        return y + 1

    others = [(_image(2, length, 3),) for length in (5, 6, 11)]
    lower_and_compare(forward, (_image(2, 9, 3),), dynamic={"x": {1: (5, 11)}}, other_inputs=others)


def test_slices_from_a_tensor() -> None:
    def forward(x: torch.Tensor, y: torch.Tensor) -> Any:
        return x[y:], x[:, 1:][y : y + 2]

    others = [(_image(6, 3), torch.tensor(n)) for n in (0, 1, 4)]
    lower_and_compare(forward, (_image(6, 3), torch.tensor(2)), other_inputs=others)


@pytest.mark.parametrize("method", ["export", "trace"])
def test_writes_where_a_tensor_says(method: str) -> None:
    def forward(x: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> Any:
        a, b, c, d = x * 1, x * 1, x * 1, x * 1
        a[:, y : y + 2] = v[:, :2]
        b[y] = 7
        c[..., y] = v[:, 0]
        d[1:, y] = v[:1, 1:3]
        return a, b, c, d

    others = [(_image(3, 6), torch.tensor(n), _image(3, 3)) for n in (0, 1)]
    lower_and_compare(forward, (_image(3, 6), torch.tensor(2), _image(3, 3)), other_inputs=others, method=method)


def test_a_value_that_a_trace_reads_is_refused() -> None:
    with pytest.raises(CaptureError) as caught:
        lower_only(lambda x, y: x[y:], (_image(3, 6), torch.tensor(2)), method="trace")
    assert "reads the value of input 'y' as the number 2" in str(caught.value)


def test_tensor_split_of_a_dynamic_dim() -> None:
    def forward(x: torch.Tensor) -> Any:
        return [piece * 2 for piece in (*x.tensor_split(3, 1), *x.tensor_split(2, -1))]

    others = [(_image(2, length, 3),) for length in (6, 8, 13)]
    lower_and_compare(forward, (_image(2, 10, 3),), dynamic={"x": {1: (6, 13)}}, other_inputs=others)


def test_as_strided_of_a_tensor_that_fills_its_memory_at_any_size() -> None:
    """Overlapping windows, as sliding attention makes them."""

    def forward(x: torch.Tensor) -> Any:
        windows = torch.relu(x).reshape(x.shape[0], -1, 4, 3)
        count, stride = windows.shape[1], windows.stride()
        padded = functional.pad(x, (0, 0, 2, 2), value=-1.0)
        rows, columns, along = padded.stride()
        turned = torch.relu(x.transpose(0, 1).contiguous()).transpose(0, 1)
        whole = functional.pad(x, (0, 0, 0, -x.shape[1] % 5)).view(x.shape[0], -1, 5, 3)
        return [
            windows.as_strided((x.shape[0], count * 2 - 1, 4, 3), (stride[0], stride[1] // 2, *stride[2:])),
            padded.as_strided((x.shape[0], x.shape[1] // 2, 6, 3), (rows, 2 * columns, columns, along)),
            x.as_strided((2, x.shape[1]), (1, 3), 1),
            whole.as_strided((x.shape[0], 2, 3), (whole.stride(0), 3, 1)),
            turned.as_strided((x.shape[1] - 1, x.shape[0], 6), (turned.stride(1), turned.stride(0), 1)),
        ]

    others = [(_image(rows, columns, 3),) for rows, columns in ((1, 4), (5, 24), (2, 8))]
    lower_and_compare(forward, (_image(3, 12, 3),), dynamic={"x": {0: (1, 5), 1: (4, 24, 4)}}, other_inputs=others)


def test_as_strided_reads_the_memory_of_a_view() -> None:
    def forward(x: torch.Tensor) -> Any:
        turned, part = x.t(), x[1:, 1:]
        return (
            torch.as_strided(turned, (2, 3), (1, 2), 1),
            torch.as_strided(part, (2, 2), (4, 1)),
            turned.as_strided_scatter(torch.ones(2, 2), (2, 2), (4, 1), 2),
        )

    lower_and_compare(forward, (_image(3, 4),))
    with pytest.raises(LoweringError, match="does not look at"):
        lower_only(lambda x: x[1:].as_strided((2, 2), (1, 2), 0), (_image(3, 4),))
