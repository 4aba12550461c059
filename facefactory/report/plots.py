"""Plotly figures of a report as HTML divs; what cannot be drawn becomes a sentence that says why."""

import html
import math
import warnings
from collections.abc import Callable
from typing import Any

import pandas
import plotly.express as px
from markupsafe import Markup

from facefactory.report.facts import rounded
from facefactory.report.scores import MARKS
from facefactory.trials import Trial

INK = ["#2f5d8a", "#c8702a", "#4a8a57", "#8a4f7d", "#b8a13a", "#5f6b76"]
SEARCH = {  # name -> Optuna's function
    "parameter-importances": "plot_param_importances",
    "parallel-coordinates": "plot_parallel_coordinate",
    "slices": "plot_slice",
}


def figures(
    trials: list[Trial] | None,
    logged: list[dict[str, Any]],
    runs: list[dict[str, Any]],
    metric: str,
) -> dict[str, Markup]:
    """The figures of the page by their names.

    `trials`: of a search, if there was one. `logged`: the metric lines of all runs, each with its `run`.
    """
    found = {
        "training": drawn("training", training_curves, logged),
        "scale": drawn("scale", scale_line, runs, metric),
    }
    if trials is not None:
        found["trials"] = drawn("trials", trial_curves, trials, metric)
        from optuna import visualization  # only here: most pages have no search

        for name, function in SEARCH.items():
            plot = getattr(visualization, function)
            found[name] = drawn(name, plot, study(trials, metric), target_name=metric)
    return found


def drawn(name: str, draw: Callable[..., Any], *data: Any, **options: Any) -> Markup:
    """The figure as a div named `name`, or a sentence on what keeps it from being drawn."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls most of its plots experimental
            figure = draw(*data, **options)
            if not figure.data:
                raise ValueError("there are no values to draw.")
    except Exception as error:  # a plot library raises what it likes on odd data; the page goes on
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return Markup('<p class="none">Not drawn: {}{}</p>').format(kind, error)
    figure.update_layout(
        template="plotly_white", font_size=12, title=None, colorway=INK, width=None
    )
    figure.update_layout(margin={"l": 10, "r": 10, "t": 36, "b": 10})
    figure.update_xaxes(automargin=True).update_yaxes(automargin=True)
    config = {"displayModeBar": False, "responsive": True}
    return Markup(
        figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config)
    )


def scale_line(runs: list[dict[str, Any]], metric: str) -> Any:
    """The marks of the scale on a line, and the runs above it; distances from the best mark are drawn by their logarithm."""
    scored = [run for run in runs if run["score"] is not None and run["scale"]]
    if not scored:
        raise ValueError(f"{metric} has no scale here.")
    marks = scored[0]["scale"]
    zero = min(*marks.values(), *(run["score"] for run in scored))
    unit = max(max(marks.values()) - zero, 1e-12) / 100

    def at(value: float) -> float:
        return math.log10(1 + max(0.0, value - zero) / unit)

    points = [
        (at(value), 0, f"{MARKS.get(name, name)}<br>{rounded(value)}")
        for name, value in marks.items()
    ]
    models = [
        (at(run["score"]), 0, f"{html.escape(run['name'])}<br>{rounded(run['score'])}")
        for run in scored
    ]
    figure = px.scatter(height=250)
    for rows, color, side in ((sorted(points), INK[5], -1), (sorted(models), INK[1], 1)):
        figure.add_scatter(
            x=[row[0] for row in rows],
            y=[0] * len(rows),
            mode="markers",
            marker={"size": 10, "color": color},
        )
        for number, (x, _, words) in enumerate(
            rows
        ):  # in turns near and far, so that neighbours do not overlap
            far = 30 + 40 * (number % 2)
            look = {
                "arrowcolor": color,
                "arrowwidth": 1,
                "arrowhead": 0,
                "font": {"color": color, "size": 11},
            }
            figure.add_annotation(x=x, y=0, ax=0, ay=-side * far, text=words, **look)
    figure.add_hline(y=0, line_color="#dde3e8", layer="below")
    figure.update_layout(showlegend=False)
    figure.update_yaxes(visible=False, range=[-1, 1])
    return figure.update_xaxes(
        visible=False, range=[-0.3, max(x for x, _, _ in points + models) + 0.3]
    )


def trial_curves(trials: list[Trial], metric: str) -> Any:
    """Score of every trial at every rung."""
    rows = [
        (rung.kimg, rung.scores.get(metric), trial.name, trial.state)
        for trial in trials
        for rung in trial.rungs
    ]
    frame = pandas.DataFrame(rows, columns=["kimg", metric, "trial", "state"]).dropna()
    if frame.empty:
        raise ValueError("no trial has a score.")
    positive = bool((frame[metric] > 0).all())
    style = {
        "color": "state",
        "color_discrete_sequence": INK,
        "line_group": "trial",
        "hover_name": "trial",
        "markers": True,
    }
    return px.line(frame, x="kimg", y=metric, log_y=positive, height=360, **style)


def training_curves(logged: list[dict[str, Any]]) -> Any:
    """Every scalar that the trainings logged, one panel each, one line a run."""
    if not logged:
        raise ValueError("no training has logged a metric yet.")
    frame = pandas.DataFrame(logged).drop(
        columns=["images_per_s", "health", "setbacks"], errors="ignore"
    )
    frame = frame.melt(["run", "kimg"], var_name="metric").dropna()

    # two panels a row
    rows = math.ceil(frame["metric"].nunique() / 2)
    panels = {
        "facet_col": "metric",
        "facet_col_wrap": 2,
        "facet_col_spacing": 0.07,
        "facet_row_spacing": 0.25 / rows,
    }
    figure = px.line(
        frame,
        x="kimg",
        y="value",
        color="run",
        color_discrete_sequence=INK,
        height=100 + 230 * rows,
        **panels,
    )
    figure.for_each_annotation(lambda title: title.update(text=title.text.removeprefix("metric=")))
    figure.update_xaxes(showticklabels=True).update_yaxes(
        matches=None, showticklabels=True, title=None
    )
    return figure.update_layout(legend={"orientation": "h", "y": -0.2 / rows, "title": None})


def study(trials: list[Trial], metric: str) -> Any:
    """An Optuna study of the trials that finished at the highest rung, with their scores there: unlike rungs are not compared."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    finished = []
    for trial in trials:
        last = trial.last(metric)
        if last is not None and trial.state == "finished":
            finished.append((*last, trial))
    highest = max((kimg for kimg, _, _ in finished), default=math.inf)

    rebuilt = optuna.create_study(study_name="sweep")
    for kimg, score, trial in finished:
        if kimg < highest:
            continue
        kinds = {
            name: optuna.distributions.json_to_distribution(text)
            for name, text in trial.distributions.items()
        }
        params = {name: trial.params[name] for name in kinds}
        rebuilt.add_trial(
            optuna.trial.create_trial(value=score, params=params, distributions=kinds)
        )
    return rebuilt
