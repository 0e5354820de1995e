"""What a bundle is fed with: pictures made batches of the sizes it takes, and arrays that fit what it promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from graphforge.errors import UsageError, argument
from graphforge.runners.arrays import dtype_name
from graphforge.runners.recorded import spec_of_manifest
from graphforge.runtime.files import Array, arrays_of_file, is_picture, pixels_of, read_picture
from graphforge.runtime.placement import Placement
from graphforge.runtime.preprocess import prepared
from graphforge.runtime.steps import Layout, Step
from graphforge.spec import ShapeSpec, TensorSpec

__all__ = ["Feed", "Page", "Pixels", "feeds_of", "fits", "takes_pictures"]

_FOR_PICTURES = ("float32", "float16", "float64", "uint8")
_SETTINGS = f"{argument('scale')}, {argument('mean')} and {argument('std')}"
_SHAPES = "a picture becomes Nx3xHxW, Nx1xHxW, 3xHxW or 1xHxW"


@dataclass(frozen=True, slots=True)
class Pixels:
    """How a picture's 0..1 become what the model takes: times ``scale``, less ``mean``, over ``std``."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def unchanged(self) -> bool:
        return self.scale == 1 and set(self.mean) == {0.0} and set(self.std) == {1.0}


@dataclass(frozen=True, slots=True)
class Page:
    """One picture of a batch.

    Attributes:
        title: whence it came, or which input it is.
        picture: itself at its own size.
        input_size: width and height as the model sees it.
        placement: where the picture lies in the input.
    """

    title: str
    picture: Image.Image
    input_size: tuple[int, int]
    placement: Placement = field(default_factory=Placement)


@dataclass(frozen=True, slots=True)
class Feed:
    """Arrays for one run.

    Attributes:
        arrays: by input.
        pages: the pictures among them, in the order in which the model sees them.
        images: how many the model sees; those after the pages only fill it up.
        from_files: whether the pages are pictures that the user gave, or arrays looked at as pictures.
    """

    arrays: Mapping[str, np.ndarray]
    pages: tuple[Page, ...]
    images: int
    from_files: bool


def feeds_of(
    manifest: Mapping[str, Any],
    given: Sequence[tuple[str, Path | np.ndarray]],
    pixels: Pixels,
    steps: Sequence[Step] = (),
) -> Iterator[Feed]:
    """The runs it takes: as many pictures as there are, in batches of the size the bundle takes.

    Args:
        manifest: of the bundle.
        given: files and arrays, each with the name of its input, or nothing where that can be told.
        pixels: what becomes of pictures where there are no steps.
        steps: what becomes of pictures.
    """
    spec = spec_of_manifest(manifest)
    pictures = [(name, item) for name, item in given if isinstance(item, Path) and is_picture(item)]
    arrays = _arrays(spec, [(name, item) for name, item in given if not isinstance(item, Path) or not is_picture(item)])
    takers = _takers(spec, pictures, arrays, steps) if pictures else []
    sizes = _check_arrays(spec, arrays, takers)
    if not takers:
        if not pixels.unchanged:
            raise UsageError(f"{_SETTINGS} are for pictures, but arrays are given", "arrays are passed on as they are")
        looked_at = tuple(_pages_of_arrays(arrays))
        yield Feed(arrays, looked_at, len(looked_at), from_files=False)
        return
    if steps and len(takers) == 1:
        yield from _feeds_by_steps(takers[0], [path for _, path in pictures], arrays, sizes, steps)
        return
    each = _batch_for(takers[0], len(pictures), sizes) if len(takers) == 1 else 1
    images = each * len(takers)
    for first in range(0, len(pictures), images):
        group = _in_order(takers, pictures[first : first + images])
        known = dict(sizes)
        fed = dict(arrays)
        pages: list[Page] = []
        for number, tensor in enumerate(takers):
            # where there are too few, the last fills up
            paths = group[number * each : (number + 1) * each] or group[-1:]
            if steps:
                row, page = _by_steps(paths[0], tensor, steps)
                fed[tensor.name], seen = _stacked([row], tensor, each), [page]
            else:
                fed[tensor.name], seen = _pictures_as_tensor(paths, tensor, each, known, pixels)
            pages += seen
        yield Feed(fed, tuple(pages[: len(group)]), images, from_files=True)


