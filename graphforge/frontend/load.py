"""Model specs: what a user writes on the command line, made a model; cheap mistakes are found before torch loads."""

from __future__ import annotations

import difflib
import importlib
import json
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.doors import inside
from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.frontend.openmmlab.codebases import codebase_of
from graphforge.frontend.torchvision_fix import watch_torchvision
from graphforge.hushed import hushed
from graphforge.user_code import place_of, user_error
from graphforge.user_files import load_file

if TYPE_CHECKING:
    import torch

__all__ = ["LoadedModel", "load_checkpoint", "load_model", "parse_kwargs"]

_FORMS = (
    "package.module:callable, path/file.py:callable, file.pt2, file.pt (TorchScript), file.onnx, "
    "a bundle, torchvision:NAME, timm:NAME, mmpose:CONFIG[,CHECKPOINT] or mmdet:CONFIG[,CHECKPOINT]"
)


@dataclass(slots=True)
class LoadedModel:
    """A model and where it came from.

    Attributes:
        spec: the text it was loaded from.
        module: the PyTorch module; None for an ONNX file or an exported program.
        program: an ExportedProgram read from a .pt2 file.
        onnx_path: an ONNX file.
        example: (args, kwargs) that came with the model, when its factory returned them.
        record: what the manifest keeps, enough to load the model again.
        facts: more for the manifest, by its keys: the dataset, pre-processing.
        notes: what the user should know of how it was loaded.
    """

    spec: str
    module: torch.nn.Module | None = None
    program: torch.export.ExportedProgram | None = None
    onnx_path: Path | None = None
    example: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def parse_kwargs(text: str | None) -> dict[str, Any]:
    """Read arguments of a callable written as JSON: ``{"num_classes": 10}``.

    Raises:
        UsageError: not a JSON object.
    """
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except RecursionError:
        raise UsageError(f"{argument('kwargs')} is nested too deeply") from None
    except ValueError as error:  # not JSON, or a number of more digits than Python reads
        raise UsageError(f"{argument('kwargs')} is not JSON: {error}", 'write it like {"num_classes": 10}') from None
    if not isinstance(parsed, dict):
        raise UsageError(f"{argument('kwargs')} must be a JSON object, got {type(parsed).__name__}")
    return parsed


def load_model(
    spec: str,
    *,
    checkpoint: str | Path | None = None,
    kwargs: Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
    decode: str | None = None,
) -> LoadedModel:
    """Load what a model spec names.

    Args:
        spec: one of the forms of the command line's MODEL.
        checkpoint: weights to load into the module (.pth, .pt or .safetensors).
        kwargs: passed to the callable, torchvision or timm; for a model of OpenMMLab, values of its config by dotted
            key, and ``weights``: ``ema`` or ``plain``.
        trust_pickle: allow a checkpoint, .pt2 or TorchScript file that can run code when it is read.
        decode: for a model of OpenMMLab: ``full``, what the framework's ``predict`` returns (the default), ``none``,
            what its head returns, or ``sdk``, what MMDeploy's SDK takes.

    Raises:
        GraphForgeError: the spec, the file, the user's code or the checkpoint is at fault; says which and why.
    """
    watch_torchvision()
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise GraphForgeError(
            f"checkpoint {str(checkpoint)!r} does not exist", "give the path of a .pth or .safetensors file"
        )
    brings_weights = bool(codebase_of(spec))
    if decode is not None and not brings_weights:
        raise UsageError(
            f"{argument('decode', decode)} is about models of OpenMMLab, and {spec!r} is none",
            "they are given as mmpose:CONFIG[,CHECKPOINT] or mmdet:CONFIG[,CHECKPOINT]",
        )
    if brings_weights:
        kwargs = {**(kwargs or {}), "decode": decode}
        loaded = _from_openmmlab(spec, checkpoint, dict(kwargs), trust_pickle)
    else:
        loaded = _resolve(spec, dict(kwargs or {}), trust_pickle)
    loaded.record = {
        "spec": spec,
        "kwargs": dict(kwargs or {}),
        "checkpoint": str(checkpoint) if checkpoint is not None else None,
    }
    if checkpoint is not None and not brings_weights:
        if loaded.module is None:
            raise UsageError(
                f"{argument('checkpoint')} needs a PyTorch module, but {spec!r} already carries its weights"
            )
        load_checkpoint(loaded.module, Path(checkpoint), trust_pickle=trust_pickle)
    return loaded


