"""What came of running a bundle: outputs, and the detections among them on the pictures that went in."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.runtime.dataset import Dataset
from graphforge.runtime.detections import Detections, detections_of, name_of
from graphforge.runtime.draw import NOTHING_KNOWN, drawn, side_by_side
from graphforge.runtime.files import Array
from graphforge.runtime.heat import heated, heatmaps_among
from graphforge.shown import Shown

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console
    from rich.table import Table

    from graphforge.runtime.feeds import Feed, Page

__all__ = ["Call", "RunReport", "call_of", "drawing_path"]

DRAWN_AS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# So many detections are told in words beside a drawing.
_TOLD = 12


@dataclass(frozen=True, slots=True)
class Call:
    """One run: all outputs, and the detections among them, one set for each page, in the page's own pixels.

    Attributes:
        pages: the pictures that went in.
        outputs: by name.
        images: the detections, one set for each image; empty where the outputs are none.
    """

    pages: tuple[Page, ...]
    outputs: Mapping[str, Array]
    images: tuple[Detections, ...]

    def title(self, number: int) -> str:
        """What an image is called: its file and size, where it has one."""
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
                    "detections": found.above(score).to_list(names),
                }
                for number, found in enumerate(self.images)
            ],
        }


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class RunReport(Shown, Mapping[str, Array]):
    """What a bundle said, a mapping from the name of an output to its array.

    Attributes:
        bundle: the folder.
        runner: what ran it.
        calls: every run; there are several where more pictures were given than the bundle takes at once.
        score: detections that score more are shown.
        labels: names of the labels, beginning with label 0.
        drawn_on: the file on which detections were drawn.
        dataset: what the bundle says of classes, keypoints and colours.
        notes: what the user should know of how it was run.
    """

    bundle: str
    runner: str
    calls: tuple[Call, ...]
    score: float
    labels: tuple[str, ...] = ()
    drawn_on: str | None = None
    dataset: Dataset = NOTHING_KNOWN
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> Mapping[str, Array]:
        """The arrays by name, of the one run that there was.

        Raises:
            UsageError: there were several.
        """
        if len(self.calls) != 1:
            raise UsageError(f"the bundle ran {len(self.calls)} times", "take those of one run: .calls[0].outputs")
        return self.calls[0].outputs

    @property
    def detections(self) -> tuple[Detections, ...]:
        """What was found on every image, in its own pixels; empty where the outputs are no detections."""
        return tuple(found.above(self.score) for call in self.calls for found in call.images)

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def summary(self) -> str:
        """``boxes 3x4, scores 3, run by ONNX Runtime``."""
        first = self.calls[0].outputs if self.calls else {}
        shapes = ", ".join(f"{name} {'x'.join(map(str, array.shape)) or 'scalar'}" for name, array in first.items())
        times = "" if len(self.calls) == 1 else f", {len(self.calls)} runs"
        return f"{shapes}{times}, run by {self.runner}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "bundle": self.bundle,
            "runner": self.runner,
            "drawn": self.drawn_on,
            "score": self.score,
            "notes": list(self.notes),
            "runs": [call.to_dict(self.score, self.labels) for call in self.calls],
        }

    def picture(self) -> Image.Image:
        """The pictures with their detections drawn, or their heatmaps, side by side.

        Raises:
            GraphForgeError: the outputs are neither, or there is no picture to draw on.
        """
        found = self.drawings()
        if found:
            return side_by_side([picture for _, picture in found])
        outputs = ", ".join(dict.fromkeys(name for call in self.calls for name in call.outputs))
        if self.detections:
            raise GraphForgeError("there is no picture to draw on", f"give {argument('inputs')} a picture")
        raise GraphForgeError(
            "the outputs are no detections, so there is nothing to draw",
            f"detections are known by their names, boxes, scores, labels, and these are: {outputs}",
        )

    def drawings(self) -> list[tuple[str, Image.Image]]:
        """Each picture with what was found on it drawn, and what it shows in words; none where nothing can be drawn."""
        pages = [page for call in self.calls for page in call.pages]
        found = self.detections
        if found:
            return [
                (_in_words(page.title, one, self.labels), drawn(page.picture, one, self.labels, self.dataset))
                for page, one in zip(pages if len(pages) == len(found) else (), found, strict=False)
            ]
        drawings = []
        for call in self.calls:
            if len(sizes := {page.input_size for page in call.pages}) != 1:
                continue
            maps = heatmaps_among(call.outputs, sizes.pop(), len(call.pages))
            for number, page in enumerate(call.pages):
                for name, array in maps.items():
                    told = f"{page.title}: {name}, the highest of {array.shape[1]} maps"
                    picture = heated(page.picture, array[number], page.placement, page.input_size)
                    drawings.append((told, picture))
        return drawings

    def save_picture(self, path: Path) -> None:
        """Write ``picture()`` to a file: aside, then renamed, so that a failure leaves what was there before.

        Raises:
            GraphForgeError: it cannot be drawn or written.
        """
        picture = self.picture()
        kind = path.suffix[1:].lower()
        try:
            descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    picture.save(file, format={"jpg": "jpeg"}.get(kind, kind))
                os.chmod(aside, 0o644)
                os.replace(aside, path)
            except OSError:
                os.unlink(aside)
                raise
        except OSError as error:
            raise GraphForgeError(
                f"cannot write {str(path)!r}: {error.strerror or error}",
                f"choose another place: {argument('draw', 'FILE')}",
            ) from None

    def pictures(self) -> Sequence[bytes]:
        """The drawing as a PNG file, where there is one."""
        found = self.drawings()
        if not found:
            return ()
        file = io.BytesIO()
        side_by_side([picture for _, picture in found]).save(file, format="png")
        return (file.getvalue(),)

    def render(self, console: Console) -> None:
        """Print the outputs, or the detections among them."""
        from rich.markup import escape

        for call in self.calls:
            _print_call(console, call, self.score, self.labels)
        for note in self.notes:
            console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)
        drawn_on = "" if self.drawn_on is None else f", drawn on {self.drawn_on}"
        console.print(escape(f"run by {self.runner}{drawn_on}"), soft_wrap=True)


def call_of(outputs: Mapping[str, Array], unpadded: Mapping[str, Array], feed: Feed) -> Call:
    """A run's outputs with the detections in them on the pictures that went in.

    Args:
        outputs: as the artifact returned them.
        unpadded: the same without padding.
        feed: what went in.

    Raises:
        GraphForgeError: there are detections of other images than went in.
    """
    found = detections_of(unpadded, feed.pages[0].input_size if feed.pages else None) or []
    pages = feed.pages
    if found and len(found) != feed.images:
        if feed.from_files:
            raise GraphForgeError(
                f"the outputs hold detections of {len(found)} images, but {feed.images} went in",
                f"the outputs are: {', '.join(f'{name} {array.shape}' for name, array in outputs.items())}",
            )
        pages = ()  # so the arrays were no pictures
    if pages:  # detections beyond are those of the images that filled the batch up
        found = [
            image.on_picture(page.placement, page.picture.size, page.input_size)
            for image, page in zip(found, pages, strict=False)
        ]
    return Call(pages, outputs, tuple(found))


def drawing_path(text: str | os.PathLike[str]) -> Path:
    """The file to draw on, seen to be one that can be written.

    Raises:
        UsageError: no such kind of picture is written.
        GraphForgeError: there is no such folder, or it is one itself.
    """
    path = Path(text)
    other = f"choose another place: {argument('draw', 'FILE')}"
    if path.suffix.lower() not in DRAWN_AS:
        raise UsageError(
            f"{argument('draw')} {str(text)!r}: unknown kind of picture", f"end the name with {', '.join(DRAWN_AS)}"
        )
    if path.is_dir():
        raise GraphForgeError(f"cannot write {str(text)!r}: it is a folder", other)
    if not path.parent.is_dir():
        raise GraphForgeError(f"cannot write {str(text)!r}: there is no folder {str(path.parent)!r}", "make it", other)
    return path


def _in_words(title: str, found: Detections, names: Sequence[str]) -> str:
    """``street.jpg: 2 detections, person 0.98, dog 0.71``."""
    told = [
        f"{name_of(int(label), names)} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True)
    ]
    count = f"{len(told)} detection{'s' * (len(told) != 1)}"
    more = ["..."] if len(told) > _TOLD else []
    return f"{title}: {', '.join([count, *told[:_TOLD], *more])}"


def _facts(name: str, array: Array) -> dict[str, Any]:
    plain = array.dtype.kind in "fiub" and array.size > 0
    return {
        "name": name,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "min": np.nanmin(array).item() if plain else None,
        "max": np.nanmax(array).item() if plain else None,
        "mean": float(np.mean(array, dtype=np.float64)) if plain else None,
    }


def _print_call(console: Console, call: Call, score: float, names: Sequence[str]) -> None:
    from rich.markup import escape

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


def _detections_table(found: Detections, names: Sequence[str]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("label")
    for column in ("score", "left", "top", "right", "bottom"):
        table.add_column(column, justify="right")
    if found.keypoints is not None:
        table.add_column("keypoints", overflow="fold")
    for entry in found.to_list(names):
        points = " ".join(f"{x:.0f},{y:.0f}" for x, y, *_ in entry.get("keypoints", ()))
        sides = (f"{side:.1f}" for side in entry["box"])
        cells = [escape(entry["name"]), f"{entry['score']:.3f}", *sides]
        table.add_row(*cells, *([points] if found.keypoints is not None else []))
    return table


def _outputs_table(call: Call) -> Table:
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
