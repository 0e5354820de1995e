"""Complex numbers as two real values: every form against eager, inputs and outputs as pairs, writes through views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphforge
from graphforge.errors import LoweringError
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare, lower_only
from tests.frontend.opinfo import Status, check, entries, samples

_GENERATOR = torch.Generator().manual_seed(0)
_SIGNAL = torch.randn(2, 300, generator=_GENERATOR)
_Z = torch.complex(torch.randn(3, 6, generator=_GENERATOR), torch.randn(3, 6, generator=_GENERATOR))
_W = torch.complex(torch.randn(6, 4, generator=_GENERATOR), torch.randn(6, 4, generator=_GENERATOR))
_REAL = torch.rand(3, 6, generator=_GENERATOR) + 0.5
_WINDOW = torch.hann_window(64)
_RAISED = torch.hann_window(50) + 0.1


def _stft(x: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.stft(x, 64, 16, window=_WINDOW, return_complex=True, **options)


def _function(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    def call(z: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = getattr(torch, name)(z)
        return result

    return call


_FORMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    # made and taken apart
    "complex": (lambda x, y: torch.complex(x, y) * 2, (_REAL, _REAL.T.reshape(3, 6))),
    "complex of parts that broadcast": (lambda x, y: torch.complex(x, y), (_REAL, _REAL[:1])),
    "polar": (lambda x, y: torch.polar(x, y), (_REAL, _REAL)),
    "view_as_complex": (lambda x: torch.view_as_complex(x.reshape(3, 3, 2)).abs(), (_REAL,)),
    "view_as_real": (lambda z: torch.view_as_real(z), (_Z,)),
    "real and imag": (lambda z: z.real - 2 * z.imag, (_Z,)),
    "abs and angle": (lambda z: (z.abs(), z.angle()), (_Z,)),
    "abs of large and small": (lambda z: (z * 1e25).abs() + (z * 1e-25).abs(), (_Z,)),
    "conj": (lambda z: z.conj() * z, (_Z,)),
    "adjoint": (lambda z: z.mH @ z, (_Z,)),
    "to complex": (lambda x: x.to(torch.complex64), (_REAL,)),
    "to complex128": (lambda z: z.to(torch.complex128), (_Z,)),
    "view of the bits": (lambda z: z.view(torch.float32), (_Z,)),
    "size": (lambda z: z * z.shape[0] + z.numel(), (_Z,)),
    # arithmetic, with numbers and with real tensors
    "add and sub": (lambda z, x: torch.add(z, x, alpha=2) - (1 - z), (_Z, _REAL)),
    "alpha": (lambda z: torch.add(z, z, alpha=0.5j), (_Z,)),
    "mul": (lambda z, x: z * x * 1j * z, (_Z, _REAL)),
    "div": (lambda z, x: z / x + x / z + 1 / z, (_Z, _REAL)),
    "powers": (lambda z: z**3 + z**-1 + z**0.5 + z**0 + z ** (1 + 1j), (_Z,)),
    "power of tensors": (lambda z, x: torch.pow(x, z) + torch.pow(z, x), (_Z, _REAL)),
    "lerp": (lambda z: torch.lerp(z, z.conj(), 0.25), (_Z,)),
    # functions
    **{
        name: (_function(name), (_Z,))
        for name in (
            "exp log log2 log10 log1p expm1 exp2 sqrt rsqrt sin cos tan sinh cosh tanh asin acos atan asinh acosh "
            "atanh sigmoid reciprocal sgn square neg"
        ).split()
    },
    # comparison
    "equal": (lambda z: (z == z.conj(), z != z.real, torch.isfinite(z), torch.isreal(z)), (_Z,)),
    "truth": (lambda z: (z.bool(), torch.any(z), torch.logical_not(z)), (_Z * (_Z.real > 0),)),
    # moved and added up
    "shapes": (lambda z: z.reshape(2, 9).T.unsqueeze(0)[:, 1:, :1].expand(2, 8, 1), (_Z,)),
    "joined": (lambda z, x: torch.cat([z, x.to(z.dtype)], 1).chunk(2, 1)[1].flip(0), (_Z, _REAL)),
    "joined with reals": (lambda z, x: torch.stack([z, torch.complex(x, x)], -1), (_Z, _REAL)),
    "where": (lambda z, x: torch.where(x > 1, z, 0.5), (_Z, _REAL)),
    "padded": (lambda z: torch.nn.functional.pad(z, (1, 2), value=0.5), (_Z,)),
    "reductions": (lambda z: (z.sum(0), z.mean(), z.prod(1), z.var(0), z.std(), z.norm(dim=1), z.cumsum(1)), (_Z,)),
    "indices": (lambda z: (z[[2, 0]], z[:, 1], z.gather(1, torch.tensor([[1, 5]])), z.tril()), (_Z,)),
    "filled": (lambda z: z.masked_fill(z.real > 0, 1j) + torch.full_like(z, 2) + torch.zeros_like(z), (_Z,)),
    # products
    "matmul": (lambda z, w: z @ w, (_Z, _W)),
    "matmul with a real": (lambda z, x: z.T @ x.to(z.dtype), (_Z, _REAL)),
    "addmm": (lambda z, w: torch.addmm(z[:, :4], z, w, beta=2, alpha=0.5j), (_Z, _W)),
    "einsum": (lambda z, w: torch.einsum("ij,jk->ki", z, w), (_Z, _W)),
    "einsum of three": (lambda z, w: torch.einsum("ij,jk,lk->il", z, w, w), (_Z, _W)),
    "linear": (lambda z, w: torch.nn.functional.linear(z, w.T, w[0]), (_Z, _W)),
    "conv": (lambda z, w: torch.nn.functional.conv1d(z[None], w[:6].reshape(4, 3, 2), w[0]), (_Z, _W)),
    "vdot": (lambda z: torch.vdot(z[0], z[1]), (_Z,)),
    "outer": (lambda z: torch.outer(z[0], z[1].conj()), (_Z,)),
    "vector norm": (lambda z: torch.linalg.vector_norm(z, 3, dim=-1), (_Z,)),
    # Fourier transforms
    "fft": (lambda x: torch.fft.fft(x), (_SIGNAL,)),
    "ifft": (lambda z: torch.fft.ifft(z, norm="ortho"), (_Z,)),
    "rfft of a length": (lambda x: torch.fft.rfft(x, n=128, norm="forward"), (_SIGNAL,)),
    "irfft": (lambda z: torch.fft.irfft(z, n=9), (_Z,)),
    "there and back": (lambda x: torch.fft.irfft2(torch.fft.rfft2(x.reshape(2, 15, 20)) * 0.5, s=(15, 20)), (_SIGNAL,)),
    "fftn": (lambda x: torch.fft.fftn(x.reshape(2, 15, 20)).abs(), (_SIGNAL,)),
    "hfft and ihfft": (lambda z: (torch.fft.hfft(z), torch.fft.ihfft(z.real)), (_Z,)),
    "fftshift": (lambda x: torch.fft.ifftshift(torch.fft.fftshift(torch.fft.fft(x)) * 2), (_SIGNAL,)),
    "stft": (_stft, (_SIGNAL,)),  # aten.stft.default, aten.stft.center
    "stft of one signal": (lambda x: _stft(x[0], normalized=True), (_SIGNAL,)),
    "stft uncentred, two-sided": (lambda x: _stft(x, center=False, onesided=False), (_SIGNAL,)),
    "stft with a short window": (
        lambda x: torch.stft(x, 64, 20, 40, window=_WINDOW[:40], return_complex=True, pad_mode="constant"),
        (_SIGNAL,),
    ),
    "istft": (lambda x: torch.istft(_stft(x), 64, 16, window=_WINDOW), (_SIGNAL,)),
    "istft of a length": (lambda x: torch.istft(_stft(x), 64, 16, window=_WINDOW, length=290), (_SIGNAL,)),
    "istft with a hop that does not divide": (
        lambda x: torch.istft(torch.stft(x, 50, 20, window=_RAISED, return_complex=True), 50, 20, window=_RAISED),
        (_SIGNAL,),
    ),
}


@pytest.mark.parametrize("form", _FORMS)
def test_agrees_with_eager(form: str) -> None:
    function, args = _FORMS[form]
    lower_and_compare(function, args, rtol=1e-4, atol=1e-4)  # sums of 300 terms, and functions of functions


@pytest.mark.parametrize("length", [2048, 3000, 2053])
def test_long_transforms_keep_their_digits(length: int) -> None:
    x = torch.randn(2, length, generator=_GENERATOR)
    lower_and_compare(lambda z: torch.fft.rfft(z), (x,), rtol=1e-5, atol=2e-4)  # of sums up to 200
    lower_and_compare(lambda z: torch.fft.irfft(torch.fft.rfft(z)), (x,), rtol=1e-5, atol=1e-5)


def test_dynamic_lengths() -> None:
    others = [(torch.randn(1, 120),), (torch.randn(3, 517),)]
    dynamic = {"x": {0: (1, 4), 1: (100, 600)}}
    lower_and_compare(lambda x: _stft(x).abs(), (_SIGNAL,), dynamic=dynamic, other_inputs=others, rtol=1e-4, atol=1e-4)
    lower_and_compare(
        lambda x: torch.fft.fft(x).imag, (_SIGNAL,), dynamic=dynamic, other_inputs=others, rtol=1e-4, atol=1e-4
    )
    lower_and_compare(
        lambda x: torch.istft(_stft(x), 64, 16, window=_WINDOW),
        (_SIGNAL,),
        dynamic=dynamic,
        other_inputs=others,
        rtol=1e-4,
        atol=1e-4,
    )


def test_writes_through_views() -> None:
    def write(z: torch.Tensor) -> torch.Tensor:
        y = z.clone()
        y.real[:, 0] = 1
        y.imag.mul_(2)
        y[0] = torch.tensor(1j)
        torch.view_as_real(y)[..., 0].add_(1)
        y.T[1].conj().mul_(1 + 1j)
        y[:, 2:4] *= 1j
        return y

    lower_and_compare(write, (_Z,))


def test_a_view_of_a_real_tensor_is_written_through() -> None:
    def write(x: torch.Tensor) -> torch.Tensor:
        y = x.reshape(3, 3, 2).clone()
        torch.view_as_complex(y).mul_(1j)
        return y

    lower_and_compare(write, (_REAL,))


class _Rotary(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        angle = torch.outer(torch.arange(12.0), 10.0 ** -torch.arange(4.0))
        self.register_buffer("turn", torch.polar(torch.ones_like(angle), angle))

    def forward(self, q: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(q.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.get_buffer("turn")[: q.shape[1]]).flatten(-2)


def test_rotary_embedding_with_a_complex_buffer(tmp_path: Path) -> None:
    bundle = graphforge.compile(
        _Rotary(), (torch.randn(2, 5, 8),), dynamic_shapes={"q": {1: (2, 12)}}, output=tmp_path / "b"
    )
    assert bundle.manifest["verification"]["passed"]


class _Filter(torch.nn.Module):
    def forward(self, spectrum: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return spectrum * gain, spectrum.abs()


def test_complex_inputs_and_outputs_are_pairs_and_said_so(tmp_path: Path) -> None:
    rows = DimRange("rows", 2, 5)
    bundle = graphforge.compile(
        _Filter(), (_Z, _REAL), dynamic_shapes={"spectrum": {0: rows}, "gain": {0: rows}}, output=tmp_path / "b"
    )
    manifest = bundle.manifest
    assert manifest["inputs"][0]["shape"] == [3, 6, 2]
    assert manifest["inputs"][0]["dtype"] == "float32"
    notes = "\n".join(manifest["notes"])
    assert "input 'spectrum' is complex; the artifact takes real and imaginary parts" in notes
    assert "output 'output_0' is complex; the artifact returns real and imaginary parts" in notes
    assert "gain" not in notes
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "b" / "model.onnx")
    feeds = {"spectrum": torch.view_as_real(_Z[:2]).numpy(), "gain": _REAL[:2].numpy()}
    product = session.run(None, feeds)[0]
    np.testing.assert_allclose(product, torch.view_as_real(_Z[:2] * _REAL[:2]).numpy(), rtol=1e-5)
    for given in (_Z[:2], _Z[:2].numpy()):  # complex numbers may be given as they are
        found = bundle.run({"spectrum": given, "gain": _REAL[:2]})
        np.testing.assert_array_equal(found["output_0"], product)


def test_what_has_no_form_is_refused_with_its_line() -> None:
    with pytest.raises(LoweringError) as caught:
        lower_only(lambda z: torch.linalg.eigvals(z), (_Z[:, :3],))
    assert "no lowering for complex numbers" in caught.value.message
    assert any("eigvals" in note for note in caught.value.notes)


# Entries of torch's own samples that go through the rules over pairs, one for each kind.
_ENTRIES = (
    "addcdiv addmm cat diag_embed div/no_rounding_mode fft.hfftn fft.irfftn index_put kron mean nn.functional.linear "
    "scatter stft istft tensordot unfold where"
).split()


@pytest.mark.parametrize("name", _ENTRIES)
def test_samples_of_torch(name: str) -> None:
    entry = entries()[name]
    drawn = samples(name, entry, torch.complex64, limit=3) or samples(name, entry, torch.float32, limit=3)
    results = [(sample.name, check(sample)) for sample in drawn]
    judged = [(sample, result) for sample, result in results if result.status is not Status.UNUSABLE]
    assert judged
    assert [(sample, result.reason) for sample, result in judged if result.status is not Status.PASSED] == []
