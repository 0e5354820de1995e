"""A substitute for nn.TransformerEncoder: what its fast path leaves of padded positions.

In eval mode, with padding at the end of each row, eager PyTorch takes the padding out before the first layer and fills
it in with zeros behind the last one.  While a program is captured torch takes the other way, by which padded positions
hold what the layers make of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphforge.frontend.substitution import substitute

__all__: list[str] = []

_ORIGINAL = (nn.TransformerEncoder.forward,)


@substitute("torch.nn.TransformerEncoder.forward", required=False)
def forward(
    self: Any,
    src: Tensor,
    mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool | None = None,
) -> Tensor:
    """As the original, and zeros (behind the last normalisation) where there is padding at the ends of all rows."""
    output: Tensor = _ORIGINAL[0](self, src, mask, src_key_padding_mask, is_causal)
    if (
        src_key_padding_mask is None
        or mask is not None
        or src.dim() != 3
        or self.training
        or not getattr(self, "use_nested_tensor", False)
        or not torch.backends.mha.get_fastpath_enabled()
        or torch.is_autocast_enabled("cpu")
    ):
        return output
    valid = src_key_padding_mask.logical_not()
    gaps = (valid[:, 1:] & ~valid[:, :-1]).to(torch.int64).sum()
    filling = torch.zeros_like(output)
    if self.norm is not None:
        filling = self.norm(filling)
    return torch.where((valid | (gaps > 0))[..., None], output, filling)
