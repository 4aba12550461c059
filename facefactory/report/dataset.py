"""Writes the page of a packed set, report.html, and report.json, the same facts as data.

It reads files only.
"""

import html
import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import plotly.express as px

from facefactory.report import pages
from facefactory.report.facts import rounded
from facefactory.report.plots import INK, drawn
from facefactory.rundir import read_json

FEW = 8  # images of a split, below which a score is about these few
SUSPECTED = {  # kind of picture in index.json -> what is said of so many
    "dark": "nearly black",
    "flat": "nearly of one colour",
    "unseen": "transparent everywhere, and their colours were taken as they are",
    "stretched": "of another shape than the images made of them, and were stretched",
}
RARE = 2  # share of a rare class, %
STRONG = 0.3  # association worth a sentence
Rows = list[dict[str, Any]]  # one a class of a label


def write(folder: Path, out: Path) -> list[Path]:
    """Write report.html and report.json into `out`, which holds survey.json and samples/.

    Index.json lies in `folder`.
    """
    index = read_json(folder / "index.json")
    survey = read_json(out / "survey.json")
    rows = class_rows(survey["labels"])
    facts = {"name": index["dataset"], "classes": rows, "survey": survey, "index": index}
    facts["findings"] = findings(index, survey, rows)

    # labels: how frequent, how they go together
    both = survey["together"]
    shares = []
    for number, counts in enumerate(both["counts"]):
        images = max(1, counts[number])
        row: list[float | None] = [count / images for count in counts]
        row[number] = None  # of itself
        shares.append(row)
    drawings = {
        "prevalence": drawn("prevalence", prevalence, rows),
        "associations": drawn("associations", heatmap, both["labels"], both["associations"], -1),
        "cooccurrence": drawn("cooccurrence", heatmap, both["classes"], shares, 0),
    }

    # images: how bright, how large
    levels = survey["brightness"]["counts"]
    middles = np.linspace(2, 254, len(levels))
    drawings["brightness"] = drawn("brightness", bars, middles, levels, "mean of its pixels")
    sizes = index.get("image_sizes", {})
    sides = [min(map(int, size.split("x"))) for size in sizes]
    files, ends = np.histogram(sides, 40, weights=list(sizes.values()))
    middles = (ends[1:] + ends[:-1]) / 2
    shorter = "shorter side of the file, pixels (the commonest sizes, at most 100)"
    drawings["sizes"] = drawn("sizes", bars, middles, files, shorter)
    return pages.put("dataset.html", out, facts, drawings=drawings, RARE=RARE, STRONG=STRONG)


def class_rows(labels: dict[str, Any]) -> Rows:
    """One row a class of a label: images in all and per split, people, shares.

    Shares are those [%] of the images whose label is known.
    """
    rows = []
    for label, entry in labels.items():
        images = pandas.DataFrame(entry.get("images", {}))  # [classes, splits]
        total = int(images.to_numpy().sum())
        shares = (100 * images / images.sum()).to_dict("index")
        for code, splits in images.to_dict("index").items():
            count = sum(splits.values())
            row = {
                "label": label,
                "class": entry["classes"][code],
                "word": _word(label, entry, code),
                "binary": entry["kind"] == "binary",
                "images": count,
                "people": entry["people"][code] if "people" in entry else None,
                "splits": splits,
                "share %": 100 * count / max(1, total),
                "shares": _known(shares[code]),
            }
            rows.append(row)
    return rows


def _word(label: str, entry: dict[str, Any], code: Any) -> str:
    """What a class is called where other labels stand beside it."""
    if entry["kind"] != "binary":
        return f"{label}: {entry['classes'][code]}"
    return label if code else f"not {label}"


def _known(shares: dict[Any, float]) -> dict[Any, float]:
    """The shares in those splits in which the label has values at all."""
    return {split: share for split, share in shares.items() if not math.isnan(share)}


def findings(index: dict[str, Any], survey: dict[str, Any], rows: Rows) -> dict[str, list[str]]:
    """What the page says first, as words of its sentences."""
    labels = survey["labels"]
    splits = survey["splits"]
    people = survey.get("people", {"splits": {}, "least_for_a_score": 0})
    reasons = [entry["reason"] for entry in index.get("skipped", [])]
    kinds = Counter(reason.partition(":")[0] for reason in reasons)
    counts = _class_counts(labels)
    return {
        "pictures": suspicions(index),
        "small": [f"{split} ({count})" for split, count in splits.items() if count < FEW],
        **_thin(counts),
        "lonely": [split for split, count in people["splits"].items() if count == 1],
        **_sparse(rows, people["least_for_a_score"]),
        "unknown": _unknown(counts, sum(splits.values())),
        "strong": _strong(labels, survey["together"]),
        "skipped": [f"{count} {kind}" for kind, count in kinds.most_common()],
    }


def _class_counts(labels: dict[str, Any]) -> dict[str, list[int]]:
    """Images of each class of a label, in all splits."""
    counts = {}
    for name, entry in labels.items():
        if "images" in entry:
            counts[name] = [
                sum(of_class) for of_class in zip(*entry["images"].values(), strict=True)
            ]
    return counts


def _thin(counts: dict[str, list[int]]) -> dict[str, list[str]]:
    """Labels of which one class alone has images, or some have a single one."""
    alone = []
    single = []
    for name, of_classes in counts.items():
        if sum(map(bool, of_classes)) == 1:
            alone.append(name)
        elif 1 in of_classes:
            single.append(f"{name} ({of_classes.count(1)})")
    return {"alone": alone, "single": single}


