"""`graphforge run`: a bundle on a picture or on arrays; detections are printed and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import json_option
from graphforge.errors import GraphForgeError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from rich.console import Console

    from graphforge.cli.detections import Detections
    from graphforge.cli.feeds import Feed, Page
    from graphforge.runners.runner import Runner

__all__ = ["command"]

_DRAWN_AS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@click.command("run")
@click.argument("bundle", metavar="BUNDLE")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="[NAME=]FILE",
    help="A picture, .npy, or .npz (inputs by name); repeat for more inputs, or for more pictures of one input.",
)
@click.option("--draw", metavar="FILE", help="Write the picture with detections drawn; several stand side by side.")
@click.option("--score", type=float, default=0.3, show_default=True, help="Show detections that score more.")
@click.option("--labels", metavar="FILE", help="Names of the labels, one a line, beginning with label 0.")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="What the brightest pixel becomes: 1, or 255 for models that take 0..255.",
)
@click.option("--mean", metavar="M[,M,M]", help="Subtracted from pixels after --scale, one number or one a channel.")
@click.option("--std", metavar="S[,S,S]", help="Pixels are divided by it after --mean.")
@json_option
def command(
    bundle: str,
    inputs: tuple[str, ...],
    draw: str | None,
    score: float,
    labels: str | None,
    scale: float,
    mean: str | None,
    std: str | None,
    as_json: bool,
) -> None:
    """Run BUNDLE, a folder made by `graphforge compile`, and show what it says.

    \b
    Examples:
      graphforge run out/detector --input street.jpg --draw seen.png --labels coco.txt
      graphforge run out/detector --input a.jpg --input b.jpg --score 0.5 --json
      graphforge run out/resnet50 --input cat.jpg --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
      graphforge run out/bert --input ids=ids.npy --input mask=mask.npy

    A picture becomes RGB (grey where the input has one channel) between 0 and 1, resized to the input's size.
    Outputs named boxes, scores, labels, keypoints, masks, dets, num_dets, also as output_0_boxes, are detections:
    printed and drawn in pixels of the picture as it came.  Other outputs are listed by name, shape and range.
    """
    folder = Path(bundle)
    manifest = _manifest(folder)
    files = tuple(_named_file(text) for text in inputs)
    drawing = None if draw is None else _drawing(draw)
    names = _names(labels)
    means, deviations = _numbers("--mean", mean, 0.0), _numbers("--std", std, 1.0)
    if 0 in deviations:
        raise UsageError(
            "--std holds a zero, and pixels are divided by it", "leave --std out where it shall do nothing"
        )

    from graphforge.cli.feeds import Pixels, feeds_of

    feeds = feeds_of(manifest, files, Pixels(scale, means, deviations))
    with progress(quiet=as_json) as begin:
        begin("load")
        runner = _runner(folder, manifest)
        try:
            begin("run")
            calls = [_call(runner, feed, manifest.get("padding", ())) for feed in feeds]
        finally:
            runner.close()
    shown = [image.above(score) for call in calls for image in call.images]
    if drawing is not None:
        _draw(drawing, shown, calls, names)
    record = {"bundle": bundle, "runner": runner.name, "drawn": draw, "score": score}
    if as_json:
        print_json({**record, "runs": [call.to_dict(score, names) for call in calls]})
    else:
        _print(stdout(), calls, score, names)
        _print_closing(stdout(), runner.name, draw)


# -- what comes out ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Call:
    """One run: all outputs, and the detections among them, one set for each page, in the page's own pixels."""

    pages: tuple[Page, ...]
    outputs: Mapping[str, np.ndarray]
    images: tuple[Detections, ...]

    def title(self, number: int) -> str:
        if number >= len(self.pages):
            return f"image {number}"
        page = self.pages[number]
        return f"{page.title} {page.picture.width}x{page.picture.height}"

    def to_dict(self, score: float, names: Sequence[str]) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "outputs": [_facts(name, array) for name, array in self.outputs.items()],
            "images": [
                {
                    "input": self.pages[number].title if number < len(self.pages) else None,
                    "size": list(self.pages[number].picture.size) if number < len(self.pages) else None,
                    "detections": _listed(found.above(score), names),
                }
                for number, found in enumerate(self.images)
            ],
        }


