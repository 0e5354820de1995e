"""The answer of `graphforge opset` for people: a matrix of opsets and runtimes in the terminal, and as an HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import argument
from graphforge.opsets.matrix import Cell, Obstruction, State
from graphforge.shown import short_source
from graphforge.verify.pages import write_page_to

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from graphforge.opsets.answer import Fit, Lack, OpsetAnswer
    from graphforge.targets.support import Runtime

__all__ = ["print_answer", "render_page", "write_page"]

_TEMPLATE = "opset.html.jinja"
# What a list of nodes shows; the JSON has all of them.
_SHOWN = 12
_STATES = {
    State.AS_IT_STANDS: ("yes", "green", "passed"),
    State.LEGALISED: ("low", "cyan", "lowered"),
    State.IMPOSSIBLE: ("no", "red", "failed"),
}


# -- the terminal ------------------------------------------------------------------------------------------------------


def print_answer(console: Console, answer: OpsetAnswer) -> None:
    """Print what the model needs and why, the matrix, and what each runtime lacks."""
    from rich.markup import escape

    audit = answer.audit
    console.print(f"written in opset {audit.opset}; needs opset [bold]{audit.lowest}[/bold] as it stands")
    for need in audit.deciding[:_SHOWN]:
        where = f" ({need.origin})" if need.origin else ""
        cure = answer.cure(need.operator)
        text = f"  {need.operator} {need.node}{where}: {need.reason}" + (f"; {cure}" if cure else "")
        console.print(escape(text), soft_wrap=True)
    if len(audit.deciding) > _SHOWN:
        console.print(f"  and {len(audit.deciding) - _SHOWN} more")
    for need in audit.invalid:
        console.print(escape(f"not legal at opset {audit.opset}: {need.operator} {need.node}: {need.reason}"))
    for domain, version in sorted(audit.domains.items()):
        console.print(f"also imports {domain} version {version}: readable only where that domain is known")
    if answer.matrix is None:
        console.print(_operators_table(answer))
    else:
        _print_matrix(console, answer)
    for note in (*audit.notes, *answer.notes):
        console.print(escape(f"note: {note}"), soft_wrap=True)


def _operators_table(answer: OpsetAnswer) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="operators", title_justify="left")
    for name in ("operator", "nodes", "version", "lowest opset", "because"):
        table.add_column(name, overflow="fold")
    for row in sorted(answer.audit.operators, key=lambda row: (-row.lowest, row.operator)):
        table.add_row(row.operator, str(row.count), str(row.since), str(row.lowest), escape(row.reason))
    return table


def _matrix_tables(console: Console, answer: OpsetAnswer, cells: Sequence[Cell]) -> list[Table]:
    """The matrix in as few tables, one below the other, as keep every name and mark whole at the console's width."""
    unbounded = console.options.update(max_width=10_000)
    for count in range(1, len(cells) + 1):
        size = -(-len(cells) // count)
        tables = [_matrix_table(answer, cells[start : start + size]) for start in range(0, len(cells), size)]
        if all(console.measure(table, options=unbounded).maximum <= console.width for table in tables):
            break
    return tables


def _matrix_table(answer: OpsetAnswer, cells: Sequence[Cell]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="opsets", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for cell in cells:
        table.add_column(str(cell.opset), justify="center", no_wrap=True)
    table.add_row("the model", *(f"[{_STATES[c.state][1]}]{_STATES[c.state][0]}[/]" for c in cells))
    if answer.proofs:
        table.add_row("run here", *(_proof_mark(answer, cell) for cell in cells))
    table.add_section()
    for fit in answer.fits:
        table.add_row(escape(fit.runtime.title), *(_fit_mark(fit, cell) for cell in cells))
    return table


def _print_matrix(console: Console, answer: OpsetAnswer) -> None:
    from rich.markup import escape

    assert answer.matrix is not None
    cells = answer.matrix.cells
    for table in _matrix_tables(console, answer, cells):
        console.print(table)
    legend = "yes: legal as it stands   low: legal after legalisation   no: impossible"
    console.print(f"{legend}   .: not read there   -N: lacks N operators   ?: not documented", style="dim")
    for rewrite in (rewrite for cell in cells for rewrite in cell.step if cell.state is State.LEGALISED):
        first = f"{rewrite.count} nodes, first {rewrite.places[0]}" if rewrite.count > 1 else str(rewrite.places[0])
        text = f"  to {rewrite.opset}: {rewrite.operator} {first}: {rewrite.how}"
        console.print(escape(text), soft_wrap=True)
    for item in _obstructions(cells)[:_SHOWN]:
        text = f"below {item.lowest}: {item.operator} {item.place}: {item.reason}" + (
            f"; {item.cure}" if item.cure else ""
        )
        console.print(f"[red]impossible[/red] {escape(text)}", soft_wrap=True)
    if len(_obstructions(cells)) > _SHOWN:
        console.print(f"and {len(_obstructions(cells)) - _SHOWN} more nodes; the JSON form has all")
    for proof in answer.proofs:
        if proof.reason:
            colour = "red" if proof.passed is False else "yellow"
            console.print(f"[{colour}]opset {proof.opset}[/] {escape(proof.reason)}", soft_wrap=True)
    _print_fits(console, answer.fits)


def _proof_mark(answer: OpsetAnswer, cell: Cell) -> str:
    proof = next((proof for proof in answer.proofs if proof.opset == cell.opset), None)
    if proof is None:
        return ""
    return {True: "[green]ok[/]", None: "[yellow]-[/]", False: "[red]BAD[/]"}[proof.passed]


def _fit_mark(fit: Fit, cell: Cell) -> str:
    if cell.opset not in fit.lacking:
        return "[dim].[/]" if cell.state is not State.IMPOSSIBLE else ""
    lacking = fit.lacking[cell.opset]
    if lacking:
        return f"[yellow]-{len(lacking)}[/]"
    uncertain = any(fit.runtime.judge(name, used.version) == "unknown" for name, used in cell.operators.items())
    return "[yellow]?[/]" if uncertain else "[green]ok[/]"


def _print_fits(console: Console, fits: Sequence[Fit]) -> None:
    from rich.markup import escape

    without = [fit.runtime.title for fit in fits if fit.opset is None]
    if without:
        text = f"the model cannot be delivered in an opset that these read: {', '.join(without)}"
        console.print(f"[red]no opset[/red] {escape(text)}", soft_wrap=True)
    for fit in fits:
        if fit.opset is None:
            continue
        name = f"[bold]{escape(fit.runtime.title)}[/bold]"
        lacks = _named(fit.unsupported)
        if lacks:
            console.print(f"{name}: at opset {fit.opset} it lacks {escape(lacks)}", soft_wrap=True)
        if fit.unknown:
            text = f"at opset {fit.opset} nothing is documented of {_named(fit.unknown, places=False)}"
            console.print(f"{name}: {escape(text)}", soft_wrap=True)
        for operator, text in sorted(fit.limits.items()):
            console.print(f"{name}: {operator}: {escape(text)}", soft_wrap=True)


def _named(lacks: Iterable[Lack], *, places: bool = True) -> str:
    return "; ".join(
        f"{lack.operator} ({lack.count})"
        + (f", first {lack.places[0]}" if places and lack.places else "")
        + (f", which it {lack.reason}" if lack.reason else "")
        for lack in lacks
    )


def _obstructions(cells: Sequence[Cell]) -> list[Obstruction]:
    found = dict.fromkeys(item for cell in cells for item in cell.obstructions)
    return sorted(found, key=lambda item: -item.lowest)


# -- the page ----------------------------------------------------------------------------------------------------------


def write_page(answer: OpsetAnswer, path: Path, *, model: str) -> Path:
    """Write the page to a file.

    Raises:
        GraphForgeError: it cannot be written.
    """
    page = render_page(answer, model=model)
    return write_page_to(path, page, way_out=f"choose another file: {argument('html', 'FILE')}")


def render_page(answer: OpsetAnswer, *, model: str) -> str:
    """The answer as one self-contained HTML page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("graphforge.opsets", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["source"] = lambda text: short_source(text or "")
    cells = answer.matrix.cells if answer.matrix is not None else ()
    return environment.get_template(_TEMPLATE).render(
        model=model,
        audit=answer.audit,
        lowest=None if answer.matrix is None else answer.matrix.lowest,
        cells=cells,
        states={cell.opset: _STATES[cell.state] for cell in cells},
        proofs={proof.opset: proof for proof in answer.proofs},
        fits=answer.fits,
        marks=[[_page_mark(fit, cell) for cell in cells] for fit in answer.fits],
        rewrites=[rewrite for cell in cells if cell.state is State.LEGALISED for rewrite in cell.step],
        obstructions=_obstructions(cells),
        sources=_sources(answer.fits),
        cure=answer.cure,
        notes=[*answer.audit.notes, *answer.notes],
    )


def _sources(fits: Iterable[Fit]) -> list[tuple[Runtime, list[str]]]:
    """One entry for each source, with all that is known from it."""
    found: dict[tuple[str, str], tuple[Runtime, list[str]]] = {}
    for fit in fits:
        runtime = fit.runtime
        found.setdefault((runtime.document, runtime.note), (runtime, []))[1].append(runtime.title)
    return list(found.values())


def _page_mark(fit: Fit, cell: Cell) -> tuple[str, str, str]:
    """(class, mark, what it says when pointed at)."""
    if cell.state is State.IMPOSSIBLE:
        return "none", "", "the model cannot be delivered in this opset"
    if cell.opset not in fit.lacking:
        return "none", "·", "it does not read this opset"
    lacking = fit.lacking[cell.opset]
    if lacking:
        return "warn", f"−{len(lacking)}", f"lacks {_named(lacking, places=False)}"
    unknown = [n for n, used in cell.operators.items() if fit.runtime.judge(n, used.version) == "unknown"]
    if unknown:
        return "unknown", "?", f"nothing is documented of {', '.join(unknown)}"
    return "passed", "✓", "takes every operator"
