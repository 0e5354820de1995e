"""What a model was trained to find: names of classes and keypoints, how keypoints hang together, and colours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from graphforge.errors import GraphForgeError
from graphforge.schema import COUNT, NUMBER, TEXT, Description, Record, Several, one_of

__all__ = ["Dataset", "dataset_of"]

_COLOUR = one_of(
    "[red, green, blue], each 0 to 255",
    lambda data: (
        isinstance(data, list) and len(data) == 3 and all(type(one) is int and 0 <= one <= 255 for one in data)
    ),
)
_LINK = one_of(
    "two numbers of keypoints",
    lambda data: isinstance(data, list) and len(data) == 2 and not any(COUNT.fault(one, "") for one in data),
)
_DESCRIBED: Mapping[str, Description] = {
    "name": TEXT,
    "classes": Several(TEXT),
    "keypoints": Several(TEXT),
    "skeleton": Several(_LINK),
    "class_colours": Several(_COLOUR),
    "keypoint_colours": Several(_COLOUR),
    "link_colours": Several(_COLOUR),
    "sigmas": Several(NUMBER),
}
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a manifest's ``dataset`` says; what is empty is not known.

    Attributes:
        name: what people call it, ``coco``.
        classes: names of the labels, beginning with label 0.
        keypoints: names of the keypoints, in their order.
        skeleton: pairs of keypoints that a line joins.
        class_colours: red, green and blue of each class, 0 to 255.
        keypoint_colours: of each keypoint.
        link_colours: of each line of the skeleton.
        sigmas: how far apart people are who mark each keypoint, as a share of the object's size (OKS).
    """

    name: str = ""
    classes: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    class_colours: tuple[Colour, ...] = ()
    keypoint_colours: tuple[Colour, ...] = ()
    link_colours: tuple[Colour, ...] = ()
    sigmas: tuple[float, ...] = ()

    @classmethod
    def of(cls, data: Any, where: str = "dataset") -> Self:
        """From plain data.

        Raises:
            GraphForgeError: a key is not known, or not what it should be.
        """
        strange = [key for key in data if key not in _DESCRIBED] if isinstance(data, dict) else []
        if strange:
            near = difflib.get_close_matches(strange[0], _DESCRIBED, 1, 0.5)
            raise GraphForgeError(
                f"{where}: unknown key {strange[0]!r}",
                f"did you mean {near[0]!r}?" if near else "",
                f"the keys are: {', '.join(_DESCRIBED)}",
            )
        bad = Record({}, _DESCRIBED).fault(data, where)
        if bad:
            raise GraphForgeError(bad)
        found = cls(**{key: _frozen(value) for key, value in data.items()})
        count = len(found.keypoints)
        if found.skeleton and max(max(link) for link in found.skeleton) >= count:
            raise GraphForgeError(f"{where}: skeleton joins a keypoint that is not among the {count} keypoints")
        for key, expected in (("keypoint_colours", count), ("link_colours", len(found.skeleton)), ("sigmas", count)):
            given = len(getattr(found, key))
            if given not in (0, expected):
                raise GraphForgeError(f"{where}: {key} has {given} entries, expected {expected}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data, what is empty left out."""
        return {one.name: _plain(value) for one in fields(self) if (value := getattr(self, one.name))}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def dataset_of(manifest: Mapping[str, Any]) -> Dataset:
    """What a bundle's manifest says, an empty one where it says nothing."""
    return Dataset.of(manifest.get("dataset", {}))