def _call(runner: Runner, feed: Feed, padding: Sequence[Mapping[str, Any]]) -> _Call:
    from graphforge.cli.detections import detections_of

    outputs = runner.run(feed.arrays)
    found = detections_of(_unpadded(outputs, padding)) or []
    pages = feed.pages
    if found and len(found) != feed.images:
        if feed.from_files:
            raise GraphForgeError(
                f"the outputs hold detections of {len(found)} images, but {feed.images} went in",
                f"the outputs are: {', '.join(f'{name} {array.shape}' for name, array in outputs.items())}",
            )
        pages = ()  # so the arrays were no pictures
    if pages:  # detections beyond are those of the images that filled the batch up
        found = [image.moved(page.factors) for image, page in zip(found, pages, strict=False)]
    return _Call(pages, outputs, tuple(found))


def _unpadded(outputs: Mapping[str, np.ndarray], padding: Sequence[Mapping[str, Any]]) -> Mapping[str, np.ndarray]:
    if not padding:
        return outputs
    from graphforge.runners.padding import unpadded

    return unpadded(outputs, padding)


def _facts(name: str, array: np.ndarray) -> dict[str, Any]:
    import numpy as np

    plain = array.dtype.kind in "fiub" and array.size > 0
    return {
        "name": name,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "min": np.nanmin(array).item() if plain else None,
        "max": np.nanmax(array).item() if plain else None,
        "mean": float(np.mean(array, dtype=np.float64)) if plain else None,
    }


def _listed(found: Detections, names: Sequence[str]) -> list[dict[str, Any]]:
    from graphforge.cli.draw import name_of

    listed = []
    for index in range(len(found)):
        label = int(found.labels[index])
        entry: dict[str, Any] = {
            "label": label,
            "name": name_of(label, names),
            "score": float(found.scores[index]),
            "box": [float(side) for side in found.boxes[index]],
        }
        if found.keypoints is not None:
            entry["keypoints"] = found.keypoints[index].tolist()
        listed.append(entry)
    return listed


def _draw(path: Path, shown: Sequence[Detections], calls: Sequence[_Call], names: Sequence[str]) -> None:
    from graphforge.cli.draw import drawn, side_by_side

    pages = [page for call in calls for page in call.pages]
    outputs = ", ".join(dict.fromkeys(name for call in calls for name in call.outputs))
    if not shown:
        raise GraphForgeError(
            "--draw: the outputs are no detections, so there is nothing to draw",
            f"detections are known by their names, boxes, scores, labels, and these are: {outputs}",
        )
    if len(pages) != len(shown):
        raise GraphForgeError("--draw: there is no picture to draw on", "give --input a picture")
    whole = side_by_side([drawn(page.picture, found, names) for page, found in zip(pages, shown, strict=True)])
    _save(whole, path)


def _save(picture: Image.Image, path: Path) -> None:
    """Written aside, then renamed: a failure leaves what was there before."""
    import os
    import tempfile

    try:
        descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                picture.save(file, format={"jpg": "jpeg"}.get(path.suffix[1:].lower(), path.suffix[1:].lower()))
            os.chmod(aside, 0o644)
            os.replace(aside, path)
        except OSError:
            os.unlink(aside)
            raise
    except OSError as error:
        raise GraphForgeError(
            f"cannot write {str(path)!r}: {error.strerror or error}", "choose another place with --draw"
        ) from None


# -- what is printed ---------------------------------------------------------------------------------------------------


def _print(console: Console, calls: Sequence[_Call], score: float, names: Sequence[str]) -> None:
    from rich.markup import escape

    for call in calls:
        if not call.images:
            console.print(_outputs_table(call))
        for number, found in enumerate(call.images):
            shown = found.above(score)
            count = f"{len(shown)} of {len(found)} detections score more than {score:g}"
            console.print(f"{escape(call.title(number))}: {count}", soft_wrap=True)
            unknown = int((found.scores != found.scores).sum())  # NaN
            if unknown:
                console.print(f"[yellow]note[/yellow] {unknown} of them have the score NaN", soft_wrap=True)
            if len(shown):
                console.print(_detections_table(shown, names))


