"""Models that return a list with an entry for each image of a batch whose size varies.

What Python does image by image (a threshold, a suppression, a dict of results) is captured for one image alone; the
pass `loop-over-images` runs that over the batch.  This is right where no image knows of the others, which is tried
here: the model on a batch, and on each of its images alone; and on an image among others that are like nothing seen,
or the same once more, which shows what images know of each other only now and then (the brightest of a batch).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch.utils import _pytree

from graphforge.call import LEFT_OUT, CallInputs, name_of_path, output_names, output_paths
from graphforge.frontend.selections import agree, result_of
from graphforge.ir.images import Images, OfImages
from graphforge.spec import DimRange, ShapeSpec, TensorSpec

__all__ = ["images_of", "one_image"]

# Batches that are tried.
_SIZES = 2
# The largest that is tried, for one image of it.
_LARGEST = 16
# How bright the others are beside an image that is to give the same.
_BRIGHT = 1000.0

_Path: TypeAlias = tuple[str, ...]
# Where in a path the number of the image stands; None for a tensor of all images.
_Place: TypeAlias = "int | None"


def images_of(
    model: torch.nn.Module, inputs: CallInputs, shapes: ShapeSpec, resized: Callable[[Mapping[str, int]], CallInputs]
) -> Images | None:
    """The dim of images, where the model returns a list with an entry for each and they do not know of each other.

    Args:
        model: what is captured.
        inputs: the example call.
        shapes: its dynamic dims.
        resized: the call at other sizes.
    """
    for name, dim in shapes.dims.items():
        rows = tuple(one.name for one in shapes.inputs if name in _names(one.dims))
        leading = all(axis == 0 for one in shapes.inputs for axis, of in one.dims.items() if of.name == name)
        sizes = [size for size in dim.sizes(limit=_SIZES + 2) if size > 1][:_SIZES]
        if not leading or not sizes:
            continue
        batches = [resized({name: size}) for size in sizes]
        found = [_apart(model, one, rows) for one in (*batches, _unlike(batches[0], rows))]
        if found[0] is None or any(one != found[0] for one in found):
            continue
        largest = dim.nearest(_LARGEST)
        tried = list(_beside_others(batches[-1], rows))
        if largest > sizes[-1]:  # what only many images have together
            tried.append((resized({name: largest}), largest - 1))
        if all(_unmoved(model, one, rows, image) for one, image in tried):
            promised = range(-(-dim.low // dim.step) * dim.step, dim.high + 1, dim.step)
            return Images(name, promised, rows, found[0])
    return None


def _names(dims: Mapping[int, DimRange]) -> set[str]:
    return {dim.name for dim in dims.values()}


def _unlike(batch: CallInputs, rows: tuple[str, ...]) -> CallInputs:
    """Images of which each is wider and brighter than the one before: what they have in common shows."""

    def scaled(one: torch.Tensor) -> torch.Tensor:
        number = torch.arange(len(one)).reshape(-1, *[1] * (one.dim() - 1)).to(one.dtype)
        return one * (1 + number) + 4 * number if one.is_floating_point() else one

    return batch.replaced({name: scaled(batch.tensors[name]) for name in rows})


def _beside_others(batch: CallInputs, rows: tuple[str, ...]) -> Iterator[tuple[CallInputs, int]]:
    """Batches in which all images but one are very bright, very dark, black, or the same as that one."""
    last = len(batch.tensors[rows[0]]) - 1

    def put(others: Callable[[torch.Tensor], torch.Tensor], image: int) -> CallInputs:
        def among(one: torch.Tensor) -> torch.Tensor:
            made = others(one)
            made[image] = one[image]
            return made

        return batch.replaced({name: among(batch.tensors[name]) for name in rows})

    def scaled(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda one: one * factor + factor if one.is_floating_point() else one.clone()

    yield put(scaled(_BRIGHT), last), last
    yield put(scaled(-_BRIGHT), 0), 0
    yield put(lambda one: torch.zeros_like(one) if one.is_floating_point() else one.clone(), last), last
    yield put(lambda one: one[last:].expand_as(one).clone(), last), last


def _unmoved(model: torch.nn.Module, inputs: CallInputs, rows: tuple[str, ...], image: int) -> bool:
    """Whether an image gives among the others what it gives alone; also where the model rejects the others."""
    together = _leaves(result_of(model, inputs, inputs.tensors))
    if not together:
        return True
    alone = _at(inputs, rows, image)
    count = len(inputs.tensors[rows[0]])
    for path, leaf in _leaves(result_of(model, alone, alone.tensors)).items():
        place = _place(path, leaf, together, count)
        other = together.get(path if place is None else (*path[:place], str(image), *path[place + 1 :]))
        if place is None and isinstance(other, torch.Tensor):
            other = other[image : image + 1]
        if not agree([leaf], [other]):
            return False
    return True


def _apart(model: torch.nn.Module, inputs: CallInputs, rows: tuple[str, ...]) -> dict[str, OfImages] | None:
    """The results by name, where each image gives alone what it gives among the others and some stand in lists."""
    count = inputs.tensors[rows[0]].shape[0]
    together = _leaves(result_of(model, inputs, inputs.tensors))
    places: dict[_Path, _Place] = {}
    result: Any = None
    for image in range(count):
        alone = _at(inputs, rows, image)
        result = result_of(model, alone, alone.tensors)
        leaves = _leaves(result)
        if image == 0:
            places = {path: _place(path, leaf, together, count) for path, leaf in leaves.items()}
            taken = [one for path, place in places.items() for one in _paths_of(path, place, count)]
            listed = any(place is not None for place in places.values())
            if not listed or sorted(taken) != sorted(together):
                return None
        if leaves.keys() != places.keys():
            return None
        for path, leaf in leaves.items():
            place = places[path]
            other = together[path if place is None else (*path[:place], str(image), *path[place + 1 :])]
            if place is None and (not isinstance(other, torch.Tensor) or other.shape[:1] != (count,)):
                return None
            if not agree([leaf], [other[image : image + 1] if place is None else other]):
                return None
    return _named(result, places)


def _leaves(result: Any) -> dict[_Path, Any]:
    """What a model returned, by path, without what no artifact returns."""
    leaves, spec = _pytree.tree_flatten(result)
    return {
        path: leaf
        for path, leaf in zip(output_paths(spec), leaves, strict=True)
        if leaf is not None and not isinstance(leaf, LEFT_OUT)
    }


def _place(path: _Path, leaf: Any, together: Mapping[_Path, Any], count: int) -> _Place:
    """Where the number of the image stands in a path of what one image gives."""
    for place, part in enumerate(path):
        if part == "0" and all(one in together for one in _paths_of(path, place, count)):
            return place
    return None


def _paths_of(path: _Path, place: _Place, count: int) -> list[_Path]:
    if place is None:
        return [path]
    return [(*path[:place], str(image), *path[place + 1 :]) for image in range(count)]


def _named(result: Any, places: Mapping[_Path, _Place]) -> dict[str, OfImages]:
    spec = _pytree.tree_structure(result)
    named: dict[str, OfImages] = {}
    for name, path in zip(output_names(spec), output_paths(spec), strict=True):
        if path not in places:
            continue
        place = places[path]
        if place is None:
            named[name] = OfImages(name, "")
        else:
            rest = (*path[:place], *path[place + 1 :])
            named[name] = OfImages(name_of_path(rest), name_of_path((*path[:place], "*", *path[place + 1 :])))
    return named


def _at(inputs: CallInputs, rows: tuple[str, ...], image: int) -> CallInputs:
    return inputs.replaced({name: inputs.tensors[name][image : image + 1].clone() for name in rows})


def one_image(inputs: CallInputs, shapes: ShapeSpec, images: Images) -> tuple[CallInputs, ShapeSpec]:
    """The call with its first image alone, and its dims without that of the images."""

    def alone(one: TensorSpec) -> TensorSpec:
        if one.name not in images.inputs:
            return one
        dims = {axis: dim for axis, dim in one.dims.items() if dim.name != images.dim}
        return TensorSpec(one.name, (1, *one.shape[1:]), one.dtype, dims, one.values)

    return _at(inputs, images.inputs, 0), ShapeSpec(tuple(map(alone, shapes.inputs)))
