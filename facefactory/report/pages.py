"""Writes report.html, one file without any outside link, and report.json, the same facts as data."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from facefactory.report import plots
from facefactory.report.facts import gather, metrics, rounded, strict
from facefactory.rundir import atomic, write_json

PAGE = 1040  # width of the text column, CSS pixels
CONTACT_SHEET = 12  # trials whose samples are shown


def write(folder: Path, repeat: dict[str, str]) -> list[Path]:
    """Write report.html and report.json of a run folder.

    Args:
        folder: a sweep, a generative run or a classifier run; whatever it lacks is named in the page.
        repeat: name of a trial or run -> the shell command that repeats it.
    """
    facts = strict(gather(folder, repeat))
    page, data = folder / "report.html", folder / "report.json"
    with atomic(page) as temporary:
        temporary.write_text(render(folder, facts), encoding="utf-8")
    write_json(data, facts)
    return [page, data]


def render(folder: Path, facts: dict[str, Any]) -> str:
    """The page."""
    from plotly.offline import get_plotlyjs

    loader = jinja2.PackageLoader("facefactory.report")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"rounded": rounded, "moment": moment, "compact": compact}
    environment.globals |= {"picture": partial(picture, folder), "samples": partial(samples, folder)}
    drawings = figures(folder, facts)
    with_plots = any("plotly" in str(drawing) for drawing in drawings.values())
    plotly_js = Markup(get_plotlyjs()) if with_plots else None
    params = sorted({name for row in facts["leaderboard"] for name in row["params"]})
    sheet = [row for row in facts["leaderboard"] if row["kind"] == "trial"][:CONTACT_SHEET]
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    context = {
        **facts,
        "drawings": drawings,
        "plotly_js": plotly_js,
        "params": params,
        "sheet": sheet,
        "written": written,
    }
    return environment.get_template("report.html").render(context)


def figures(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The plots of the page by section; `scores` and `latent` by metric and run."""
    runs, sweep = facts["runs"], facts["sweep"]
    lines = {run["name"]: metrics(folder / run["folder"] / "train") for run in runs}
    scaled = dict.fromkeys(metric for run in runs for metric, marks in (run["scale"] or {}).items() if marks)
    return {
        "scores": {metric: plots.drawn(f"score-{metric}", partial(plots.scores, runs, metric)) for metric in scaled},
        "training": plots.drawn("training", partial(plots.training_curves, lines)),
        "trials": plots.drawn("trials", partial(plots.trial_curves, sweep)) if sweep else None,
        "optuna": list(plots.optuna_figures(sweep)) if sweep else [],
        "latent": {
            run["name"]: plots.drawn(f"latent-{number}", partial(plots.latent_effects, run["latent"]))
            for number, run in enumerate(runs)
            if run["latent"]
        },
    }


def picture(folder: Path, name: str, fit: int = PAGE) -> Markup | None:
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
    drawn = sorted(path.relative_to(folder) for path in (folder / run / "train/samples").glob("*.png"))
    judged = Path(run) / "evaluate/samples.png"
    return str(judged if (folder / judged).is_file() or not drawn else drawn[-1])


def moment(seconds: float) -> str:
    """A Unix time in words."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def compact(value: Any) -> str:
    """Nested values on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