def _feeds_by_steps(
    tensor: TensorSpec,
    paths: Sequence[Path],
    arrays: Mapping[str, Array],
    sizes: Mapping[str, int],
    steps: Sequence[Step],
) -> Iterator[Feed]:
    """Runs of as many pictures as the bundle takes, of one size each: another size begins another run."""
    most = _batch_for(tensor, len(paths), sizes)
    rows: list[Array] = []
    pages: list[Page] = []
    for path in paths:
        row, page = _by_steps(path, tensor, steps)
        if rows and (len(rows) == most or rows[-1].shape != row.shape):
            yield _feed_of_rows(rows, pages, tensor, arrays, sizes)
            rows, pages = [], []
        rows.append(row)
        pages.append(page)
    yield _feed_of_rows(rows, pages, tensor, arrays, sizes)


def _feed_of_rows(
    rows: Sequence[Array],
    pages: Sequence[Page],
    tensor: TensorSpec,
    arrays: Mapping[str, Array],
    sizes: Mapping[str, int],
) -> Feed:
    batch = _batch_for(tensor, len(rows), sizes)
    return Feed({**arrays, tensor.name: _stacked(rows, tensor, batch)}, tuple(pages), batch, from_files=True)


def _by_steps(path: Path, tensor: TensorSpec, steps: Sequence[Step]) -> tuple[Array, Page]:
    picture = read_picture(path, grey=False)
    row, placement = prepared(steps, np.asarray(picture))
    if not fits(row, tensor):
        raise UsageError(
            f"picture {str(path)!r} becomes {'x'.join(map(str, row.shape))} {row.dtype}, and input {tensor.name!r} "
            f"takes {_described(tensor)}",
            "the bundle's pre-processing lets its size follow the picture's: resize the picture, or compile the bundle "
            "for a wider range",
        )
    height, width = row.shape[1:] if _rows_axis(steps) == 1 else row.shape[:2]
    return row, Page(str(path), picture, (width, height), placement)


def fits(row: Array, tensor: TensorSpec) -> bool:
    """Whether one picture, prepared, is what an input takes."""
    first = len(tensor.shape) - row.ndim
    if first not in (0, 1) or dtype_name(row) != tensor.dtype:
        return False
    dims = [(tensor.dims.get(first + axis), tensor.shape[first + axis], side) for axis, side in enumerate(row.shape)]
    return all(side == fixed if dim is None else side in dim for dim, fixed, side in dims)


def _rows_axis(steps: Sequence[Step]) -> int:
    """Which axis of one prepared picture counts its rows."""
    return 0 if any(isinstance(step, Layout) and step.order == "nhwc" for step in steps) else 1


def _stacked(rows: Sequence[Array], tensor: TensorSpec, batch: int) -> Array:
    """The rows as one batch, the last of them repeated where there are too few."""
    if len(tensor.shape) == rows[0].ndim:
        return rows[0]
    return np.ascontiguousarray(np.stack([*rows, *[rows[-1]] * (batch - len(rows))]))


