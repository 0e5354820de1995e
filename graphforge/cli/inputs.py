"""`--input-file`: arrays by name, or a picture made the tensor that a vision model takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from graphforge.errors import UsageError
from graphforge.runtime.files import Array, arrays_of_file, is_picture, pixels_of, read_picture
from graphforge.spec import ShapeSpec, TensorSpec

if TYPE_CHECKING:
    from graphforge.frontend.load import LoadedModel
    from graphforge.runtime.steps import Step

__all__ = ["array_sets_from_files", "picture_as_tensor", "picture_by_steps", "picture_input"]

# an input -> what becomes of a picture on its way into it; nothing where nobody says so
StepsFor: TypeAlias = "Callable[[TensorSpec], Sequence[Step]]"


def array_sets_from_files(
    files: Sequence[tuple[str, Path]],
    specs: Sequence[TensorSpec],
    *,
    seed: int = 0,
    steps_for: StepsFor | None = None,
    own: TensorSpec | None = None,
) -> list[dict[str, Array]]:
    """Sets of input name -> array; inputs that only ``--input`` names are drawn at random.

    A file that gives an input again begins another set: data of other sizes, for verification.

    Args:
        files: each with the name of its input, "" where that can be told.
        specs: the inputs that ``--input`` describes.
        seed: of those that are drawn.
        steps_for: pre-processing; None stretches pictures to the size of their input.
        own: the one input of the model's own example, where ``--input`` describes none.

    Raises:
        UsageError: a name is missing, or data and ``--input`` disagree.
        GraphForgeError: a file cannot be read.
    """
    from graphforge.runners.inputs import check_feeds, random_feeds

    spec_by_name = {spec.name: spec for spec in specs}
    sets: list[dict[str, Array]] = [{}]
    for name, path in files:
        read = _read(name, path, specs or ([] if own is None else [own]), steps_for)
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


def picture_by_steps(path: Path, tensor: TensorSpec, steps: Sequence[Step]) -> Array:
    """A picture as pre-processing makes it, a batch of the input's size.

    Raises:
        UsageError: it becomes another size than ``--input`` says.
        GraphForgeError: it cannot be read, or a step cannot do its work on it.
    """
    from graphforge.runtime.preprocess import prepared

    row, _ = prepared(steps, np.asarray(read_picture(path, grey=False)))
    takes = tensor.shape[-row.ndim :]
    varies = {axis - (len(tensor.shape) - row.ndim) for axis in tensor.dims}
    if any(size != side and axis not in varies for axis, (size, side) in enumerate(zip(row.shape, takes, strict=True))):
        raise UsageError(
            f"picture {str(path)!r} becomes {'x'.join(map(str, row.shape))}, and input {tensor.name!r} takes "
            f"{'x'.join(map(str, takes))}",
            "pre-processing follows the picture's size: give --input that size, or a --dynamic range of sizes",
        )
    if row.ndim == len(tensor.shape):
        return row
    return np.ascontiguousarray(np.repeat(row[None], tensor.shape[0], axis=0))


def picture_input(loaded: LoadedModel) -> TensorSpec | None:
    """The one tensor that the model's own example consists of; None where it is another call."""
    if loaded.module is None or loaded.example is None:
        return None
    args, kwargs = loaded.example
    values = [*args, *kwargs.values()]
    if len(values) != 1 or not hasattr(values[0], "shape"):
        return None
    name = next(iter(kwargs), None) or next(iter(inspect.signature(loaded.module.forward).parameters))
    return TensorSpec(name, tuple(values[0].shape), str(values[0].dtype).rpartition(".")[2])


def _read(name: str, path: Path, specs: Sequence[TensorSpec], steps_for: StepsFor | None) -> dict[str, Array]:
    if not is_picture(path):
        nameless = not name and path.suffix.lower() == ".npy"
        return arrays_of_file(name, path, otherwise=_only_name(path, specs) if nameless else "")
    name = name or _only_name(path, specs)
    tensor = next((spec for spec in specs if spec.name == name), None)
    steps = () if tensor is None or steps_for is None else steps_for(tensor)
    if tensor is not None and steps:
        return {name: picture_by_steps(path, tensor, steps)}
    return {name: picture_as_tensor(path, tensor)}


def _only_name(path: Path, specs: Sequence[TensorSpec]) -> str:
    if len(specs) > 1:
        raise UsageError(f"which input is {str(path)!r}?", f"say --input-file {specs[0].name}={path}, or another name")
    return specs[0].name if specs else "x"
