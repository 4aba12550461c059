"""The page of latent claims: what it says, what its scripts do in a browser, and that it asks the network for nothing."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import jsonschema
import numpy as np
import pytest
from chromium import Page
from PIL import Image
from test_interpret import FakeGAN, FakeVAE, interpret

from facefactory import UserError
from facefactory.data.sets.index import Index
from facefactory.report import claims, compared, heatmaps, latent, pages, sheets
from facefactory.results import (
    Claim,
    Contrast,
    Control,
    Dimension,
    Effect,
    Estimate,
    Share,
    Shares,
    Sheet,
)
from facefactory.run import Compare, Paths, Run, resolve
from facefactory.rundir import RunDir, read_json, write_json
from facefactory.stages import Plan, of

EVIL = "</script><script>alert(1)</script>"
GLASSES = Contrast("Glasses", "", "auroc", 0.3, 400)
BLOND = Contrast("hair", "blond", "auroc", 0.2, 400)
YAW = Contrast("yaw", "", "spearman", 1.0, 400)
CONTRASTS = [GLASSES, BLOND, YAW]
SIZES = [(0.1, 0.8, 0.0), (0.7, 0.1, 0.1), (0.0, 0.0, -0.6), (0.3, 0.1, 0.0), (0.0, 0.0, 0.0)]
STEPS = [f"{number:+d} deviations" for number in (-3, -2, -1, 0, 1, 2, 3)]


def effect_of(contrast: Contrast, size: float, q: float = 1e-9) -> Effect:
    value = (1 + size) / 2 if contrast.measure == "auroc" else size
    given = Estimate(value - 0.02, value - 0.05, value + 0.01)
    return Effect(
        value,
        value - 0.03,
        value + 0.03,
        q,
        abs(size) / 2,
        given,
        q,
    )


def control_of(dimension: int, contrast: Contrast, holds: bool) -> Control:
    answers = np.linspace(0.1, 0.9, len(STEPS))
    return Control(
        dimension=dimension,
        contrast=contrast.name,
        deviations=np.linspace(-3, 3, len(STEPS)).tolist(),
        judged=answers.tolist(),
        judged_low=(answers - 0.05).tolist(),
        judged_high=(answers + 0.05).tolist(),
        slope=Estimate(0.13, 0.11, 0.15),
        embedded=None,
        composition=0.01,
        effectiveness=0.8,
        minimality=0.2,
        identity=0.9,
        others={"Male": Estimate(0.02, -0.01, 0.05)},
        reliability=Estimate(0.97, 0.95, 0.99),
        holds=holds,
        absent="" if holds else "not monotone",
    )


def claims_of(dimensions: list[Dimension]) -> list[Claim]:
    """One that controls, two that go with, one explained by another label, the rest unnamed."""
    found = [Claim("mu", row.dimension, row.verdict) for row in dimensions]
    named = [("hair colour", "dark", "blond", BLOND), ("glasses", "no", "yes", GLASSES)]
    for number, (attribute, low, high, contrast) in enumerate(named[: len(found)]):
        verdict = "controls" if number == 0 else "goes with"
        effect = effect_of(
            contrast, SIZES[number][CONTRASTS.index(contrast)], 10.0 ** (number - 9)
        )
        control = control_of(number, contrast, number == 0)
        found[number] = Claim(
            "mu", number, verdict, attribute, low, high, contrast, effect, True, control, 3, 3
        )  # type: ignore[arg-type]
    if len(found) > 3:
        hidden = dataclasses.replace(
            effect_of(GLASSES, 0.3, 0.01), given=None, explained_by="Male"
        )
        found[3] = Claim(
            "mu",
            3,
            "unnamed",
            contrast=GLASSES,
            effect=hidden,
        )
    return found


def put_sheets(folder: Path, count: int, size: tuple[int, int], mode: str) -> list[Sheet]:
    """A walk of two faces in which the tiles' brightness tells the step, and heat maps."""
    found = []
    height, width = size
    for title, lines, columns in (("walk", 2, STEPS), ("difference", 1, ["-2 and 2"])):
        tiles = np.zeros((count * lines, height, len(columns), width), np.uint8)
        tiles += np.linspace(30, 220, len(columns)).astype(np.uint8)[None, None, :, None]
        picture = Image.fromarray(tiles.reshape(count * lines * height, -1)).convert(mode)
        picture.save(folder / f"{title}.png")
        blocks: list[int | str] = list(range(count))
        found.append(Sheet(f"{title}.png", title, blocks, lines, columns, title == "walk"))
    return found


