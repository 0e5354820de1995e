"""From ``mmpose:CONFIG[,CHECKPOINT]`` to a model that compiles: read, built without downloads, its weights put in.

Nothing here is needed by the rest of GraphForge; mmengine and the package named are imported when a spec asks for them.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.frontend.openmmlab.codebases import CODEBASES, codebase_of, need, version_of, way_to_have
from graphforge.frontend.openmmlab.configs import find_config, read_config
from graphforge.hushed import hushed
from graphforge.user_code import user_error

if TYPE_CHECKING:
    import torch

__all__ = ["Built", "build_model", "import_codebase", "load_openmmlab"]

DECODINGS = ("full", "batch", "none", "sdk")
_WEIGHTS = ("auto", "ema", "plain")
# Keys of `kwargs` that are ours; those with a dot are overrides of the config.
_OWN = ("decode", "weights")


@dataclass(slots=True)
class Built:
    """A model of OpenMMLab as it comes from its config.

    Attributes:
        codebase: the package, ``mmpose``.
        model: what its registry built, in eval mode.
        config: the whole config.
        file: where it was read from.
        meta: the facts of the dataset that the model was made for.
        notes: what the user should know.
    """

    codebase: str
    model: torch.nn.Module
    config: Any
    file: Path
    meta: dict[str, Any]
    notes: list[str]


def load_openmmlab(
    spec: str,
    *,
    checkpoint: str | Path | None = None,
    kwargs: Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
) -> tuple[torch.nn.Module, tuple[tuple[Any, ...], dict[str, Any]] | None, dict[str, Any]]:
    """The model of a spec, an example call, and what the bundle says of it.

    Args:
        spec: ``mmpose:CONFIG[,CHECKPOINT]`` or another codebase's.
        checkpoint: the checkpoint, where the spec names none.
        kwargs: ``decode`` (``full``: what the framework's predict returns; ``batch``: the same for any batch of
            pictures, in padded rows; ``none``: what the head returns),
            ``weights`` (``ema`` or ``plain``), and values of the config by dotted key,
            ``{"model.test_cfg.flip_test": False}``.
        trust_pickle: whether the checkpoint may run code when it is read.

    Raises:
        GraphForgeError: the spec, the config, the checkpoint or the machine is at fault.
    """
    from graphforge.frontend.openmmlab.described import describe
    from graphforge.frontend.openmmlab.wrapped import example_of, wrap

    codebase = codebase_of(spec)
    name, comma, given = spec.partition(":")[2].partition(",")
    if comma and checkpoint is not None:
        raise UsageError(f"{spec!r} names a checkpoint, and {argument('checkpoint', str(checkpoint))} another")
    path = Path(given) if comma else Path(checkpoint) if checkpoint is not None else None
    own, overrides = _split(dict(kwargs or {}))
    built = build_model(codebase, name, path, overrides, weights=own["weights"], trust_pickle=trust_pickle)
    wrapped = wrap(built, own["decode"])
    facts = describe(built, own["decode"])
    return wrapped, example_of(built), facts


def build_model(
    codebase: str,
    name: str,
    checkpoint: Path | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    weights: str = "auto",
    trust_pickle: bool = False,
) -> Built:
    """Read a config, build its model without downloads, and load a checkpoint; random weights are calibrated."""
    from graphforge.frontend.openmmlab.calibration import calibrate
    from graphforge.frontend.openmmlab.checkpoints import load_weights, read_checkpoint, weights_of

    need(codebase)
    file = find_config(codebase, name)
    read = None
    # their code is older than this torch, which nobody who uses it can change
    warnings.filterwarnings("ignore", category=FutureWarning, module=rf"(mmengine|mmcv|{'|'.join(CODEBASES)})\.")
    with _quiet():
        import_codebase(codebase)
        config = read_config(file, overrides)
        if checkpoint is not None:
            read = read_checkpoint(checkpoint, trust_pickle=trust_pickle)
        model = _build(config, file)
        meta = _meta(codebase, config, read)
    notes: list[str] = []
    built = Built(codebase, model, config, file, meta, notes)
    if read is not None and checkpoint is not None:
        state, word = weights_of(read, weights, checkpoint)
        notes += load_weights(model, state, checkpoint)
        if word == "ema" or weights != "auto":
            notes.append(f"the {'averaged (EMA)' if word == 'ema' else 'plain'} weights of {checkpoint}")
        model.eval()
        return built
    if weights != "auto":
        raise UsageError(f"which weights to take ({weights!r}) is a question of a checkpoint, and none is given")
    model.eval()
    calibrate(built)
    notes.append(
        "no checkpoint is given, so the weights are random (seed 0), calibrated so that scores are apart; what comes "
        "out means nothing"
    )
    return built


def _split(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our own choices with their defaults, and overrides of the config."""
    unknown = next((key for key in kwargs if key not in _OWN and "." not in key), None)
    if unknown is not None:
        raise UsageError(
            f"a model of OpenMMLab takes no {unknown!r} in {argument('kwargs')}",
            f"it takes {' and '.join(_OWN)}, and values of the config by dotted key: "
            '{"model.test_cfg.flip_test": false}',
        )
    own = {"decode": kwargs.get("decode") or "full", "weights": kwargs.get("weights") or "auto"}
    for key, known in (("decode", DECODINGS), ("weights", _WEIGHTS)):
        if own[key] not in known:
            raise UsageError(f"{argument(key)}: expected {' or '.join(known)}, got {own[key]!r}")
    return own, {key: value for key, value in kwargs.items() if key not in _OWN}