def _resolve(spec: str, kwargs: dict[str, Any], trust_pickle: bool) -> LoadedModel:
    if Path(spec).is_dir() and inside(Path(spec), "manifest.json").is_file():
        return _from_file(str(_model_of_bundle(Path(spec))), ".onnx", kwargs, trust_pickle)
    suffix = Path(spec).suffix.lower()
    if suffix in (".onnx", ".pt2", ".pt", ".pth", ".ts") and ".py:" not in spec:
        return _from_file(spec, suffix, kwargs, trust_pickle)
    head, colon, name = spec.rpartition(":")
    if not colon or not head or not name:
        raise GraphForgeError(f"cannot read model {spec!r}", _nearly(Path(spec)), f"a model is one of: {_FORMS}")
    if head == "torchvision":
        return _from_torchvision(spec, name, kwargs)
    if head == "timm":
        return _from_timm(spec, name, kwargs)
    if head.endswith(".py"):
        return _from_callable(spec, _import_file(Path(head)), name, kwargs)
    return _from_callable(spec, _import_module(head), name, kwargs)


# What targets write, and nothing reads back.
_OF_VENDORS = {
    ".xml": "OpenVINO",
    ".bin": "OpenVINO",
    ".plan": "TensorRT",
    ".engine": "TensorRT",
    ".magicmind": "MagicMind",
}


def _nearly(path: Path) -> str:
    """What is missing where a model's text is the path of something that holds one; "" for all else."""
    if path.suffix == ".py" and path.is_file():
        return f"name what builds the model in it, for example {path}:build"
    vendor = _OF_VENDORS.get(path.suffix.lower())
    if vendor is not None and path.is_file():
        beside = path.parent / "model.onnx"
        source = f"give {beside}, which lies beside it" if beside.is_file() else "give the model that it was made of"
        return f"it is a file of {vendor}, which only that runs: {source}"
    return ""


def _model_of_bundle(folder: Path) -> Path:
    """The ONNX file of a bundle: a bundle is a model like any other file."""
    files = sorted(folder.glob("*.onnx"), key=lambda file: (file.name != "model.onnx", file.name))
    if not files:
        raise GraphForgeError(f"bundle {str(folder)!r} contains no ONNX file, so it cannot be read as a model")
    return inside(folder, files[0].name)


def _from_file(spec: str, suffix: str, kwargs: Mapping[str, Any], trust_pickle: bool) -> LoadedModel:
    path = Path(spec)
    if not path.is_file():
        raise GraphForgeError(f"model file {spec!r} does not exist", f"a model is one of: {_FORMS}")
    if kwargs:
        raise UsageError(f"{argument('kwargs')} needs a model that is called, not a file")
    if suffix == ".onnx":
        return LoadedModel(spec, onnx_path=path)
    import torch

    from graphforge.frontend.archives import check_exported_program, check_torchscript

    if suffix == ".pt2":
        if not trust_pickle:
            check_exported_program(path)
        try:
            with hushed():
                program = torch.export.load(path)
        except Exception as error:  # zip, JSON and torch errors of many types: the file is not a program of this torch
            raise GraphForgeError(
                f"{spec!r} is not an exported program that torch {torch.__version__} can read: {_first_line(error)}",
                "save it again with torch.export.save",
            ) from None
        return LoadedModel(spec, program=program)
    if not trust_pickle:
        check_torchscript(path)
    try:
        module = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # RuntimeError and friends from the TorchScript reader
        saved = _is_saved_by_torch(path)
        reason = _first_line(error).partition(" This is an internal miniz error")[
            0
        ]  # what follows is for torch's makers
        raise GraphForgeError(
            f"{spec!r} is not a TorchScript file" + (", but what torch.save wrote" if saved else f": {reason}"),
            "torch.save(model) keeps no code that could be captured: name the code that builds the module"
            if saved
            else "",
            f"a file of weights goes with the code that builds the module: {argument('checkpoint', 'FILE')}",
        ) from None
    return LoadedModel(spec, module=module)


