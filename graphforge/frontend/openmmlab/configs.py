"""A config by the name of a stock one or by its path, read by mmengine's own reader; a typo is told with what is near.

A config is a Python file, and mmengine's reader runs it: it is code of the user's, as ``net.py:build`` is.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.user_code import described, user_error

__all__ = ["find_config", "read_config", "stock_configs"]

_OURS = Path(__file__).with_name("configs")
_ENDINGS = (".py", ".json", ".yaml", ".yml")
_MOST_NAMED = 6


@cache
def stock_configs(package: str) -> dict[str, Path]:
    """Name -> file of every config that a package brings, and of those that GraphForge brings for it."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found: dict[str, Path] = {}
    for folder in [*(Path(place) / ".mim" / "configs" for place in places), _OURS / package]:
        for file in sorted(folder.rglob("*.py")):
            if "_base_" not in file.parts:
                found.setdefault(file.stem, file)
    return found


def find_config(package: str, name: str) -> Path:
    """The file that a config's name or path means.

    Raises:
        GraphForgeError: there is none; names the nearest ones.
    """
    path = Path(name)
    if path.suffix in _ENDINGS and path.is_file():
        return path
    stock = stock_configs(package)
    stem = path.name.removesuffix(".py")
    if stem in stock and (path.suffix in ("", ".py") or stem == path.name):
        return stock[stem]
    raise GraphForgeError(
        f"{package} has no config {name!r}" if len(path.parts) == 1 else f"there is no config file {name!r}",
        _what_is_near(stem, stock) or f"{package} brings {len(stock)} configs",
        "a config is the name of a stock one, or the path of a .py file",
    )


def _what_is_near(stem: str, stock: Mapping[str, Path]) -> str:
    """Configs whose names have all words of this one (``rtmpose-m`` is the beginning of many), else the most alike."""
    words = _words(stem)
    having = sorted(
        (one for one in stock if words <= _words(one) and not one.endswith("_tta")),  # those describe no model
        key=lambda one: (not one.startswith(stem), "coco" not in one, len(one), one),  # most people look for COCO's
    )
    if not words or not having:
        near = difflib.get_close_matches(stem, stock, n=3, cutoff=0.5)
        return f"did you mean {' or '.join(near)}?" if near else ""
    more = len(having) - _MOST_NAMED
    named = ", ".join(having[:_MOST_NAMED])
    if len(having) == 1:
        return f"did you mean {named}?"
    return f"configs with these words in their names: {named}" + (f", and {more} more" if more > 0 else "")


def _words(name: str) -> set[str]:
    return set(re.split(r"[-_.\s]+", name.lower())) - {""}


def read_config(path: Path, overrides: Mapping[str, Any] | None = None) -> Any:
    """The config with everything that it inherits, and values put in place of its own by dotted key.

    Raises:
        GraphForgeError: it cannot be read.
    """
    from mmengine.config import Config

    try:
        config = Config.fromfile(str(path), import_custom_modules=True)
    except GraphForgeError:
        raise
    except ImportError as error:
        cause: BaseException | None = error  # mmengine raises others instead, which name no module
        while cause is not None and not (isinstance(cause, ImportError) and cause.name):
            cause = cause.__cause__ or cause.__context__
        if not isinstance(cause, ImportError):
            raise user_error(f"reading config {str(path)!r} failed", error) from error
        missing = str(cause.name).partition(".")[0]
        raise GraphForgeError(
            f"config {str(path)!r} imports {missing!r}, which is not installed: {described(cause)}",
            f"install it beside GraphForge, or put its folder on the path: PYTHONPATH=FOLDER_OF_{missing}",
        ) from error
    except Exception as error:  # a config is code of the user's
        raise user_error(f"reading config {str(path)!r} failed", error) from error
    if overrides:
        config.merge_from_dict(dict(overrides))
    if not isinstance(config.get("model"), dict):
        raise GraphForgeError(f"config {str(path)!r} describes no model", "it has no key 'model'")
    return config


def pipeline_of(config: Any) -> list[Any]:
    """The steps of pre-processing that the config tests with; empty where it names none."""
    for loader in ("test_dataloader", "val_dataloader"):
        dataset = (config.get(loader) or {}).get("dataset")
        while isinstance(dataset, dict):
            if dataset.get("pipeline"):
                return list(dataset["pipeline"])
            inner = dataset.get("dataset") or dataset.get("datasets")
            dataset = inner[0] if isinstance(inner, list) and inner else inner
    return list(config.get("test_pipeline") or config.get("val_pipeline") or ())


def step_of(pipeline: list[Any], name: str) -> Any:
    """The first step of this type, whatever scope its name has; None where there is none."""
    return next((step for step in pipeline if str(step.get("type", "")).rpartition(".")[2] == name), None)
