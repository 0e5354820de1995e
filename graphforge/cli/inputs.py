"""Read input data from files: arrays by name, or a picture made the tensor a vision model takes."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphforge.errors import GraphForgeError, UsageError
from graphforge.spec import ShapeSpec, TensorSpec

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["arrays_from_files", "arrays_of_file", "is_picture", "picture_as_tensor", "pixels_of", "read_picture"]

Array = NDArray[Any]
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


def arrays_from_files(
    files: Sequence[tuple[str, Path]], specs: Sequence[TensorSpec], *, seed: int = 0
) -> dict[str, Array]:
    """Input name -> array; inputs that only ``--input`` names are drawn at random.

    Raises:
        UsageError: a name is missing or taken twice, or data and ``--input`` disagree.
        GraphForgeError: a file cannot be read.
    """
    from graphforge.runners.inputs import check_feeds, random_feeds

    spec_by_name = {spec.name: spec for spec in specs}
    arrays: dict[str, Array] = {}
    for name, path in files:
        for found, array in _read(name, path, specs).items():
            if found in arrays:
                raise UsageError(
                    f"two files give data for input {found!r}", "name the input with --input-file NAME=FILE"
                )
            arrays[found] = array
    rest = ShapeSpec(tuple(spec for spec in specs if spec.name not in arrays))
    drawn = random_feeds(rest, rest.example_sizes(), seed=seed)
    given = ShapeSpec(tuple(spec_by_name[name] for name in arrays if name in spec_by_name))
    check_feeds(given, arrays)
    order = [*spec_by_name, *(name for name in arrays if name not in spec_by_name)]
    return {name: (arrays | drawn)[name] for name in order}


def is_picture(path: Path) -> bool:
    """Whether the file's name says that it is a picture."""
    return path.suffix.lower() in _PICTURES


def picture_as_tensor(path: Path, spec: TensorSpec | None) -> Array:
    """A picture as float32 NCHW between 0 and 1, resized (bilinear) to the size of the input's shape.

    RGB for three channels, brightness for one.
    """
    channels = 3 if spec is None or len(spec.shape) != 4 else spec.shape[1]
    picture = read_picture(path, grey=channels == 1)
    shape = (1, 3, picture.height, picture.width) if spec is None else spec.shape
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise UsageError(
            f"input {spec.name if spec else ''!r}: a picture becomes Nx3xHxW or Nx1xHxW, "
            f"got shape {'x'.join(map(str, shape))}",
            "prepare other layouts yourself and pass them as .npy or .npz",
        )
    pixels = pixels_of(picture, height=shape[2], width=shape[3])
    return np.ascontiguousarray(np.repeat(pixels[None], shape[0], axis=0))


def read_picture(path: Path, *, grey: bool) -> Image.Image:
    """The picture in RGB or in grey, turned the way its camera says.

    Raises:
        GraphForgeError: the file is missing or no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            return _with_bytes(upright, path).convert("L" if grey else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise GraphForgeError(
            f"picture {str(path)!r} cannot be read: {error}", "open it in a viewer: is it whole, is it a picture?"
        ) from None


def _with_bytes(picture: Image.Image, path: Path) -> Image.Image:
    """A picture of 16 bits a pixel in 8: Pillow's own conversion would only cut off what is brighter than 255."""
    from PIL import Image

    if picture.mode == "F":
        raise GraphForgeError(
            f"picture {str(path)!r} holds floats, whose range it does not say", "pass it as .npy, ready for the model"
        )
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))


def pixels_of(picture: Image.Image, *, height: int, width: int) -> Array:
    """The picture resized (bilinear) as float32 CHW between 0 and 1."""
    from PIL import Image

    if (picture.height, picture.width) != (height, width):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.float32).reshape(height, width, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) / np.float32(255))


def arrays_of_file(name: str, path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Input name -> array of a .npz or .npy file; ``name`` is what the user called it, or nothing.

    Raises:
        UsageError: it is another kind of file, or which input it is for cannot be told.
        GraphForgeError: the file cannot be read.
    """
    if path.suffix.lower() == ".npz":
        arrays = _read_numpy(path)
        assert isinstance(arrays, dict)
        if name and len(arrays) > 1:
            raise UsageError(f"{str(path)!r} holds {len(arrays)} arrays, so it cannot be the one input {name!r}")
        return {name or key: array for key, array in arrays.items()}
    if path.suffix.lower() != ".npy":
        raise UsageError(
            f"cannot read input file {str(path)!r}", f"expected .npz, .npy or a picture ({', '.join(_PICTURES)})"
        )
    array = _read_numpy(path)
    assert isinstance(array, np.ndarray)
    return {name or _only_name(path, specs): array}


def _read(name: str, path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    if not is_picture(path):
        return arrays_of_file(name, path, specs)
    name = name or _only_name(path, specs)
    return {name: picture_as_tensor(path, next((spec for spec in specs if spec.name == name), None))}


def _only_name(path: Path, specs: Sequence[TensorSpec]) -> str:
    if len(specs) > 1:
        raise UsageError(f"which input is {str(path)!r}?", f"say --input-file {specs[0].name}={path}, or another name")
    return specs[0].name if specs else "x"


def _read_numpy(path: Path) -> Array | dict[str, Array]:
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise GraphForgeError(
            f"{str(path)!r} cannot be read as numpy data: {error}", "write it with numpy.save or numpy.savez"
        ) from None
