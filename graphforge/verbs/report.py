"""`graphforge.report`: one bundle as a page for the browser, which a notebook shows as it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError
from graphforge.prepare import ModelLike, Prepared, example_feeds, load, prepare
from graphforge.shown import Shown
from graphforge.verbs.diff import diff as compare
from graphforge.verify.times import node_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from graphforge.errors import GraphForgeError
    from graphforge.journal import Progress

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
        """The page itself, in a frame of its own, so that its style and the notebook's do not meet."""
        page = escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe sandbox srcdoc="{page}" style="width:100%;height:36em;border:1px solid #8888"></iframe>'


def report(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    diff: Shown | None = None,
    model: ModelLike | None = None,
    inputs: Any = None,
    dynamic_shapes: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Page:
    """Write a bundle as one self-contained HTML page: verdict, graph, where it departs, passes, verification.

    With the model that it was compiled from, the graph is coloured by error and by time too, and each node shows the
    rewrites that led to it; this runs the model, its passes and the artifact once more.

    Args:
        bundle: a ``Bundle`` or its folder.
        output: file to write; None is ``report.html`` in the bundle.
        diff: a diff to show; None makes one where the model is given.
        model: the model, as ``graphforge.compile`` takes it.
        inputs, dynamic_shapes: its example call; None is what the bundle's manifest records.
        seed: of random inputs.
        progress: called with the name of each step.

    Raises:
        GraphForgeError: the folder is not a bundle, or the file cannot be written.
    """
    from graphforge.page import write_report
    from graphforge.runners.recorded import read_manifest, spec_of_manifest

    folder = Path(bundle)
    facts: dict[str, Any] = {}
    if model is not None:
        manifest = read_manifest(folder, unverified=True)
        loaded = load(model)
        if inputs is None and loaded.example is None:
            inputs = spec_of_manifest(manifest)
        prepared = prepare(loaded, inputs, dynamic_shapes=dynamic_shapes, seed=seed)
        file = _file_of(folder, manifest)
        if progress is not None:
            progress("values")
        diff = diff or compare(loaded, file, inputs, dynamic_shapes=dynamic_shapes, seed=seed)
        if progress is not None:
            progress("passes")
        facts = {"rewrites": _rewrites(prepared, manifest), "seconds": node_seconds(file, example_feeds(prepared))}
    return Page(write_report(folder, None if output is None else Path(output), diff=diff, **facts))


def _file_of(folder: Path, manifest: Mapping[str, Any]) -> Path:
    names = [*(name for name in manifest.get("files", ()) if name.endswith(".onnx")), "model.unverified.onnx"]
    found: Path | None = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise GraphForgeError(f"bundle {str(folder)!r} has no ONNX file to look into")
    return found


def _rewrites(prepared: Prepared, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the bundle's passes do to the model, each with the nodes of the file that it led to."""
    from graphforge.options import CompileOptions, plan
    from graphforge.verbs.explain import history_of

    target = manifest.get("target", {})
    asked = {name: target.get(name) for name in ("opset", "outputs", "nms", "precision")}
    history = history_of(prepared, plan(CompileOptions(target=target.get("name", "onnx"), **asked)))
    led_to: dict[int, list[str]] = {}
    places = {id(rewrite): number for number, rewrite in enumerate(history.rewrites)}
    for node in history.model.graph.all_nodes():
        names = [node.name or "", *(value.name or "" for value in node.outputs)]
        found, _ = history.of(history.names.get(name, name) for name in names)
        for rewrite in found:
            led_to.setdefault(places[id(rewrite)], []).append(node.name or names[-1])
    return [{**rewrite.to_dict(), "nodes": led_to.get(number, [])} for number, rewrite in enumerate(history.rewrites)]
