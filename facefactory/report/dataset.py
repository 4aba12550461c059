"""Writes the page of a packed set, report.html, and report.json, the same facts as data; reads files only."""

import html
import itertools
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
}
RARE, STRONG = 2, 0.3  # share [%] of a rare class, association worth a sentence


def write(folder: Path, out: Path) -> list[Path]:
    """Write report.html and report.json into `out`, which holds survey.json and samples/; index.json lies in `folder`."""
    index, survey = read_json(folder / "index.json"), read_json(out / "survey.json")
    rows, both, levels = (
        class_rows(survey["labels"]),
        survey["together"],
        survey["brightness"]["counts"],
    )
    sides = [min(map(int, size.split("x"))) for size in index.get("image_sizes", {})]
    files, ends = np.histogram(sides, 40, weights=list(index.get("image_sizes", {}).values()))
    of_row = [
        [None if a == b else n / max(1, row[a]) for b, n in enumerate(row)]
        for a, row in enumerate(both["counts"])
    ]
    facts = {"name": index["dataset"], "classes": rows, "survey": survey, "index": index}
    facts["findings"] = findings(index, survey, rows)
    shorter = "shorter side of the file, pixels (the commonest sizes, at most 100)"
    drawings = {
        "prevalence": drawn("prevalence", prevalence, rows),
        "associations": drawn("associations", heatmap, both["labels"], both["associations"], -1),
        "cooccurrence": drawn("cooccurrence", heatmap, both["classes"], of_row, 0),
        "brightness": drawn(
            "brightness", bars, np.linspace(2, 254, len(levels)), levels, "mean of its pixels"
        ),
        "sizes": drawn("sizes", bars, (ends[1:] + ends[:-1]) / 2, files, shorter),
    }
    return pages.put("dataset.html", out, facts, drawings, RARE=RARE, STRONG=STRONG)