def _is_saved_by_torch(path: Path) -> bool:
    """Whether it is an archive of pickled objects, as torch.save writes it, which a script is not."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            endings = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    return "data.pkl" in endings and "constants.pkl" not in endings


def _from_torchvision(spec: str, name: str, kwargs: dict[str, Any]) -> LoadedModel:
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    import torchvision

    known = torchvision.models.list_models()
    if name not in known:
        raise GraphForgeError(f"torchvision has no model {name!r}", _nearest(name, known))
    kwargs.setdefault("weights", None)
    builder = torchvision.models.get_model_builder(name)
    if "weights_backbone" in _parameters(builder):
        kwargs.setdefault("weights_backbone", None)
    if name in ("googlenet", "inception_v3"):
        kwargs.setdefault("init_weights", False)
    return LoadedModel(spec, module=_call(spec, builder, kwargs))


def _from_timm(spec: str, name: str, kwargs: dict[str, Any]) -> LoadedModel:
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    try:
        ensure_torchvision()
        timm = importlib.import_module("timm")
    except ImportError:
        raise GraphForgeError("timm is not installed", "pip install timm") from None
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise GraphForgeError(f"timm has no model {name!r}", _nearest(name, known))
    kwargs.setdefault("pretrained", False)
    return LoadedModel(spec, module=_call(spec, lambda **k: timm.create_model(name, **k), kwargs))


def _from_openmmlab(
    spec: str, checkpoint: str | Path | None, kwargs: dict[str, Any], trust_pickle: bool
) -> LoadedModel:
    from graphforge.frontend.openmmlab import load_openmmlab

    module, example, facts = load_openmmlab(spec, checkpoint=checkpoint, kwargs=kwargs, trust_pickle=trust_pickle)
    notes = facts.pop("notes")
    return LoadedModel(spec, module=module, example=example, facts=facts, notes=notes)


def _parameters(function: Any) -> list[str]:
    import inspect

    return list(inspect.signature(function).parameters)


def _nearest(name: str, known: list[str], kind: str = "models") -> str:
    close = difflib.get_close_matches(name, known, n=4)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"it has {', '.join(known)}" if 0 < len(known) <= 12 else f"it has {len(known)} {kind}"


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise GraphForgeError(f"file {str(path)!r} does not exist", f"a model is one of: {_FORMS}")
    from graphforge.frontend.substitution import SUBSTITUTIONS
    from graphforge.ops.custom_op import CUSTOM_OPS

    with SUBSTITUTIONS.for_the_process(), CUSTOM_OPS.for_the_process():
        return load_file(path, failed=f"importing {str(path)!r} failed", fresh=True)


def _import_module(name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise GraphForgeError(f"there is no module {error.name!r}", f"a model is one of: {_FORMS}") from None
        raise user_error(f"importing {name!r} failed", error) from error
    except GraphForgeError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise user_error(f"importing {name!r} failed", error) from error
    finally:
        sys.path.remove(str(Path.cwd()))


def _from_callable(spec: str, module: Any, name: str, kwargs: dict[str, Any]) -> LoadedModel:
    import torch

    target: Any = module
    for part in name.split("."):
        if not hasattr(target, part):
            public = [item for item in dir(target) if not item.startswith("_")]
            raise GraphForgeError(f"{spec!r}: no {part!r} there", _nearest(part, public, "names"))
        target = getattr(target, part)
    built = target if isinstance(target, torch.nn.Module) else _call(spec, target, kwargs)
    example = None
    if isinstance(built, tuple) and len(built) == 2 and isinstance(built[0], torch.nn.Module):
        built, given = built
        if isinstance(given, dict):
            example = ((), given)
        else:
            example = (tuple(given) if isinstance(given, tuple | list) else (given,), {})
    if not isinstance(built, torch.nn.Module):
        raise GraphForgeError(
            f"{spec!r} gave {'nothing' if built is None else f'a {type(built).__name__}'}, "
            "expected an nn.Module or (nn.Module, inputs)",
            "end it with a return of the model" if built is None else "",
        )
    return LoadedModel(spec, module=built, example=example)


def _call(spec: str, function: Any, kwargs: Mapping[str, Any]) -> Any:
    if not callable(function):
        raise GraphForgeError(f"{spec!r} is a {type(function).__name__}, expected something to call")
    try:
        return function(**kwargs)
    except GraphForgeError:
        raise
    except Exception as error:  # the user's code may raise anything
        takes = f"it takes ({', '.join(_parameters(function))}), {argument('kwargs')} gave ({', '.join(kwargs)})"
        raise user_error(f"building {spec!r} failed", error, "" if place_of(error) else takes) from error


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def load_checkpoint(module: torch.nn.Module, path: Path, *, trust_pickle: bool = False) -> None:
    """Load weights into a module, strictly.

    Raises:
        GraphForgeError: the file cannot be read safely, or its keys or shapes do not match.
    """
    import torch

    from graphforge.frontend.archives import is_torch_file

    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=not trust_pickle, mmap=_is_zip(path) or None)
        except Exception as error:  # zip, pickle and torch errors of many types
            if path.is_file() and not is_torch_file(path):
                raise GraphForgeError(
                    f"checkpoint {str(path)!r} is not a file that torch.save wrote",
                    "give the path of a .pth file, or of a .safetensors file",
                ) from None
            if "weights_only" in str(error) or "Unsupported" in str(error):
                raise GraphForgeError(
                    f"checkpoint {str(path)!r} holds more than tensors and would run code when read",
                    f"if you trust where it came from: {argument('trust_pickle', True)}",
                ) from None
            raise GraphForgeError(
                f"checkpoint {str(path)!r} cannot be read: {_first_line(error)}",
                "expected a file that torch.save wrote, or .safetensors",
            ) from None
    state = _state_dict(state, path)
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    if missing and not set(state) & set(wanted):
        for prefix in ("module.", "model."):
            stripped = {key.removeprefix(prefix): value for key, value in state.items()}
            if not any(key not in stripped for key in wanted):
                state, missing, unexpected = stripped, [], [key for key in stripped if key not in wanted]
    if missing or unexpected:
        raise GraphForgeError(
            f"checkpoint {str(path)!r} does not fit: {len(missing)} keys missing, {len(unexpected)} unexpected",
            f"missing: {', '.join(missing[:4])}" if missing else "",
            f"unexpected: {', '.join(unexpected[:4])}" if unexpected else "",
        )
    wrong = [key for key in wanted if tuple(state[key].shape) != tuple(wanted[key].shape)]
    if wrong:
        key = wrong[0]
        raise GraphForgeError(
            f"checkpoint {str(path)!r}: {key!r} has shape {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}",
            f"{len(wrong)} keys differ in shape",
        )
    module.load_state_dict(state, assign=False)


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise GraphForgeError("reading .safetensors needs the safetensors package", "pip install safetensors") from None
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own error types from Rust
        raise GraphForgeError(f"checkpoint {str(path)!r} cannot be read: {_first_line(error)}") from None


def _state_dict(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(loaded, torch.nn.Module):
        loaded = loaded.state_dict()
    for key in ("state_dict", "model_state_dict", "model", "net", "params"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise GraphForgeError(f"checkpoint {str(path)!r} does not contain a state dict of tensors")
    return loaded
