"""What becomes of a picture before a model sees it: an ordered list of steps, which is data of the bundle.

    [[preprocess]]
    step = "resize"
    size = [640, 640]
    fit = "inside"

`steps.py` has the steps; here they are read, written, completed for an input, and done.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphforge.doors import text_of
from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.runtime.dataset import Dataset
from graphforge.runtime.files import Array
from graphforge.runtime.placement import Placement
from graphforge.runtime.steps import (
    STEPS,
    CentreCrop,
    CropBox,
    Dtype,
    Layout,
    Letterbox,
    Normalise,
    Pad,
    Resize,
    Seen,
    Step,
)
from graphforge.schema import Record
from graphforge.spec import TensorSpec

__all__ = ["check_steps", "completed", "prepared", "read_preprocess", "record_of", "steps_of"]


# -- the list as data --------------------------------------------------------------------------------------------------


def steps_of(data: Any, where: str = "preprocess") -> tuple[Step, ...]:
    """The steps that a manifest or a TOML file lists.

    Raises:
        GraphForgeError: there is no such step, it has no such key, or a value is not what the key takes.
    """
    if not isinstance(data, list):
        raise GraphForgeError(f"{where}: expected a list of steps, got {type(data).__name__}")
    steps = tuple(_step_of(one, f"{where}[{at}]") for at, one in enumerate(data))
    laid = next((at for at, step in enumerate(steps) if isinstance(step, Layout)), None)
    late = [] if laid is None else [step for step in steps[laid + 1 :] if not isinstance(step, Dtype)]
    if late:
        raise GraphForgeError(f"{where}: {late[0].name} comes after layout", "put layout behind it")
    return steps


def _step_of(data: Any, where: str) -> Step:
    if not isinstance(data, dict) or not isinstance(data.get("step"), str):
        raise GraphForgeError(f'{where}: expected a table with the name of a step, step = "resize"')
    name = data["step"]
    if name not in STEPS:
        near = difflib.get_close_matches(name, STEPS, 1, 0.5)
        known = f"the steps are: {', '.join(STEPS)}"
        raise GraphForgeError(
            f"{where}: there is no step {name!r}", f"did you mean {near[0]!r}?" if near else "", known
        )
    kind = STEPS[name]
    keys = {one.name: one for one in fields(kind)}
    strange = [key for key in data if key != "step" and key not in keys]
    if strange:
        near = difflib.get_close_matches(strange[0], keys, 1, 0.5)
        raise GraphForgeError(
            f"{where}: step {name} has no key {strange[0]!r}",
            f"did you mean {near[0]!r}?" if near else "",
            f"its keys are: {', '.join(keys) or 'none'}",
        )
    required = {key: one.metadata["is"] for key, one in keys.items() if one.default is MISSING}
    optional = {key: one.metadata["is"] for key, one in keys.items() if one.default is not MISSING}
    bad = Record(required, optional).fault(data, where)
    if bad:
        raise GraphForgeError(bad)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key != "step"}
    return _checked(kind(**given), where)


def _checked(step: Step, where: str) -> Step:
    if isinstance(step, Normalise) and not all(np.atleast_1d(step.std)):
        raise GraphForgeError(f"{where}: std holds a zero, and pixels are divided by it")
    if isinstance(step, Pad) and step.size is not None and step.divisor is not None:
        raise GraphForgeError(f"{where}: pad takes a size or a divisor, not both")
    return step


def record_of(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The steps as plain data, every key written out but those that are empty."""
    return [
        {
            "step": step.name,
            **{
                one.name: list(value) if isinstance(value, tuple) else value
                for one in fields(step)
                if (value := getattr(step, one.name)) is not None
            },
        }
        for step in steps
    ]


def read_preprocess(path: Path) -> tuple[tuple[Step, ...], Dataset | None]:
    """The steps of a TOML file, and what its table ``dataset`` says of classes and keypoints.

    Raises:
        GraphForgeError: it cannot be read, or is not such a file.
    """
    try:
        data = tomllib.loads(text_of(path))
    except OSError as error:
        raise GraphForgeError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GraphForgeError(
            f"{str(path)!r} is not TOML: {error}", 'a step is a table: [[preprocess]], then step = "resize", ...'
        ) from None
    strange = [key for key in data if key not in ("preprocess", "dataset")]
    if strange:
        raise GraphForgeError(f"{str(path)!r}: unknown key {strange[0]!r}", "expected [[preprocess]] and [dataset]")
    if "preprocess" not in data and "dataset" not in data:
        raise GraphForgeError(f"{str(path)!r} lists no steps", 'a step is a table: [[preprocess]], step = "resize"')
    dataset = Dataset.of(data["dataset"], f"{str(path)!r}: dataset") if "dataset" in data else None
    return steps_of(data.get("preprocess", []), f"{str(path)!r}: preprocess"), dataset


