"""`graphforge.run`: a bundle on pictures or on arrays; detections are recognised and drawn."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from graphforge.doors import text_of
from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.runners.recorded import onnx_files_of, spec_of_manifest
from graphforge.runtime.opened import holds_sdk_files, read_bundle

if TYPE_CHECKING:
    import numpy as np

    from graphforge.journal import Progress
    from graphforge.runners.runner import Runner
    from graphforge.runtime.feeds import Pixels
    from graphforge.runtime.result import RunReport
    from graphforge.runtime.steps import Step

    Given: TypeAlias = tuple[str, Path | np.ndarray]

__all__ = ["run"]


def run(
    bundle: str | os.PathLike[str],
    inputs: Any,
    *,
    score: float = 0.3,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    scale: float = 1.0,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    preprocess: str | os.PathLike[str] | None = None,
    draw: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """Run a bundle's artifact and say what came of it.

    Args:
        bundle: a ``Bundle`` or its folder.
        inputs: an array, a tensor or a file (a picture, .npy, .npz); several in a list or tuple, in the order of the
            bundle's inputs (pictures of one input: as many as you like); a dict or pairs of the input's name and one
            of these, or a list of pictures.
        score: detections that score more are shown.
        labels: names of the labels beginning with label 0, or a text file with one a line; None takes the bundle's.
        scale: for a bundle without pre-processing: what the brightest pixel of a picture becomes: 1, or 255 for models
            that take 0..255.
        mean: subtracted from pixels after ``scale``, one number or one for each channel.
        std: pixels are divided by it after ``mean``.
        preprocess: a TOML file of steps, in place of those that the bundle brings.
        draw: file for the picture with its detections drawn; several pictures stand side by side.
        progress: called with the name of each step as it begins.

    Returns:
        A mapping from the names of the outputs to their arrays, which knows the detections among them.

    Raises:
        UsageError: the inputs do not fit what the bundle takes.
        GraphForgeError: the folder is not a bundle, or nothing here runs it.
    """
    folder = Path(bundle)
    manifest = read_bundle(folder)
    given = list(_given(inputs, manifest))
    names = _names(labels)
    means, deviations = _numbers(mean), _numbers(std)
    if 0 in deviations:
        raise UsageError(
            f"{argument('std')} holds a zero, and pixels are divided by it", "leave it out where it shall do nothing"
        )

    from graphforge.runtime.dataset import dataset_of
    from graphforge.runtime.feeds import Pixels, feeds_of
    from graphforge.runtime.result import RunReport, call_of, drawing_path
    from graphforge.verbs.admitting import admitted

    drawing = None if draw is None else drawing_path(draw)
    pixels = Pixels(float(scale), means, deviations)
    steps = _steps(manifest, preprocess)
    if steps and not pixels.unchanged:
        raise UsageError(
            f"{argument('scale')}, {argument('mean')} and {argument('std')} are given, and the bundle brings its "
            "pre-processing",
            f"leave them out, or give another list: {argument('preprocess', 'FILE')}",
        )
    dataset = dataset_of(manifest)
    feeds = feeds_of(manifest, given, pixels, steps)
    begin = progress or _say_nothing
    begin("load")
    with ExitStack() as running:
        running.enter_context(admitted(onnx_files_of(folder, manifest)))
        runner = _runner(folder, manifest)
        running.callback(runner.close)
        begin("run")
        calls = []
        stretched: set[str] = set()
        for feed in feeds:
            if feed.from_files and not steps:
                stretched |= {f"{page.input_size[0]}x{page.input_size[1]}" for page in feed.pages}
            outputs = runner.run(feed.arrays)
            calls.append(call_of(outputs, _unpadded(outputs, manifest.get("padding", ())), feed))
    report = RunReport(
        os.fspath(bundle),
        runner.name,
        tuple(calls),
        score,
        names or dataset.classes,
        dataset=dataset,
        notes=_notes(stretched, pixels),
    )
    if drawing is None:
        return report
    report.save_picture(drawing)
    return replace(report, drawn_on=str(draw))


def _steps(manifest: Mapping[str, Any], given: str | os.PathLike[str] | None) -> tuple[Step, ...]:
    """What becomes of pictures: as the user says, else as the bundle does."""
    from graphforge.runtime.feeds import takes_pictures
    from graphforge.runtime.preprocess import completed, read_preprocess, steps_of

    if given is None:
        return steps_of(manifest.get("preprocess", []))
    steps, _ = read_preprocess(Path(given))
    takers = [one for one in spec_of_manifest(manifest).inputs if takes_pictures(one, steps)]
    return completed(steps, takers[0]) if takers else steps


def _notes(sizes: Collection[str], pixels: Pixels) -> tuple[str, ...]:
    """What was taken for granted of pictures, where neither the bundle nor the user said what becomes of them."""
    if not sizes:
        return ()
    numbers = "between 0 and 1" if pixels.unchanged else "scaled as asked"
    return (
        f"the bundle has no pre-processing: pictures were stretched to {', '.join(sorted(sizes))}, red first, "
        f"{numbers}; a model that was trained otherwise gives wrong results: compile it with a list of steps",
    )


def _say_nothing(step: str) -> None:
    """Nobody asked how far it is."""


# -- what goes in ------------------------------------------------------------------------------------------------------


def _given(inputs: Any, manifest: Mapping[str, Any]) -> Iterator[Given]:
    """Every file and array with the name of its input, or nothing where that is to be found out."""
    if isinstance(inputs, Mapping):
        for name, item in inputs.items():
            items = item if isinstance(item, list | tuple) and all(map(_is_path, item)) else [item]
            yield from ((leaf, _item(one)) for each in items for leaf, one in _leaves(each, str(name)))
        return
    items = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    if any(map(_is_nested, items)):  # a call like that of the model, whose tensors are the bundle's inputs in order
        items = [one for each in items for _, one in _leaves(each)]
    if items and all(_is_pair(item) for item in items):
        yield from ((name, _item(item)) for name, item in items)
    elif len(items) > 1 and not any(map(_is_path, items)):
        expected = [tensor.name for tensor in spec_of_manifest(manifest).inputs]
        if len(items) != len(expected):
            raise UsageError(
                f"{len(items)} inputs are given, but the bundle takes {len(expected)}: {', '.join(expected)}"
            )
        yield from ((name, _item(item)) for name, item in zip(expected, items, strict=True))
    else:
        yield from (("", _item(item)) for item in items)


def _is_nested(item: Any) -> bool:
    """Whether it is a container of tensors, as a model may take them; a list of numbers is an array."""
    if isinstance(item, Mapping):
        return True
    return isinstance(item, list | tuple) and any(hasattr(one, "shape") or _is_nested(one) for one in item)


def _leaves(item: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors of a nested input, named as ``compile`` names them: ``x``, ``pair.0``, ``options.mask``."""
    if not _is_nested(item):
        yield name, item
        return
    parts = item.items() if isinstance(item, Mapping) else enumerate(item)
    for key, part in parts:
        yield from _leaves(part, f"{name}.{key}" if name else str(key))


