"""`--input-file`: arrays by name, or a picture made the tensor that a vision model takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphforge.errors import UsageError
from graphforge.runtime.files import Array, arrays_of_file, is_picture, pixels_of, read_picture
from graphforge.spec import ShapeSpec, TensorSpec

__all__ = ["array_sets_from_files", "picture_as_tensor"]


def array_sets_from_files(
    files: Sequence[tuple[str, Path]], specs: Sequence[TensorSpec], *, seed: int = 0
) -> list[dict[str, Array]]:
    """Sets of input name -> array; inputs that only ``--input`` names are drawn at random.

    A file that gives an input again begins another set: data of other sizes, for verification.

    Raises:
        UsageError: a name is missing, or data and ``--input`` disagree.
        GraphForgeError: a file cannot be read.
    """
    from graphforge.runners.inputs import check_feeds, random_feeds

    spec_by_name = {spec.name: spec for spec in specs}
    sets: list[dict[str, Array]] = [{}]
    for name, path in files:
        read = _read(name, path, specs)
        if any(found in sets[-1] for found in read):
            sets.append({})
        sets[-1] |= read
    arrays = sets[0]
    rest = ShapeSpec(tuple(spec for spec in specs if spec.name not in arrays))
    drawn = random_feeds(rest, rest.example_sizes(), seed=seed)
    check_feeds(ShapeSpec(tuple(spec_by_name[name] for name in arrays if name in spec_by_name)), arrays)
    order = [*spec_by_name, *(name for name in arrays if name not in spec_by_name)]
    example = {name: (arrays | drawn)[name] for name in order}
    for number, further in enumerate(sets[1:], 2):
        lacking = next((name for name in order if name not in further), None)
        if lacking is not None:
            raise UsageError(
                f"two files give data for input {next(iter(further))!r}, and set {number} has none for {lacking!r}",
                "name the inputs with --input-file NAME=FILE, and give each set for all of them",
            )
    return [example, *({name: further[name] for name in order} for further in sets[1:])]


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


def _read(name: str, path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    if not is_picture(path):
        nameless = not name and path.suffix.lower() == ".npy"
        return arrays_of_file(name, path, otherwise=_only_name(path, specs) if nameless else "")
    name = name or _only_name(path, specs)
    return {name: picture_as_tensor(path, next((spec for spec in specs if spec.name == name), None))}


def _only_name(path: Path, specs: Sequence[TensorSpec]) -> str:
    if len(specs) > 1:
        raise UsageError(f"which input is {str(path)!r}?", f"say --input-file {specs[0].name}={path}, or another name")
    return specs[0].name if specs else "x"
