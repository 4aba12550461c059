"""Plotly figures of a report as HTML divs; what cannot be drawn becomes a sentence that says why."""

import html
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import plotly.express as px
import plotly.graph_objects as graph_objects
from markupsafe import Markup

from facefactory.report.facts import rounded
from facefactory.report.scores import MARKS
from facefactory.results import Goal

INK = ["#4a7fb5", "#c8702a", "#4a9a5f", "#a5659a", "#b8a13a", "#7d8a96"]
CONTOURED = 3  # pairs of parameters
FEWEST = 4  # trials that a contour is drawn through
COLD = "#93a1ad"
MIDDLE = "#4a7fb5"
WARM = "#d9822b"
PANEL = 130  # pixels of a panel or of a gap between axes
ROOM = 340  # pixels of a phone


def searched(study: Any, goal: Goal) -> dict[str, Markup]:
    """Optuna's figures of a study, by their names."""
    found = {"parallel-coordinates": parallel("parallel-coordinates", study, goal)}
    found["slices"] = drawn("slices", slices, study, goal)
    for number, pair in enumerate(pairs(study)):
        name = f"contours-{number}"
        found[name] = drawn(name, contour, study, goal, pair)
    return found


def parallel(name: str, study: Any, goal: Goal) -> Markup:
    """A line a trial through the axes of its parameters, the best ones in the warm colour."""
    return drawn(name, coordinates, study, goal)


def coordinates(study: Any, goal: Goal) -> Any:
    """A line a trial through the parameters that all of them have; axes can be dragged along, and moved."""
    values = [trial.value for trial in study.trials]
    if not values:
        raise ValueError("no trial has finished at the last rung.")
    common = set.intersection(*(set(trial.params) for trial in study.trials))
    dimensions = [{"label": goal.metric, "values": values}]
    for name in sorted(common):
        kind = study.trials[0].distributions[name]
        own = [trial.params[name] for trial in study.trials]
        dimensions.append({"label": ".".join(name.split(".")[-2:]), **_axis(kind, own)})
    line = {
        "color": values,
        "colorscale": [[0, COLD], [0.6, MIDDLE], [1, WARM]],
        "reversescale": goal.better == "lower",
    }
    trace = graph_objects.Parcoords(dimensions=dimensions, line=line, labelangle=-12)
    return graph_objects.Figure(trace).update_layout(
        height=400, margin={"l": 60, "r": 60, "t": 80, "b": 30}
    )


def _axis(kind: Any, values: list[Any]) -> dict[str, Any]:
    """An axis of parallel coordinates: classes by their places, logarithms with the numbers beside them."""
    if hasattr(kind, "choices"):
        there = [choice for choice in kind.choices if choice in values]
        places = list(range(len(there)))
        return {
            "values": [there.index(value) for value in values],
            "tickvals": places,
            "ticktext": list(map(str, there)),
        }
    if not kind.log:
        return {"values": values}
    ticks = np.linspace(math.log10(min(values)), math.log10(max(values)), 5)
    return {
        "values": [math.log10(value) for value in values],
        "tickvals": ticks.tolist(),
        "ticktext": [rounded(float(10**tick)) for tick in ticks],
    }


def slices(study: Any, goal: Goal) -> Any:
    """Optuna's slices, all trials in one colour."""
    from optuna import visualization

    figure = visualization.plot_slice(study, target_name=goal.metric)
    look = {"color": MIDDLE, "size": 7, "opacity": 0.8, "line": {"width": 0}, "showscale": False}
    figure.for_each_trace(lambda trace: trace.update(marker=look))
    return figure


def contour(study: Any, goal: Goal, pair: tuple[str, str]) -> Any:
    """Score over two parameters."""
    from optuna import visualization

    return visualization.plot_contour(study, list(pair), target_name=goal.metric)


def pairs(study: Any) -> list[tuple[str, str]]:
    """Pairs of the parameters that matter most by PED-ANOVA; none of few trials."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len(study.trials) < FEWEST:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few trials; it chooses what is drawn, no more
            shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (RuntimeError, ValueError):
        return []
    values = {name: {trial.params.get(name) for trial in study.trials} for name in shares}
    varied = [name for name in shares if len(values[name]) > 1 and None not in values[name]]
    return list(itertools.combinations(varied[:3], 2))[:CONTOURED]


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
        return Markup('<p class="none">Not drawn: {}{}</p>').format(kind, str(error)[:300])
    figure.update_layout(template="none", title=None, colorway=INK, width=None)
    if not figure.layout.margin.l:
        figure.update_layout(margin={"l": 10, "r": 10, "t": 36, "b": 10})
    figure.update_xaxes(automargin=True).update_yaxes(automargin=True)
    text = figure.to_json().replace("<", "\\u003c")
    height = figure.layout.height or 450
    parts = (
        '<div class="wide"><div id="{0}" class="figure" data-figure="{0}-figure" '
        'style="height: {1}px; min-width: {2}px"></div></div>'
        '<script type="application/json" id="{0}-figure">{3}</script>'
    )
    return Markup(parts).format(name, height, narrowest(figure), Markup(text))


def narrowest(figure: Any) -> int:
    """How wide it must be to be read; narrower windows scroll [pixels]."""
    if figure.data[0].type == "parcoords":
        return PANEL * (len(figure.data[0].dimensions) - 1)
    if len(figure.layout.annotations) > 2 * CONTOURED and len(figure.data) < CONTOURED:
        return PANEL * 5  # words along a line
    starts = {round(axis.domain[0], 3) for axis in figure.select_xaxes() if axis.domain}
    return max(ROOM, min(12, len(starts)) * PANEL if len(starts) > 2 else 0)


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
            look: dict[str, Any] = {"arrowwidth": 1, "arrowhead": 0, "font": {"size": 11}}
            if side > 0:
                look |= {"arrowcolor": color, "font": {"color": color, "size": 11}}
            figure.add_annotation(x=x, y=0, ax=0, ay=-side * far, text=words, **look)
    figure.add_hline(y=0, line_color="#9aa5af", layer="below")
    figure.update_layout(showlegend=False)
    figure.update_yaxes(visible=False, range=[-1, 1])
    return figure.update_xaxes(
        visible=False, range=[-0.3, max(x for x, _, _ in points + models) + 0.3]
    )


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
        render_mode="svg",  # else, of 1,000 points on, a kind that the page's plotly has not
        **panels,
    )
    figure.for_each_annotation(lambda title: title.update(text=title.text.removeprefix("metric=")))
    figure.update_xaxes(showticklabels=True).update_yaxes(
        matches=None, showticklabels=True, title=None
    )
    return figure.update_layout(legend={"orientation": "h", "y": -0.2 / rows, "title": None})
