"""One bundle as one HTML page: the verdict, the graph, where it departs, what was done.  Nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.diagnosis.report import COSTS
from graphforge.errors import argument
from graphforge.page.commands import commands_of
from graphforge.runners.recorded import read_manifest
from graphforge.verify.pages import write_page_to

if TYPE_CHECKING:
    from graphforge.shown import Shown

__all__ = ["render_report", "write_report"]

_TEMPLATE = "page.html.jinja"


def write_report(
    bundle: Path | str,
    output: Path | str | None = None,
    *,
    diff: Shown | None = None,
    rewrites: Sequence[Mapping[str, Any]] = (),
    seconds: Mapping[str, float] | None = None,
    spreads: Mapping[str, Mapping[str, Any]] | None = None,
    pictures: Sequence[tuple[str, str, bytes]] = (),
    picture_notes: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` into the bundle (or elsewhere).

    Args:
        bundle: folder made by ``graphforge compile``.
        output: file to write; None is ``report.html`` in the bundle.
        diff: layer-wise diff to show as well.
        rewrites: what passes did, as ``graph_data`` takes it.
        seconds: time of each node, by its name.
        spreads: how the elements of values are spread, as ``graph_data`` takes it.
        pictures: results drawn: what each shows, ``png`` or ``jpeg``, and the file.
        picture_notes: what is to be known of them.

    Returns:
        The file written.

    Raises:
        GraphForgeError: the folder is not a bundle, or the file cannot be written.
    """
    folder = Path(bundle)
    manifest = read_manifest(folder, unverified=True)
    plain = None if diff is None else diff.to_dict()
    page = render_report(
        manifest,
        opset=_opset(folder, manifest),
        diff=plain,
        graph=_graph(folder, manifest, plain, rewrites, seconds, spreads),
        pictures=pictures,
        picture_notes=picture_notes,
        folder=folder,
    )
    target = folder / "report.html" if output is None else Path(output)
    return write_page_to(target, page, way_out=f"choose another place: {argument('output', 'FILE')}")


