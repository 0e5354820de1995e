"""`graphforge.report`: one bundle as a page for the browser, which a notebook shows as it is."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.page.spread import spread_of
from graphforge.prepare import ModelLike, Prepared, example_feeds, load, prepare
from graphforge.shown import Shown
from graphforge.verbs.diff import diff as compare
from graphforge.verbs.run import run
from graphforge.verify.times import node_seconds

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

    from graphforge.journal import Progress
    from graphforge.runners.arrays import Array
    from graphforge.transform import Pass

__all__ = ["Page", "report"]


@dataclass(frozen=True, slots=True, repr=False)
class Page(Shown):
    """A page that was written.

    Attributes:
        path: the HTML file.
    """

    path: Path

    def summary(self) -> str:
        """Where it is."""
        return str(self.path)

    def render(self, console: Console) -> None:
        """Print where it is."""
        console.print(f"written: {self.path}", soft_wrap=True, markup=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"report": str(self.path)}

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        """The page itself, in a frame of its own: its style, its scripts and the notebook's do not meet."""
        page = escape(self.path.read_text(encoding="utf-8"))
        style = 'style="width:100%;height:36em;border:1px solid #8888"'
        return f'<iframe sandbox="allow-scripts" title="report" srcdoc="{page}" {style}></iframe>'


def report(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    diff: Shown | None = None,
    model: ModelLike | None = None,
    inputs: Any = None,
    dynamic_shapes: Any = None,
    passes: Sequence[Pass] = (),
    pictures: Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Page:
    """Write a bundle as one self-contained HTML page: verdict, graph, where it departs, passes, verification.

    With the model that it was compiled from, the graph is coloured by error and by time too, and each node shows the
    spread of its values and the rewrites that led to it; this runs the model, its passes and the artifact once more.
    With pictures the bundle is run on them, and what it finds is drawn.

    Args:
        bundle: a ``Bundle`` or its folder.
        output: file to write; None is ``report.html`` in the bundle.
        diff: a diff to show; None makes one where the model is given.
        model: the model, as ``graphforge.compile`` takes it.
        inputs, dynamic_shapes: its example call; None is what the bundle's manifest records.
        passes: passes of your own that it was compiled with, so that their rewrites are shown as well.
        pictures: files to run the bundle on: detections, poses and heatmaps are drawn on them.
        seed: of random inputs.
        progress: called with the name of each step.

    Raises:
        GraphForgeError: the folder is not a bundle, or the file cannot be written.
    """
    from graphforge.page import write_report
    from graphforge.runners.recorded import read_manifest, spec_of_manifest

    folder = Path(bundle)
    manifest = read_manifest(folder, unverified=True)
    if isinstance(pictures, str | os.PathLike):
        raise UsageError(
            f"{argument('pictures')}: expected a list of files, got {os.fspath(pictures)!r}", "put it into a list"
        )
    facts: dict[str, Any] = {}
    if pictures:
        if progress is not None:
            progress("pictures")
        facts |= _drawn(folder, [Path(one) for one in pictures])
    if model is not None:
        loaded = load(model)
        if inputs is None and loaded.example is None:
            inputs = spec_of_manifest(manifest)
        prepared = prepare(loaded, inputs, dynamic_shapes=dynamic_shapes, seed=seed)
        file = _file_of(folder, manifest)
        if progress is not None:
            progress("values")
        spreads: dict[str, Any] = {}

        def watch(name: str, reference: Array, found: Array) -> None:
            spreads[name] = spread_of(reference, found)

        diff = diff or compare(loaded, file, inputs, dynamic_shapes=dynamic_shapes, seed=seed, watch=watch)
        if progress is not None:
            progress("passes")
        facts |= {
            "rewrites": _rewrites(prepared, manifest, passes),
            "seconds": node_seconds(file, example_feeds(prepared)),
            "spreads": {name: one for name, one in spreads.items() if one is not None},
        }
    return Page(write_report(folder, None if output is None else Path(output), diff=diff, **facts))


def _drawn(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """What the bundle finds on pictures, drawn, and what is to be known of it."""
    found = run(folder, list(files))
    drawings = found.drawings()
    if not drawings:
        raise GraphForgeError(
            f"nothing of what bundle {str(folder)!r} gives can be drawn",
            "detections, poses and heatmaps are; `graphforge run` lists its outputs",
        )
    return {"pictures": [(told, *_smallest(picture)) for told, picture in drawings], "picture_notes": found.notes}


def _smallest(picture: Image.Image) -> tuple[str, bytes]:
    """As PNG, or as JPEG where that is much smaller, as it is for photographs."""
    found = {}
    for kind in ("png", "jpeg"):
        file = io.BytesIO()
        picture.convert("RGB").save(file, format=kind, optimize=True, **({"quality": 88} if kind == "jpeg" else {}))
        found[kind] = file.getvalue()
    kind = "jpeg" if 2 * len(found["jpeg"]) < len(found["png"]) else "png"
    return kind, found[kind]


def _file_of(folder: Path, manifest: Mapping[str, Any]) -> Path:
    names = [*(name for name in manifest.get("files", ()) if name.endswith(".onnx")), "model.unverified.onnx"]
    found: Path | None = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise GraphForgeError(f"bundle {str(folder)!r} has no ONNX file to look into")
    return found


def _rewrites(prepared: Prepared, manifest: Mapping[str, Any], passes: Sequence[Pass]) -> list[dict[str, Any]]:
    """What the bundle's passes do to the model, each with the nodes of the file that it led to."""
    from graphforge.options import CompileOptions, plan
    from graphforge.verbs.explain import history_of

    target = manifest.get("target", {})
    asked = {name: target.get(name) for name in ("opset", "outputs", "nms", "precision")}
    history = history_of(prepared, plan(CompileOptions(target=target.get("name", "onnx"), passes=passes, **asked)))
    led_to: dict[int, list[str]] = {}
    places = {id(rewrite): number for number, rewrite in enumerate(history.rewrites)}
    for node in history.model.graph.all_nodes():
        names = [node.name or "", *(value.name or "" for value in node.outputs)]
        found, _ = history.of(history.names.get(name, name) for name in names)
        for rewrite in found:
            led_to.setdefault(places[id(rewrite)], []).append(node.name or names[-1])
    return [{**rewrite.to_dict(), "nodes": led_to.get(number, [])} for number, rewrite in enumerate(history.rewrites)]
