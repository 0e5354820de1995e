"""Read files that hold inputs: arrays by name, and pictures as the numbers that a vision model takes."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphforge.errors import GraphForgeError, UsageError
from graphforge.limiting import BeyondLimitError, check_limit

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Array", "arrays_of_file", "is_picture", "pixels_of", "read_picture"]

Array = NDArray[Any]
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


def is_picture(path: Path) -> bool:
    """Whether the file's name says that it is a picture."""
    return path.suffix.lower() in _PICTURES


def read_picture(path: Path, *, grey: bool) -> Image.Image:
    """The picture in RGB or in grey, turned the way its camera says.

    Raises:
        GraphForgeError: the file is missing or no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        if path.exists() and not path.is_file():  # a pipe among pictures would be waited for
            raise OSError("it is not a file")
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


def arrays_of_file(name: str, path: Path, *, otherwise: str) -> dict[str, Array]:
    """Input name -> array of a .npz or .npy file.

    Args:
        name: what the user called the input, or nothing.
        path: the file.
        otherwise: the input of a .npy file that the user gave no name.

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
    return {name or otherwise: array}


def _read_numpy(path: Path) -> Array | dict[str, Array]:
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")
        _count_beforehand(path)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        arrays = {}
        for key in loaded.files:
            arrays[key] = loaded[key]
            if not isinstance(arrays[key], np.ndarray):  # numpy hands out the bytes of whatever else is in there
                raise ValueError(f"its member {key!r} is not an array")
        return arrays
    except BeyondLimitError:
        raise
    except Exception as error:  # numpy lets through whatever its parsers of zip archives, Python and numbers raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise GraphForgeError(
            f"{str(path)!r} cannot be read as numpy data: {reason}",
            "write it with numpy.save or numpy.savez",
        ) from None


# numpy looks for each array among all names.
_MOST_ARRAYS = 10_000


def _count_beforehand(path: Path) -> None:
    """Hold what the headers of a file say, and what its members inflate to, against the limit on elements.

    A kilobyte can say that it is a billion zeros, and a megabyte inflate to a gigabyte of them.

    Raises:
        BeyondLimitError: an array is too large.
        ValueError: there are too many.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            _count(file, str(path))
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MOST_ARRAYS:
            raise ValueError(f"it holds {len(members):,} arrays, and no more than {_MOST_ARRAYS:,} are read")
        for member in members:
            with archive.open(member) as file:
                _count(file, f"{path}: array {member.filename.removesuffix('.npy')}")


def _count(file: IO[bytes], label: str) -> None:
    if file.read(6) != b"\x93NUMPY":
        return  # numpy says what it is not
    version = (file.read(1)[0], file.read(1)[0])
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is not None:
        check_limit("input_elements", abs(math.prod(read(file)[0])), f"{label}: elements")
