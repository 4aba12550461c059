"""Writes what is known of a run's latent dimensions, from the files that interpret left beside results.json.

`latent.html`: the page, one file without any outside link. `latent.csv`: all cells of the matrices of effects.
`latent.schema.json`: a JSON schema of results.json.
"""

import csv
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facefactory.report import claims, heatmaps, pages, sheets
from facefactory.report.claims import Latent, Space
from facefactory.report.sheets import Sprite
from facefactory.results import Claim, Control, Dimension, Estimate
from facefactory.rundir import atomic, read_json, write_json

PAGE = "latent.html"
AXES = {"auroc": (0, 0.5, 1), "spearman": (-1, 0, 1)}  # least, nothing, most
MEASURES = {"auroc": "AUROC", "spearman": "Spearman"}
COLUMNS = {  # of the CSV: name -> field of an effect
    "value": "value",
    "low": "low",
    "high": "high",
    "q": "q",
    "nats": "nats",
    "given_q": "given_q",
    "explained_by": "explained_by",
    "not_given": "absent",
}


@dataclass(frozen=True)
class Row:
    """A claim in the table."""

    claim: Claim
    place: int  # in the order of how much they say
    view: int  # of its pictures
    dimension: Dimension
    strength: float
    labels: list[str]  # that it is found by

    @property
    def slope(self) -> float | None:
        """How far a walk moves the judge's answer, whichever way."""
        control = self.claim.control
        return abs(control.slope.value) if control else None

    @property
    def text(self) -> str:
        """What is searched."""
        claim = self.claim
        words = (claim.words(), claim.space, claim.verdict, *self.labels)
        return " ".join(words).lower()


@dataclass(frozen=True)
class View:
    """What is shown of a dimension, or of a walk between two classes, one at a time."""

    title: str
    sentence: str
    steps: list[str]
    walk: Sprite | None
    stills: list[Sprite]


def write(folder: Path, name: str) -> list[Path]:
    """Write latent.html, latent.csv and latent.schema.json into the folder that holds results.json; `name`: the run's."""
    results = read_json(folder / "results.json")
    latent = claims.adapter().validate_python(results)
    content = page_of(latent, folder, name)
    page = folder / PAGE
    with atomic(page) as temporary:
        temporary.write_text(content, encoding="utf-8")

    # the same for programs
    table = folder / "latent.csv"
    with atomic(table) as temporary, open(temporary, "w", newline="") as stream:
        rows = list(cells(latent))
        writer = csv.DictWriter(stream, rows[0] if rows else ["space", "dimension", "contrast"])
        writer.writeheader()
        writer.writerows(rows)
    schema = folder / "latent.schema.json"
    write_json(schema, claims.adapter().json_schema())
    return [page, table, schema]


def cells(latent: Latent) -> Iterator[dict[str, Any]]:
    """All effects, a row each."""
    for name, space in latent.spaces.items():
        said = {claim.dimension: claim for claim in space.claims}
        for row in space.dimensions:
            for contrast in space.contrasts:
                effect = row.effects[contrast.name]
                given = effect.given
                claim = said.get(row.dimension)

                # the dimension and the contrast
                cell = {
                    "space": name,
                    "dimension": row.dimension,
                    "contrast": contrast.name,
                    "measure": contrast.measure,
                    "prevalence": contrast.prevalence,
                    "faces": contrast.faces,
                    "kl_nats": row.kl_nats,
                    "levels": row.levels,
                    "features": row.features,
                }

                # what they have with each other
                cell |= {column: getattr(effect, field) for column, field in COLUMNS.items()}
                for field in ("value", "low", "high"):
                    cell[f"given_{field}"] = getattr(given, field) if given else None
                control = claim.control if claim else None
                is_walked = control is not None and control.contrast == contrast.name
                cell["slope"] = control.slope.value if control and is_walked else None
                cell["verdict"] = row.verdict
                yield cell


def page_of(latent: Latent, folder: Path, name: str) -> str:
    """The text of the page; pictures are read from the folder."""
    # pictures, and what each dimension has of them
    sprites = {}
    notes = []
    for title, space in latent.spaces.items():
        sprites[title], note = sheets.embedded(folder, space.sheets, len(latent.spaces))
        notes.append(note)
    views = views_of(latent, sprites)
    places = {(claim.space, claim.dimension): place for place, claim in enumerate(latent.claims)}
    maps = {}
    for title, space in latent.spaces.items():
        if space.contrasts and space.dimensions:
            maps[f"effects of {title}"] = effects_map(title, space, places)
    labels_maps = {}
    for title, space in latent.spaces.items():
        if len(space.among_labels) > 1:
            labels_maps[f"labels of {title}"] = labels_map(space)

    # what scripts need
    facts = {
        "dimensions": [dataclasses.asdict(view) for view in views],
        "heatmaps": {
            title: dataclasses.asdict(one) for title, one in (maps | labels_maps).items()
        },
    }
    rows = rows_of(latent, places)
    return pages.rendered(
        "latent.html",
        folder,
        name=name,
        latent=latent,
        verdict=claims.sentences(latent),
        rows=rows,
        labels=sorted({label for row in rows for label in row.labels}),
        verdicts=[
            verdict for verdict in claims.ORDER if verdict in {row.claim.verdict for row in rows}
        ],
        views=views,
        notes=" ".join(dict.fromkeys(filter(None, notes))),
        maps=maps,
        labels_maps=labels_maps,
        axes=AXES,
        measures=MEASURES,
        curve=curve,
        effects_beside=effects_beside,
        facts=pages.in_script(facts),
    )


