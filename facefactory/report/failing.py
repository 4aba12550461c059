"""What did not end well in a run folder, from the records of trials and finalists and from the ledger."""

from dataclasses import dataclass
from pathlib import Path

from facefactory import failures
from facefactory.failures import Failure
from facefactory.report.facts import Facts
from facefactory.rundir import read_ledger, read_sealed, tail

UNWELL = ("failed", "interrupted")


@dataclass(frozen=True)
class Ending:
    """Something that failed, or was interrupted and not finished since."""

    what: str  # in words, e.g. "trial failed"
    name: str
    error: str | None
    log_tail: str | None
    cause: str | None = None  # its class
    evidence: str | None = None  # what shows it
    advice: str | None = None  # what happened and what to do
    key: str | None = None  # what to change, of the config or of the profile


def endings(facts: Facts) -> list[Ending]:
    """Trials, finalists and stages that did not end well, with error and log tail where these were kept."""
    found = []
    for trial in facts.trials:
        lost = trial.state == "interrupted" and not facts.searching  # else it may still run
        if trial.state == "failed" or lost:
            words = (f"trial {trial.state}", trial.name, trial.error, None)
            found.append(_ending(*words, trial.failure))
    for run in facts.runs:
        if run["state"] in UNWELL:
            words = (f"finalist {run['state']}", run["name"], run["error"], run["log_tail"])
            found.append(_ending(*words, Failure.read(run.get("failure"))))

    # stages: one that was preempted and finished is no failure
    for line in read_ledger(facts.folder):
        done = read_sealed(facts.folder / line["stage"] / "DONE.json") is not None
        if line["state"] == "failed" or (line["state"] == "interrupted" and not done):
            log = tail(Path(line["log"])) if line.get("log") else None
            what = f"stage {line['state']}{', finished later' if done else ''}"
            error = line.get("error")
            why = Failure.read(line.get("failure")) or failures.of_words(f"{error}\n{log}")
            found.append(_ending(what, line["stage"], error, log, why))
    return found


def _ending(
    what: str, name: str, error: str | None, log: str | None, failure: Failure | None
) -> Ending:
    """With what is known of its reason."""
    if failure is None:
        return Ending(what, name, error, log)
    key = failure.key or failures.KINDS[failure.kind].key
    return Ending(
        what, name, error, log, failure.kind, failure.evidence, failure.words(), key or None
    )
