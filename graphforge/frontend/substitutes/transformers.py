"""Substitutes for functions of transformers that loop over a sequence in Python: one operator over the steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graphforge.frontend.substitution import substitute

__all__: list[str] = []


def _selective_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **_: Any,
) -> Any:
    """The recurrence of a selective state space, state = a state + b, step by step in a scan; arguments as there."""
    from torch._higher_order_ops.scan import scan

    kind = hidden_states.dtype
    if delta_bias is not None:
        dt = dt + delta_bias.to(dt.dtype)[..., None]
    if delta_softplus:
        dt = functional.softplus(dt)
    decay = torch.exp(A[None, :, None, :] * dt[:, :, :, None])
    entry = dt[:, :, :, None] * B.transpose(1, 2)[:, None, :, :].float() * hidden_states[:, :, :, None].float()
    start = torch.zeros_like(entry[:, :, 0])

    def step(state: Tensor, now: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        kept, added, read = now
        state = kept * state + added
        return state, torch.matmul(state.to(kind), read.unsqueeze(-1))[:, :, 0]

    sequence = (decay.movedim(2, 0), entry.movedim(2, 0), C.movedim(2, 0))
    last, outputs = scan(step, start, sequence)
    output = outputs.movedim(0, 2)
    if D is not None:
        output = output + hidden_states * D[None, :, None]
    if z is not None:
        output = output * functional.silu(z)
    return (output, last) if return_last_state else output


for _model in ("mamba", "falcon_mamba", "jamba", "zamba"):
    substitute(f"transformers.models.{_model}.modeling_{_model}.mamba_selective_scan", required=False)(_selective_scan)


def _chunk_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **_: Any,
) -> Any:
    """The recurrence that the library computes in chunks of a padded sequence: the same states, one after another."""
    from torch._higher_order_ops.scan import scan

    heads = hidden_states.shape[2]
    if dt_bias is not None:
        dt = dt + dt_bias.to(dt.dtype)
    if dt_softplus:
        dt = functional.softplus(dt)
    dt = torch.clamp(dt, min=dt_limit[0], max=dt_limit[1]).float()
    x = hidden_states.float()
    entry, read = (
        part.float().repeat_interleave(heads // part.shape[2], dim=2, output_size=heads)[:, :, :, None]
        for part in (B, C)
    )
    decay = torch.exp(A.float() * dt)[..., None, None]
    scaled = (x * dt[..., None])[..., None]
    start = torch.zeros_like(scaled[:, 0] * entry[:, 0]) if initial_states is None else initial_states.float()

    def step(state: Tensor, now: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        kept, values, into, out_of = now
        state = state * kept + values * into
        return state, (state * out_of).sum(-1)

    last, outputs = scan(step, start, tuple(part.movedim(1, 0) for part in (decay, scaled, entry, read)))
    output = outputs.movedim(0, 1)
    if D is not None:
        output = output + D[..., None] * x
    output = output.contiguous()
    return (output, last) if return_final_states else output


for _model in ("mamba2", "bamba", "zamba2", "falcon_h1", "nemotron_h", "granitemoehybrid"):
    substitute(f"transformers.models.{_model}.modeling_{_model}.mamba2_chunk_scan", required=False)(_chunk_scan)


@substitute(
    "transformers.models.recurrent_gemma.modeling_recurrent_gemma.RecurrentGemmaRglru._rnn_scan", required=False
)
def _linear_recurrence(
    _: Any,
    hidden_states: Tensor,
    recurrent_gate: Tensor,
    reset: Tensor,
    recurrent_states: Tensor | None,
    acc_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """State = gate state + what comes in, from step to step; arguments as there."""
    from torch._higher_order_ops.scan import scan

    kept = (recurrent_gate * ~reset).type(acc_dtype)
    added = hidden_states.type(acc_dtype)
    start = torch.zeros_like(added[:, 0]) if recurrent_states is None else recurrent_states.to(acc_dtype)

    def step(state: Tensor, now: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        state = now[0] * state + now[1]
        return state, state.clone()

    last, states = scan(step, start, (kept.movedim(1, 0), added.movedim(1, 0)))
    return states.movedim(0, 1).type(hidden_states.dtype), last


@substitute("transformers.models.cpmant.modeling_cpmant.CpmAntModel._prepare_attention_mask", required=False)
def _mask_of_padding_on_the_left(
    model: Any, input_ids: Tensor, span: Tensor, context: Tensor, length: Tensor
) -> Tensor:
    """The mask, with the places counted by a tensor; the model makes a list of them in Python."""
    batch, size = input_ids.shape
    places = torch.arange(size, device=input_ids.device)
    directed = places <= places.view(-1, 1)
    mask = context[:, None, :] | (context[:, :, None].logical_not() & directed.view(1, size, size))
    mask = mask & (span[:, None, :] == span[:, :, None])
    count = size - model.prompt_length
    seen = (count - 1 - torch.arange(count, device=input_ids.device))[None, :].repeat(batch, 1) < length[:, None]
    seen = torch.cat((seen.new_ones(batch, model.prompt_length), seen), dim=1)
    return seen.view(batch, size, 1) & seen.view(batch, 1, size) & mask
