"""Plotly figures of a report as HTML divs; what cannot be drawn becomes a sentence that says why."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pandas
import plotly.express as px
from markupsafe import Markup
from optuna import visualization
from optuna.trial import TrialState

from facefactory.report.facts import MARKS, last_score, rounded

INK = ["#2f5d8a", "#c8702a", "#4a8a57", "#8a4f7d", "#b8a13a", "#5f6b76"]
STATE_INK = {"finished": INK[0], "stopped": "#a9b4bd", "failed": "#b23a3a", "interrupted": INK[1]}
HEATMAP_ROWS = 40
SEARCH = {
    "parameter-importances": visualization.plot_param_importances,
    "parallel-coordinates": visualization.plot_parallel_coordinate,
    "slices": visualization.plot_slice,
    "history": visualization.plot_optimization_history,
}


def figures(facts: dict[str, Any], logged: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the page by their names; `logged` are the metric lines of all runs, each with its `run`."""
    runs, sweep = facts["runs"], facts["sweep"]
    scaled = dict.fromkeys(metric for run in runs for metric, marks in run["scale"].items() if marks)
    found = {f"score-{metric}": drawn(f"score-{metric}", scores, runs, metric) for metric in scaled}
    found |= {f"latent-{n}": drawn(f"latent-{n}", latent_effects, run["latent"]) for n, run in enumerate(runs) if run["latent"]}
    found["training"] = drawn("training", training_curves, logged)
    if sweep:
        found["trials"] = drawn("trials", trial_curves, sweep)
        found["rungs"] = drawn("rungs", lambda: visualization.plot_intermediate_values(study(sweep)))
        for name, plot in SEARCH.items():
            found[name] = drawn(name, lambda plot=plot: plot(study(sweep), target_name=sweep["metric"]))
    return found


