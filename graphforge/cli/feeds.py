"""What a bundle is fed with: pictures made batches of the sizes it takes, and arrays that fit what it promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from graphforge.cli.inputs import arrays_of_file, is_picture, pixels_of, read_picture
from graphforge.errors import UsageError
from graphforge.frontend.spec import ShapeSpec, TensorSpec
from graphforge.verify.compare import dtype_name
from graphforge.verify.profile import spec_of_manifest

__all__ = ["Feed", "Page", "Pixels", "feeds_of"]

_FOR_PICTURES = ("float32", "float16", "float64", "uint8")


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
    """One picture of a batch: whence it came (or which input it is), and itself at its own size."""

    title: str
    picture: Image.Image
    input_size: tuple[int, int]  # width and height as the model sees it

    @property
    def factors(self) -> tuple[float, float]:
        return self.picture.width / self.input_size[0], self.picture.height / self.input_size[1]


@dataclass(frozen=True, slots=True)
class Feed:
    """Arrays for one run, and the pictures among them; a batch may hold more rows than pictures."""

    arrays: Mapping[str, np.ndarray]
    pages: tuple[Page, ...]
    batch: int


def feeds_of(manifest: Mapping[str, Any], files: Sequence[tuple[str, Path]], pixels: Pixels) -> Iterator[Feed]:
    """The runs it takes: as many pictures as there are, in batches of the size the bundle takes."""
    spec = spec_of_manifest(manifest)
    arrays: dict[str, np.ndarray] = {}
    pictures: list[Path] = []
    shown: TensorSpec | None = None
    for name, path in files:
        if is_picture(path):
            tensor = _input_for_pictures(spec, name, path)
            if shown is not None and shown.name != tensor.name:
                raise UsageError(
                    f"pictures go to one input, but {shown.name!r} and {tensor.name!r} are given some",
                    "prepare one of the two yourself and pass it as .npy or .npz",
                )
            shown = tensor
            pictures.append(path)
            continue
        for found, array in arrays_of_file(_full_name(spec, name, path), path, spec.inputs).items():
            if found in arrays:
                raise UsageError(f"two files give data for input {found!r}", "name the input with --input NAME=FILE")
            arrays[found] = array
    sizes = _check_arrays(spec, arrays, shown)
    if shown is None:
        if not pixels.unchanged:
            raise UsageError(
                "--scale, --mean and --std are for pictures, but arrays are given", "arrays are passed on as they are"
            )
        yield Feed(arrays, tuple(_pages_of_arrays(arrays)), _batch_of(spec, arrays))
        return
    batch = _batch_for(shown, len(pictures), sizes)
    for first in range(0, len(pictures), batch):
        some = pictures[first : first + batch]
        tensor_array, pages = _pictures_as_tensor(some, shown, batch, sizes, pixels)
        yield Feed({**arrays, shown.name: tensor_array}, pages, batch)


def _full_name(spec: ShapeSpec, name: str, path: Path) -> str:
    if name or path.suffix.lower() != ".npy" or len(spec.inputs) == 1:
        return name
    raise UsageError(f"which input is {str(path)!r}?", f"say --input {spec.inputs[0].name}={path}, or another name")


def _input_for_pictures(spec: ShapeSpec, name: str, path: Path) -> TensorSpec:
    fitting = [tensor for tensor in spec.inputs if _takes_pictures(tensor)]
    listed = "; ".join(f"{tensor.name} {_described(tensor)}" for tensor in spec.inputs)
    if name:
        named = next((tensor for tensor in spec.inputs if tensor.name == name), None)
        if named is None:
            raise UsageError(f"the bundle has no input {name!r}", f"its inputs are: {listed}")
        if not _takes_pictures(named):
            raise UsageError(
                f"input {name!r} takes no picture: it is {_described(named)}",
                "a picture becomes Nx3xHxW or Nx1xHxW; pass other data as .npy or .npz",
            )
        return named
    if not fitting:
        raise UsageError(
            f"no input takes the picture {str(path)!r}",
            f"a picture becomes Nx3xHxW or Nx1xHxW, and the inputs are: {listed}",
        )
    if len(fitting) > 1:
        raise UsageError(f"which input is {str(path)!r}?", f"say --input {fitting[0].name}={path}, or another name")
    return fitting[0]


def _takes_pictures(tensor: TensorSpec) -> bool:
    return (
        len(tensor.shape) == 4 and 1 not in tensor.dims and tensor.shape[1] in (1, 3) and tensor.dtype in _FOR_PICTURES
    )


def _described(tensor: TensorSpec) -> str:
    sizes = []
    for axis, size in enumerate(tensor.shape):
        dim = tensor.dims.get(axis)
        step = "" if dim is None or dim.step == 1 else f"/{dim.step}"
        sizes.append(str(size) if dim is None else f"({dim.low}..{dim.high}{step})")
    return f"{'x'.join(sizes) or 'scalar'} {tensor.dtype}"


def _check_arrays(spec: ShapeSpec, arrays: Mapping[str, np.ndarray], pictured: TensorSpec | None) -> dict[str, int]:
    """See that the arrays fit the bundle's inputs; the sizes they give the dynamic dims."""
    by_name = {tensor.name: tensor for tensor in spec.inputs}
    given = [*arrays, *([] if pictured is None else [pictured.name])]
    strange = [name for name in arrays if name not in by_name or (pictured is not None and name == pictured.name)]
    missing = [name for name in by_name if name not in given]
    if strange or missing:
        what = f"the bundle has no input {strange[0]!r}" if strange else f"no data for input {', '.join(missing)}"
        if strange and strange[0] in by_name:
            what = f"input {strange[0]!r} is given both pictures and an array"
        raise UsageError(
            what, f"its inputs are: {'; '.join(f'{tensor.name} {_described(tensor)}' for tensor in spec.inputs)}"
        )
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
    dim = tensor.dims.get(0)
    if dim is None:
        return tensor.shape[0]
    return sizes.get(dim.name) or _nearest(pictures, dim.sizes())


