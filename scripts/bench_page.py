"""The report in a browser: what a page costs there, pictures of it in three forms, and what axe-core finds wrong.

    scripts/bench page                                 a graph of 5,000 nodes, timed
    scripts/bench page out/report.html --pictures out/seen --axe node_modules/axe-core/axe.min.js

Times are seconds of CPU of the page's thread; axe-core comes by `npm install axe-core` in a folder of your own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from graphforge.page import render_report
from graphforge.page.graph import graph_data
from scripts.browser import Browser, Tab, installed_browser

_FORMS = {
    "light": {"scheme": "light"},
    "dark": {"scheme": "dark"},
    "narrow": {"scheme": "light", "width": 400, "height": 800},
}
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_UNFOLD = "document.querySelector('.item.group').dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))"
_SEARCH = "(one => { one.value = 'relu'; one.dispatchEvent(new Event('input')); })(document.querySelector('#search'))"
_DEEDS = {
    "unfold a module": _UNFOLD,
    "unfold one in it": _UNFOLD,
    "zoom": "document.querySelector('#zoom-in').click()",
    "colour by dtype": "document.querySelector('input[value=dtype]').click()",
    "search": _SEARCH,
    "go to the last found": "[...document.querySelectorAll('#hits button')].at(-1)?.click()",
    "fold all": "document.querySelector('#fold-all').click()",
}


def large_page(folder: Path, blocks: int = 50) -> Path:
    """A page of ``100 * blocks`` nodes: blocks of eight chains of twelve, as heads of attention branch, all told of."""
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, name: str, *read: str) -> str:
        nodes.append(helper.make_node(operator, read, [f"v{len(nodes)}"], name=name))
        return f"v{len(nodes) - 1}"

    last = "x"
    for block in range(blocks):
        module = f"stages.{block // 10}/blocks.{block % 10}"
        heads = []
        for head in range(8):
            value = last
            for step in range(12):
                value = add("Relu", f"{module}/attention/head.{head}/relu_{step}", value)
            heads.append(value)
        total = heads[0]
        for head in range(1, 4):
            total = add("Add", f"{module}/add_{head}", total, heads[head])
        last = add("Sum", f"{module}/sum", total, *heads[4:], last)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", last)]
    model = helper.make_model(
        helper.make_graph(nodes, "large", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 20)]
    )
    onnx.save(model, folder / "large.onnx")
    side = {"bars": "0123456789abcdefghijklmn", "min": -1.0, "max": 2.5, "mean": 0.25, "strange": 0}
    spreads = {f"v{i}": {"low": -1.0, "high": 2.5, "reference": side, "file": side} for i in range(len(nodes))}
    seconds = {node.name: 1e-6 * (place % 17) for place, node in enumerate(nodes)}
    graph = graph_data(folder / "large.onnx", seconds=seconds, spreads=spreads)
    page = folder / "large.html"
    page.write_text(render_report({"model": {"spec": "large"}, "nodes": len(nodes)}, graph=graph), encoding="utf-8")
    return page


def costs(tab: Tab) -> list[tuple[str, float, str]]:
    """What was done, seconds of CPU, and how much is drawn then; the load of the page first."""

    def spent() -> float:
        return next(
            float(one["value"])
            for one in tab.send("Performance.getMetrics")["metrics"]
            if one["name"] == "TaskDuration"
        )

    painted = "(performance.getEntriesByType('paint').at(-1)?.startTime ?? performance.now()) / 1000"
    rows = [("first paint (seconds by the clock)", float(tab.run(painted)), tab.text("#counted"))]
    tab.send("Performance.enable", timeDomain="threadTicks")
    before = spent()
    tab.send("Page.reload")
    tab.wait("Page.loadEventFired")
    tab.settle()
    rows.append(("load", spent() - before, tab.text("#counted")))
    for told, script in _DEEDS.items():
        if not tab.run("!!document.querySelector('.item.group')") and "unfold" in told:
            continue
        before = spent()
        tab.run(f"{script}")
        tab.settle()
        rows.append((told, spent() - before, tab.text("#counted")))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Time, draw and check; exit code 1 where a page is at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="reports; none: a graph of 5,000 nodes")
    parser.add_argument("--pictures", type=Path, help="folder for pictures: light, dark, narrow")
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core")
    asked = parser.parse_args(arguments)
    if installed_browser() is None:
        print("bench page: no browser is installed (chromium or google-chrome)", file=sys.stderr)
        return 2
    console, faults = Console(), 0
    with tempfile.TemporaryDirectory() as name, Browser(Path(name)) as browser:
        pages = asked.pages or [large_page(Path(name))]
        for page in pages:
            for form, options in _FORMS.items():
                tab = browser.open(page, **options)  # type: ignore[arg-type]
                found = [f"{page.name} {form}: {trouble}" for trouble in tab.troubles()]
                found += [f"{page.name} {form}: {line}" for line in _by_axe(tab, asked.axe)]
                if tab.run("document.documentElement.scrollWidth > innerWidth"):
                    found.append(f"{page.name} {form}: wider than the window")
                if asked.pictures is not None:
                    asked.pictures.mkdir(parents=True, exist_ok=True)
                    tab.picture(asked.pictures / f"{page.stem}_{form}.png", whole=True)
                for line in found:
                    console.print(line, markup=False)
                faults += len(found)
            table = Table(title=f"{page.name}, {page.stat().st_size / 1e6:.2f} MB", title_justify="left")
            for heading in ("what", "seconds of CPU", "drawn"):
                table.add_column(heading)
            for told, seconds, drawn in costs(browser.open(page)):
                table.add_row(told, f"{seconds:.2f}", drawn)
            console.print(table)
    console.print(f"{faults} faults, console, network and width{', axe-core' if asked.axe else ''}")
    return 1 if faults else 0


def _by_axe(tab: Tab, axe: Path | None) -> list[str]:
    if axe is None:
        return []
    # with a node opened and all that is folded away
    tab.run(
        "document.querySelectorAll('details').forEach((one) => { one.open = true; });"
        "document.querySelector('.item:not(.group)')?.dispatchEvent(new MouseEvent('click', {bubbles: true})); 0"
    )
    tab.run(f"{axe.read_text(encoding='utf-8')}; 0")
    rules = f"{{runOnly: {_RULES}}}"
    told = "`${one.id}, ${one.nodes.length} times: ${one.nodes[0].html.slice(0, 120)}`"
    found: list[str] = tab.run(f"axe.run(document, {rules}).then((all) => all.violations.map((one) => {told}))")
    return found


if __name__ == "__main__":
    sys.exit(main())
