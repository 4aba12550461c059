"""Plotly figures of a report as HTML divs; what cannot be drawn becomes a sentence that says why."""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from markupsafe import Markup

from facefactory.report.facts import MARKS, is_number, last_score, rounded

INK = ["#2f5d8a", "#c8702a", "#4a8a57", "#8a4f7d", "#b8a13a", "#5f6b76"]
STATE_INK = {"finished": INK[0], "stopped": "#a9b4bd", "failed": "#b23a3a", "interrupted": INK[1]}
HEATMAP_ROWS = 40


def drawn(name: str, draw: Callable[[], Any]) -> Markup:
    """A figure as a div named `name`; whatever keeps it from being drawn is said in its place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls most of its plots experimental
            figure = draw()
    except Exception as error:  # a plot library raises what it likes on odd data; the page goes on
        return sentence(f"Not drawn: {error}" if isinstance(error, ValueError) else f"Not drawn: {type(error).__name__}: {error}")
    if not figure.data:
        return sentence("Not drawn: there are no values to draw.")
    figure.update_layout(template="plotly_white", font={"size": 12}, title=None, colorway=INK)
    figure.update_layout(margin={"l": 10, "r": 10, "t": figure.layout.margin.t or 36, "b": 10}, autosize=True, width=None)
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    config = {"displayModeBar": False, "responsive": True}
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config))


def sentence(text: str) -> Markup:
    """Words in place of a figure."""
    return Markup('<p class="none">{}</p>').format(text)


def scores(runs: list[dict[str, Any]], metric: str) -> Any:
    """Scores of runs on a log axis, with floor and ceilings as reference lines; values <= 0 stand at the left edge."""
    import plotly.graph_objects as go

    found = {run["name"]: run["scores"][metric] for run in runs if is_number((run["scores"] or {}).get(metric))}
    scale = next(run["scale"][metric] for run in runs if (run["scale"] or {}).get(metric))
    marks = {name: value for name, value in scale.items() if is_number(value)}
    drawable = [value for value in [*found.values(), *marks.values()] if value > 0] or [1.0]
    edge = min(drawable) / 2
    names, values = [html.escape(name) for name in found][::-1], list(found.values())[::-1]  # the first on top
    figure = go.Figure()
    points = {"x": [max(value, edge) for value in values], "y": names, "text": [rounded(value) for value in values]}
    style = {"marker": {"size": 12, "color": INK[0]}, "textposition": "top center", "hoverinfo": "y+text"}
    figure.add_scatter(**points, **style, mode="markers+text")
    for level, (name, value) in enumerate(sorted(marks.items(), key=lambda item: item[1])):
        color, at = INK[2] if name == "floor" else INK[5], max(value, edge)
        figure.add_vline(at, line={"dash": "dot", "color": color, "width": 1.5})
        words = {"text": f"{html.escape(MARKS.get(name, name))} {rounded(value)}", "font": {"color": color}}
        place = {"x": math.log10(at), "y": 1, "yref": "paper", "yanchor": "bottom", "yshift": 15 * (level % 3)}
        figure.add_annotation(**words, **place, showarrow=False)
    span = [math.log10(edge) - 0.1, math.log10(max(drawable)) + 0.3]
    note = " (values ≤ 0 stand at the left edge)" if min([*values, *marks.values()], default=1) <= 0 else ""
    figure.update_xaxes(type="log", title=f"{metric}, log scale{note}", dtick=1, range=span)
    figure.update_yaxes(range=[-0.6, len(names) - 0.2])
    return _sized(figure, 130 + 44 * len(names), top=64)


def trial_curves(sweep: dict[str, Any]) -> Any:
    """Score of every trial at every rung."""
    import plotly.graph_objects as go

    metric, figure, shown = sweep["metric"], go.Figure(), set()
    for trial in sweep["trials"]:
        points = [(line["kimg"], line[metric]) for line in trial["scores"] if is_number(line.get(metric))]
        if points:
            kimg, values = zip(*points, strict=True)
            state = trial["state"]
            group = {"legendgroup": state, "name": state, "showlegend": state not in shown}
            line = {"color": STATE_INK.get(state, INK[5]), "width": 1.5}
            figure.add_scatter(x=kimg, y=values, mode="lines+markers", line=line, text=html.escape(trial["name"]), **group)
            shown.add(state)
    heights = [value for curve in figure.data for value in curve.y]
    figure.update_xaxes(title="kimg")
    figure.update_yaxes(title=metric, type="log" if heights and min(heights) > 0 else "linear")
    return _sized(figure, 360)


def training_curves(lines: dict[str, list[dict[str, Any]]]) -> Any:
    """Every scalar that the trainings logged, one panel each, one line a run."""
    from plotly.subplots import make_subplots

    seen = dict.fromkeys(name for run in lines.values() for line in run for name in line)
    panels = [name for name in seen if name not in ("kimg", "images_per_s")]
    if not panels:
        raise ValueError("no training has logged a metric yet.")
    titles = [html.escape(name) for name in panels]
    figure = make_subplots(rows=-(-len(panels) // 2), cols=2, subplot_titles=titles, vertical_spacing=0.4 / len(panels))
    for number, panel in enumerate(panels):
        for color, (name, run) in enumerate(lines.items()):
            points = [(line["kimg"], line[panel]) for line in run if is_number(line.get(panel))]
            group = {"name": html.escape(name), "legendgroup": name, "showlegend": number == 0 and len(lines) > 1}
            where = {
                "row": number // 2 + 1,
                "col": number % 2 + 1,
                "line": {"color": INK[color % len(INK)], "width": 1.5},
            }
            figure.add_scatter(x=[x for x, _ in points], y=[y for _, y in points], mode="lines", **group, **where)
    figure.update_layout(legend={"orientation": "h", "y": -0.12})
    return _sized(figure, 80 + 230 * (-(-len(panels) // 2)))


def latent_effects(latent: dict[str, Any]) -> Any:
    """Effects of dimensions on labels; the strongest dimensions on top, intervals and q in the hover text."""
    import plotly.graph_objects as go

    strongest = sorted(latent["dimensions"], key=lambda row: -max((abs(e["effect"]) for e in row["effects"].values()), default=0))
    rows = strongest[:HEATMAP_ROWS][::-1]
    cells = [[row["effects"].get(label) for label in latent["labels"]] for row in rows]
    values = [[cell and cell["effect"] for cell in row] for row in cells]
    shown = [[f"{cell['effect']:.2f}" if cell else "" for cell in row] for row in cells]
    hover = [
        [cell and f"[{rounded(cell['low'])}, {rounded(cell['high'])}], q = {rounded(cell['q'])}" for cell in row] for row in cells
    ]
    limit = max((abs(value) for row in values for value in row if is_number(value)), default=1) or 1
    axes = {"x": [html.escape(label) for label in latent["labels"]], "y": [f"z {row['dimension']}" for row in rows]}
    scale = {"colorscale": "RdBu_r", "zmin": -limit, "zmax": limit, "colorbar": {"title": "effect", "thickness": 12}}
    template = "%{y}, %{x}: %{z:.3g} %{customdata}<extra></extra>"
    figure = go.Figure(
        go.Heatmap(
            z=values,
            text=shown,
            texttemplate="%{text}",
            customdata=hover,
            hovertemplate=template,
            xgap=1,
            ygap=1,
            **axes,
            **scale,
        )
    )
    figure.update_yaxes(type="category", dtick=1)
    return _sized(figure, 110 + 22 * len(rows))


def study(sweep: dict[str, Any]) -> Any:
    """An Optuna study of the trials.

    A trial's value is its score at the highest rung that a finished trial reached; the others keep their rungs as
    intermediate values only, in images.
    """
    import optuna
    from optuna.distributions import json_to_distribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    metric, trials = sweep["metric"], sweep["trials"]
    ends = [last_score(trial, metric) for trial in trials if trial["state"] == "finished"]
    top = max((end[0] for end in ends if end), default=None)
    rebuilt = optuna.create_study(direction={"min": "minimize", "max": "maximize"}[sweep["mode"]], study_name="sweep")
    for trial in sorted(trials, key=lambda trial: trial["number"]):
        end = last_score(trial, metric)
        complete = trial["state"] == "finished" and end is not None and end[0] == top
        other = TrialState.PRUNED if trial["state"] in ("stopped", "finished") else TrialState.FAIL
        distributions = {name: json_to_distribution(text) for name, text in trial["distributions"].items()}
        rungs = {round(line["kimg"] * 1000): line[metric] for line in trial["scores"] if is_number(line.get(metric))}
        rebuilt.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else other,
                value=end[1] if complete and end else None,
                params={name: value for name, value in trial["params"].items() if name in distributions},
                distributions=distributions,
                intermediate_values=rungs,
            )
        )
    return rebuilt


def optuna_figures(sweep: dict[str, Any]) -> Iterator[tuple[str, str, Markup]]:
    """(title, how to read it, div) of Optuna's own figures."""
    import optuna.visualization as visual

    values: dict[str, set[str]] = {}
    for trial in sweep["trials"]:
        for name, value in trial["params"].items():
            values.setdefault(name, set()).add(str(value))
    varied = sorted(name for name, found in values.items() if len(found) > 1)

    def over_params(plot: Callable[..., Any]) -> Any:
        if not varied:
            raise ValueError("every parameter has one value in all trials.")
        return plot(study(sweep), params=varied, target_name=sweep["metric"])

    plots: dict[str, tuple[str, Callable[[], Any]]] = {
        "Parameter importances": (
            "PED-ANOVA: what sets the best trials apart. A guide, not a proof: with few trials it is unsteady.",
            lambda: _sized(over_params(visual.plot_param_importances), 90 + 34 * len(varied)),
        ),
        "Parallel coordinates": (
            "One line a trial that reached the last rung; drag along an axis to select.",
            lambda: over_params(visual.plot_parallel_coordinate),
        ),
        "Slices": ("Score against each parameter, whatever the others were.", lambda: over_params(visual.plot_slice)),
        "Rungs": (
            "Scores of each trial along the way; steps are images shown.",
            lambda: visual.plot_intermediate_values(study(sweep)),
        ),
        "History": (
            "Scores in the order of the trials.",
            lambda: visual.plot_optimization_history(study(sweep), target_name=sweep["metric"]),
        ),
    }
    for title, (note, draw) in plots.items():
        yield title, note, drawn(title.lower().replace(" ", "-"), draw)


def _sized(figure: Any, height: int, top: int = 36) -> Any:
    return figure.update_layout(height=height, margin_t=top)