def rows_of(latent: Latent, places: dict[tuple[str, int], int]) -> list[Row]:
    """The rows of the table, those that say most first."""
    rows = []
    for place, claim in enumerate(latent.claims):
        dimensions = latent.spaces[claim.space].dimensions
        dimension = next(row for row in dimensions if row.dimension == claim.dimension)
        labels = [claim.attribute, *dimension.labels]
        if claim.contrast is not None:
            labels.append(claim.contrast.label)
        view = places[claim.space, claim.dimension]
        known = list(dict.fromkeys(filter(None, labels)))
        strength = claims.strength(claim)
        rows.append(Row(claim, place, view, dimension, strength, known))
    return rows


def views_of(latent: Latent, sprites: dict[str, list[Sprite]]) -> list[View]:
    """What is shown of each dimension, in the order of the claims; then of what has pictures and no claim."""
    several = len(latent.spaces) > 1
    views = []
    for claim in latent.claims:
        own = [sprite for sprite in sprites[claim.space] if sprite.block == claim.dimension]
        title = f"{claim.space} {claim.dimension}" if several else f"dim {claim.dimension}"
        views.append(
            _view(f"{title}: {claim.attribute or claim.verdict}", latent.said(claim), own)
        )

    # the way between two classes, or dimensions that nothing was held against
    claimed = {(claim.space, claim.dimension) for claim in latent.claims}
    for name, pictures in sprites.items():
        for block in dict.fromkeys(sprite.block for sprite in pictures):
            if (name, block) not in claimed:
                own = [sprite for sprite in pictures if sprite.block == block]
                title = f"dim {block}" if isinstance(block, int) else block
                views.append(_view(f"{name} {title}" if several else title, "", own))
    return views


def _view(title: str, sentence: str, sprites: list[Sprite]) -> View:
    walks = [sprite for sprite in sprites if sprite.walks]
    walk = max(walks, key=lambda sprite: sprite.lines, default=None)
    stills = [sprite for sprite in sprites if not sprite.walks]
    return View(title, sentence, walk.columns if walk else [], walk, stills)


def effects_map(title: str, space: Space, places: dict[tuple[str, int], int]) -> heatmaps.Heatmap:
    """The matrix of a space's effects, as rank correlations."""
    attributes = {claim.dimension: claim.attribute for claim in space.claims}
    rows = []
    values = np.full((len(space.dimensions), len(space.contrasts)), np.nan)
    for number, row in enumerate(space.dimensions):
        rows.append(f"{row.dimension} {attributes.get(row.dimension, '')}".strip())
        for column, contrast in enumerate(space.contrasts):
            values[number, column] = contrast.size(row.effects[contrast.name].value)
    columns = [contrast.name for contrast in space.contrasts]
    measured = [MEASURES[contrast.measure] for contrast in space.contrasts]
    views = [places.get((title, row.dimension)) for row in space.dimensions]
    return heatmaps.clustered(values, rows, columns, measured, views)


def labels_map(space: Space) -> heatmaps.Heatmap:
    """The correlations of the labels that dimensions are held against, those of classes of one label left out."""
    names = list(space.among_labels)
    values = np.full((len(names), len(names)), np.nan)
    for row, one in enumerate(names):
        for column, other in enumerate(names):
            values[row, column] = space.among_labels[one].get(other, np.nan)
    nowhere = [None] * len(names)
    return heatmaps.clustered(values, names, names, ["correlation"] * len(names), nowhere)


def curve(control: Control) -> dict[str, Any]:
    """The judge's answers along a walk, as points of a picture of 100 by 60: the line, its interval, its ends."""
    least = min(control.judged_low)
    most = max(control.judged_high)
    reach = (most - least) or 1.0
    across = 100 / max(1, len(control.judged) - 1)

    def points(values: list[float]) -> list[str]:
        heights = [58 - 56 * (value - least) / reach for value in values]
        return [f"{place * across:.1f},{height:.1f}" for place, height in enumerate(heights)]

    band = points(control.judged_high) + points(control.judged_low)[::-1]
    return {
        "line": " ".join(points(control.judged)),
        "band": " ".join(band),
        "least": least,
        "most": most,
    }


def effects_beside(control: Control) -> list[tuple[str, Estimate]]:
    """Slopes of other answers whose intervals are clear of 0, the steepest first."""
    clear = [
        (name, slope) for name, slope in control.others.items() if slope.low > 0 or slope.high < 0
    ]
    return sorted(clear, key=lambda pair: -abs(pair[1].value))
