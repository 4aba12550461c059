"""The facts of a run folder, computed from its files: all that report.json holds and that the page shows."""

import dataclasses
import json
import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from facefactory.report import claims, scores
from facefactory.results import Selection
from facefactory.rundir import (
    read_json,
    read_ledger,
    read_metrics,
    read_results,
    read_sealed,
    stages_of,
    tail,
)
from facefactory.trials import Finalist, Trial

EMPTY: dict[str, Any] = {
    "kimg": None,
    "memorisation_ratio": None,
    "scores": [],
    "protocols": {},
    "sights": {},
    "labels": {},
}
EMPTY |= {"copied": [], "absent": {}, "not_staged": {}, "goal": {}}
EMPTY |= {"snapshot": "last", "selection": None}
EMPTY |= {"strips": [], "reconstructions": [], "priors": [], "priors_absent": {}}
UNWELL = ("failed", "interrupted")
TOLD = 4  # sentences about dimensions that stand at the top


def rounded(value: Any) -> str:
    """A value for readers: numbers with 3 significant digits, an en dash for what is not there."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {rounded(entry)}" for name, entry in value.items())
    return ", ".join(map(rounded, value)) if isinstance(value, list | tuple) else str(value)


def finite(value: Any) -> Any:
    """The value as strict JSON can hold it: NaN and infinities become None, dates become text."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda constant: None)


