"""What the OpInfo samples cover: exemptions with their reasons, and the generated table."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils import _pytree

from tests.frontend.opinfo import Result, Sample, Status

__all__ = ["EXEMPTIONS", "TABLE", "Exemption", "covered_operators", "exemption_of", "is_by_design", "outside_entries"]

TABLE = Path(__file__).parent / "OPINFO.md"
_FILE = Path(__file__).parent / "opinfo_exemptions.toml"

# Refusals that are right: nothing that draws random numbers or trains can be proven equal to its model.
_BY_DESIGN = (
    "draws random numbers",
    "draws random slopes",
    "dropout is active",
)


@dataclass(frozen=True, slots=True)
class Exemption:
    """Samples that are known to fail, and why.

    Attributes:
        entry: pattern of OpInfo entry names (``topk``, ``nn.functional.interpolate/*``).
        dtypes: names of torch dtypes; empty for all.
        samples: numbers of the samples; empty for all.
        nan: only samples that hold NaN.
        failure: text that the failure must have, so that another failure of the same sample still counts.
        reason: why, for the table.
    """

    entry: str
    dtypes: tuple[str, ...]
    samples: tuple[int, ...]
    nan: bool
    failure: str
    reason: str

    def covers(self, sample: Sample) -> bool:
        """Whether the sample is among them."""
        dtype = str(sample.dtype).removeprefix("torch.")
        return (
            fnmatch.fnmatchcase(sample.entry, self.entry)
            and (not self.dtypes or dtype in self.dtypes)
            and (not self.samples or sample.index in self.samples)
            and (not self.nan or _holds_nan(sample))
        )


def _holds_nan(sample: Sample) -> bool:
    leaves = _pytree.tree_leaves((sample.args, dict(sample.kwargs)))
    return any(isinstance(leaf, torch.Tensor) and bool(leaf.isnan().any()) for leaf in leaves)


def _read() -> tuple[Exemption, ...]:
    listed = tomllib.loads(_FILE.read_text(encoding="utf-8")).get("exempt", [])
    return tuple(
        Exemption(
            entry=item["entry"],
            dtypes=tuple(item.get("dtypes", ())),
            samples=tuple(item.get("samples", ())),
            nan=item.get("nan", False),
            failure=item["failure"],
            reason=item["reason"],
        )
        for item in listed
    )


EXEMPTIONS = _read()


def exemption_of(sample: Sample, result: Result) -> Exemption | None:
    """The exemption that a failure falls under (of a sample that passed: that it would fall under)."""
    passed = result.status is Status.PASSED
    return next(
        (each for each in EXEMPTIONS if each.covers(sample) and (passed or each.failure in result.reason)),
        None,
    )


def is_by_design(result: Result) -> bool:
    """Whether a refusal is what we promise."""
    return result.status is Status.REFUSED and any(reason in result.reason for reason in _BY_DESIGN)


def _rows(section: str) -> Iterable[list[str]]:
    inside = False
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            inside = line == f"## {section}"
        elif inside and line.startswith("| ") and not line.startswith(("| ---", "| operator", "| entry")):
            yield [cell.strip(" `") for cell in line.strip("|").split("|")]


def outside_entries() -> set[str]:
    """Entries of which no sample stays within our lowerings, by the table."""
    return {row[0] for row in _rows("Outside")} if TABLE.exists() else set()


def covered_operators() -> dict[str, int]:
    """Lowered operator -> passed samples, by the table."""
    return {row[0]: int(row[2]) for row in _rows("Lowered operators")}