def import_codebase(codebase: str) -> None:
    """The package with all that registers models, pre-processing steps and datasets."""
    from graphforge.frontend.openmmlab.stubs import leave_out_what_is_too_old, stand_in_for_compiled_operators
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    stand_in_for_compiled_operators()
    try:
        leave_out_what_is_too_old()
        for module in ("models", "datasets"):
            importlib.import_module(f"{codebase}.{module}")
        from mmengine.registry import init_default_scope

        init_default_scope(codebase)
    except GraphForgeError:
        raise
    except ImportError as error:
        missing = getattr(error, "name", None) or str(error)
        raise GraphForgeError(
            f"{codebase} cannot be imported: {str(error).splitlines()[0]}",
            f"it needs {missing!r}",
            way_to_have(codebase, missing.partition(".")[0]),
        ) from None
    except Exception as error:  # a package that does not go with what is installed may raise anything
        raise user_error(f"importing {codebase} failed", error) from error


def _build(config: Any, file: Path) -> torch.nn.Module:
    import torch
    from mmengine.registry import MODELS

    described = _without_downloads(copy.deepcopy(config.model))
    torch.manual_seed(0)
    try:
        model = MODELS.build(described)
    except GraphForgeError:
        raise
    except KeyError as error:
        text = str(error.args[0]) if error.args else str(error)
        other = text.partition(".")[0]
        if other in CODEBASES and importlib.util.find_spec(other) is None:
            raise GraphForgeError(
                f"config {file.name} needs {other}, which is not installed: it names {text.split()[0]}",
                way_to_have(other, other),
            ) from None
        raise GraphForgeError(
            f"building the model of {file.name} failed: {' '.join(text.split())[:300]}",
            "a type that is not registered comes from a package or file that the config imports (custom_imports), or "
            "from another codebase",
        ) from error
    except Exception as error:  # code of the framework and of the user's own modules
        raise user_error(f"building the model of {file.name} failed", error) from error
    if hasattr(model, "init_weights"):
        with hushed():
            model.init_weights()
    return model  # type: ignore[no-any-return]


def _without_downloads(described: Any) -> Any:
    """The model's description with every reference to weights from elsewhere taken out."""
    if isinstance(described, dict):
        for key in list(described):
            value = described[key]
            if key == "pretrained" or (key == "init_cfg" and _is_pretrained(value)):
                described[key] = None
            else:
                _without_downloads(value)
    elif isinstance(described, list | tuple):
        for item in described:
            _without_downloads(item)
    return described


def _is_pretrained(init: Any) -> bool:
    cases = init if isinstance(init, list | tuple) else [init]
    return any(isinstance(case, dict) and case.get("type") == "Pretrained" for case in cases)


def _meta(codebase: str, config: Any, checkpoint: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is known of the dataset: as the checkpoint has it, else as the config's dataset says."""
    from graphforge.frontend.openmmlab.dataset import dataset_meta

    saved = (checkpoint or {}).get("meta")
    saved = saved.get("dataset_meta") if isinstance(saved, Mapping) else None
    return dataset_meta(codebase, config, saved if isinstance(saved, Mapping) else None)


@contextmanager
def _quiet() -> Iterator[None]:
    """mmengine's log and the warnings of older code are not the user's concern."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def versions_of(codebase: str) -> dict[str, str]:
    """The installed versions that a model depends on."""
    return {name: version for name in (codebase, "mmengine", "mmcv") if (version := _any_version(name))}


def _any_version(name: str) -> str:
    return version_of(name) or version_of(f"{name}-lite")
