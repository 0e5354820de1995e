"""What a bundle says of a model of OpenMMLab: where it came from, its dataset, how pictures become its input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, argument
from graphforge.frontend.openmmlab.dataset import dataset_facts
from graphforge.frontend.openmmlab.preprocess import Unknown, steps_of_config

if TYPE_CHECKING:
    from graphforge.frontend.openmmlab.load import Built

__all__ = ["describe"]


def describe(built: Built, decode: str) -> dict[str, Any]:
    """Facts for the manifest, by its keys, and notes for the user under ``notes``."""
    from graphforge.frontend.openmmlab.load import versions_of

    notes = list(built.notes)
    facts: dict[str, Any] = {}
    try:
        facts["preprocess"] = steps_of_config(built.config)
    except Unknown as unknown:
        notes.append(
            f"how a picture becomes the model's input is not in the bundle: {unknown}; give the steps yourself: "
            f"{argument('preprocess', 'FILE.toml')}"
        )
    dataset = dataset_facts(built.meta)
    if dataset:
        facts["dataset"] = dataset
    flip = built.meta.get("flip_indices")
    return {
        **facts,
        "openmmlab": {
            "codebase": built.codebase,
            "config": built.file.name,
            "decode": decode,
            "input_size": _input_size(built),
            "model": type(built.model).__name__,
            "versions": versions_of(built.codebase),
            "codec": _plain(built.config.get("codec")),
            "test_cfg": _plain(built.config.model.get("test_cfg")),
            **({"flip_indices": [int(index) for index in flip]} if flip else {}),
        },
        "notes": notes,
    }


def _input_size(built: Built) -> list[int] | None:
    """Width and height that the config tests with."""
    from graphforge.frontend.openmmlab.wrapped import input_size

    try:
        height, width = input_size(built)
    except GraphForgeError:
        return None
    return [width, height]


def _plain(value: Any) -> Any:
    """A part of a config as JSON can say it; what it cannot say, by its text."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