def class_rows(labels: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a class of a label: images in all and per split, people, shares [%] of the images whose label is known."""
    rows = []
    for label, entry in labels.items():
        images = pandas.DataFrame(entry.get("images", {}))  # [classes, splits]
        shares = (100 * images / images.sum()).to_dict("index")
        for code, splits in images.to_dict("index").items():
            word = (
                f"{label}: {entry['classes'][code]}"
                if entry["kind"] != "binary"
                else label
                if code
                else f"not {label}"
            )
            row = {
                "label": label,
                "class": entry["classes"][code],
                "word": word,
                "binary": entry["kind"] == "binary",
            }
            row |= {
                "images": sum(splits.values()),
                "people": entry.get("people", {code: None})[code],
                "splits": splits,
            }
            row["share %"] = 100 * row["images"] / max(1, int(images.to_numpy().sum()))
            rows.append(
                {
                    **row,
                    "shares": {
                        split: share for split, share in shares[code].items() if share == share
                    },
                }
            )
    return rows


def findings(
    index: dict[str, Any], survey: dict[str, Any], rows: list[dict[str, Any]]
) -> dict[str, list[str]]:
    """What the page says first, as words of its sentences."""
    labels, both, total = survey["labels"], survey["together"], sum(survey["splits"].values())
    least = survey["people"]["least_for_a_score"] if "people" in survey else 0
    known = {
        name: sum(map(sum, its["images"].values()))
        for name, its in labels.items()
        if "images" in its
    }
    pairs = []
    for (a, one), (b, other) in itertools.combinations(enumerate(both["labels"]), 2):
        if abs(value := both["associations"][a][b] or 0) >= STRONG:
            measure = "phi" if labels[one]["kind"] == labels[other]["kind"] == "binary" else "V"
            verb = "go together" if value > 0 else "seldom go together"
            pairs.append((-abs(value), f"{one} and {other} {verb} ({measure} {value:.2f})"))
    kinds = Counter(entry["reason"].partition(":")[0] for entry in index.get("skipped", []))
    seen = {
        name: [sum(counts) for counts in zip(*its["images"].values(), strict=True)]
        for name, its in labels.items()
        if "images" in its
    }
    alone = [name for name, counts in seen.items() if sum(map(bool, counts)) == 1]
    single = {
        name: sum(count == 1 for count in counts)
        for name, counts in seen.items()
        if name not in alone
    }
    return {
        "pictures": suspicions(index),
        "small": [
            f"{split} ({count})" for split, count in survey["splits"].items() if count < FEW
        ],
        "alone": alone,
        "single": [f"{name} ({count})" for name, count in single.items() if count],
        "lonely": [
            split
            for split, count in survey.get("people", {}).get("splits", {}).items()
            if count == 1
        ],
        "empty": [
            f"{row['word']} in {split}"
            for row in rows
            for split, count in row["splits"].items()
            if not count
        ],
        "rare": [
            f"{row['word']} ({rounded(row['share %'])} %)" for row in rows if row["share %"] < RARE
        ],
        "few": [
            f"{row['word']} ({row['people']})" for row in rows if least and row["people"] < least
        ],
        "unknown": [
            f"{name} ({rounded(100 - 100 * count / total)} %)"
            for name, count in known.items()
            if count < total
        ],
        "strong": [words for _, words in sorted(pairs)],
        "skipped": [f"{count} {kind}" for kind, count in kinds.most_common()],
    }


def suspicions(index: dict[str, Any]) -> list[str]:
    """What packing saw in the pictures themselves, as sentences without their end."""
    known, found = index.get("pictures", {}), []
    deep = known.get("sixteen_bit", {"bits": 16})
    if deep["bits"] < 16:
        told = f"{deep['images']:,} pictures have 16 bits and no value above {deep['highest']:,}"
        found.append(f"{told}: they were taken as pictures of {deep['bits']} bits")
    for kind, words in SUSPECTED.items():
        entry = known.get(kind, {"count": 0})
        if entry["count"]:
            noun = "picture is" if entry["count"] == 1 else "pictures are"
            found.append(f"{entry['count']:,} {noun} {words}, e.g. {entry['first'][0]}")
    for split, its in index.get("alike", {}).items():
        if its["different"] < its["images"]:
            told = f"{its['images']:,} pictures in {split} are {its['different']:,} different ones"
            found.append(f"the {told}: the others are copies, or nearly")
    return found


def shown_as(names: list[str]) -> list[str]:
    """Names for plotly, which reads HTML; of long ones the beginning and the end, if that tells them apart."""
    cut = [name if len(name) <= 40 else f"{name[:26]}…{name[-12:]}" for name in names]
    return [html.escape(name) for name in (cut if len(set(cut)) == len(set(names)) else names)]


def prevalence(rows: list[dict[str, Any]]) -> Any:
    """Share of each class in each split; of a binary label class 1 alone, the commonest on top."""
    binary = [row for row in rows if row["binary"] and row["class"] == "1"]
    shown = sorted(binary, key=lambda row: -row["share %"]) + [
        row for row in rows if not row["binary"]
    ]
    words = shown_as([row["word"] for row in shown])
    points = [
        (word, split, share)
        for word, row in zip(words, shown, strict=True)
        for split, share in row["shares"].items()
    ]
    frame, order = pandas.DataFrame(points, columns=["class", "split", "%"]), {"class": words}
    look = {
        "color": "split",
        "symbol": "split",
        "color_discrete_sequence": INK,
        "category_orders": order,
    }
    figure = px.scatter(
        frame, x="%", y="class", range_x=[-1, 101], height=90 + 19 * len(shown), **look
    )
    figure.update_traces(marker_size=9, opacity=0.8).update_yaxes(
        title=None, dtick=1, range=[-0.6, len(shown) - 0.4]
    )
    return figure.update_layout(
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "title": None}
    )


def heatmap(names: list[str], values: list[list[float | None]], low: int) -> Any:
    """Values low…1 between names, written in hundredths where they are not small."""
    names = shown_as(names)
    frame = pandas.DataFrame(values, names, names, dtype=float)
    words = (100 * frame).map(lambda value: f"{value:.0f}" if abs(value) >= 9.5 else "")
    colors = {"color_continuous_scale": "RdBu_r" if low else "Blues", "zmin": low, "zmax": 1}
    figure = px.imshow(frame, aspect="auto", height=200 + 21 * len(frame), **colors)
    look = {
        "text": words,
        "texttemplate": "%{text}",
        "textfont_size": 10,
        "hovertemplate": "%{y}, %{x}: %{z:.2f}<extra></extra>",
    }
    figure.update_traces(xgap=1, ygap=1, **look).update_coloraxes(showscale=False)
    return figure.update_xaxes(title=None, dtick=1, tickangle=-90).update_yaxes(
        title=None, dtick=1
    )


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
