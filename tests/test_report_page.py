"""The report of a search in a browser: sorted, filtered, hovered over, exported, at desktop and phone width, by night too."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from chromium import Page
from synthetic import search

from facefactory.report import pages

TRIALS = 40


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if chromium.FOUND is None:
        pytest.skip("no chromium and no google-chrome on this machine")
    with chromium.browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = search(tmp_path_factory.mktemp("runs") / "demo", TRIALS)
    page = pages.write(folder, {})[0]
    assert "could not be written" not in page.read_text()
    return page


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    browser.errors.clear()
    browser.requests.clear()
    browser.open(report, 1280)
    yield browser
    assert not browser.errors
    strangers = [
        one for one in browser.requests if not one.startswith(("file:", "data:", "blob:"))
    ]
    assert not strangers


def shown(page: Page, column: int) -> list[str]:
    """A column of the leaderboard, as it stands there."""
    script = f"[...document.querySelectorAll('#board tbody tr')].map(r => r.cells[{column}].textContent)"
    return list(page.ask(script))


def press(page: Page, selector: str) -> None:
    page.ask(f"document.querySelector({selector!r}).click()")


def choose(page: Page, name: str, value: str, event: str = "change") -> None:
    """Give a field a value, as a person does."""
    page.ask(
        f"(() => {{ const f = document.getElementById({name!r}); f.value = {value!r};"
        f" f.dispatchEvent(new Event({event!r})); }})()"
    )


def until(page: Page, script: str, seconds: float = 60) -> Any:
    """The value of a script, as soon as it is one."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        value = page.ask(script)
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"{script} stayed {value!r}")


def test_a_click_on_a_head_sorts_and_another_turns_it_round(page: Page) -> None:
    press(page, "th[data-column=score] button")
    up = shown(page, 4)
    numbers = [float(one.replace(",", "")) for one in up if one != "–"]
    assert len(up) == TRIALS and numbers == sorted(numbers)
    assert page.ask("document.querySelector('th[data-column=score]').ariaSort") == "ascending"
    press(page, "th[data-column=score] button")
    assert [one for one in shown(page, 4) if one != "–"] == [one for one in up[::-1] if one != "–"]
    press(page, "th[data-column=name] button")
    assert shown(page, 1) == sorted(shown(page, 1))


def test_a_filter_holds_for_the_table_and_for_the_curves(page: Page) -> None:
    page.ask("document.getElementById('trials').scrollIntoView()")
    until(page, "document.getElementById('trials').dataset.drawn")
    assert until(page, "document.getElementById('curves-shown').textContent").startswith(
        f"{TRIALS} "
    )
    choose(page, "board-filter", "gan/r3 stopped", "input")
    names = shown(page, 1)
    assert 0 < len(names) < TRIALS
    assert page.ask("document.getElementById('board-shown').textContent").startswith(
        f"{len(names)} "
    )
    until(page, f"document.getElementById('curves-shown').textContent.startsWith('{len(names)} ')")
    choose(page, "curves-top", "0")
    choose(page, "board-filter", "no such trial", "input")
    assert shown(page, 1) == []


def test_what_is_under_the_pointer_is_told(page: Page) -> None:
    page.ask("document.getElementById('trials').scrollIntoView({block: 'center'})")
    until(page, "document.querySelector('#trials .points path') !== null")
    x, y = page.ask(
        "(() => { const b = document.querySelector('#trials .points path').getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    for near in (x - 2, x):
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=near, y=y)
    told = until(page, "document.querySelector('#trials .hoverlayer').textContent")
    assert "kd_lite0" in told


def test_rows_leave_as_csv_and_as_latex(page: Page) -> None:
    choose(page, "board-state", "finished")
    text = page.ask("document.getElementById('board').exported.csv()")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["name"] for row in rows] == shown(page, 1)
    assert all(row["state"] == "finished" and float(row["training.lr"]) > 0 for row in rows)
    press(page, "#board-latex")
    latex = page.ask("document.getElementById('board-text').value")
    assert latex.count("\\\\\n") == len(rows) + 1
    assert "\\caption{Trials of demo by kd\\_lite0 (lower is better)." in latex


def test_columns_can_be_left_out(page: Page) -> None:
    assert "model.width" in page.ask("document.getElementById('board-columns').textContent")
    press(page, "#board-columns label input")
    assert page.ask("document.querySelector('th[data-column=kind]').hidden")
    assert not page.ask("document.getElementById('board').exported.csv()").startswith("kind")


def test_every_figure_is_drawn(page: Page) -> None:
    page.ask("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    names = page.ask("[...document.querySelectorAll('.figure')].map(f => f.id)")
    assert {"trials", "front", "slices", "parallel-coordinates", "contours-0"} <= set(names)
    for name in names:
        page.ask(f"document.getElementById('{name}').scrollIntoView()")
        until(page, f"document.getElementById('{name}').dataset.drawn")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(
    page: Page, report: Path, scheme: str
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", features=features)
    page.open(report, 390, 800)
    assert page.ask("document.documentElement.scrollWidth") <= 390
    assert contrast(page) >= 4.5
    page.call("Emulation.setEmulatedMedia", features=[])


def contrast(page: Page) -> float:
    """The least contrast (WCAG 2.2, 1.4.3) of a colour that text has with the paper."""
    return float(
        page.ask(
            """(() => {
              const light = (color) => {
                const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(Number).map((c) => {
                  const s = c / 255;
                  return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const paper = light(getComputedStyle(document.body).backgroundColor);
              const texts = [...document.querySelectorAll("main *")].filter((e) =>
                [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
              return Math.min(...texts.filter((e) => !e.closest("svg, script, .figure")).map((e) => {
                const own = light(getComputedStyle(e).color);
                return (Math.max(own, paper) + 0.05) / (Math.min(own, paper) + 0.05);
              }));
            })()"""
        )
    )


def test_everything_that_can_be_set_has_a_name(page: Page) -> None:
    nameless = page.ask(
        "[...document.querySelectorAll('main input, main select, main button, main textarea')].filter(e =>"
        " !(e.labels && e.labels.length) && !e.textContent.trim() && !e.ariaLabel).map(e => e.outerHTML)"
    )
    assert nameless == []
    ids = page.ask("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(set(ids)) == len(ids)
    assert page.ask("[...document.images].filter(i => !i.alt).length") == 0
