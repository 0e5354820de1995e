"""The imports, lazy and typing ones too, against the arrows that the table in graphforge/README.md declares."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "| folder or file | holds | may import |"


@functools.cache
def declared_arrows() -> dict[str, frozenset[str]]:
    """Folder -> the folders that it may import, read from the README's table."""
    lines = (ROOT / "graphforge" / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index(HEADER) + 2
    arrows: dict[str, frozenset[str]] = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        names, _, targets = (cell.strip() for cell in line.strip("|").split("|"))
        allowed = frozenset(re.findall(r"`([\w/]+)`", targets))
        for name in re.findall(r"`([\w/]+?)(?:/|\.py)`", names):
            assert name not in arrows, f"{name} is in the table twice"
            arrows[name] = allowed
    return arrows


def home_of(parts: Sequence[str]) -> str:
    """The row that a module belongs to: a folder inside a folder may have one of its own."""
    nested = "/".join(parts[:2])
    return nested if nested in declared_arrows() else parts[0]


def sources() -> Iterator[tuple[str, Path]]:
    """(folder or file below graphforge, source file), the links to passes and ops left out."""
    for folder in ("passes", "ops"):
        for path in (ROOT / folder).glob("**/*.py"):
            yield folder, path
    for path in (ROOT / "graphforge").glob("**/*.py"):
        parts = path.relative_to(ROOT / "graphforge").with_suffix("").parts
        if parts[0] not in ("passes", "ops"):
            yield home_of(parts), path


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(folder or file below graphforge, line) of every import in a file, whatever block it stands in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            module = node.module or ""
            names = [f"graphforge.{alias.name}" for alias in node.names] if module == "graphforge" else [module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant)]
        for name in names:
            if name.startswith("graphforge."):
                yield home_of(name.split(".")[1:]), getattr(node, "lineno", 0)


def test_every_import_follows_a_declared_arrow() -> None:
    arrows = declared_arrows()
    wrong = []
    for home, path in sources():
        if home in ("__init__", "__main__"):  # the public names are loaded from everywhere, on first use
            continue
        for target, line in imported(path):
            if target not in (home, "__version__") and target not in arrows[home]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {home} -> {target}")
    assert not wrong, "imports against the declared arrows:\n" + "\n".join(wrong)


def test_the_table_lists_what_is_there_and_nothing_else() -> None:
    there = {home for home, _ in sources()} - {"__init__", "__main__"}
    assert set(declared_arrows()) == there


def test_arrows_never_run_in_a_circle() -> None:
    remaining = {name: set(targets) for name, targets in declared_arrows().items()}
    while remaining:
        ready = [name for name, targets in remaining.items() if not targets & remaining.keys()]
        assert ready, f"a circle among {', '.join(sorted(remaining))}"
        for name in ready:
            del remaining[name]


def test_every_declared_arrow_is_used() -> None:
    used: dict[str, set[str]] = defaultdict(set)
    for home, path in sources():
        used[home] |= {target for target, _ in imported(path)}
    idle = {name: sorted(targets - used[name]) for name, targets in declared_arrows().items() if targets - used[name]}
    assert not idle, f"declared, never used: {idle}"
