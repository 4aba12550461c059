"""The facts of a run folder, computed from its files: all that report.json holds and that the page shows."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from facefactory.rundir import read_json, read_jsonl

MARKS = {"floor": "held-out real faces", "blur": "blurred faces", "repeat": "one face repeated", "noise": "noise"}
HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage", "inception_score", "is")
STATES = {"finished": "finished", "stopped": "stopped early", "failed": "failed", "interrupted": "interrupted"}


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value can be ranked and drawn: a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def rounded(value: Any) -> str:
    """A value for readers: numbers with 3 significant digits, an en dash for what is not there."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return ", ".join(map(rounded, value)) if isinstance(value, list | tuple) else str(value)


def strict(value: Any) -> Any:
    """The value as strict JSON can hold it: NaN and infinities become null."""
    if isinstance(value, dict):
        return {str(name): strict(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [strict(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def metrics(train: Path) -> list[dict[str, Any]]:
    """The metric lines of a training: from where an attempt began again, older attempts' lines are dropped."""
    kept: list[dict[str, Any]] = []
    for path in sorted(train.glob("metrics-*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2])):
        if lines := read_jsonl(path):
            kept = [line for line in kept if line["kimg"] < lines[0]["kimg"]] + lines
    return kept


def last_score(trial: dict[str, Any], metric: str) -> tuple[float, float] | None:
    """(kimg, score) of the last rung at which a trial has a finite score."""
    points = [(line["kimg"], line[metric]) for line in trial["scores"] if is_number(line.get(metric))]
    return max(points, default=None)


def place(score: float, scale: dict[str, float], mode: str = "min") -> str:
    """Where a score lies on its scale, in words."""
    marks = sorted((value, MARKS.get(name, name)) for name, value in scale.items() if is_number(value))
    if not marks:
        return "without a scale beside it"
    lower = [mark for mark in marks if mark[0] <= score]
    higher = [mark for mark in marks if mark[0] > score]
    if lower and higher:
        near, far = (lower[-1], higher[0]) if mode == "min" else (higher[0], lower[-1])
        return f"between {near[1]} ({rounded(near[0])}) and {far[1]} ({rounded(far[0])})"
    value, words = higher[0] if higher else lower[-1]
    if bool(higher) == (mode == "min"):
        return f"better than even {words} ({rounded(value)}), so look for memorised faces"
    return f"no better than the worst mark of its scale, {words} ({rounded(value)})"


def run_facts(run: Path, name: str, **known: Any) -> dict[str, Any]:
    """What evaluate and interpret found out about one run; an absent stage leaves None."""
    evaluated, latent = read_json(run / "evaluate/results.json"), read_json(run / "interpret/results.json")
    names = ("scores", "scale", "protocol", "not_staged", "memorisation", "kimg", "labels")
    return {"name": name, "state": None, **known, **{n: (evaluated or {}).get(n) for n in names}, "latent": latent}


def gather(folder: Path, repeat: dict[str, str]) -> dict[str, Any]:
    """All facts of a run folder, as data."""
    text = (folder / "config.yaml").read_text() if (folder / "config.yaml").exists() else None
    config = (yaml.safe_load(text) if text else None) or {}
    sweep, finalists = read_json(folder / "sweep/results.json"), read_json(folder / "finalists/results.json")
    job = str(config.get("job", ""))
    if job.startswith("sweep") or sweep or finalists:
        kind, found = "sweep", (finalists or {}).get("finalists", [])
        keys = ("trial", "folder", "state", "error", "log_tail")
        runs = [run_facts(folder / f["folder"], f["name"], **{key: f.get(key) for key in keys}) for f in found]
    else:
        runs = [run_facts(folder, folder.name, folder=".")]
        kind = "classifier" if runs[0]["labels"] or "classifier" in job else "generative"
    first: dict[str, Any] = next((run["scores"] for run in runs if run["scores"]), {})
    metric = (sweep or {}).get("metric") or ("kd_judge" if "kd_judge" in first else next(iter(first), "kd_judge"))
    mode = (sweep or {}).get("mode") or ("max" if metric.startswith(HIGHER_IS_BETTER) else "min")
    facts: dict[str, Any] = {"name": folder.name, "kind": kind, "metric": metric, "mode": mode}
    facts |= {"config": config, "sweep": sweep, "runs": runs, "judge": read_json(folder / "judge/results.json")}
    facts["unlike_protocols"] = unlike_protocols(runs)
    if not facts["unlike_protocols"]:
        runs.sort(key=partial(rank, metric=metric, mode=mode))
    facts["leaderboard"] = leaderboard(facts)
    facts["failures"] = failures(folder, facts)
    facts["provenance"] = {**provenance(folder, config), "config": text, "repeat": repeat}
    facts["verdict"] = verdict(facts)
    return facts


def rank(run: dict[str, Any], metric: str, mode: str) -> float:
    """Sort key of runs: the best score first, those without one last."""
    score = (run["scores"] or {}).get(metric)
    return math.inf if not is_number(score) else score if mode == "min" else -score


def leaderboard(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Finalists by score, then trials by how far they came and their score there: unlike rungs are not compared."""
    metric, sign = facts["metric"], 1 if facts["mode"] == "min" else -1
    trials = facts["sweep"]["trials"] if facts["sweep"] else []
    params = {trial["name"]: trial["params"] for trial in trials}
    rows = []
    for run in facts["runs"] if facts["kind"] != "classifier" else []:
        score = (run["scores"] or {}).get(metric)
        what = {"kind": "finalist" if facts["kind"] == "sweep" else "run", "name": run["name"], "state": run["state"]}
        rows.append({**what, "kimg": run["kimg"], "score": score, "params": params.get(run.get("trial"), {})})
    tail = []
    for trial in trials:
        kimg, score = last_score(trial, metric) or (None, None)
        what = {"kind": "trial", "name": trial["name"], "state": trial["state"], "seconds": trial.get("seconds")}
        tail.append({**what, "kimg": kimg, "score": score, "params": trial["params"]})
    tail.sort(key=lambda row: (-row["kimg"], sign * row["score"]) if row["kimg"] is not None else (math.inf, 0))
    return rows + tail


def unlike_protocols(runs: list[dict[str, Any]]) -> list[str]:
    """The protocol entries in which scored runs differ; such scores must not be ranked together."""
    protocols = [run["protocol"] or {} for run in runs if run["scores"]]
    names = sorted({name for protocol in protocols for name in protocol})
    return [name for name in names if len({json.dumps(p.get(name), sort_keys=True) for p in protocols}) > 1]


def failures(folder: Path, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Trials, finalists and stages that did not end well, with error and log tail where these were kept."""
    found = []
    for trial in facts["sweep"]["trials"] if facts["sweep"] else []:
        if trial["state"] in ("failed", "interrupted"):
            found.append({"what": f"trial {trial['state']}", **{k: trial.get(k) for k in ("name", "error", "log_tail")}})
    for run in facts["runs"]:
        if run["state"] not in (None, "finished"):
            found.append({"what": f"finalist {run['state']}", **{k: run.get(k) for k in ("name", "error", "log_tail")}})
    for line in read_jsonl(folder / "jobs.jsonl"):
        if "fail" in line["state"] or line.get("error"):
            later = ", finished later" if (folder / line["stage"] / "DONE.json").exists() else ""
            found.append(
                {
                    "what": f"stage {line['state']}{later}",
                    "name": line["stage"],
                    **{k: line.get(k) for k in ("error", "log_tail")},
                }
            )
    return found


def provenance(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Where the results come from: commands, stages with digests and seconds, software, dataset, ledger."""
    commands = (folder / "command.txt").read_text().splitlines() if (folder / "command.txt").exists() else []
    done = {path.parent: read_json(path) for glob in ("*", "finalists/*/*") for path in sorted(folder.glob(f"{glob}/DONE.json"))}
    stages = [
        {"stage": str(path.relative_to(folder)), **{key: record.get(key) for key in ("seconds", "inputs", "outputs")}}
        for path, record in done.items()
        if ".old-" not in str(path.relative_to(folder))
    ]
    software: dict[str, Any] = next((record["software"] for record in reversed(done.values()) if record.get("software")), {})
    packed = (done.get(folder / "pack") or {}).get("outputs", {}).get("folder") or (config.get("data") or {}).get("shards")
    index = (read_json(folder / packed / "index.json") or read_json(Path(packed) / "index.json")) if packed else None
    return {
        "commands": commands,
        "stages": stages,
        "software": software,
        "dataset": {"folder": packed, **index} if index else None,
        "ledger": read_jsonl(folder / "jobs.jsonl"),
    }


# -- the verdict -----------------------------------------------------------------------------------------------------


def verdict(facts: dict[str, Any]) -> list[str]:
    """The findings in sentences, the most important first."""
    if facts["kind"] == "classifier":
        return _classifier_verdict(facts["runs"][0])
    return [*_score_verdict(facts), *_memory_verdict(facts["runs"]), *_latent_verdict(facts), *_sweep_verdict(facts)]


def _score_verdict(facts: dict[str, Any]) -> list[str]:
    metric = facts["metric"]
    ranked = [row for row in facts["leaderboard"] if row["kind"] != "trial" and is_number(row["score"])]
    if facts["unlike_protocols"]:
        differing = ", ".join(facts["unlike_protocols"])
        return [f"No winner is named: the finalists were scored by unlike protocols ({differing} differ)."]
    if not ranked:
        who = f"No finalist has {metric}" if facts["kind"] == "sweep" else f"This run has no {metric}"
        return [f"{who} yet: evaluate/results.json is missing or lacks it."]
    best, *others = ranked
    scales = {run["name"]: (run["scale"] or {}).get(metric) or {} for run in facts["runs"]}
    where = f"{metric} {rounded(best['score'])}, {place(best['score'], scales[best['name']], facts['mode'])}"
    if facts["kind"] != "sweep":
        return [f"This run has {where}."]
    behind = f"The runner-up, {others[0]['name']}, has {rounded(others[0]['score'])}." if others else "No other has a score."
    return [f"Finalist {best['name']} won: {where}. {behind}"]


def _memory_verdict(runs: list[dict[str, Any]]) -> list[str]:
    ratios = {run["name"]: (run["memorisation"] or {}).get("ratio") for run in runs}
    low = [f"{name} ({rounded(ratio)})" for name, ratio in ratios.items() if is_number(ratio) and ratio < 1]
    return [f"Caution, memorisation ratio below 1: {', '.join(low)}; look at the nearest faces."] if low else []


def _latent_verdict(facts: dict[str, Any]) -> list[str]:
    sentences = []
    for run in facts["runs"]:
        dimensions = (run["latent"] or {}).get("dimensions", [])
        named = [
            f"{d['dimension']} ({d['status'].removeprefix('associated with ')})"
            for d in dimensions
            if d["status"].startswith("assoc")
        ]
        if dimensions:
            claims = f": {', '.join(named[:6])}{' …' if len(named) > 6 else ''}" if named else ""
            whose = f" of {run['name']}" if facts["kind"] == "sweep" else ""
            sentences.append(f"{len(named)} of {len(dimensions)} latent dimensions{whose} are associated with a label{claims}.")
    return sentences


def _sweep_verdict(facts: dict[str, Any]) -> list[str]:
    if facts["kind"] != "sweep":
        return ["One run with one seed: how much its scores vary between seeds is not known."]
    if not facts["sweep"]:
        return ["The trials are not known yet: sweep/results.json is missing."]
    states = [trial["state"] for trial in facts["sweep"]["trials"]]
    counts = ", ".join(f"{states.count(state)} {words}" for state, words in STATES.items() if state in states)
    return [
        f"Of {len(states)} trials, {counts or 'none ran'}.",
        "What the sweep cannot say: every trial ran with one seed, so small differences may be chance; the winner was "
        "picked by the score shown, which flatters it; trials that were stopped early might have caught up.",
    ]


def _classifier_verdict(run: dict[str, Any]) -> list[str]:
    if not run["labels"]:
        return ["This classifier has no scores yet: evaluate/results.json is missing or names no labels."]
    scored = {name: label for name, label in run["labels"].items() if label["scored"]}
    unscored = len(run["labels"]) - len(scored)
    sentences = [
        f"{name}: balanced accuracy {rounded(label['balanced_accuracy'])}; guessing gives {rounded(1 / len(label['classes']))}."
        for name, label in sorted(scored.items(), key=lambda item: -(item[1]["balanced_accuracy"] or 0))
    ]
    return sentences + (
        [f"{unscored} of {len(run['labels'])} labels have counts only: too few examples for a score."] if unscored else []
    )