def _is_path(item: Any) -> bool:
    return isinstance(item, str | os.PathLike)


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


def _item(item: Any) -> Path | np.ndarray:
    if _is_path(item):
        if not Path(item).is_file():
            raise UsageError(f"input file {str(item)!r} does not exist", "the path is taken from the current folder")
        return Path(item)
    import numpy as np

    if hasattr(item, "detach"):
        from graphforge.runners.arrays import array_from_tensor

        array: np.ndarray = array_from_tensor(item)
        return _pairs(array)
    if isinstance(item, np.ndarray | np.generic | int | float | bool | list | tuple):
        return _pairs(np.asarray(item))
    raise UsageError(
        f"{argument('inputs')}: expected an array, a tensor or a file, got {type(item).__name__}",
        "pictures go by their file; other data as an array",
    )


def _pairs(array: np.ndarray) -> np.ndarray:
    """Complex numbers with a last axis of two, as artifacts take them; any other array as it is."""
    import numpy as np

    return np.stack([array.real, array.imag], -1) if array.dtype.kind == "c" else array


def _names(labels: str | os.PathLike[str] | Sequence[str] | None) -> tuple[str, ...]:
    if labels is None:
        return ()
    if not isinstance(labels, str | os.PathLike):
        return tuple(labels)
    try:
        lines = text_of(Path(labels)).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GraphForgeError(
            f"labels {str(labels)!r} cannot be read: {error}", "expected a text file with one name a line"
        ) from None
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


def _numbers(given: float | Sequence[float]) -> tuple[float, ...]:
    return (float(given),) if isinstance(given, int | float) else tuple(float(number) for number in given)


# -- what runs it ------------------------------------------------------------------------------------------------------


def _unpadded(outputs: Mapping[str, np.ndarray], padding: Sequence[Mapping[str, Any]]) -> Mapping[str, np.ndarray]:
    if not padding:
        return outputs
    from graphforge.runners.padding import unpadded

    return unpadded(outputs, padding)


def _runner(folder: Path, manifest: Mapping[str, Any]) -> Runner:
    from graphforge.runners.custom_ops import runner_for
    from graphforge.targets import get_target

    if holds_sdk_files(folder):
        return runner_for(folder / manifest["files"][0])
    target = get_target(manifest["target"]["name"])
    gone = [name for name in manifest.get("files", ()) if not (folder / name).is_file()]
    if gone:
        raise GraphForgeError(f"bundle {str(folder)!r} lacks its file {gone[0]!r}", "compile the model again")
    runner = target.runner(folder)
    if runner is not None:
        return runner
    raise GraphForgeError(
        f"a bundle for {target.name} cannot be run on this machine",
        target.runs_here(folder) or "",
        f"compile the model for a target that runs here, for example {argument('target', 'onnx')}",
    )
