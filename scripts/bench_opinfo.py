"""All OpInfo samples against every lowering; writes the coverage table tests/frontend/OPINFO.md.

python scripts/bench_opinfo.py [--limit N] [--entry PATTERN] [--dtype NAME] [--no-table]
"""

from __future__ import annotations

import argparse
import fnmatch
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnxruntime
import torch

from graphforge.frontend.rules import lowered_operators
from tests.frontend.opinfo import DTYPES, Result, Sample, Status, check, entries, samples
from tests.frontend.opinfo_coverage import EXEMPTIONS, TABLE, Exemption, exemption_of, is_by_design
from tests.frontend.test_by_hand import CASES, ELSEWHERE

_FAILED = (Status.WRONG, Status.BROKEN, Status.REFUSED)


@dataclass(slots=True)
class Tally:
    """What the samples came to."""

    statuses: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    exempt: Counter[str] = field(default_factory=Counter)
    entries: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    outside: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unusable: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    refused: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    exempted: Counter[Exemption] = field(default_factory=Counter)
    unneeded: dict[Exemption, list[str]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)

    def add(self, sample: Sample, result: Result) -> None:
        """Count one sample."""
        status = result.status.value
        exemption = exemption_of(sample, result)
        if result.status in _FAILED:
            if is_by_design(result):
                status = "by design"
                self.refused[sample.entry].add(result.reason)
            elif exemption is not None:
                status = "exempt"
                self.exempted[exemption] += 1
                self.exempt.update(result.reached)
            else:
                self.failures.append(f"{sample.name}: {status}: {result.reason}")
        elif result.status is Status.PASSED:
            self.passed.update(result.reached)
            if exemption is not None:
                self.unneeded[exemption].append(sample.name)
        elif result.status is Status.OUTSIDE:
            self.outside[sample.entry].add(result.reason)
        else:
            self.unusable[sample.entry].add(result.reason.split(" (")[0][:100].replace("|", "/"))
        self.statuses[status] += 1
        self.entries[sample.entry][status] += 1
        if status in ("passed", "exempt", "wrong", "broken", "refused"):
            self.reached.update(result.reached)


def run(names: Sequence[str], dtypes: Sequence[torch.dtype], limit: int | None) -> Tally:
    """Check every sample of the entries."""
    tally = Tally()
    known = entries()
    began = time.perf_counter()
    for position, name in enumerate(names):
        for dtype in dtypes:
            for sample in samples(name, known[name], dtype, limit=limit):
                result = check(sample)
                before = len(tally.failures)
                tally.add(sample, result)
                for failure in tally.failures[before:]:
                    print(failure, flush=True)
        if sys.stderr.isatty() or position % 50 == 0:
            done = sum(tally.statuses.values())
            print(
                f"{position + 1}/{len(names)} {name}: {done} samples, {time.perf_counter() - began:.0f} s",
                file=sys.stderr,
            )
    return tally


def table(tally: Tally, limit: int | None) -> Iterable[str]:
    """The lines of the coverage table."""
    inside = sum(tally.statuses[status] for status in ("passed", "exempt", "wrong", "broken", "refused"))
    share = tally.statuses["exempt"] / max(inside, 1)
    yield "# OpInfo coverage"
    yield ""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=TABLE.parent, capture_output=True, text=True, check=False
    )
    yield f"Made at commit {commit.stdout.strip() or '?'}; lowerings that came later are not in this table."
    yield ""
    drawn = "all samples" if limit is None else f"at most {limit} samples, drawn with a fixed seed,"
    yield (
        f"Written by `scripts/bench_opinfo.py` with torch {torch.__version__.split('+')[0]} and ONNX Runtime "
        f"{onnxruntime.__version__}; {drawn} of each of "
        f"{len(tally.entries)} entries and of each dtype in "
        f"{', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES)}."
    )
    yield ""
    yield "| samples | count |"
    yield "| --- | ---: |"
    yield f"| within our lowerings | {inside} |"
    yield f"| passed | {tally.statuses['passed']} |"
    yield f"| exempt | {tally.statuses['exempt']} ({share:.2%}) |"
    for status in ("wrong", "broken", "refused"):
        yield f"| {status} | {tally.statuses[status]} |"
    yield f"| refused by design | {tally.statuses['by design']} |"
    yield f"| outside: reach an operator with neither rule nor decomposition | {tally.statuses['outside']} |"
    yield f"| not usable: complex or sparse, or torch itself cannot run or trace them | {tally.statuses['unusable']} |"
    yield ""
    yield "## Exemptions"
    yield ""
    yield "| entry | dtypes | samples | reason |"
    yield "| --- | --- | ---: | --- |"
    for exemption in EXEMPTIONS:
        dtypes = ", ".join(exemption.dtypes) or "all"
        yield f"| `{exemption.entry}` | {dtypes} | {tally.exempted[exemption]} | {exemption.reason} |"
    yield ""
    yield "## Lowered operators"
    yield ""
    yield "| operator | samples | passed | exempt | by hand |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for name in lowered_operators():
        by_hand = f"{len(CASES[name])} calls" if name in CASES else ELSEWHERE.get(name, "")
        yield f"| `{name}` | {tally.reached[name]} | {tally.passed[name]} | {tally.exempt[name]} | {by_hand} |"
    yield ""
    yield "## Refused by design"
    yield ""
    yield "| entry | reason |"
    yield "| --- | --- |"
    for name, reasons in sorted(tally.refused.items()):
        yield f"| `{name}` | {'; '.join(sorted(reasons))} |"
    yield ""
    yield "## Outside"
    yield ""
    yield "Entries of which no sample stays within our lowerings, and what stops them."
    yield ""
    yield "| entry | reaches |"
    yield "| --- | --- |"
    for name, counts in sorted(tally.entries.items()):
        if not any(counts[status] for status in ("passed", "exempt", "by design", *_failed())):
            reaches = ", ".join(f"`{reason}`" for reason in sorted(tally.outside[name]))
            yield f"| `{name}` | {reaches or '; '.join(sorted(tally.unusable[name]))} |"


def _failed() -> list[str]:
    return [status.value for status in _FAILED]


def main() -> int:
    """Run; 0 when nothing failed that is not exempt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=24, help="samples of each entry and dtype, 0 for all")
    parser.add_argument("--entry", default="*", help="pattern of entry names")
    parser.add_argument("--dtype", action="append", help="dtype by name, repeatable")
    parser.add_argument("--no-table", action="store_true", help="leave tests/frontend/OPINFO.md alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    limit = options.limit or None
    names = fnmatch.filter(entries(), options.entry)
    dtypes = [getattr(torch, name) for name in options.dtype] if options.dtype else list(DTYPES)
    tally = run(names, dtypes, limit)
    print(dict(tally.statuses))
    for exemption in EXEMPTIONS:
        if tally.unneeded[exemption] and (exemption.samples or not tally.exempted[exemption]):
            print(f"exempted, but passes now: {', '.join(tally.unneeded[exemption][:8])} ({exemption.reason})")
    if not options.no_table and options.entry == "*" and options.dtype is None:
        TABLE.write_text("\n".join(table(tally, limit)) + "\n", encoding="utf-8")
        print(f"wrote {TABLE}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
