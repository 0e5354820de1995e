"""What passes did, told to people: which rules nearly fired and why they did not, and where the time went.

Everything comes from the records of a run (``Pipeline.run``), which the manifest of a bundle keeps too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from graphforge.transform.pipeline import PassRecord
from graphforge.transform.rewriter import NearMiss

__all__ = ["explain", "idle_notes", "idle_passes", "near_misses", "pass_times"]

# More reasons than a screen holds are counted; the manifest has them all.
_MOST_REASONS = 20
_MOST_PLACES = 3


def explain(records: Sequence[PassRecord], *, most: int = _MOST_REASONS) -> str:
    """Passes that are not ours and changed nothing, then what nearly fired: pass, rule, reason, places.

    Args:
        records: what each pass did.
        most: this many reasons are shown, those of passes that are not ours first, then the most frequent.
    """
    lines: list[str] = []
    idle = idle_passes(records)
    if idle:
        lines.append("passes of your own that changed nothing:")
        lines += [f"  {record.name}  ({_shown(record.source)})" for record in idle]
        lines.append("")
    found = near_misses(records)
    lines.append("near misses, what nearly fired and why it did not:" if found else "near misses: none")
    for name, miss in found[:most]:
        rule = "" if miss.rule == name else f", {miss.rule}"
        times = "" if miss.count == 1 else f"  ({miss.count} times)"
        lines.append(f"  {name}{rule}: {miss.reason}{times}")
        lines += [f"      {place}" for place in miss.places[:_MOST_PLACES]]
    if len(found) > most:
        lines.append(f"  and {len(found) - most} more reasons, which the manifest lists: passes[].near_misses")
    return "\n".join(lines)


def near_misses(records: Iterable[PassRecord]) -> list[tuple[str, NearMiss]]:
    """Pass name and near miss, each reason once: of passes that are not ours first, then the most frequent first.

    A pass that runs several times meets the same places again, so the largest count is taken, not the sum.
    """
    merged: dict[tuple[str, str, str], NearMiss] = {}
    theirs = set()
    for record in records:
        if record.source:
            theirs.add(record.name)
        for miss in record.near_misses:
            key = (record.name, miss.rule, miss.reason)
            before = merged.get(key)
            places = dict.fromkeys((*(before.places if before else ()), *miss.places))
            count = max(miss.count, before.count if before else 0, len(places))
            merged[key] = replace(miss, count=count, places=tuple(places))
    ordered = sorted(merged.items(), key=lambda item: (item[0][0] not in theirs, -item[1].count))
    return [(name, miss) for (name, _, _), miss in ordered]


def idle_passes(records: Iterable[PassRecord]) -> list[PassRecord]:
    """The passes that are not ours and changed nothing, however often they ran."""
    last: dict[str, PassRecord] = {}
    busy = set()
    for record in records:
        if record.source:
            last[record.name] = record
        if record.changes:
            busy.add(record.name)
    return [record for name, record in last.items() if name not in busy]


def idle_notes(records: Sequence[PassRecord]) -> list[str]:
    """A sentence on each pass that is not ours and changed nothing, with what came nearest."""
    notes = []
    misses = near_misses(records)
    for record in idle_passes(records):
        miss = next((miss for name, miss in misses if name == record.name), None)
        why = "" if miss is None else f"; nearest: {miss.reason}"
        where = f" at {miss.places[0]}" if miss is not None and miss.places else ""
        notes.append(f"pass {record.name} ({_shown(record.source)}) changed nothing{why}{where}")
    return notes


def _shown(source: str) -> str:
    """A path as a person would write it: from the current folder where it lies below that."""
    path = Path(source)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else source


def pass_times(records: Iterable[PassRecord]) -> str:
    """A table of the passes, the slowest first, runs of one pass added up."""
    runs: dict[str, list[PassRecord]] = {}
    for record in records:
        runs.setdefault(record.name, []).append(record)
    total = sum(record.seconds for found in runs.values() for record in found)
    rows = [("ms", "share", "changes", "nodes", "pass")]
    for name, found in sorted(runs.items(), key=lambda item: -sum(record.seconds for record in item[1])):
        seconds = sum(record.seconds for record in found)
        changes = sum(record.changes for record in found)
        nodes = sum(record.nodes_after - record.nodes_before for record in found)
        rows.append(
            (
                f"{seconds * 1000:.1f}",
                f"{100 * seconds / total:.0f} %" if total else "",
                str(changes or ""),
                f"{nodes:+}" if nodes else "",
                name + (f"  ({len(found)} runs)" if len(found) > 1 else ""),
            )
        )
    rows.append((f"{total * 1000:.1f}", "", "", "", "all"))
    lines = [f"{ms:>9}  {share:>5}  {changes:>7}  {nodes:>6}  {name}" for ms, share, changes, nodes, name in rows]
    return "\n".join(lines)