def render_report(
    manifest: Mapping[str, Any],
    *,
    opset: Mapping[str, Any] | None = None,
    diff: Mapping[str, Any] | None = None,
    graph: Mapping[str, Any] | None = None,
    pictures: Sequence[tuple[str, str, bytes]] = (),
    picture_notes: Sequence[str] = (),
    folder: Path | None = None,
) -> str:
    """The page for a manifest; ``opset``, ``diff`` and ``graph`` are in the form of plain data."""
    import base64

    import jinja2
    from markupsafe import Markup

    from graphforge.shown import short_source

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("graphforge.page", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        shape=_shape,
        number=_number,
        milliseconds=_milliseconds,
        share=_share,
        source=short_source,
        decibels=_decibels,
        lost=_lost,
    )
    passes = manifest.get("passes", [])
    steps = manifest.get("steps", [])
    verification = manifest.get("verification", {})
    return environment.get_template(_TEMPLATE).render(
        title=_title(manifest),
        verdict=_verdict(verification, diff),
        manifest=manifest,
        target=manifest.get("target", {}),
        artifact=manifest.get("artifact", {}),
        inputs=manifest.get("inputs", []),
        outputs=manifest.get("outputs", []),
        steps=steps,
        longest_step=max((step["seconds"] for step in steps), default=0),
        passes=passes,
        most_nodes=max((max(item["nodes_before"], item["nodes_after"]) for item in passes), default=0),
        verification=verification,
        capture=manifest.get("capture", {}),
        fallbacks=manifest.get("lowering", {}).get("fallbacks", []),
        decomposed=manifest.get("lowering", {}).get("decomposed", {}),
        operators=sorted(manifest.get("operators", {}).items(), key=lambda item: (-item[1], item[0])),
        notes=manifest.get("notes", []),
        versions=manifest.get("versions", {}),
        opset=opset,
        diff=diff,
        graph=graph,
        # "<" in the data would let it end its element
        graph_json=Markup(json.dumps(graph, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")),
        layout_engine=Markup(_beside("vendor/dagre.min.js")) if graph else "",
        script=Markup(_beside("page.js")) if graph else "",
        licence=_beside("vendor/dagre.LICENSE") if graph else "",
        pictures=[(title, kind, base64.b64encode(content).decode()) for title, kind, content in pictures],
        picture_notes=picture_notes,
        foreign=_foreign(passes, graph),
        commands=commands_of(manifest, folder),
    )


def _beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _graph(
    folder: Path,
    manifest: Mapping[str, Any],
    diff: Mapping[str, Any] | None,
    rewrites: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float] | None,
    spreads: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, Any] | None:
    """The graph of the bundle's ONNX file; None where there is none."""
    from graphforge.page.graph import graph_data

    names = [*manifest.get("files", ()), "model.unverified.onnx"]
    path = next((folder / name for name in names if name.endswith(".onnx") and (folder / name).is_file()), None)
    if path is None:
        return None
    return graph_data(path, diff=diff, rewrites=rewrites, seconds=seconds, spreads=spreads)


def _foreign(passes: Sequence[Mapping[str, Any]], graph: Mapping[str, Any] | None) -> list[str]:
    """Passes of the user's own that changed something, and whose rewrites the page does not have."""
    told = {rewrite["pass_name"] for rewrite in (graph or {}).get("rewrites", ())}
    return [one["name"] for one in passes if one.get("source") and one["changes"] and one["name"] not in told]


def _opset(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    name = next((name for name in manifest.get("files", ()) if name.endswith(".onnx")), None)
    if name is None or not (folder / name).is_file():
        return None
    from graphforge.opsets.audit import opset_report_of_file

    return opset_report_of_file(folder / name).to_dict()


def _title(manifest: Mapping[str, Any]) -> str:
    spec = manifest.get("model", {}).get("spec") or "a module in memory"
    return f"{spec} for {manifest.get('target', {}).get('name', 'onnx')}"


def _verdict(verification: Mapping[str, Any], diff: Mapping[str, Any] | None) -> tuple[str, str]:
    """(class, sentence); what the diff found in the file as it is now goes before what was recorded."""
    passed = verification.get("passed")
    if passed and diff is not None and not diff.get("agrees", True):
        if diff.get("weights") and not diff.get("causes"):
            return "unknown", f"agreed when it was compiled; the model given now is another: {diff['weights'][0]}"
        place = _place(diff).removeprefix(": ")
        if diff.get("level") and diff.get("causes") and diff["causes"][0]["by"] == COSTS:
            return "failed", f"too few digits: departs from the model with each result in {diff['level']}, {place}"
        told = "departs from the model, although it agreed when it was compiled: the file is another now"
        return "failed", f"{told}, {place}" if place else told
    if passed is None:
        return "unknown", f"not verified: {verification.get('skipped', 'no reason recorded')}"
    if passed:
        trials = verification.get("trials", [])
        return "passed", (
            f"agrees with {verification['reference']} on {len(trials)} sets of inputs; largest difference "
            f"{_number(verification['max_rel'])} of the output's largest magnitude"
        )
    if verification.get("verdict") == "undecided":
        return "unknown", f"undecided: {(verification.get('failures') or ['no reason recorded'])[0]}"
    return "failed", f"does not agree with {verification['reference']}{_place(diff)}"


def _place(diff: Mapping[str, Any] | None) -> str:
    """Where a diff found it to be wrong, for the verdict."""
    cause = next(iter((diff or {}).get("causes", ())), None)
    if cause is None:
        return ""
    from graphforge.shown import short_source

    where = [cause["module"] or "the model", short_source(cause["source"]), cause["node"]]
    return f": wrong at {', '.join(part for part in where if part)}"


def _shape(dims: Any) -> str:
    if dims is None:
        return "unknown"
    return "×".join(str(dim) if dim is not None else "?" for dim in dims) or "scalar"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _milliseconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "0"


# A layer that leaves the outputs right to this many decibels costs nothing that anybody would see.
_NOTHING_LOST = 100.0


def _decibels(ratio: Any) -> str:
    """A ratio in decibels, as JSON has it: infinite ones are text."""
    if ratio is None:
        return "–"
    return {"inf": "∞", "-inf": "−∞"}.get(str(ratio), f"{float(ratio):.1f}")


def _lost(ratio: Any) -> str:
    """How much of ``_NOTHING_LOST`` is gone, in per cent."""
    if ratio is None:
        return "0"
    return f"{100 * min(max(1 - float(ratio) / _NOTHING_LOST, 0.0), 1.0):.1f}"