def put_results(
    folder: Path,
    sizes: Any = SIZES,
    contrasts: list[Contrast] = CONTRASTS,
    size: tuple[int, int] = (8, 8),
    mode: str = "L",
    **changed: Any,
) -> Path:
    """The folder of interpret, as it leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    dimensions = []
    for number, row in enumerate(sizes):
        effects = {
            contrast.name: effect_of(contrast, float(one))
            for contrast, one in zip(contrasts, row, strict=True)
        }
        verdict = "inactive" if not any(row) else "unnamed"
        dimensions.append(dimension_of(number, effects, verdict))

    # what else is known of the space
    pictured = put_sheets(folder, len(dimensions), size, mode)
    space = claims.Space(
        method="made up",
        dimensions=dimensions,
        listed=list(range(len(dimensions))),
        codes=claims.Codes(400, ["Glasses"], {"mig": 0.25}, {"dci": "dci needs 2 factors"}),
        contrasts=contrasts,
        claims=claims_of(dimensions) if contrasts else [],
        sheets=pictured,
    )
    space = dataclasses.replace(space, **changed)
    if contrasts == CONTRASTS:
        among = {"Glasses": {"yaw": 0.4}, "hair = blond": {}, "yaw": {"Glasses": 0.4}}
        space = dataclasses.replace(space, among_labels=among)
    labels = [contrast.label for contrast in contrasts]
    found = claims.Latent(
        "mu",
        labels,
        {"Bald": "3 people have 1"},
        {"mu": space},
    )
    write_json(folder / "results.json", dataclasses.asdict(found))
    return folder


def dimension_of(number: int, effects: dict[str, Effect], verdict: str) -> Dimension:
    known = {"dimension": number, "kl_nats": 0.1 * number, "effects": effects, "verdict": verdict}
    whole = {one.name: 0.0 for one in dataclasses.fields(Dimension)}
    return Dimension(**{**whole, **known, "labels": ()})  # type: ignore[arg-type]


# -- in a browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if chromium.FOUND is None:
        pytest.skip("no chromium and no google-chrome on this machine")
    with chromium.browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def opened(chrome: Page, folder: Path, width: int = 1200) -> Page:
    """The page of a folder, which must ask for nothing but itself."""
    chrome.requests.clear()
    page, *_ = latent.write(folder, "demo")
    chrome.open(page, width)
    chrome.ask("new Promise(done => setTimeout(done, 50))")
    return chrome


def assert_quiet(chrome: Page) -> None:
    """Nothing has failed, and no request has left the page."""
    assert chrome.errors == []
    assert chrome.requests
    assert all(url.startswith(("file:///", "data:")) for url in chrome.requests)
    assert sum(url.startswith("file:///") for url in chrome.requests) == 1


def shown(chrome: Page) -> list[int]:
    """The dimensions in the table, from the top, without those that are filtered out."""
    rows = "[...document.querySelectorAll('#claims-table tbody tr')].filter(row => !row.hidden)"
    found: list[int] = chrome.ask(f"{rows}.map(row => Number(row.dataset.dimension))")
    return found


def brightness(chrome: Page) -> list[int]:
    """Of each face that walks, in its middle, once the script has drawn what the slider says."""
    script = """(async () => {
        const viewer = document.getElementById('viewer');
        const wanted = () => document.getElementById('dimension').value + ' ' + document.getElementById('step').value;
        while (viewer.dataset.drawn !== wanted()) await new Promise(done => setTimeout(done, 20));
        return [...document.querySelectorAll('#walk canvas')].map(canvas =>
            canvas.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[0]);
    })()"""
    found: list[int] = chrome.ask(script)
    return found


def clicked(chrome: Page, selector: str) -> None:
    chrome.ask(f"document.querySelector({json.dumps(selector)}).click()")


def chosen(chrome: Page, field: str, value: str, event: str = "change") -> None:
    chrome.ask(
        f"{{const field = document.getElementById('{field}'); field.value = {json.dumps(value)};"
        f"field.dispatchEvent(new Event('{event}', {{bubbles: true}}))}}"
    )


def test_claims_are_sorted_by_a_click_and_filtered_by_verdict_label_and_text(
    chrome: Page, tmp_path: Path
) -> None:
    page = opened(chrome, put_results(tmp_path))
    assert shown(page) == [0, 1, 3, 2, 4]  # what says most comes first
    clicked(page, "th[data-key=dimension] button")
    assert shown(page) == [0, 1, 2, 3, 4]
    clicked(page, "th[data-key=dimension] button")
    assert shown(page) == [4, 3, 2, 1, 0]
    clicked(page, "th[data-key=q] button")
    assert shown(page) == [0, 1, 3, 2, 4]  # those without a q come last
    chosen(page, "order", "given down")
    assert shown(page)[:2] == [0, 1]
    assert page.ask("document.querySelector('th[data-key=given]').ariaSort") == "descending"

    # filters go together
    chosen(page, "verdict-filter", "unnamed")
    assert shown(page) == [3, 2]
    chosen(page, "label-filter", "Glasses")
    assert shown(page) == [3]
    chosen(page, "verdict-filter", "")
    assert shown(page) == [1, 3]
    chosen(page, "text-filter", "EXPLAINED male", "input")
    assert shown(page) == [3]
    assert page.ask("document.getElementById('shown').textContent") == "1 of 5"
    assert_quiet(page)


def test_faces_walk_by_slider_and_arrows_and_a_click_on_a_claim_shows_its_faces(
    chrome: Page, tmp_path: Path
) -> None:
    page = opened(chrome, put_results(tmp_path))
    middle = brightness(page)
    assert len(middle) == 2
    assert middle[0] == pytest.approx(125, abs=6)
    chosen(page, "step", "6", "input")
    assert brightness(page)[0] == pytest.approx(220, abs=6)
    assert page.ask("document.getElementById('amount').textContent") == "+3 deviations"

    # arrows on the viewer
    page.ask("document.getElementById('viewer').focus()")
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert brightness(page)[0] == pytest.approx(157, abs=6)
    page.press("ArrowDown")
    assert brightness(page)
    assert page.ask("document.getElementById('sentence').textContent").startswith(
        "dim 1 = glasses"
    )
    assert page.ask("document.querySelectorAll('#curves polyline').length") == 1
    assert page.ask("document.querySelectorAll('#stills canvas').length") == 1

    # and the table
    clicked(page, "tr[data-dimension='0'] button.claim")
    assert brightness(page)
    assert "dim 0 = hair colour (dark → blond)" in page.ask(
        "document.getElementById('sentence').textContent"
    )
    assert_quiet(page)


def test_a_finger_walks_on_a_phone_whose_window_nothing_is_wider_than(
    chrome: Page, tmp_path: Path
) -> None:
    page = opened(chrome, put_results(tmp_path), width=390)
    assert page.ask("document.documentElement.scrollWidth") <= 390
    before = brightness(page)[0]
    x, y = page.ask(
        """(() => { const faces = document.getElementById('walk'); faces.scrollIntoView({block: 'center'});
        const box = faces.getBoundingClientRect(); return [box.x + 20, box.y + 20]; })()"""
    )
    page.touch((x, y), (x + 30, y), (x + 60, y))
    assert brightness(page)[0] > before + 20
    assert_quiet(page)


def test_a_click_on_the_matrix_shows_the_dimension(chrome: Page, tmp_path: Path) -> None:
    page = opened(chrome, put_results(tmp_path))
    x, y = page.ask(
        """(() => { const holder = document.querySelector('.heatmap'), canvas = holder.querySelector('canvas');
        canvas.scrollIntoView({block: 'center'});
        const box = canvas.getBoundingClientRect(), {left, top, cell} = JSON.parse(holder.dataset.layout);
        return [box.x + left + 4, box.y + top + 4]; })()"""
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    told = page.ask("document.querySelector('.heatmap output').textContent")
    dimension = int(told.split()[0].rstrip(","))
    assert brightness(page)
    assert page.ask("document.getElementById('sentence').textContent").startswith(
        f"dim {dimension}"
    )
    assert ("AUROC" in told) or ("Spearman" in told)
    assert page.ask("document.querySelectorAll('.heatmap').length") == 2  # the labels' own too
    assert_quiet(page)


def test_several_spaces_are_told_apart(chrome: Page, tmp_path: Path) -> None:
    folder = put_results(tmp_path)
    results = read_json(folder / "results.json")
    other = json.loads(
        json.dumps(results["spaces"]["mu"]).replace('"space": "mu"', '"space": "w"')
    )
    write_json(folder / "results.json", {**results, "spaces": {**results["spaces"], "w": other}})
    page = opened(chrome, folder)
    assert sorted(shown(page)) == sorted([*range(5), *range(5)])
    chosen(page, "space-filter", "w")
    assert shown(page) == [0, 1, 3, 2, 4]
    clicked(page, "tr[data-space=w] button.claim")
    assert brightness(page)
    assert page.ask("document.getElementById('sentence').textContent").startswith("w dim 0 = hair")
    titles = page.ask("[...document.querySelectorAll('.heatmap')].map(map => map.dataset.name)")
    assert titles == ["effects of mu", "effects of w", "labels of mu", "labels of w"]
    assert_quiet(page)


CASES: dict[str, dict[str, Any]] = {
    "no labels": {"sizes": [()] * 3, "contrasts": []},
    "no claims": {"claims": []},
    "one dimension": {"sizes": [(0.5,)], "contrasts": [GLASSES]},
    "no walks": {"sheets": []},
    "no scores": {"codes": claims.Codes(0, [], {}, {})},
    "coloured, not square": {"size": (12, 8), "mode": "RGB"},
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_run_lacks_is_said_and_no_script_fails(
    chrome: Page, tmp_path: Path, case: str
) -> None:
    page = opened(
        chrome,
        put_results(tmp_path, **CASES[case]),
        width=390,
    )
    text = page.ask("document.body.innerText")
    lacks = {
        "no labels": "There are no claims",
        "no claims": "There are no claims",
        "no walks": "No walk along this dimension was drawn",
        "no scores": "There are no scores of whole codes",
    }
    assert lacks.get(case, "Verdict") in text
    assert page.ask("document.documentElement.scrollWidth") <= 390
    if case == "coloured, not square":
        shape = page.ask("(c => [c.width, c.height])(document.querySelector('#walk canvas'))")
        assert shape[1] * 8 == shape[0] * 12
    assert_quiet(page)


def test_256_dimensions_and_40_labels_are_one_page_of_a_few_megabytes(
    chrome: Page, tmp_path: Path
) -> None:
    contrasts = [dataclasses.replace(GLASSES, label=f"label {number}") for number in range(37)]
    values = np.random.default_rng(0).uniform(-0.4, 0.4, (256, 40))
    put_results(tmp_path, values, [*CONTRASTS, *contrasts])
    page = opened(chrome, tmp_path)
    assert len(shown(page)) == 256
    assert brightness(page)
    assert (tmp_path / "latent.html").stat().st_size < 5_000_000
    assert_quiet(page)


# -- what it says ----------------------------------------------------------------------------------


def test_what_labels_are_called_cannot_become_a_script(tmp_path: Path) -> None:
    contrasts = [dataclasses.replace(GLASSES, label=EVIL), BLOND, YAW]
    evil = Claim(
        "mu",
        1,
        "goes with",
        EVIL,
        EVIL,
        EVIL,
        contrasts[0],
        effect_of(GLASSES, 0.7),
    )
    put_results(
        tmp_path,
        contrasts=contrasts,
        claims=[evil],
        method=EVIL,
    )
    page, *_ = latent.write(tmp_path, EVIL)
    assert EVIL not in page.read_text()
    assert page.read_text().count("</script>") == 2


def test_the_table_of_cells_has_every_effect(tmp_path: Path) -> None:
    _, table, _ = latent.write(put_results(tmp_path), "demo")
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5 * 3
    (cell,) = [row for row in rows if (row["dimension"], row["contrast"]) == ("0", "hair = blond")]
    assert float(cell["value"]) == pytest.approx(0.9)
    assert (cell["measure"], float(cell["given_high"])) == ("auroc", pytest.approx(0.91))
    assert float(cell["slope"]) == 0.13
    assert [row["slope"] for row in rows if row["dimension"] == "2"] == [""] * 3


@pytest.mark.parametrize("model", ["vae", "gan"])
def test_what_interpret_leaves_fits_the_schema_and_has_a_page(
    index: Index, tmp_path: Path, model: str
) -> None:
    made = FakeVAE(index) if model == "vae" else FakeGAN()
    write_json(tmp_path / "results.json", interpret(made, index, tmp_path))
    found = read_json(tmp_path / "results.json")
    page, _, schema = latent.write(tmp_path, "small")
    jsonschema.validate(found, read_json(schema))
    assert "data:image/webp;base64," in page.read_text()

    # and the schema refuses what is no such thing
    del found["spaces"][found["space"]]["dimensions"][0]["verdict"]
    with pytest.raises(jsonschema.ValidationError, match="verdict"):
        jsonschema.validate(found, read_json(schema))
    assert claims.read(found) is None
    assert claims.read({}) is None


def test_sentences_say_how_many_and_the_strongest_first(tmp_path: Path) -> None:
    found = claims.read(read_json(put_results(tmp_path) / "results.json"))
    assert found is not None
    total, first, second = claims.sentences(found)
    assert total == "5 latent dimensions: 1 controls, 1 goes with, 2 unnamed, 1 inactive."
    assert first.startswith(
        "dim 0 = hair colour (dark → blond), AUROC .88 [.85, .91] given the rest"
    )
    assert "does not control" in second


def test_who_is_drawn_is_told_beside_the_training_set_and_what_differs_is_marked(
    tmp_path: Path,
) -> None:
    folder = put_results(tmp_path)
    results = read_json(folder / "results.json")
    rows = [
        Share({"Male": "0"}, Estimate(0.4, 0.35, 0.45), 0.45, 0.6),
        Share({"Male": "1"}, Estimate(0.6, 0.35, 0.65), 0.55, 0.4),
    ]
    guessed = Shares(
        ["hair"],
        500,
        [Share({"hair": "blond"}, None, 0.2, 0.1)],
        "3 are blond",
    )
    told = [dataclasses.asdict(one) for one in (Shares(["Male"], 500, rows), guessed)]
    write_json(folder / "results.json", {**results, "shares": told})
    page, _, schema = latent.write(folder, "demo")
    jsonschema.validate(read_json(folder / "results.json"), read_json(schema))
    text = " ".join(page.read_text().split())
    assert '<tr class="off"><td>0</td><td>60.0 %</td><td>45.0 %</td>' in text
    assert "<tr><td>1</td>" in text
    assert "40.0 % <small>[35.0, 45.0]</small>" in text
    assert "Errors are not taken out: 3 are blond." in text


# -- pictures and matrices -------------------------------------------------------------------------


def test_pictures_that_do_not_fit_are_made_smaller_then_left_out_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "walk.png")
    sheet = Sheet("walk.png", "walk", [4, 7], 1, ["a", "b", "c", "d"], True)
    sprites, words = sheets.embedded(tmp_path, [sheet])
    assert [(one.block, one.width, one.height) for one in sprites] == [(4, 32, 32), (7, 32, 32)]
    assert "quality 90" in words
    monkeypatch.setattr(sheets, "ROOM", sum(len(one.src) for one in sprites) // 3)
    fewer, words = sheets.embedded(tmp_path, [sheet])
    assert "quality 90" not in words
    monkeypatch.setattr(sheets, "ROOM", 2 * sheets.ROOM)
    assert sheets.embedded(tmp_path, [sheet], spaces=2)[1] == words
    monkeypatch.setattr(sheets, "ROOM", len(fewer[0].src) // 2)
    fewer, words = sheets.embedded(tmp_path, [sheet])
    assert len(fewer) < 2 and "room for" in words
    gone = dataclasses.replace(sheet, file="gone.png")
    other = dataclasses.replace(sheet, columns=["a", "b", "c"])
    fewer, words = sheets.embedded(tmp_path, [gone, other])
    assert fewer == []
    assert "gone.png (there is no such file)" in words and "3 tiles" in words


def test_rows_and_columns_that_are_alike_stand_side_by_side() -> None:
    kinds = np.array([0, 1, 0, 1, 0, 1])
    values = np.where(kinds[:, None] == np.array([0, 1, 1, 0]), 0.8, 0.0)
    values[0, 1] = np.nan
    names = [str(number) for number in range(6)]
    found = heatmaps.clustered(values, names, ["a", "b", "c", "d"], ["AUROC"] * 4, range(6))
    together = [kinds[int(name)] for name in found.rows]
    assert sum(one != other for one, other in itertools.pairwise(together)) == 1
    assert sorted(found.rows) == names
    assert [str(view) for view in found.views] == found.rows
    row, column = found.rows.index("0"), found.columns.index("b")
    assert found.values[row][column] is None
    assert found.values[found.rows.index("3")][column] == 0.8
    assert len(found.row_tree) == 5 and max(found.row_tree[-1][1]) == 1
    flat = heatmaps.clustered(np.zeros((4, 3)), names[:4], list("abc"), ["AUROC"] * 3, [None] * 4)
    assert flat.row_tree == [] and len(flat.rows) == 4


# -- in the report, and beside another run's -------------------------------------------------------


def test_two_runs_are_compared_attribute_by_attribute(tmp_path: Path) -> None:
    here = put_results(tmp_path / "here/interpret")
    weaker = [(0.1, 0.5, 0.0), (0.7, 0.1, 0.1)]
    blond = effect_of(BLOND, 0.5)
    skin = Claim(
        "mu",
        1,
        "goes with",
        "skin",
        "",
        "",
        GLASSES,
        effect_of(GLASSES, 0.7),
    )
    named = [Claim("mu", 0, "goes with", "hair colour", "dark", "blond", BLOND, blond), skin]
    there = put_results(tmp_path / "there/interpret", weaker, claims=named)
    runs = [claims.read(read_json(folder / "results.json")) for folder in (here, there)]
    assert runs[0] is not None and runs[1] is not None
    found = compared.claims(runs[0], runs[1])
    pairs = {pair.attribute: pair for pair in found["pairs"]}
    assert list(pairs) == ["hair colour", "glasses", "skin"]
    assert pairs["hair colour"].apart is True
    assert (pairs["skin"].here, pairs["glasses"].there, pairs["skin"].apart) == ("", "", None)
    assert compared.claims(runs[0], runs[0])["pairs"][0].apart is False
    assert ("dimensions: controls", 1, 0) in found["rows"]
    assert ("mig", 0.25, 0.25) in found["rows"]

    # as the report has it
    page, data = pages.write(tmp_path / "here", {}, tmp_path / "there")
    text = page.read_text()
    assert "Claims beside those of there" in text
    assert "<td>apart</td>" in text
    assert json.loads(data.read_text())["latent_codes"]["pairs"][0]["attribute"] == "hair colour"
    (there / "results.json").unlink()
    pages.write(tmp_path / "here", {}, tmp_path / "there")
    assert "there has no claims about its dimensions" in page.read_text()


def test_the_report_says_the_strongest_claims_and_leads_to_the_page(tmp_path: Path) -> None:
    folder = put_results(tmp_path / "interpret")
    latent.write(folder, "demo")
    page, data = pages.write(tmp_path, {})
    text = page.read_text()
    assert '<a href="./interpret/latent.html">interpret/latent.html</a>' in text
    assert "<p>dim 0 = hair colour (dark → blond), AUROC .88" in text
    assert any(
        sentence.startswith("5 latent dimensions: 1 controls")
        for sentence in json.loads(data.read_text())["verdict"]
    )


def test_a_run_without_claims_cannot_be_compared_and_it_is_said_before_anything_starts(
    tmp_path: Path,
) -> None:
    told = Run(paths=Paths(runs=str(tmp_path)), compare=Compare(claims="other"))
    run = resolve(told)
    assert run.compare.claims == str(tmp_path / "other")
    plan = Plan(("report",), None, None)
    folder = RunDir(tmp_path / "one")
    with pytest.raises(UserError, match=r"other has no interpret/results\.json; give a run"):
        of("report").check(run, folder, plan)
    put_results(tmp_path / "other/interpret")
    of("report").check(run, folder, plan)
