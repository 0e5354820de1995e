"""A deploy config from a file or by the name of a preset.

    base = ["onnx"]                       # presets or files, read first; what follows goes before them
    [compile]
    target = "tensorrt"
    precision = "fp16"
    [compile.options]
    optimization_level = 3
    [inputs.input]
    shape = [1, 3, 256, 192]
    max = [8, 3, 256, 192]
    [config]
    "model.test_cfg.score_thr" = 0.05

A file that ends in ``.py`` is MMDeploy's, see `mmdeploy.py`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphforge.deploying.config import DeployConfig, InputRange
from graphforge.doors import text_of
from graphforge.errors import GraphForgeError
from graphforge.schema import ANYTHING, TEXT, Description, Named, Record, Several, one_of

__all__ = ["preset_names", "preset_text", "read_deploy_config"]

_PRESETS = Path(__file__).with_name("presets")
_DEEPEST = 20

_SIZES = Several(one_of("a size above 0", lambda data: type(data) is int and 0 < data < 1 << 31))
_WHOLE = one_of("a whole number", lambda data: type(data) is int)
_VALUE = one_of("a text, number or truth value", lambda data: isinstance(data, str | int | float | bool))
_COMPILE: Mapping[str, Description] = {
    "target": TEXT,
    "opset": _WHOLE,
    "precision": TEXT,
    "outputs": TEXT,
    "nms": TEXT,
    "decode": TEXT,
    "options": Named(_VALUE),
}
_INPUT: Mapping[str, Description] = {"shape": _SIZES, "min": _SIZES, "max": _SIZES, "step": _SIZES, "dtype": TEXT}
_FILE: Mapping[str, Description] = {
    "about": TEXT,
    "base": Several(TEXT),
    "compile": Record({}, _COMPILE),
    "inputs": Named(Record({}, _INPUT)),
    "config": Named(ANYTHING),
}


def preset_names() -> dict[str, str]:
    """Name -> what it is for, of every preset; those that others build on have a name that begins with ``_``."""
    found = {}
    for file in sorted(_PRESETS.glob("*.toml")):
        if not file.stem.startswith("_"):
            found[file.stem] = str(tomllib.loads(file.read_text(encoding="utf-8")).get("about", ""))
    return found


def preset_text(name: str) -> str:
    """The preset as it is written, to be copied and changed.

    Raises:
        GraphForgeError: there is none of that name.
    """
    return _preset(name).read_text(encoding="utf-8")


def read_deploy_config(source: str, codebase: str = "") -> DeployConfig:
    """Read a deploy config.

    Args:
        source: a TOML file, a ``.py`` file of MMDeploy's, or the name of a preset.
        codebase: the package of the model, ``mmpose``; it says where MMDeploy's thresholds belong.

    Raises:
        GraphForgeError: it cannot be read, or asks for what cannot be had.
    """
    if source.endswith(".py"):
        from graphforge.deploying.mmdeploy import read_mmdeploy

        return read_mmdeploy(Path(source), codebase)
    merged = _merged(source, Path.cwd(), ())
    asked = merged.get("compile", {})
    return DeployConfig(
        source=source,
        about=str(merged.get("about", "")),
        options={name: _text(value) for name, value in asked.get("options", {}).items()},
        inputs={name: _input(name, one, source) for name, one in merged.get("inputs", {}).items()},
        overrides=dict(merged.get("config", {})),
        **{name: asked[name] for name in _COMPILE if name in asked and name != "options"},
    )


def _merged(source: str, beside: Path, above: tuple[str, ...]) -> dict[str, Any]:
    """The tables of a file on top of those of its bases."""
    path = beside / source
    if path.suffix != ".toml" or not path.is_file():
        path = _preset(source)
    if str(path) in above or len(above) > _DEEPEST:
        raise GraphForgeError(f"deploy config {source!r} builds on itself: {' -> '.join((*above, str(path)))}")
    try:
        data = tomllib.loads(text_of(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GraphForgeError(f"deploy config {str(path)!r} is not TOML: {error}") from None
    except OSError as error:
        raise GraphForgeError(f"deploy config {str(path)!r} cannot be read: {error.strerror or error}") from None
    _check(data, path)
    merged: dict[str, Any] = {}
    for base in data.pop("base", []):
        merged = _over(merged, _merged(base, path.parent, (*above, str(path))))
    return _over(merged, data)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _check(data: Mapping[str, Any], path: Path) -> None:
    inputs = data.get("inputs", {})
    tables: list[tuple[str, Any, Mapping[str, Any]]] = [("", data, _FILE), ("compile", data.get("compile"), _COMPILE)]
    tables += [(f"inputs.{name}", one, _INPUT) for name, one in inputs.items()] if isinstance(inputs, dict) else []
    for place, table, known in tables:
        strange = next((key for key in table if key not in known), None) if isinstance(table, dict) else None
        if strange is not None:
            near = difflib.get_close_matches(strange, known, 1, 0.5)
            raise GraphForgeError(
                f"deploy config {str(path)!r}: unknown key {f'{place}.{strange}'.lstrip('.')!r}",
                f"did you mean {near[0]!r}?" if near else "",
                f"the keys are: {', '.join(known)}",
            )
    bad = Record({}, _FILE).fault(data, "")
    if bad:
        raise GraphForgeError(f"deploy config {str(path)!r}: {bad}")


def _input(name: str, given: Mapping[str, Any], source: str) -> InputRange:
    if "shape" not in given:
        raise GraphForgeError(f"deploy config {source!r}: inputs.{name} has no shape", "write shape = [1, 3, 256, 192]")
    sizes = {mine: tuple(given[theirs]) for theirs, mine in _SIDES.items() if theirs in given}
    found = InputRange(dtype=given.get("dtype", "float32"), **sizes)
    found.dims(name)  # what cannot be is told here
    return found


_SIDES = {"shape": "shape", "min": "low", "max": "high", "step": "step"}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _preset(name: str) -> Path:
    path = _PRESETS / f"{name.removesuffix('.toml')}.toml"
    if path.parent != _PRESETS or not path.is_file():
        near = difflib.get_close_matches(name, preset_names(), 2, 0.4)
        raise GraphForgeError(
            f"there is no deploy config {name!r}",
            f"did you mean {' or '.join(near)}?" if near else "",
            "it is a .toml file, a .py file of MMDeploy's, or a preset; `graphforge presets` lists these",
        )
    return path
