"""The facts of a run folder, computed from its files: all that report.json holds and that the page shows."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from facefactory.rundir import read_json, read_jsonl

MARKS = {"floor": "held-out real faces", "blur": "blurred faces", "repeat": "one face repeated", "noise": "noise"}
STATES = {"finished": "finished", "stopped": "stopped early", "failed": "failed", "interrupted": "interrupted"}
NOT_EVALUATED: dict[str, Any] = {"kimg": None, "scores": {}, "scale": {}, "protocol": {}, "memorisation": {}, "labels": {}}


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


def read(path: Path) -> Any:
    """A JSON file, None where there is no file."""
    return finite(read_json(path))


def metrics(train: Path) -> list[dict[str, Any]]:
    """The metric lines of a training: from where an attempt began again, older attempts' lines are dropped."""
    kept: list[dict[str, Any]] = []
    for path in sorted(train.glob("metrics-*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2])):
        if lines := read_jsonl(path):
            kept = [line for line in kept if line["kimg"] < lines[0]["kimg"]] + lines
    return kept


def last_score(trial: dict[str, Any], metric: str) -> tuple[float | None, float | None]:
    """(kimg, score) of the last rung at which a trial has a score, or Nones."""
    return max(((line["kimg"], line[metric]) for line in trial["scores"] if line.get(metric) is not None), default=(None, None))


def gather(folder: Path, repeat: dict[str, str]) -> dict[str, Any]:
    """All facts of a run folder, as data: the stages' results as they wrote them, and what follows from them."""
    text, called = ((folder / name).read_text() if (folder / name).exists() else "" for name in ("config.yaml", "command.txt"))
    config: dict[str, Any] = finite(yaml.safe_load(text)) or {}
    sweep, finalists, judge = (read(folder / stage / "results.json") for stage in ("sweep", "finalists", "judge"))
    metric, mode = (sweep["metric"], sweep["mode"]) if sweep else ("kd_judge", "min")
    runs, found = [], [{"name": folder.name, "folder": ".", "state": ""}]
    sweeping = "jobs/sweep_" in called or bool(sweep or finalists)
    if sweeping:
        found = finalists["finalists"] if finalists else []
    for one in found:
        evaluated = NOT_EVALUATED | (read(folder / one["folder"] / "evaluate/results.json") or {})
        latent = read(folder / one["folder"] / "interpret/results.json") or {}
        runs.append({**evaluated, **one, "score": evaluated["scores"].get(metric), "latent": latent})
    protocols = [run["protocol"] for run in runs if run["scores"]]
    unlike = sorted({name for one in protocols for name in one if any(other.get(name) != one[name] for other in protocols)})
    if not unlike:
        runs.sort(key=lambda run: (run["score"] is None, (run["score"] or 0) * (1 if mode == "min" else -1)))
    kind = "sweep" if sweeping else "classifier" if "train_classifier" in called or runs[0]["labels"] else "generative"
    facts = {"name": folder.name, "kind": kind, "metric": metric, "mode": mode, "config": config, "sweep": sweep, "judge": judge}
    facts |= {"runs": runs, "unlike_protocols": unlike}
    facts["provenance"] = {**provenance(folder, config), "config": text, "called": called, "repeat": repeat}
    facts |= {"leaderboard": leaderboard(facts) if sweeping else [], "failures": failures(facts), "verdict": verdict(facts)}
    return facts


def provenance(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Where the results come from: the stages' DONE.json, software, dataset, ledger."""
    paths = sorted(folder.glob("*/DONE.json")) + sorted(folder.glob("finalists/*/*/DONE.json"))
    stages = [{"stage": str(path.parent.relative_to(folder)), **read(path)} for path in paths if ".old-" not in path.parent.name]
    software = [done["software"] for done in stages if "software" in done]
    packed = [done["outputs"]["folder"] for done in stages if done["stage"] == "pack"]
    shards = packed[0] if packed else (config.get("data") or {}).get("shards")
    index = shards and (read(folder / shards / "index.json") or read(Path(shards) / "index.json"))
    dataset = {"folder": shards, **index} if index else None
    ledger = read_jsonl(folder / "jobs.jsonl")
    ledger = [{**line, "time": datetime.fromtimestamp(line["time"], UTC).isoformat(" ", "seconds")} for line in ledger]
    return {"stages": stages, "software": software[-1] if software else {}, "dataset": dataset, "ledger": ledger}


def leaderboard(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Finalists by score, then trials by how far they came and their score there: unlike rungs are not compared."""
    trials, sign = facts["sweep"]["trials"] if facts["sweep"] else [], 1 if facts["mode"] == "min" else -1
    params = {trial["name"]: trial["params"] for trial in trials}
    finalists = [{**run, "kind": "finalist", "params": params.get(run.get("trial"), {})} for run in facts["runs"]]
    rows = []
    for trial in trials:
        kimg, score = last_score(trial, facts["metric"])
        rows.append({**trial, "kind": "trial", "kimg": kimg, "score": score})
    rows.sort(key=lambda row: (row["kimg"] is None, -(row["kimg"] or 0), sign * (row["score"] or 0)))
    return [{name: row[name] for name in ("kind", "name", "state", "kimg", "score", "params")} for row in finalists + rows]


def failures(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Trials, finalists and stages that did not end well, with error and log tail where these were kept."""
    trials = facts["sweep"]["trials"] if facts["sweep"] else []
    ended = [("trial", trial) for trial in trials] + [("finalist", run) for run in facts["runs"]]
    found = [(f"{kind} {one['state']}", one) for kind, one in ended if one["state"] in ("failed", "interrupted")]
    complete = [done["stage"] for done in facts["provenance"]["stages"]]
    for line in facts["provenance"]["ledger"]:
        done = line["stage"] in complete
        if line["state"] == "failed" or (line["state"] == "interrupted" and not done):  # preempted and finished is no failure
            tail = log_tail(Path(line["log"])) if line.get("log") else None
            words = f"stage {line['state']}{', finished later' if done else ''}"
            found.append((words, {**line, "name": line["stage"], "log_tail": tail}))
    return [{"what": what, **{key: one.get(key) for key in ("name", "error", "log_tail")}} for what, one in found]


def log_tail(path: Path, lines: int = 15) -> str | None:
    """The last lines of a log, if it is still there."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.is_file() else None


def place(score: float, scale: dict[str, float | None], mode: str = "min") -> str:
    """Where a score lies on its scale, in words."""
    sign = 1 if mode == "min" else -1
    marks = [(sign * value, f"{MARKS.get(name, name)} ({rounded(value)})") for name, value in scale.items() if value is not None]
    better = [words for value, words in sorted(marks) if value <= sign * score]
    worse = [words for value, words in sorted(marks) if value > sign * score]
    if not marks:
        return "without a scale beside it"
    if not better:
        return f"better than even {worse[0]}, so look for memorised faces"
    return f"between {better[-1]} and {worse[0]}" if worse else f"no better than the worst mark of its scale, {better[-1]}"


def verdict(facts: dict[str, Any]) -> list[str]:
    """The findings in sentences, the most important first."""
    if facts["kind"] == "classifier":
        return label_verdict(facts["runs"][0]["labels"])
    sweeping, sentences = facts["kind"] == "sweep", [score_verdict(facts)]
    ratios = {run["name"]: run["memorisation"].get("ratio") for run in facts["runs"]}
    low = [f"{name} ({rounded(ratio)})" for name, ratio in ratios.items() if ratio is not None and ratio < 1]
    if low:
        sentences.append(f"Caution, memorisation ratio below 1: {', '.join(low)}; look at the nearest faces.")
    for run in facts["runs"]:
        if dimensions := run["latent"].get("dimensions"):
            named = {row["dimension"]: row["status"] for row in dimensions if row["status"].startswith("associated")}
            claims = [f"{number} ({status.removeprefix('associated with ')})" for number, status in named.items()]
            shown = (f": {', '.join(claims[:6])}" if claims else "") + (" …" if len(claims) > 6 else "")
            whose = f" of {run['name']}" if sweeping else ""
            sentences.append(f"{len(named)} of {len(dimensions)} latent dimensions{whose} are associated with a label{shown}.")
    if not sweeping:
        return [*sentences, "One run with one seed: how much its scores vary between seeds is not known."]
    if not facts["sweep"]:
        return [*sentences, "The trials are not known yet: sweep/results.json is missing."]
    states = [trial["state"] for trial in facts["sweep"]["trials"]]
    counts = ", ".join(f"{states.count(state)} {words}" for state, words in STATES.items() if state in states)
    return [
        *sentences,
        f"Of {len(states)} trials, {counts or 'none ran'}.",
        "What the sweep cannot say: every trial ran with one seed, so small differences may be chance; the winner was "
        "picked by the score shown, which flatters it; trials that were stopped early might have caught up.",
    ]


def score_verdict(facts: dict[str, Any]) -> str:
    """Who won, and where the score lies on its scale."""
    metric, sweeping = facts["metric"], facts["kind"] == "sweep"
    if facts["unlike_protocols"]:
        differing = ", ".join(facts["unlike_protocols"])
        return f"No winner is named: the finalists were scored by unlike protocols ({differing} differ)."
    ranked = [run for run in facts["runs"] if run["score"] is not None]
    if not ranked:
        who = f"No finalist has {metric}" if sweeping else f"This run has no {metric}"
        return f"{who} yet: evaluate/results.json is missing or lacks it."
    best, *others = ranked
    where = f"{metric} {rounded(best['score'])}, {place(best['score'], best['scale'].get(metric) or {}, facts['mode'])}"
    if not sweeping:
        return f"This run has {where}."
    behind = f"The runner-up, {others[0]['name']}, has {rounded(others[0]['score'])}." if others else "No other has a score."
    return f"Finalist {best['name']} won: {where}. {behind}"


def label_verdict(labels: dict[str, Any]) -> list[str]:
    """What a classifier knows, its best label first."""
    scored = {name: label for name, label in labels.items() if label["scored"]}
    sentences = [
        f"{name}: balanced accuracy {rounded(label['balanced_accuracy'])}; guessing gives {rounded(1 / len(label['classes']))}."
        for name, label in sorted(scored.items(), key=lambda item: -(item[1]["balanced_accuracy"] or 0))
    ]
    if not labels:
        sentences.append("This classifier has no scores yet: evaluate/results.json is missing or names no labels.")
    if unscored := len(labels) - len(scored):
        sentences.append(f"{unscored} of {len(labels)} labels have counts only: too few examples for a score.")
    return sentences
