"""The report in a headless browser: it draws, answers clicks, a search and keys, and says nothing on the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from graphforge.page import render_report, write_report
from graphforge.page.graph import graph_data
from scripts.browser import Browser, Tab, installed_browser
from tests.test_page import bundle

pytestmark = pytest.mark.skipif(installed_browser() is None, reason="no chromium or google-chrome is installed")

CHOSEN = "document.querySelector('.item.selected')?.getAttribute('aria-label') ?? ''"
FOCUSED = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.id"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a bundle with a fault in it."""
    folder = tmp_path_factory.mktemp("bundle")
    _, diff = bundle(folder, spoiled=True)
    return write_report(folder, diff=diff)


@pytest.fixture(scope="module")
def tab(browser: Browser, page: Path) -> Tab:
    return browser.open(page)


def test_it_opens_on_what_is_wrong_and_is_well(tab: Tab) -> None:
    assert tab.troubles() == []
    assert "wrong here" in str(tab.run(CHOSEN))
    assert "wrong here" in tab.text("#chosen")
    assert "shown as" in tab.text("#counted")
    assert tab.run("document.querySelectorAll('#depth circle.here').length") == 1
    assert tab.run("document.querySelectorAll('.end').length") == 3  # x, logits, label


def test_a_click_and_a_search_choose_a_node(tab: Tab) -> None:
    tab.click(".item:not(.selected)")
    first = tab.text("#chosen h3")
    assert first in str(tab.run(CHOSEN))
    tab.type("#search", "conv")
    assert "found" in tab.text("#told")
    tab.click("#hits button")
    assert tab.text("#chosen h3") == "Conv"
    assert "small.py" in tab.text("#chosen")
    assert tab.troubles() == []


def test_keys_follow_the_data_and_escape_lets_go(tab: Tab) -> None:
    tab.run("document.querySelector('.item.selected').focus()")
    before = tab.text("#chosen")
    tab.press("ArrowDown")
    assert tab.text("#chosen") != before
    assert tab.run(FOCUSED) == tab.run(CHOSEN)
    tab.press("ArrowUp")
    assert tab.text("#chosen") == before
    tab.press("Escape")
    assert tab.run(CHOSEN) == ""
    assert "Choose a node" in tab.text("#chosen")
    tab.run("document.querySelector('#search').focus()")
    tab.press("Escape")
    assert tab.run("document.querySelector('#search').value") == ""
    assert tab.text("#hits") == ""
    assert tab.run("document.querySelectorAll('.item[tabindex=\"0\"]').length") == 1


def test_dark_narrow_and_printed_forms(browser: Browser, page: Path) -> None:
    tab = browser.open(page, width=400, height=800, scheme="dark")
    assert tab.run("document.documentElement.scrollWidth") <= 400
    red, *_ = str(tab.run("getComputedStyle(document.body).backgroundColor")).removeprefix("rgb(").split(",")
    assert int(red) < 60
    seen = tab.run("document.querySelector('#picture').getAttribute('viewBox')")
    closed = tab.run("document.querySelectorAll('details:not([open])').length")
    assert closed > 0
    tab.run("window.dispatchEvent(new Event('beforeprint'))")
    assert str(tab.run("document.querySelector('#picture').getAttribute('viewBox')")).startswith("0 0 ")
    assert tab.run("document.querySelectorAll('details:not([open])').length") == 0
    tab.run("window.dispatchEvent(new Event('afterprint'))")
    assert tab.run("document.querySelectorAll('details:not([open])').length") == closed
    assert tab.run("document.querySelector('#picture').getAttribute('viewBox')") == seen
    assert tab.troubles() == []


def test_a_module_that_is_called_in_several_places_stays_unfolded(browser: Browser, tmp_path: Path) -> None:
    names = ("act/a", "layer.0/b", "layer.0/c", "act/d", "layer.1/e", "layer.1/f")
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], name=name) for i, name in enumerate(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("v0", "v6")]
    graph = helper.make_graph(nodes, "shared", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "shared.onnx")
    page = tmp_path / "page.html"
    page.write_text(render_report({}, graph=graph_data(tmp_path / "shared.onnx")))
    tab = browser.open(page)
    tab.click("#fold-all")
    titles = "[...document.querySelectorAll('.item .title')].map((one) => one.textContent)"
    assert tab.run(titles) == ["Relu", "▸ layer", "Relu"]
    tab.run("document.querySelector('.item.group').focus()")
    tab.press("Enter")
    assert tab.run(titles) == ["Relu", "▸ layer.0", "Relu", "▸ layer.1"]
    assert tab.troubles() == []
