"""Sizes at which a capture's condition is false: program and model are run there and compared.

A condition need not be about the model.  torch's own code asks whether a view is contiguous, or whether an end of a
slice lies within the tensor, and does the same on either side.  Where such a condition is false at so few promised
sizes that each can be run, the program is kept if it gives what the model gives at all of them; else the model does
behave otherwise there, and is refused in the words of the condition.

Lowering goes by the sizes that capture wrote down for every value.  Where one of them is not the one that the program
has, a capture at another size is better if there is one; if not, verification tells, which runs all these sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from graphforge.call import CallInputs
from graphforge.frontend.captured import Captured
from graphforge.frontend.promises import BrokenPromise, symbol_values
from graphforge.frontend.selections import Watched, agree, eager
from graphforge.spec import ONE_NAME

__all__ = ["check_doubts"]

_SEED = 21


def check_doubts(
    model: torch.nn.Module,
    inputs: CallInputs,
    captured: Captured,
    resized: Callable[[dict[str, int]], CallInputs],
) -> BrokenPromise | None:
    """Run program and model wherever ``captured.doubts`` say; adds to ``captured.notes`` and ``captured.to_try``.

    Args:
        model: the model.
        inputs: the example call.
        captured: its program.
        resized: the example at other sizes.

    Returns:
        A doubt with the program, if that is right but some value in it has another size than capture says.

    Raises:
        BrokenPromise: the first doubt that comes true.
    """
    seen: dict[tuple[tuple[str, int], ...], _Measured] = {}
    doubts: list[BrokenPromise] = captured.doubts
    for doubt in doubts:
        for sizes in doubt.failing:
            key = tuple(sorted(sizes.items()))
            if key not in seen:
                tensors = resized(sizes).tensors
                if doubt.sampled and eager(model, inputs, tensors) is None:
                    continue  # as for any other size that the model rejects: verification tells
                found = _same_at(model, inputs, captured, sizes, tensors)
                if found is None:
                    raise doubt
                seen[key] = found
    if not seen:
        return None
    captured.to_try += [dict(key) for key in seen if dict(key) not in captured.to_try]
    whole = [doubt for doubt in doubts if not doubt.sampled]
    words = list(dict.fromkeys(doubt.words for doubt in whole))
    shown = " and ".join(words[:2]) + (f" and {len(words) - 2} more" if len(words) > 2 else "")
    others = {tuple(sorted(sizes.items())) for doubt in whole for sizes in doubt.failing}
    if whole:
        captured.notes.append(
            f"captured where {shown}; at the other {len(others)} promised sizes the program was run as well and agrees"
        )
    if all(program.as_described for program in seen.values()):
        return None
    doubts[0].program = captured
    return doubts[0]


def _same_at(
    model: torch.nn.Module,
    inputs: CallInputs,
    captured: Captured,
    sizes: Mapping[str, int],
    tensors: dict[str, torch.Tensor],
) -> _Measured | None:
    """The program as it was run there, None where the model gives something else.

    Raises:
        BrokenPromise: the model rejects sizes that are promised.
    """
    tensors = _varied(tensors)
    expected = eager(model, inputs, tensors)
    if expected is None:
        shown = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        error = BrokenPromise(
            f"the model itself does not run at {shown}",
            "promise a range at which it runs",
            ONE_NAME if len(sizes) > 1 else "",
        )
        error.failing = [dict(sizes)]
        raise error
    program = _Measured(captured, sizes)
    try:
        return program if agree(program.results(tensors), expected) else None
    except MemoryError:
        raise
    except Exception:  # the program does not run at these sizes
        return None


class _Measured(Watched):
    """The program, with an eye on whether its values have the sizes that capture describes them with.

    Attributes:
        as_described: whether all had them.
    """

    def __init__(self, captured: Captured, sizes: Mapping[str, int]) -> None:
        super().__init__(captured, ())
        self.sizes.update(symbol_values(captured.symbols, captured.shapes, sizes))
        self.as_described = True

    def run_node(self, n: torch.fx.Node) -> Any:
        """As the interpreter does, without assertions."""
        result = super().run_node(n)
        fake = n.meta.get("val")
        if isinstance(fake, list | tuple) and isinstance(result, list | tuple) and len(fake) != len(result):
            raise ValueError(f"{n.target} gives {len(result)} pieces, and {len(fake)} in the capture")
        if isinstance(fake, torch.Tensor) and isinstance(result, torch.Tensor):
            self.as_described &= len(fake.shape) == len(result.shape) and all(map(self._is, fake.shape, result.shape))
        return result

    def _is(self, described: Any, size: int) -> bool:
        if isinstance(described, int):
            return described == size
        expression = described.node.expr
        if not all(symbol in self.sizes for symbol in expression.free_symbols):
            return True
        return bool(expression.subs(self.sizes) == size)


def _varied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Floats a little off: the rows of a larger example are its rows again, and which one is read should show."""
    generator = torch.Generator().manual_seed(_SEED)
    return {
        name: tensor * (1 + 0.25 * torch.rand(tensor.shape, generator=generator)).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in tensors.items()
    }
