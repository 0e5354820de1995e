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