def metrics(train: Path) -> list[dict[str, Any]]:
    """The metric lines of a training: from where an attempt began again, older attempts' lines are dropped."""
    kept: list[dict[str, Any]] = []
    for path in sorted(
        train.glob("metrics-*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2])
    ):
        if lines := read_metrics(path):
            kept = [line for line in kept if line["kimg"] < lines[0]["kimg"]] + lines
    return kept


def tried(sweep: dict[str, Any]) -> list[Trial]:
    """The trials of a search, as its results.json holds them."""
    return [Trial.read(entry) for entry in sweep.get("trials", [])]


def gather(folder: Path, repeat: dict[str, str]) -> dict[str, Any]:
    """All facts of a run folder, as data: the stages' results as they wrote them, and what follows from them."""

    def results(stage: str) -> Any:
        return finite(read_results(folder / stage))

    text = _text(folder / "config.yaml")
    config = finite(yaml.safe_load(text)) or {}
    sweep = results("sweep")
    finalists = results("finalists")
    sweeping = "sweep" in stages_of(folder) or bool(sweep or finalists)

    # the runs that it is about: the finalists of a sweep, else the folder itself
    entries = [{"name": folder.name, "folder": ".", "state": ""}]
    if sweeping:
        found = [Finalist.read(entry) for entry in finalists.get("finalists", [])]
        entries = [dataclasses.asdict(finalist) for finalist in found]
    runs = []
    for entry in entries:
        evaluated = results(f"{entry['folder']}/evaluate")
        latent = results(f"{entry['folder']}/interpret")
        lines = metrics(folder / entry["folder"] / "train")
        health = lines[-1].get("health", []) if lines else []
        setbacks = lines[-1].get("setbacks", 0) if lines else 0
        selection = results(f"{entry['folder']}/train").get("selection")
        known = claims.read(latent)
        more = {"latent": latent, "health": health, "setbacks": setbacks, "selection": selection}
        more |= {"claims": claims.sentences(known) if known else []}
        runs.append({**EMPTY, **evaluated, **entry, **more})

    # by what they are compared
    goal = goal_of(config, sweep, runs)
    metric = goal["metric"]
    for run in runs:
        score = scores.scores_of(run).get(metric)
        run |= {"score": score and score.value, "interval": score and [score.low, score.high]}
        run["scale"] = score.scale if score else {}
        run["reconstructed"] = scores.reconstruction_rows(run)
        run["drawn"] = scores.prior_rows(run)
    unlike = scores.unlike(runs, metric)
    if not unlike:
        sign = 1 if goal["better"] == "lower" else -1
        runs.sort(key=lambda run: (run["score"] is None, sign * (run["score"] or 0)))
    scoring = (config.get("evaluation") or {}).get("scoring")
    if sweeping:
        kind = "sweep"
    elif scoring == "classifier" or runs[0]["labels"]:
        kind = "classifier"
    else:
        kind = "pictures" if scoring == "pictures" else "generative"
    facts = {
        "name": folder.name,
        "kind": kind,
        "metric": metric,
        "config": config,
        "sweep": sweep,
        "judge": results("judge"),
        "runs": runs,
    }
    facts |= {
        "better": goal["better"],
        "unlike_protocols": unlike,
        "score_rows": scores.rows(runs),
    }
    facts["disagreements"] = (
        [] if unlike else scores.disagreements([run for run in runs if run["scores"]], metric)
    )
    facts["provenance"] = {
        **provenance(folder),
        "config": text,
        "called": _text(folder / "command.txt"),
        "repeat": repeat,
    }
    return {
        **facts,
        "networks": networks(facts),
        "leaderboard": leaderboard(facts),
        "failures": failures(facts),
        "verdict": verdict(facts),
    }


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def goal_of(
    config: dict[str, Any], sweep: dict[str, Any], runs: list[dict[str, Any]]
) -> dict[str, Any]:
    """The score that ranks, and which way: what the search or the evaluation wrote, else what the config names."""
    if "metric" in sweep:
        return {"metric": sweep["metric"], "better": sweep.get("better", "lower")}
    written = next((run["goal"] for run in runs if run["goal"]), None)
    named = (config.get("sweep") or {}).get("goal") or "score"
    return written or {"metric": named, "better": "lower"}


def provenance(folder: Path) -> dict[str, Any]:
    """Where the results come from: the stages' DONE.json, software, dataset, ledger."""
    paths = sorted(folder.glob("*/DONE.json")) + sorted(folder.glob("finalists/*/*/DONE.json"))
    kept = [path for path in paths if ".old-" not in path.parent.name]
    whole = {str(path.parent.relative_to(folder)): read_sealed(path) for path in kept}
    stages = [{"stage": stage, **done} for stage, done in whole.items() if done]
    software = [done["software"] for done in stages if "software" in done] or [{}]
    packed = next((done["outputs"]["folder"] for done in stages if done["stage"] == "pack"), None)
    index = packed and read_json(Path(packed) / "index.json")
    if not isinstance(index, dict):
        index = None
    ledger = read_ledger(folder)
    ledger = [
        {**line, "time": datetime.fromtimestamp(line["time"], UTC).isoformat(" ", "seconds")}
        for line in ledger
    ]
    return {
        "stages": stages,
        "software": software[-1],
        "dataset": index and {"folder": packed, **index},
        "ledger": ledger,
    }


def networks(facts: dict[str, Any]) -> list[str]:
    """Names of the models that a run trained, or that a search tried."""
    own = (facts["config"].get("model") or {}).get("name")
    tried_names = {trial.params.get("model.name", own) for trial in tried(facts["sweep"])}
    return sorted(name for name in tried_names or {own} if name)


def leaderboard(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Finalists by score, then trials by how far they came and their score there: unlike rungs are not compared."""
    if facts["kind"] != "sweep":
        return []
    trials = tried(facts["sweep"])
    params = {trial.name: trial.params for trial in trials}
    finalists = [
        {
            "kind": "finalist",
            "name": run["name"],
            "state": run["state"],
            "kimg": run["kimg"],
            "score": run["score"],
            "params": params.get(run["trial"], {}),
        }
        for run in facts["runs"]
    ]
    rows: list[dict[str, Any]] = []
    for trial in trials:
        kimg, score = trial.last(facts["metric"]) or (None, None)
        rows.append(
            {
                "kind": "trial",
                "name": trial.name,
                "state": trial.state,
                "kimg": kimg,
                "score": score,
                "params": trial.params,
            }
        )
    sign = 1 if facts["better"] == "lower" else -1
    rows.sort(key=lambda row: (-(row["kimg"] or 0), sign * (row["score"] or 0)))
    return finalists + rows


def failures(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Trials, finalists and stages that did not end well, with error and log tail where these were kept."""
    ended = [
        {"what": f"trial {trial.state}", "name": trial.name, "error": trial.error}
        for trial in tried(facts["sweep"])
        if trial.state in UNWELL
    ]
    ended += [
        {**run, "what": f"finalist {run['state']}"}
        for run in facts["runs"]
        if run["state"] in UNWELL
    ]

    # stages: one that was preempted and finished is no failure
    complete = [done["stage"] for done in facts["provenance"]["stages"]]
    for line in facts["provenance"]["ledger"]:
        done = line["stage"] in complete
        if line["state"] == "failed" or (line["state"] == "interrupted" and not done):
            log = tail(Path(line["log"])) if line.get("log") else None
            what = f"stage {line['state']}{', finished later' if done else ''}"
            ended.append({**line, "what": what, "name": line["stage"], "log_tail": log})
    return [{key: one.get(key) for key in ("what", "name", "error", "log_tail")} for one in ended]


def verdict(facts: dict[str, Any]) -> list[str]:
    """The findings in sentences, the most important first."""
    if facts["kind"] == "classifier":
        return label_verdict(facts["runs"][0]["labels"])
    sweeping = facts["kind"] == "sweep"
    sentences = [score_verdict(facts)]

    # what takes weight from the score
    copies = [run["name"] for run in facts["runs"] if run["copied"]]
    if copies:
        sentences.append(
            f"Caution, tests of copying say that training faces were copied: {', '.join(copies)}; "
            "look for memorised faces among the nearest."
        )
    sentences += disagreement_verdict(facts)
    blind = next(
        (row["blind"] for row in facts["score_rows"] if row["name"] == facts["metric"]), ()
    )
    if blind:
        sentences.append(f"On this set {facts['metric']} is blind to {scores.blind_words(blind)}.")

    # what the trainings said of themselves at their end
    for run in facts["runs"]:
        whose = f" of {run['name']}" if sweeping else ""
        sentences += [
            f"Caution, the training{whose} ended ill: {words}" for words in run["health"]
        ]
        if run["setbacks"]:
            sentences.append(
                f"The training{whose} collapsed and was set back to where it was healthy, {run['setbacks']} times in all; "
                "each time other numbers were drawn and learning rates halved."
            )

    # which snapshot it is
    for run in facts["runs"]:
        whose = f" of {run['name']}" if sweeping else ""
        sentences += selection_verdict(run, whose)

    # what was asked for
    for run in facts["runs"]:
        whose = f" of {run['name']}" if sweeping else ""
        sentences += condition_verdict(run.get("agreement") or {}, whose)

    # what dimensions go with
    for run in facts["runs"]:
        whose = f"Of {run['name']}: " if sweeping else ""
        told = run["claims"][: 2 if sweeping else TOLD]
        sentences += [f"{whose}{words}" for words in told]

    # what one seed can say
    if facts["kind"] == "pictures":
        return sentences
    if not sweeping:
        return [
            *sentences,
            "One run with one seed: how much its scores vary between seeds is not known.",
        ]
    if not facts["sweep"]:
        return [*sentences, "The trials are not known yet: sweep/results.json is missing."]
    states = Counter(trial.state for trial in tried(facts["sweep"]))
    return [
        *sentences,
        f"Of {states.total()} trials, {', '.join(f'{count} {state}' for state, count in states.items())}.",
        "What the sweep cannot say: every trial ran with one seed, so small differences may be chance; the winner was "
        "picked by the score shown, which flatters it; trials that were stopped early might have caught up.",
    ]


def score_verdict(facts: dict[str, Any]) -> str:
    """Who won, and where the score lies on its scale."""
    metric, sweeping = facts["metric"], facts["kind"] == "sweep"
    if facts["unlike_protocols"]:
        pairs = facts["unlike_protocols"].items()
        differing = "; ".join(
            f"{name}: {' and '.join(map(rounded, values))}" for name, values in pairs
        )
        return f"No winner is named: the finalists were scored by unlike protocols ({differing})."
    ranked = [run for run in facts["runs"] if run["score"] is not None]
    if not ranked:
        who = f"No finalist has {metric}" if sweeping else f"This run has no {metric}"
        return f"{who} yet: evaluate/results.json is missing or lacks it."
    best, *others = ranked
    interval = f" [{rounded(best['interval'])}]" if best["interval"][0] is not None else ""
    mark = scores.place(best["score"], best["scale"], facts["better"], rounded)
    where = f"{metric} {rounded(best['score'])}{interval}, {mark}"
    if not sweeping:
        who = "These pictures have" if facts["kind"] == "pictures" else "This run has"
        return f"{who} {where}."
    behind = (
        f"The runner-up, {others[0]['name']}, has {rounded(others[0]['score'])}."
        if others
        else "No other has a score."
    )
    return f"Finalist {best['name']} won: {where}. {behind}"


def selection_verdict(run: dict[str, Any], whose: str) -> list[str]:
    """How the best snapshot was chosen, what it is worth, and which one the scores are of."""
    if run["selection"] is None:
        return []
    words = Selection(**run["selection"]).words()
    if run["scores"]:
        words += f" Scores and images{whose} are of the {run['snapshot']} one."
    return [words]


def condition_verdict(agreement: dict[str, Any], whose: str) -> list[str]:
    """A sentence where images do not show what they were asked to, by the AUROC of the judge's verdict."""
    scored = {name: label for name, label in agreement.items() if label["scored"]}
    ignored = [name for name, label in scored.items() if label["auroc_interval"][0] <= 0.5]
    if not ignored:
        return []
    figures = ", ".join(f"{name} {rounded(scored[name]['auroc'])}" for name in ignored)
    what = (
        "its condition"
        if len(ignored) == len(scored)
        else f"{len(ignored)} of {len(scored)} labels"
    )
    return [
        f"Caution, the model{whose} ignores {what}: the judge cannot tell images that were asked to show it from "
        f"those that were not (AUROC, 0.5 is guessing: {figures})."
    ]


def disagreement_verdict(facts: dict[str, Any]) -> list[str]:
    """A sentence where two feature networks rank the finalists differently."""
    sentences = []
    for one in facts["disagreements"]:
        rankings = "; ".join(
            f"{name}: {', '.join(order)}" for name, order in one["rankings"].items()
        )
        sentences.append(
            f"Feature networks disagree (Kendall's tau {rounded(one['tau'])}), the best first by {rankings}."
        )
    return sentences


def label_verdict(labels: dict[str, Any]) -> list[str]:
    """What a classifier knows, its best label first."""
    if not labels:
        return [
            "This classifier has no scores yet: evaluate/results.json is missing or names no labels."
        ]
    scored = [
        (label["balanced_accuracy"], name, len(label["classes"]))
        for name, label in labels.items()
        if label["scored"]
    ]
    sentences = [
        f"{name}: balanced accuracy {rounded(accuracy)}; guessing gives {rounded(1 / classes)}."
        for accuracy, name, classes in sorted(scored, reverse=True)
    ]
    few = f"{len(labels) - len(scored)} of {len(labels)} labels have counts only: too few examples for a score."
    return sentences + [few] * (len(scored) < len(labels))
