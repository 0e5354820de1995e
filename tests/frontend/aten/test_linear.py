"""Matrix products: Gemm for matrices, MatMul on a view of the weight for the rest, no weight stored twice.

Eight-bit floats are multiplied by aten._scaled_mm.default.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphforge.errors import LoweringError
from tests.frontend.helpers import lower_and_compare, lower_only

_DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
]


def _values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    if dtype.is_floating_point:
        return torch.randn(*shape, generator=generator).to(dtype)
    return torch.randint(-9, 9, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool, dtype: torch.dtype) -> None:
    layer = nn.Linear(7, 4, bias=bias).to(dtype)
    matrix = lower_and_compare(
        layer,
        (_values(5, 7, dtype=dtype),),
        dynamic={"input": {0: (1, 9)}},
        other_inputs=[(_values(1, 7, dtype=dtype),)],
    )
    assert matrix.counts == {"Gemm": 1}
    batch = lower_and_compare(
        layer,
        (_values(5, 6, 7, dtype=dtype),),
        dynamic={"input": {0: (1, 9), 1: (1, 9)}},
        other_inputs=[(_values(1, 2, 7, dtype=dtype),)],
    )
    assert batch.nodes == (2 if bias else 1)
    assert lower_and_compare(layer, (_values(7, dtype=dtype),)).nodes == (2 if bias else 1)


def test_the_transposed_weight_is_a_view_and_shared() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(7, 7, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.layer(self.layer(x))
            return result

    module = Twice()
    model = lower_and_compare(module, (_values(2, 3, 7),)).model
    used = [value for value in model.graph.initializers.values() if value.uses()]
    assert len(used) == 1
    tensor = used[0].const_value
    assert tensor is not None
    assert tensor.raw.data_ptr() == module.layer.weight.data_ptr()


@pytest.mark.parametrize("embedding_first", [True, False])
def test_a_tied_weight_is_stored_once(embedding_first: bool) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 7)
            self.head = nn.Linear(7, 11, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            if embedding_first:
                found = self.embedding(ids)
                return found, self.head(x)
            scores = self.head(x)
            return self.embedding(ids), scores

    model = lower_and_compare(Tied(), (torch.tensor([[1, 3]]), _values(2, 3, 7))).model
    weights = [
        value
        for value in model.graph.initializers.values()
        if value.uses() and value.const_value is not None and value.const_value.size == 77
    ]
    assert len(weights) == 1


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
def test_products(dtype: torch.dtype) -> None:
    a, b, c = _values(3, 4, dtype=dtype), _values(4, 5, dtype=dtype), _values(3, 5, dtype=dtype)

    def every(a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
        row, column = a[0], b[:, 0]
        return [
            a @ b,
            a @ column,
            row @ b,
            torch.dot(row, column),
            torch.mv(a, column),
            torch.addmm(c, a, b, beta=2, alpha=3),
            torch.addmm(c[0], a, b),
            torch.addmv(c[:, 0], a, column, beta=0),
            torch.baddbmm(c[None], a[None], b[None]),
            torch.addbmm(c, a[None], b[None], alpha=2),
            torch.outer(row, column),
            torch.addr(c, a[:, 0], b[0]),
        ]

    # sums in another order; the numbers reach 10 in half precision
    rough = {torch.float16: 2e-2, torch.bfloat16: 6e-2}.get(dtype)
    lower_and_compare(every, (a, b, c), atol=rough)


def test_addmm_of_a_transpose_is_one_gemm() -> None:
    def forward(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.addmm(x, a, b.t())

    outcome = lower_and_compare(forward, (_values(5), _values(3, 4), _values(5, 4)))
    gemm = next(node for node in outcome.model.graph if node.op_type == "Gemm")
    assert gemm.attributes["transB"].as_int() == 1


def test_nothing_to_sum_over() -> None:
    """ONNX Runtime's Gemm forgets beta when the inner size is 0."""
    lower_and_compare(lambda x, a, b: torch.addmm(x, a, b, beta=0.5), (_values(3, 5), _values(3, 0), _values(0, 5)))
    lower_and_compare(lambda a, b: a @ b, (_values(3, 0), _values(0, 5)))


def test_beta_of_zero_drops_even_nan() -> None:
    x = torch.full((3, 5), torch.nan)
    lower_and_compare(lambda x, a, b: torch.addmm(x, a, b, beta=0), (x, _values(3, 4), _values(4, 5)))


@pytest.mark.parametrize("method", ["export-strict", "trace"])
def test_decomposed_forms(method: str) -> None:
    for shape in ((5, 7), (2, 5, 7)):
        lower_and_compare(nn.Linear(7, 4), (_values(*shape),), method=method)


