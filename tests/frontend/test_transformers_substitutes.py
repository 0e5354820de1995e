"""State-space models of transformers at any length: their loop over the sequence is one scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import graphforge
from graphforge.errors import CaptureError
from graphforge.frontend.torchvision_fix import ensure_torchvision
from tests.frontend.helpers import lower_and_compare, lower_only


def _library() -> Any:
    ensure_torchvision()
    return pytest.importorskip("transformers")


def test_the_scan_is_the_recurrence() -> None:
    _library()
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    from graphforge.frontend.substitutes.transformers import _selective_scan

    torch.manual_seed(0)
    x, dt, gate = (torch.randn(2, 6, 5) for _ in range(3))
    keywords: dict[str, Any] = {"D": torch.randn(6), "z": gate, "delta_bias": torch.randn(6), "delta_softplus": True}
    given = (x, dt, -torch.rand(6, 4), torch.randn(2, 4, 5), torch.randn(2, 4, 5))
    for last in (False, True):
        expected = mamba_selective_scan(*given, **keywords, return_last_state=last)
        found = _selective_scan(*given, **keywords, return_last_state=last)
        torch.testing.assert_close(found, expected)


def test_the_scan_is_what_chunks_compute() -> None:
    _library()
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    from graphforge.frontend.substitutes.transformers import _chunk_scan

    torch.manual_seed(0)
    x, dt = torch.randn(2, 11, 4, 3), torch.randn(2, 11, 4)
    entry, read = torch.randn(2, 11, 2, 5), torch.randn(2, 11, 2, 5)
    for keywords in (
        {"D": torch.randn(4), "dt_bias": torch.randn(4), "dt_softplus": True},
        {"dt_softplus": True, "return_final_states": True, "initial_states": torch.randn(2, 4, 3, 5)},
    ):
        given = (x, dt, -torch.rand(4), entry, read, 4)
        torch.testing.assert_close(_chunk_scan(*given, **keywords), mamba2_chunk_scan(*given, **keywords))  # type: ignore[arg-type]


def test_a_state_space_model_at_any_length(tmp_path: Path) -> None:
    _library()
    from transformers import MambaConfig, MambaModel

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=40, hidden_size=16, state_size=4, num_hidden_layers=2, use_cache=False)
    bundle = graphforge.compile(
        MambaModel(config).eval(),
        kwargs={"input_ids": torch.randint(0, 40, (2, 6))},
        dynamic_shapes={"input_ids": {0: (1, 3), 1: (2, 12)}},
        output=tmp_path / "b",
    )
    assert bundle.manifest["verification"]["passed"]
    assert bundle.manifest["operators"]["Scan"] == 2


class _Loop(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros_like(x[:, 0])
        for row in range(x.shape[1]):  # the loop
            state = state * 0.5 + x[:, row]
        return state


def test_a_loop_over_the_sequence_is_refused_with_its_own_line() -> None:
    lower_and_compare(_Loop(), (torch.randn(2, 6, 3),))
    with pytest.raises(CaptureError) as caught:
        lower_only(_Loop(), (torch.randn(2, 6, 3),), dynamic={"x": {1: (2, 12)}})
    assert any("for row in range(x.shape[1]):  # the loop" in note for note in caught.value.notes)


def test_a_linear_recurrence_is_the_loop() -> None:
    _library()
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

    from graphforge.frontend.substitutes.transformers import _linear_recurrence

    torch.manual_seed(0)
    x, gate = torch.randn(2, 5, 4), torch.rand(2, 5, 4)
    reset = torch.zeros(2, 5, 1, dtype=torch.bool)
    reset[:, 0] = True
    for length, state in ((5, None), (5, torch.randn(2, 4)), (1, torch.randn(2, 4))):
        given = (None, x[:, :length], gate[:, :length], reset[:, :length], state)
        for found, expected in zip(_linear_recurrence(*given), RecurrentGemmaRglru._rnn_scan(*given), strict=True):
            torch.testing.assert_close(found, expected)


def test_the_mask_of_padding_on_the_left_is_the_one_that_a_list_counts() -> None:
    _library()
    from transformers.models.cpmant.modeling_cpmant import CpmAntModel

    from graphforge.frontend.substitutes.transformers import _mask_of_padding_on_the_left

    class Model:
        prompt_length = 3

    ids = torch.ones(2, 8, dtype=torch.int64)
    span, context = torch.tensor([[0] * 8, [0] * 4 + [1] * 4]), torch.rand(2, 8) > 0.5
    given = (Model(), ids, span, context, torch.tensor([5, 3]))
    expected = CpmAntModel._prepare_attention_mask(*given)
    assert torch.equal(_mask_of_padding_on_the_left(*given), expected)
