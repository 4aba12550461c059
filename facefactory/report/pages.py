"""Writes report.html, one file without any outside link, and report.json, the same facts as data."""

import base64
import dataclasses
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from facefactory.report import claims, compared
from facefactory.report.facts import gather, metrics, rounded, tried
from facefactory.report.plots import figures
from facefactory.rundir import atomic, read_results, write_json


def write(folder: Path, repeat: dict[str, str], beside: Path | None = None) -> list[Path]:
    """Write report.html and report.json of a run folder.

    Args:
        folder: a sweep, a generative run or a classifier run; whatever it lacks is named in the page.
        repeat: name of a trial or run -> the shell command that repeats it.
        beside: another run, whose claims about latent dimensions stand beside those of this one.
    """
    facts = gather(folder, repeat)
    if beside is not None:
        facts["beside"] = held_beside(folder, facts["runs"][0], beside)
    logged = [
        {"run": run["name"], **line}
        for run in facts["runs"]
        for line in metrics(folder / run["folder"] / "train")
    ]
    trials = tried(facts["sweep"]) if facts["sweep"] else None
    return put(
        "report.html",
        folder,
        facts,
        drawings=figures(trials, logged, facts["runs"], facts["metric"]),
        written=datetime.now(UTC),
    )


def held_beside(folder: Path, run: dict[str, Any], beside: Path) -> dict[str, Any]:
    """The claims of the first run of a folder and of another run, compared; or why they are not."""
    latents = []
    for path in (folder / run["folder"], beside):
        latent = claims.read(read_results(path / "interpret"))
        if latent is None:
            told = f"{path.name} has no claims about its dimensions: run jobs/interpret.py for it."
            return {"name": beside.name, "lack": told}
        latents.append(latent)
    found = compared.claims(*latents)
    found["pairs"] = [dataclasses.asdict(pair) for pair in found["pairs"]]
    return {"name": beside.name, "lack": "", "whose": run["name"], **found}


def put(
    template: str, folder: Path, facts: dict[str, Any], drawings: dict[str, Any], **more: Any
) -> list[Path]:
    """Write report.html from a template, with the PNG files of the folder that it shows, and the facts as report.json."""
    from plotly.offline import get_plotlyjs

    plotly_js = Markup(get_plotlyjs()) if "plotly-graph-div" in str(drawings) else None
    text = rendered(template, folder, **facts, **more, drawings=drawings, plotly_js=plotly_js)
    page, data = folder / "report.html", folder / "report.json"
    with atomic(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(data, facts)
    return [page, data]


def rendered(template: str, folder: Path, **values: Any) -> str:
    """The text of a page whose template may show the PNG files of the folder."""
    loader = jinja2.PackageLoader("facefactory.report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["rounded"] = rounded
    environment.globals |= {
        "picture": partial(picture, folder),
        "samples": partial(samples, folder),
        "is_there": lambda name: (folder / name).is_file(),
    }
    return environment.get_template(template).render(**values)


def picture(folder: Path, name: str, fit: int = 1040) -> Markup | None:
    """A PNG as an <img> that carries its bytes, enlarged by a whole number up to `fit` pixels; None without a file."""
    path = folder / name
    if not path.is_file():
        return None
    content = path.read_bytes()
    width = int.from_bytes(content[16:20])  # PNG: the header chunk begins with width and height
    shown = width * min(6, max(1, fit // max(1, width)))
    image = '<img loading="lazy" width="{}" alt="{}" src="data:image/png;base64,{}">'
    return Markup(image).format(shown, name, base64.b64encode(content).decode())


def samples(folder: Path, run: str) -> str:
    """The sample grid that speaks for a run: evaluate's, else the last that training drew."""
    drawn = sorted(
        path.relative_to(folder) for path in (folder / run / "train/samples").glob("*.png")
    )
    judged = Path(run) / "evaluate/samples.png"
    return str(judged if (folder / judged).is_file() or not drawn else drawn[-1])