_EQUATIONS = [
    ("bhid,bhjd->bhij", [(2, 3, 5, 4), (2, 3, 6, 4)]),
    ("bhij,bhjd->bihd", [(2, 3, 5, 6), (2, 3, 6, 4)]),
    ("nchw,cd->ndhw", [(2, 3, 4, 5), (3, 6)]),
    ("bsd,dhk->bshk", [(2, 5, 4), (4, 3, 2)]),
    ("bhwc,hkc->bhwk", [(2, 3, 4, 5), (3, 6, 5)]),
    ("nctkv,kvw->nctw", [(2, 3, 4, 2, 5), (2, 5, 6)]),
    ("i,j->ij", [(3,), (4,)]),
    ("i,i->", [(3,), (3,)]),
    ("bn,bn->b", [(3, 4), (3, 4)]),
    ("bn,n->bn", [(3, 4), (4,)]),
    ("ij,kj->", [(3, 4), (5, 4)]),
    ("ii->i", [(4, 4)]),
    ("ii", [(4, 4)]),
    ("ij->ji", [(3, 4)]),
    ("...ij,...jk", [(2, 3, 4), (4, 5)]),
    ("...ij,...jk->...ik", [(1, 3, 4), (2, 4, 5)]),
    ("b...d,bd->...b", [(2, 3, 4, 5), (2, 5)]),
    ("bij,bjk,bkl->bil", [(2, 3, 4), (2, 4, 5), (2, 5, 6)]),
    ("a,b,c->cba", [(2,), (3,), (4,)]),
]


@pytest.mark.parametrize(("equation", "shapes"), _EQUATIONS, ids=lambda item: item if isinstance(item, str) else "")
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    run: Callable[..., Tensor] = torch.einsum
    operands = [_values(*shape) for shape in shapes]
    lower_and_compare(lambda *operands: run(equation, *operands), operands)


def test_einsum_at_dynamic_sizes() -> None:
    def forward(q: Tensor, k: Tensor) -> Tensor:
        return torch.einsum("bihd,bjhd->bhij", q, k)

    outcome = lower_and_compare(
        forward,
        (_values(2, 5, 3, 4), _values(2, 6, 3, 4)),
        dynamic={"q": {1: (1, 9)}, "k": {1: (1, 9)}},
        other_inputs=[(_values(2, 1, 3, 4), _values(2, 9, 3, 4))],
    )
    assert outcome.counts["MatMul"] == 1
    assert "Einsum" not in outcome.counts


def test_bilinear_tensordot_and_distances() -> None:
    lower_and_compare(nn.Bilinear(4, 5, 3), (_values(2, 6, 4), _values(2, 6, 5)))
    lower_and_compare(lambda a, b: torch.tensordot(a, b, dims=([1, 2], [2, 0])), (_values(2, 3, 4), _values(4, 5, 3)))
    for p in (0.0, 1.0, 2.0, 3.0, float("inf")):
        lower_and_compare(lambda a, b, p=p: torch.cdist(a, b, p=p), (_values(2, 5, 4), _values(2, 6, 4) * 0.7))
    lower_and_compare(lambda a, b: torch.cdist(a, b), (_values(30, 4), _values(40, 4) * 0.7), atol=1e-3)  # by products
    assert lower_and_compare(lambda a: torch.det(a), (_values(2, 4, 4),)).nodes == 1


def test_pairwise_functions_of_torch() -> None:
    lower_and_compare(lambda a, b: functional.cosine_similarity(a, b), (_values(3, 4), _values(3, 4) * 0.3 + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bit_floats_are_multiplied_by_their_values(dtype: torch.dtype) -> None:
    kind, scales = torch.float8_e4m3fn, (torch.tensor(0.3), torch.tensor([1.5]))
    bias = _values(16, dtype=torch.bfloat16)

    def forward(a: Tensor, b: Tensor) -> Tensor:
        return torch._scaled_mm(a.to(kind), b.to(kind).t(), *scales, bias=bias, out_dtype=dtype)

    outcome = lower_and_compare(forward, (_values(4, 16), _values(16, 16)))
    assert outcome.counts["MatMul"] == 1


def test_eight_bit_floats_with_a_scale_for_each_row_are_refused() -> None:
    kind, scales = torch.float8_e4m3fn, (torch.ones(16, 1), torch.ones(1, 16))

    def forward(a: Tensor, b: Tensor) -> Tensor:
        return torch._scaled_mm(a.to(kind), b.to(kind).t(), *scales, out_dtype=torch.bfloat16)

    with pytest.raises(LoweringError, match="scales of rows or blocks"):
        lower_only(forward, (_values(16, 16), _values(16, 16)))
