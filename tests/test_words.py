"""The word list of CONTRIBUTING.md, held over documentation, docstrings, comments and messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# pattern -> what to write instead; "there is no ..." is good English, so is "no longer"
_WORDS = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(the|a|its|passes|ops) rooms?\b": "folder",
    r"\bof yours\b": "your own",
    r"\bof one's own\b": "custom",
    r"\bis no (?!longer\b|more\b|less\b|better\b|worse\b|such\b|one\b)": "is not a",
    r"\bholds? no\b": "contains no",
    r"\bhas no form\b": "cannot be expressed",
}
_THERE = re.compile(r"\b(there|where|here)\s+$", re.IGNORECASE)


def _texts() -> Iterator[Path]:
    for pattern in ("*.md", "graphforge/**/*.py", "passes/**/*.py", "ops/**/*.py", "scripts/**/*.py"):
        yield from ROOT.glob(pattern)
    for pattern in ("graphforge/**/*.md", "graphforge/**/*.jinja", "passes/*.md", "ops/*.md", "scripts/**/*.md"):
        yield from ROOT.glob(pattern)


def _faults(text: str) -> Iterator[tuple[int, str, str]]:
    for pattern, instead in _WORDS.items():
        for match in re.finditer(pattern, text, re.IGNORECASE):
            if match[0].lower().startswith("is no") and _THERE.search(text[: match.start()][-12:]):
                continue
            yield text.count("\n", 0, match.start()) + 1, match[0].strip(), instead


def test_the_list_is_kept() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {found!r}: write {instead!r}"
        for path in sorted(set(_texts()))
        if path.name != "CONTRIBUTING.md"
        for line, found, instead in _faults(path.read_text(encoding="utf-8"))
    ]
    assert not faults, "words that CONTRIBUTING.md lists:\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("everything you can mend", 1),
        ("'x' is no subclass of Pass", 1),
        ("there is no node 'x'", 0),
        ("it is no longer read", 0),
        ("the folder holds no ONNX file", 1),
        ("a recommendation", 0),
    ],
)
def test_the_list_finds_what_it_should(text: str, count: int) -> None:
    assert len(list(_faults(text))) == count