def drawn(name: str, draw: Callable[..., Any], *data: Any) -> Markup:
    """The figure that `draw` makes of the data, as a div named `name`, or a sentence on what keeps it from being drawn."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls most of its plots experimental
            figure = draw(*data)
            if not figure.data:
                raise ValueError("there are no values to draw.")
    except Exception as error:  # a plot library raises what it likes on odd data; the page goes on
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return Markup('<p class="none">Not drawn: {}{}</p>').format(kind, error)
    figure.update_layout(template="plotly_white", font_size=12, title=None, colorway=INK, width=None)
    figure.update_layout(margin={"l": 10, "r": 10, "t": 36, "b": 10})
    figure.update_xaxes(automargin=True).update_yaxes(automargin=True)
    config = {"displayModeBar": False, "responsive": True}
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config))


def scores(runs: list[dict[str, Any]], metric: str) -> Any:
    """Scores of runs and below them their scale, floor and ceilings, on a log axis; values <= 0 stand at its left edge."""
    scale = next(run["scale"][metric] for run in runs if run["scale"].get(metric))
    marks = sorted((value, name) for name, value in scale.items() if value is not None)
    rows = [(run["name"], run["scores"].get(metric), INK[0]) for run in runs]
    rows += [(MARKS.get(name, name), value, INK[2] if name == "floor" else INK[5]) for value, name in marks]
    frame = pandas.DataFrame(rows, columns=["name", "value", "ink"]).dropna()
    edge = min((value for value in frame["value"] if value > 0), default=1) / 2
    frame = frame.assign(text=frame["value"].map(rounded), value=frame["value"].clip(lower=edge))
    order, inks = {"name": list(frame["name"])}, {"color": "ink", "color_discrete_map": "identity"}
    figure = px.scatter(frame, x="value", y="name", text="text", category_orders=order, log_x=True, **inks)
    figure.update_traces(marker_size=12, textposition="middle right", hoverinfo="skip", hovertemplate=None)
    ends = [math.log10(edge) - 0.1, math.log10(frame["value"].max()) + 0.2]
    figure.update_xaxes(title=f"{metric}, log scale, values ≤ 0 at the left edge", range=ends, dtick="D2")
    return figure.update_yaxes(title=None).update_layout(height=90 + 28 * len(frame))


def trial_curves(sweep: dict[str, Any]) -> Any:
    """Score of every trial at every rung."""
    rows = [{**line, "trial": trial["name"], "state": trial["state"]} for trial in sweep["trials"] for line in trial["scores"]]
    frame = pandas.DataFrame(rows, columns=["kimg", sweep["metric"], "trial", "state"]).dropna()
    if frame.empty:
        raise ValueError("no trial has a score.")
    positive = bool((frame[sweep["metric"]] > 0).all())
    style = {"color": "state", "color_discrete_map": STATE_INK, "line_group": "trial", "hover_name": "trial", "markers": True}
    return px.line(frame, x="kimg", y=sweep["metric"], log_y=positive, height=360, **style)


def training_curves(logged: list[dict[str, Any]]) -> Any:
    """Every scalar that the trainings logged, one panel each, one line a run."""
    if not logged:
        raise ValueError("no training has logged a metric yet.")
    frame = pandas.DataFrame(logged).drop(columns="images_per_s", errors="ignore")
    frame = frame.melt(["run", "kimg"], var_name="metric").dropna()
    rows = math.ceil(frame["metric"].nunique() / 2)
    panels = {"facet_col": "metric", "facet_col_wrap": 2, "facet_col_spacing": 0.07, "facet_row_spacing": 0.25 / rows}
    figure = px.line(frame, x="kimg", y="value", color="run", color_discrete_sequence=INK, height=100 + 230 * rows, **panels)
    figure.for_each_annotation(lambda title: title.update(text=title.text.removeprefix("metric=")))
    figure.update_xaxes(showticklabels=True).update_yaxes(matches=None, showticklabels=True, title=None)
    return figure.update_layout(legend={"orientation": "h", "y": -0.2 / rows, "title": None})


def latent_effects(latent: dict[str, Any]) -> Any:
    """Effects of dimensions on labels, the strongest dimensions on top."""
    labels, dimensions = latent["labels"], latent["dimensions"]
    effects = [[row["effects"].get(label, {}).get("effect") for label in labels] for row in dimensions]
    frame = pandas.DataFrame(effects, [f"z {row['dimension']}" for row in dimensions], labels, dtype=float)
    frame = frame.loc[frame.abs().max(axis=1).fillna(0).nlargest(HEATMAP_ROWS).index]
    colors = {"color_continuous_scale": "RdBu_r", "color_continuous_midpoint": 0, "labels": {"color": "effect"}}
    figure = px.imshow(frame, text_auto=".2f", aspect="auto", height=110 + 22 * len(frame), **colors)
    return figure.update_traces(xgap=1, ygap=1).update_xaxes(title=None).update_yaxes(title=None, dtick=1)


def study(sweep: dict[str, Any]) -> Any:
    """An Optuna study of the trials.

    A trial's value is its score at the highest rung that a finished trial reached; the others keep their rungs as
    intermediate values only, in images.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    metric, other = sweep["metric"], {"stopped": TrialState.PRUNED, "finished": TrialState.PRUNED}
    ends = [last_score(trial, metric)[0] for trial in sweep["trials"] if trial["state"] == "finished"]
    top = max((kimg for kimg in ends if kimg is not None), default=math.inf)
    rebuilt = optuna.create_study(direction={"min": "minimize", "max": "maximize"}[sweep["mode"]], study_name="sweep")
    for trial in sweep["trials"]:
        kimg, score = last_score(trial, metric)
        complete = trial["state"] == "finished" and kimg == top
        rungs = {round(line["kimg"] * 1000): line[metric] for line in trial["scores"] if line.get(metric) is not None}
        kinds = {name: optuna.distributions.json_to_distribution(text) for name, text in trial["distributions"].items()}
        told = optuna.trial.create_trial(
            state=TrialState.COMPLETE if complete else other.get(trial["state"], TrialState.FAIL),
            value=score if complete else None,
            params={name: trial["params"][name] for name in kinds},
            distributions=kinds,
            intermediate_values=rungs,
        )
        rebuilt.add_trial(told)
    return rebuilt