def _print_closing(console: Console, runner: str, draw: str | None) -> None:
    from rich.markup import escape

    drawn_to = "" if draw is None else f", drawn on {draw}"
    console.print(escape(f"run by {runner}{drawn_to}"), soft_wrap=True)


def _detections_table(found: Detections, names: Sequence[str]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("label")
    for column in ("score", "left", "top", "right", "bottom"):
        table.add_column(column, justify="right")
    if found.keypoints is not None:
        table.add_column("keypoints", overflow="fold")
    for entry in _listed(found, names):
        points = " ".join(f"{x:.0f},{y:.0f}" for x, y, *_ in entry.get("keypoints", ()))
        sides = (f"{side:.1f}" for side in entry["box"])
        cells = [escape(entry["name"]), f"{entry['score']:.3f}", *sides]
        table.add_row(*cells, *([points] if found.keypoints is not None else []))
    return table


def _outputs_table(call: _Call) -> Any:
    from rich.markup import escape
    from rich.table import Table

    heading = ", ".join(page.title for page in call.pages)
    table = Table(title=escape(f"outputs for {heading}" if heading else "outputs"), title_justify="left")
    for column in ("output", "dtype", "shape"):
        table.add_column(column)
    for column in ("min", "max", "mean"):
        table.add_column(column, justify="right")
    for name, array in call.outputs.items():
        facts = _facts(name, array)
        numbers = ("" if facts[key] is None else f"{facts[key]:.6g}" for key in ("min", "max", "mean"))
        table.add_row(escape(name), facts["dtype"], "x".join(map(str, array.shape)) or "scalar", *numbers)
    return table


# -- what can be refused at once ---------------------------------------------------------------------------------------


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        if (folder / "manifest.unverified.json").is_file():
            raise GraphForgeError(
                f"bundle {str(folder)!r} failed verification, so it is not run", "compile it again and read why"
            )
        what = "does not exist" if not folder.exists() else "is not a bundle"
        raise GraphForgeError(
            f"{str(folder)!r} {what}", "a bundle is a folder made by graphforge compile, with a manifest.json in it"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["target"]["name"], manifest["inputs"][0:0]
    except (ValueError, KeyError, TypeError) as error:
        raise GraphForgeError(
            f"{str(path)!r} is not the manifest of a bundle: {type(error).__name__}: {error}", "compile the model again"
        ) from None
    found: dict[str, Any] = manifest
    return found


def _runner(folder: Path, manifest: Mapping[str, Any]) -> Runner:
    from graphforge.targets import get_target

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
        "compile the model for a target that runs here, for example --target onnx",
    )


def _named_file(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or Path(text).is_file():  # a file may have = in its own name
        name, path = "", text
    if not Path(path).is_file():
        raise UsageError(f"input file {path!r} does not exist", "the path is taken from the current folder")
    return name, Path(path)


def _drawing(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _DRAWN_AS:
        raise UsageError(f"--draw {text!r}: unknown kind of picture", f"end the name with {', '.join(_DRAWN_AS)}")
    if path.is_dir():
        raise GraphForgeError(f"cannot write {text!r}: it is a folder", "choose another place with --draw")
    if not path.parent.is_dir():
        raise GraphForgeError(
            f"cannot write {text!r}: there is no folder {str(path.parent)!r}", "make it, or choose another with --draw"
        )
    return path


def _names(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GraphForgeError(
            f"labels {path!r} cannot be read: {error}", "expected a text file with one name a line"
        ) from None
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


def _numbers(option: str, text: str | None, default: float) -> tuple[float, ...]:
    if text is None:
        return (default,)
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"cannot read {option} {text!r}", f"write it as {option} 0.5 or {option} 0.5,0.5,0.5"
        ) from None