def _arrays(spec: ShapeSpec, given: Sequence[tuple[str, Path | np.ndarray]]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    only = spec.inputs[0].name if spec.inputs else "x"
    for name, item in given:
        if isinstance(item, Path):
            if not name and item.suffix.lower() == ".npy" and len(spec.inputs) > 1:
                raise _which_input(item, spec.inputs)
            read = arrays_of_file(name, item, otherwise=only)
        else:
            read = {name or only: item}
        for found, array in read.items():
            if found in arrays:
                example = argument("inputs", {"NAME": "FILE"})
                raise UsageError(f"two files give data for input {found!r}", f"name the input: {example}")
            arrays[found] = array
    return arrays


def _takers(
    spec: ShapeSpec, pictures: Sequence[tuple[str, Path]], arrays: Mapping[str, np.ndarray], steps: Sequence[Step]
) -> list[TensorSpec]:
    """The inputs that take the pictures: one, or several that take one picture each."""
    names = {name: path for name, path in pictures if name}
    if names:
        takers = [_named(spec, name, steps) for name in names]
        if len(takers) > 1:
            _see_that_each_takes_one(takers, pictures)
        return sorted(takers, key=lambda tensor: spec.inputs.index(tensor))
    free = [tensor for tensor in spec.inputs if takes_pictures(tensor, steps) and tensor.name not in arrays]
    fitting = [tensor for tensor in free if len(tensor.shape) == 4] or free
    if not fitting:
        raise UsageError(
            f"no input takes the picture {str(pictures[0][1])!r}", f"{_SHAPES}, and the inputs are: {_listed(spec)}"
        )
    a_list = len(fitting[0].shape) == 3 and len({(tensor.shape, tensor.dtype) for tensor in fitting}) == 1
    if len(fitting) > 1 and not a_list:
        raise _which_input(pictures[0][1], fitting)
    return fitting


def _named(spec: ShapeSpec, name: str, steps: Sequence[Step]) -> TensorSpec:
    tensor = next((tensor for tensor in spec.inputs if tensor.name == name), None)
    if tensor is None:
        raise UsageError(f"the bundle has no input {name!r}", f"its inputs are: {_listed(spec)}")
    if not takes_pictures(tensor, steps):
        raise UsageError(
            f"input {name!r} takes no picture: it is {_described(tensor)}",
            f"{_SHAPES}; pass other data as .npy or .npz",
        )
    return tensor


def _see_that_each_takes_one(takers: Sequence[TensorSpec], pictures: Sequence[tuple[str, Path]]) -> None:
    nameless = [path for name, path in pictures if not name]
    if nameless:
        raise _which_input(nameless[0], takers)
    if len(pictures) > len(takers):
        raise UsageError("where several inputs take pictures, each takes one", "run the bundle once for each set")
    for tensor in takers:
        if len(tensor.shape) == 4 and (tensor.shape[0] if 0 not in tensor.dims else 1) != 1:
            raise UsageError(
                f"input {tensor.name!r} takes {tensor.shape[0]} pictures a run, and other inputs take some too",
                "prepare one of them yourself and pass it as .npy or .npz",
            )


def _in_order(takers: Sequence[TensorSpec], pictures: Sequence[tuple[str, Path]]) -> list[Path]:
    """The pictures in the order of the inputs that they are for."""
    names = [tensor.name for tensor in takers]
    return [path for _, path in sorted(pictures, key=lambda item: names.index(item[0]) if item[0] else 0)]


def _which_input(path: Path, inputs: Sequence[TensorSpec]) -> UsageError:
    example = argument("inputs", {inputs[0].name: str(path)})
    return UsageError(f"which input is {str(path)!r}?", f"say {example}, or another name")


def _listed(spec: ShapeSpec) -> str:
    return "; ".join(f"{tensor.name} {_described(tensor)}" for tensor in spec.inputs)


def takes_pictures(tensor: TensorSpec, steps: Sequence[Step] = ()) -> bool:
    """Whether an input can take a picture, laid out as the steps say."""
    rank = len(tensor.shape)
    if rank not in (3, 4) or tensor.dtype not in _FOR_PICTURES:
        return False
    channels = rank - 3 if _rows_axis(steps) == 1 else rank - 1
    return channels not in tensor.dims and tensor.shape[channels] in (1, 3)


def _described(tensor: TensorSpec) -> str:
    sizes = []
    for axis, size in enumerate(tensor.shape):
        dim = tensor.dims.get(axis)
        step = "" if dim is None or dim.step == 1 else f"/{dim.step}"
        sizes.append(str(size) if dim is None else f"({dim.low}..{dim.high}{step})")
    return f"{'x'.join(sizes) or 'scalar'} {tensor.dtype}"


def _check_arrays(spec: ShapeSpec, arrays: Mapping[str, np.ndarray], takers: Sequence[TensorSpec]) -> dict[str, int]:
    """See that the arrays fit the bundle's inputs; the sizes they give the dynamic dims."""
    by_name = {tensor.name: tensor for tensor in spec.inputs}
    pictured = [tensor.name for tensor in takers]
    twice = [name for name in arrays if name in pictured]
    strange = [name for name in arrays if name not in by_name]
    missing = [name for name in by_name if name not in (*arrays, *pictured)]
    if twice:
        raise UsageError(f"input {twice[0]!r} is given both a picture and an array", "give one of the two")
    if strange or missing:
        what = f"the bundle has no input {strange[0]!r}" if strange else f"no data for input {', '.join(missing)}"
        raise UsageError(what, f"its inputs are: {_listed(spec)}")
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        tensor = by_name[name]
        fits = array.ndim == len(tensor.shape) and dtype_name(array) == tensor.dtype
        for axis, size in enumerate(array.shape if fits else ()):
            dim = tensor.dims.get(axis)
            fits = fits and (size == tensor.shape[axis] if dim is None else size in dim)
            if dim is not None and sizes.setdefault(dim.name, size) != size:
                raise UsageError(
                    f"dynamic dim {dim.name!r} has size {sizes[dim.name]} in one place and {size} in input {name!r}",
                    "dims of one name have one size in a run",
                )
        if not fits:
            came = f"{'x'.join(map(str, array.shape)) or 'scalar'} {dtype_name(array)}"
            raise UsageError(
                f"input {name!r}: expected {_described(tensor)}, got {came}",
                "prepare the data as the model takes it, or compile the bundle for these sizes",
            )
    return sizes


def _batch_for(tensor: TensorSpec, pictures: int, sizes: Mapping[str, int]) -> int:
    """How many rows a run has: what the bundle fixes, or as many as there are pictures, within what it promises."""
    if len(tensor.shape) == 3:
        return 1
    dim = tensor.dims.get(0)
    if dim is None:
        return tensor.shape[0]
    return sizes.get(dim.name) or dim.nearest(pictures)


def _pictures_as_tensor(
    paths: Sequence[Path], tensor: TensorSpec, batch: int, known: dict[str, int], pixels: Pixels
) -> tuple[np.ndarray, list[Page]]:
    """The pictures as one batch, the last of them repeated where there are too few; ``known`` learns dynamic sizes."""
    rank = len(tensor.shape)
    pictures = [read_picture(path, grey=tensor.shape[rank - 3] == 1) for path in paths]
    sides = []
    for axis, own in ((rank - 2, pictures[0].height), (rank - 1, pictures[0].width)):
        dim = tensor.dims.get(axis)
        sides.append(tensor.shape[axis] if dim is None else known.setdefault(dim.name, dim.nearest(own)))
    height, width = sides
    rows = [_prepared(pixels_of(picture, height=height, width=width), tensor, pixels) for picture in pictures]
    size = (width, height)
    pages = [
        Page(str(path), picture, size, Placement.stretched(picture.size, size))
        for path, picture in zip(paths, pictures, strict=True)
    ]
    return _stacked(rows, tensor, batch), pages


def _prepared(pixels: np.ndarray, tensor: TensorSpec, how: Pixels) -> np.ndarray:
    if tensor.dtype == "uint8":
        if not how.unchanged:
            raise UsageError(f"input {tensor.name!r} takes bytes, so {_SETTINGS} do not apply", "leave them out")
        return np.asarray(np.rint(pixels * 255), dtype=np.uint8)
    for option, numbers in ((argument("mean"), how.mean), (argument("std"), how.std)):
        if len(numbers) not in (1, len(pixels)):
            raise UsageError(
                f"{option} has {len(numbers)} numbers, but the input has {len(pixels)} channels",
                "give one number, or one for each channel",
            )
    mean, std = (np.asarray(numbers, np.float32).reshape(-1, 1, 1) for numbers in (how.mean, how.std))
    return np.asarray((pixels * np.float32(how.scale) - mean) / std, dtype=tensor.dtype)


def _pages_of_arrays(arrays: Mapping[str, np.ndarray]) -> Iterator[Page]:
    """Arrays that look like pictures, their range stretched to black and white, to draw on."""
    alike = {name: array for name, array in arrays.items() if _looks_like_pictures(array)}
    batched = next((name for name, array in alike.items() if array.ndim == 4), None)
    if batched is None:
        yield from (_page_of_array(name, array) for name, array in alike.items())
        return
    for number, row in enumerate(alike[batched]):
        yield _page_of_array(f"{batched}[{number}]", row)


def _looks_like_pictures(array: np.ndarray) -> bool:
    return array.ndim in (3, 4) and array.shape[-3] in (1, 3) and 0 not in array.shape and array.dtype.kind in "fu"


def _page_of_array(title: str, array: np.ndarray) -> Page:
    wide = np.nan_to_num(array.astype(np.float64))
    least, most = float(wide.min()), float(wide.max())
    bytes_ = np.rint((wide - least) / max(most - least, 1e-12) * 255).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(bytes_[..., 0] if bytes_.shape[2] == 1 else bytes_)
    return Page(title, picture, picture.size)