def _nearest(wanted: int, allowed: Sequence[int]) -> int:
    """The promised size nearest to the wanted one, the smaller of two."""
    return min(allowed, key=lambda size: (abs(size - wanted), size))


def _pictures_as_tensor(
    paths: Sequence[Path], tensor: TensorSpec, batch: int, sizes: Mapping[str, int], pixels: Pixels
) -> tuple[np.ndarray, tuple[Page, ...]]:
    """The pictures as one batch, the last of them repeated where there are too few."""
    channels = tensor.shape[1]
    pictures = [read_picture(path, grey=channels == 1) for path in paths]
    known = dict(sizes)
    side = {}
    for axis, own in ((2, pictures[0].height), (3, pictures[0].width)):
        dim = tensor.dims.get(axis)
        side[axis] = tensor.shape[axis] if dim is None else known.setdefault(dim.name, _nearest(own, dim.sizes()))
    rows = [_prepared(pixels_of(picture, height=side[2], width=side[3]), tensor, pixels) for picture in pictures]
    array = np.ascontiguousarray(np.stack([*rows, *[rows[-1]] * (batch - len(rows))]))
    pages = tuple(Page(str(path), picture, (side[3], side[2])) for path, picture in zip(paths, pictures, strict=True))
    return array, pages


def _prepared(pixels: np.ndarray, tensor: TensorSpec, how: Pixels) -> np.ndarray:
    if tensor.dtype == "uint8":
        if not how.unchanged:
            raise UsageError(
                f"input {tensor.name!r} takes bytes, so --scale, --mean and --std do not apply", "leave them out"
            )
        return np.asarray(np.rint(pixels * 255), dtype=np.uint8)
    for option, numbers in (("--mean", how.mean), ("--std", how.std)):
        if len(numbers) not in (1, len(pixels)):
            raise UsageError(
                f"{option} has {len(numbers)} numbers, but the input has {len(pixels)} channels",
                "give one number, or one for each channel",
            )
    mean, std = (np.asarray(numbers, np.float32).reshape(-1, 1, 1) for numbers in (how.mean, how.std))
    return np.asarray((pixels * np.float32(how.scale) - mean) / std, dtype=tensor.dtype)


def _batch_of(spec: ShapeSpec, arrays: Mapping[str, np.ndarray]) -> int:
    first = arrays[spec.inputs[0].name] if spec.inputs else None
    return first.shape[0] if first is not None and first.ndim else 1


def _pages_of_arrays(arrays: Mapping[str, np.ndarray]) -> Iterator[Page]:
    """Arrays that look like pictures, their range stretched to black and white, to draw on."""
    for name, array in arrays.items():
        if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape or array.dtype.kind not in "fu":
            continue
        for number, row in enumerate(array.astype(np.float64)):
            least, most = float(row.min()), float(row.max())
            grey = np.rint((row - least) / max(most - least, 1e-12) * 255).astype(np.uint8).transpose(1, 2, 0)
            picture = Image.fromarray(grey[..., 0] if grey.shape[2] == 1 else grey)
            yield Page(f"{name}[{number}]", picture, picture.size)
        return
