"""Sizes at which a capture's condition is false: program and model are run there and compared.

A condition need not be about the model.  torch's own code asks whether a view is contiguous, or whether an end of a slice
lies within the tensor, and does the same on either side.  Where such a condition is false at so few promised sizes that
each can be run, the program is kept if it gives what the model gives at all of them; else the model does behave
otherwise there, and is refused in the words of the condition.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from graphforge.call import CallInputs
from graphforge.frontend.captured import Captured
from graphforge.frontend.selections import Watched, agree, eager

__all__ = ["check_doubts"]

_SEED = 21


def check_doubts(
    model: torch.nn.Module,
    inputs: CallInputs,
    captured: Captured,
    resized: Callable[[dict[str, int]], CallInputs],
) -> None:
    """Run program and model wherever ``captured.doubts`` say; fills ``captured.notes`` and ``captured.to_try``.

    Args:
        model: the model.
        inputs: the example call.
        captured: its program.
        resized: the example at other sizes.

    Raises:
        BrokenPromise: the first doubt that comes true.
    """
    seen: dict[tuple[tuple[str, int], ...], bool] = {}
    for doubt in captured.doubts:
        for sizes in doubt.failing:
            key = tuple(sorted(sizes.items()))
            if key not in seen:
                seen[key] = _same_at(model, inputs, captured, resized(sizes).tensors)
            if not seen[key]:
                raise doubt
    captured.to_try += [dict(key) for key in seen if dict(key) not in captured.to_try]
    if captured.doubts:
        words = list(dict.fromkeys(doubt.words for doubt in captured.doubts))
        shown = " and ".join(words[:2]) + (f" and {len(words) - 2} more" if len(words) > 2 else "")
        captured.notes.append(
            f"captured where {shown}; at the other {len(seen)} promised sizes the program was run as well and agrees"
        )


def _same_at(
    model: torch.nn.Module, inputs: CallInputs, captured: Captured, tensors: dict[str, torch.Tensor]
) -> bool:
    """Whether program and model give the same there; an input that the model rejects proves nothing."""
    tensors = _varied(tensors)
    expected = eager(model, inputs, tensors)
    if expected is None:
        return False
    try:
        return agree(Watched(captured, ()).results(tensors), expected)
    except MemoryError:
        raise
    except Exception:  # the program does not run at these sizes
        return False


def _varied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Floats a little off: the rows of a larger example are its rows again, and which one is read should show."""
    generator = torch.Generator().manual_seed(_SEED)
    return {
        name: tensor * (1 + 0.25 * torch.rand(tensor.shape, generator=generator)).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in tensors.items()
    }