# -- the list at work --------------------------------------------------------------------------------------------------


def prepared(steps: Sequence[Step], picture: Array, box: Sequence[float] | None = None) -> tuple[Array, Placement]:
    """A picture as the model takes it, and where it lies in that.

    Args:
        steps: the list.
        picture: [H, W, 3], bytes, red first.
        box: what is to be looked at (xyxy) where a step cuts it out; None is the whole picture.

    Raises:
        GraphForgeError: a step cannot do its work on this picture.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise GraphForgeError(
            f"a picture is height x width x 3 bytes, red first, and this is {picture.shape} {picture.dtype}"
        )
    looked_at = (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0])) if box is None else tuple(box)
    if len(looked_at) != 4:
        raise UsageError(f"a box is left, top, right, bottom, and this has {len(looked_at)} numbers")
    seen = Seen(picture, Placement(), (looked_at[0], looked_at[1], looked_at[2], looked_at[3]))
    for step in steps:
        seen = step.apply(seen)
    return np.ascontiguousarray(seen.pixels), seen.placement


def completed(steps: Sequence[Step], tensor: TensorSpec) -> tuple[Step, ...]:
    """The list for one input: sizes that were left out filled in, layout and element type at its end.

    Raises:
        GraphForgeError: a size is left out, and the input has no fixed one.
    """
    last = next((step for step in steps if isinstance(step, Layout)), Layout())
    rank = len(tensor.shape)
    rows = rank - 2 if last.order == "nchw" else rank - 3
    filled = []
    for step in steps:
        wants = "size" in {one.name for one in fields(step)} and getattr(step, "size", None) is None
        if wants and getattr(step, "divisor", None) is None:
            if rank < 3 or rows in tensor.dims or rows + 1 in tensor.dims:
                raise GraphForgeError(
                    f"pre-processing: {step.name} has no size, and input {tensor.name!r} has no fixed one",
                    "write it: size = [width, height]",
                )
            step = replace(step, size=(tensor.shape[rows + 1], tensor.shape[rows]))  # type: ignore[call-arg]
        filled.append(step)
    if last not in filled:
        filled.append(last)
    if not any(isinstance(step, Dtype) for step in filled):
        filled.append(Dtype(tensor.dtype))
    return tuple(filled)


def check_steps(steps: Sequence[Step], tensor: TensorSpec) -> None:
    """See that what the list makes of a picture is what an input takes.

    Raises:
        GraphForgeError: it is not; says what would come and what is taken.
    """
    black = np.zeros((48, 64, 3), np.uint8)
    came, _ = prepared(steps, black)
    takes = tensor.shape[1:] if len(tensor.shape) == 4 else tensor.shape
    first = len(tensor.shape) - len(takes)
    fits = len(came.shape) == len(takes) and came.dtype == tensor.dtype
    for axis, side in enumerate(came.shape if fits else ()):
        dim = tensor.dims.get(first + axis)
        # where the size follows the picture's, any size may come: each picture is held against it when it does
        fits = fits and (dim is not None or side == takes[axis] or not _fixes_size(steps))
    if not fits:
        raise GraphForgeError(
            f"pre-processing makes {'x'.join(map(str, came.shape))} {came.dtype} of a picture, and input "
            f"{tensor.name!r} takes {'x'.join(map(str, takes))} {tensor.dtype}",
            "the sizes in the list are [width, height]; layout and dtype say the axes and the element type",
            f"leave {argument('preprocess')} out to prepare pictures yourself",
        )


def _fixes_size(steps: Sequence[Step]) -> bool:
    """Whether every picture has the same size after it."""
    return any(
        isinstance(step, Letterbox | CropBox | CentreCrop)
        or (isinstance(step, Resize) and step.fit == "stretch")
        or (isinstance(step, Pad) and step.divisor is None)
        for step in steps
    )