def _sparse(rows: Rows, least_people: int) -> dict[str, list[str]]:
    """Classes that a split lacks, that few images have, or few people."""
    empty = []
    rare = []
    few = []
    for row in rows:
        word = row["word"]
        empty += [f"{word} in {split}" for split, count in row["splits"].items() if not count]
        if row["share %"] < RARE:
            rare.append(f"{word} ({rounded(row['share %'])} %)")
        if least_people and row["people"] < least_people:
            few.append(f"{word} ({row['people']})")
    return {"empty": empty, "rare": rare, "few": few}


def _unknown(counts: dict[str, list[int]], images: int) -> list[str]:
    """Labels that some images lack, and how many of them [%]."""
    words = []
    for name, of_classes in counts.items():
        known = sum(of_classes)
        if known < images:
            words.append(f"{name} ({rounded(100 - 100 * known / images)} %)")
    return words


def _strong(labels: dict[str, Any], both: dict[str, Any]) -> list[str]:
    """Labels that go together, or seldom do, the most so first."""
    pairs = []
    for (a, first), (b, second) in itertools.combinations(enumerate(both["labels"]), 2):
        value = both["associations"][a][b] or 0
        if abs(value) < STRONG:
            continue
        measure = "phi" if labels[first]["kind"] == labels[second]["kind"] == "binary" else "V"
        verb = "go together" if value > 0 else "seldom go together"
        pairs.append((-abs(value), f"{first} and {second} {verb} ({measure} {value:.2f})"))
    return [words for _, words in sorted(pairs)]


def suspicions(index: dict[str, Any]) -> list[str]:
    """What packing saw in the pictures themselves, as sentences without their end."""
    pictures = index.get("pictures", {})
    sentences = []
    deep = pictures.get("sixteen_bit", {"bits": 16})
    if deep["bits"] < 16:
        sentences.append(
            f"{deep['images']:,} pictures have 16 bits and no value above {deep['highest']:,}: "
            f"they were taken as pictures of {deep['bits']} bits"
        )

    for kind, words in SUSPECTED.items():
        entry = pictures.get(kind, {"count": 0})
        if entry["count"]:
            noun = "picture is" if entry["count"] == 1 else "pictures are"
            sentences.append(f"{entry['count']:,} {noun} {words}, e.g. {entry['first'][0]}")

    for split, alike in index.get("alike", {}).items():
        if alike["different"] < alike["images"]:
            sentences.append(
                f"the {alike['images']:,} pictures in {split} are {alike['different']:,} "
                "different ones: the others are copies, or nearly"
            )
    return sentences


def shown_as(names: list[str]) -> list[str]:
    """Names for plotly, which reads HTML; of long ones the beginning and the end, if that tells
    them apart.
    """
    cut = [name if len(name) <= 40 else f"{name[:26]}…{name[-12:]}" for name in names]
    if len(set(cut)) < len(set(names)):
        cut = names
    return [html.escape(name) for name in cut]


def prevalence(rows: Rows) -> Any:
    """Share of each class in each split; of a binary label class 1 alone, the commonest on top."""
    binary = [row for row in rows if row["binary"] and row["class"] == "1"]
    others = [row for row in rows if not row["binary"]]
    shown = sorted(binary, key=lambda row: -row["share %"]) + others
    words = shown_as([row["word"] for row in shown])
    points = []
    for word, row in zip(words, shown, strict=True):
        points += [(word, split, share) for split, share in row["shares"].items()]

    figure = px.scatter(
        pandas.DataFrame(points, columns=["class", "split", "%"]),
        x="%",
        y="class",
        color="split",
        symbol="split",
        category_orders={"class": words},
        color_discrete_sequence=INK,
        render_mode="svg",
        range_x=[-1, 101],
        height=90 + 19 * len(shown),
    )
    figure.update_traces(marker_size=9, opacity=0.8)
    figure.update_yaxes(title=None, dtick=1, range=[-0.6, len(shown) - 0.4])
    return figure.update_layout(
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "title": None}
    )


def heatmap(names: list[str], values: list[list[float | None]], low: int) -> Any:
    """Values low…1 between names, written in hundredths where they are not small."""
    names = shown_as(names)
    frame = pandas.DataFrame(values, names, names, dtype=float)
    words = (100 * frame).map(lambda value: f"{value:.0f}" if abs(value) >= 9.5 else "")
    figure = px.imshow(
        frame,
        aspect="auto",
        height=200 + 21 * len(frame),
        color_continuous_scale="RdBu_r" if low else "Blues",
        zmin=low,
        zmax=1,
    )
    figure.update_traces(
        xgap=1,
        ygap=1,
        text=words,
        texttemplate="%{text}",
        textfont_size=10,
        hovertemplate="%{y}, %{x}: %{z:.2f}<extra></extra>",
    )
    figure.update_coloraxes(showscale=False)
    figure.update_xaxes(title=None, dtick=1, tickangle=-90)
    return figure.update_yaxes(title=None, dtick=1)


def bars(values: Any, counts: Any, title: str) -> Any:
    """Images by some value of theirs."""
    figure = px.bar(
        x=values,
        y=counts,
        height=230,
        color_discrete_sequence=INK,
        labels={"x": title, "y": "images"},
    )
    return figure.update_layout(bargap=0)
