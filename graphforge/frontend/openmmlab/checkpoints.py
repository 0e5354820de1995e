"""Checkpoints of OpenMMLab: read without running code, EMA or plain weights, held against the model key by key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, argument
from graphforge.frontend.archives import is_torch_file

if TYPE_CHECKING:
    import torch

__all__ = ["load_weights", "read_checkpoint", "weights_of"]

_SHOWN = 6


def read_checkpoint(path: Path, *, trust_pickle: bool = False) -> dict[str, Any]:
    """All that a checkpoint holds; beside tensors only what mmengine writes is let in, and none of it runs code.

    Raises:
        GraphForgeError: it cannot be read, or holds something else.
    """
    import torch

    if not path.is_file():
        raise GraphForgeError(f"checkpoint {str(path)!r} does not exist", "give the path of a .pth file")
    try:
        with torch.serialization.safe_globals(_harmless()):
            read = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except Exception as error:  # zip, pickle and torch errors of many types
        if not is_torch_file(path):
            raise GraphForgeError(
                f"checkpoint {str(path)!r} is not a file that torch.save wrote", "give the path of a .pth file"
            ) from None
        text = str(error)
        if "weights_only" in text or "Unsupported" in text:
            named = text.partition("GLOBAL ")[2].partition(" was not")[0]
            raise GraphForgeError(
                f"checkpoint {str(path)!r} contains more than tensors and what mmengine writes"
                + (f": {named}" if named else ""),
                f"if you trust where it came from: {argument('trust_pickle', True)}",
            ) from None
        lines = [line for line in text.splitlines() if line.strip()]
        raise GraphForgeError(
            f"checkpoint {str(path)!r} cannot be read: {(lines or [type(error).__name__])[0][:300]}",
            "expected a file that torch.save wrote",
        ) from None
    if not isinstance(read, dict):
        raise GraphForgeError(f"checkpoint {str(path)!r} holds a {type(read).__name__}, expected a dict of weights")
    return read


def weights_of(checkpoint: Mapping[str, Any], which: str, path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The weights of a checkpoint and the word for them.

    Args:
        checkpoint: what was read.
        which: ``ema``, ``plain``, or ``auto`` for what the framework itself would load.
        path: the file, for messages.

    Returns:
        The state dict, and ``ema`` or ``plain``.

    Raises:
        GraphForgeError: it contains no such weights.
    """
    import torch

    state = checkpoint.get("state_dict", checkpoint)
    other = checkpoint.get("ema_state_dict")
    # mmengine's EMAHook saves the averages as state_dict, and the weights that were trained as ema_state_dict
    has_both = isinstance(other, Mapping) and "state_dict" in checkpoint
    if which == "ema" and not has_both:
        raise GraphForgeError(f"checkpoint {str(path)!r} contains no averaged (EMA) weights", "leave that choice out")
    chosen = other if has_both and which == "plain" else state
    word = "ema" if has_both and which != "plain" else "plain"
    if not isinstance(chosen, Mapping) or not any(isinstance(value, torch.Tensor) for value in chosen.values()):
        raise GraphForgeError(f"checkpoint {str(path)!r} does not contain a state dict of tensors")
    weights = {str(key).removeprefix("module."): value for key, value in chosen.items() if key != "steps"}
    # the copies that MMDetection 2's hook kept as buffers beside the weights, under names without dots
    return {key: value for key, value in weights.items() if not key.startswith("ema_")}, word


def load_weights(module: torch.nn.Module, weights: Mapping[str, Any], path: Path) -> list[str]:
    """Load weights, every one of the model's; what the checkpoint has beyond them is told.

    Returns:
        Notes on what was left out.

    Raises:
        GraphForgeError: a weight of the model is missing or has another shape; names them.
    """
    import torch

    wanted = module.state_dict()
    # the data preprocessor's mean and std are the config's, and no weights
    missing = [key for key in wanted if key not in weights and not key.startswith("data_preprocessor.")]
    unexpected = [key for key in weights if key not in wanted]
    wrong = [
        key
        for key, value in weights.items()
        if key in wanted and isinstance(value, torch.Tensor) and value.shape != wanted[key].shape
    ]
    if missing or wrong:
        fitting = sum(key in wanted for key in weights) - len(wrong)
        raise GraphForgeError(
            f"checkpoint {str(path)!r} does not fit: of the model's {len(wanted)} weights {fitting} fit, "
            f"{len(missing)} are missing, {len(wrong)} have another shape",
            _listed("missing", missing),
            _listed(
                "another shape",
                [f"{key} {_shape(weights[key])}, the model's {_shape(wanted[key])}" for key in wrong],
            ),
            _listed("in the checkpoint only", unexpected),
            "it is of another model, or the config's model differs from the one that was trained",
        )
    module.load_state_dict({key: weights[key] for key in wanted if key in weights}, strict=False)
    return [_listed(f"{len(unexpected)} entries of the checkpoint are not the model's", unexpected)] * bool(unexpected)


def _harmless() -> list[Any]:
    """What mmengine writes beside tensors: the log's averages, numpy's scalars and arrays."""
    import numpy as np

    try:
        from numpy._core import multiarray
    except ImportError:  # numpy 1
        from numpy.core import multiarray  # type: ignore[no-redef]
    inner: Any = multiarray
    # numpy 1 and 2 write the same functions under other names
    named = [
        (function, f"{module}.{function.__name__}")
        for function in (inner._reconstruct, inner.scalar)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    ]
    kinds = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "b1")]
    safe: list[Any] = [*named, np.ndarray, np.dtype, *kinds]
    return [*safe, (_Log, "mmengine.logging.history_buffer.HistoryBuffer"), (_method_of_log, "builtins.getattr")]


class _Log:
    """The averages of mmengine's log: its data alone, no code of its class."""


def _method_of_log(owner: Any, name: str) -> None:
    """A log names the methods that it is asked by; none is looked up, whatever the file asks for."""


def _listed(word: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{word}: {', '.join(keys[:_SHOWN])}{more}"


def _shape(tensor: Any) -> str:
    return "x".join(str(int(size)) for size in tensor.shape) or "scalar"
