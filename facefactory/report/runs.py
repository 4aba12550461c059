"""Writes runs.html, a page of all runs of a folder, and runs.json, the same as data. It reads files only."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facefactory import UserError
from facefactory.report import pages, scores
from facefactory.report.costs import costs
from facefactory.report.facts import Facts, gather
from facefactory.rundir import atomic, read_ledger, read_sealed, stages_of, write_json

MARKS = ("config.yaml", "jobs.jsonl", "stages.json")  # one of them makes a folder a run
PAGE = "runs.html"


@dataclass(frozen=True)
class RunRow:
    """A run in the table."""

    name: str
    state: str  # complete, running, failed, unfinished, damaged
    kind: str = ""
    networks: list[str] = field(default_factory=list)
    faces: str = ""
    metric: str = ""
    protocol: str = ""  # scores of unlike ones are not ranked together
    score: float | None = None
    low: float | None = None
    high: float | None = None
    trials: int = 0
    hours: float | None = None  # of all stages, by the ledger
    changed: str = ""  # the last line of the ledger
    note: str = ""  # what is missing or wrong
    links: dict[str, str] = field(default_factory=dict)  # words -> file below the folder
    picture: str = ""


def write(folder: Path) -> list[Path]:
    """Write runs.html and runs.json into a folder of runs; UserError: there is no run in it."""
    found = list(rows(folder))
    if not found:
        raise UserError(
            f"runs={folder} has no run: none of its folders has {' or '.join(MARKS)}; "
            "give the folder that paths.runs names."
        )
    page, data = folder / PAGE, folder / "runs.json"
    written = datetime.now(UTC)
    text = pages.rendered(PAGE, folder, rows=found, name=folder.absolute().name, written=written)
    with atomic(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    entries = [asdict(row) for row in found]
    write_json(data, {"version": 1, "written": written.isoformat("T", "seconds"), "runs": entries})
    return [page, data]


def rows(folder: Path) -> Iterator[RunRow]:
    """A row a run, the one that changed last first; a damaged run has a row that says so."""
    places = []
    for path in folder.iterdir():
        marks = [path / mark for mark in MARKS if (path / mark).is_file()]
        if marks:
            places.append((max(mark.stat().st_mtime for mark in marks), path))
    for _, path in sorted(places, key=lambda place: (-place[0], place[1].name)):
        try:
            yield row_of(gather(path, {}))
        except Exception as error:  # whatever a folder of years holds, the others have their rows
            yield RunRow(path.name, "damaged", note=f"{type(error).__name__}: {error}")


def row_of(facts: Facts) -> RunRow:
    """What is said of one run."""
    ledger = read_ledger(facts.folder)
    state, note = state_of(facts.folder, ledger)
    if not facts.config:
        note = "; ".join(filter(None, [note, "config.yaml is missing or damaged"]))
    pack = facts.config.get("pack") or {}
    changed = datetime.fromtimestamp(ledger[-1]["time"], UTC) if ledger else None

    # the best of it
    best: dict[str, Any] = facts.runs[0] if facts.runs else {}
    score = scores.scores_of(best).get(facts.metric) if best else None
    elapsed = sum(stage.elapsed_s for stage in costs(facts).stages)
    return RunRow(
        name=facts.name,
        state=state,
        kind=facts.kind,
        networks=facts.networks,
        faces=f"{pack['recipe']}, {pack.get('resolution', '?')}" if pack.get("recipe") else "",
        metric=facts.metric if score else "",
        protocol=score.protocol if score else "",
        score=score.value if score else None,
        low=score.low if score else None,
        high=score.high if score else None,
        trials=len(facts.trials),
        hours=elapsed / 3600 if elapsed else None,
        changed=changed.isoformat(" ", "minutes")[:16] if changed else "",
        note=note,
        links=links_of(facts),
        picture=f"{facts.name}/{pages.samples(facts.folder, best['folder'])}" if best else "",
    )


def state_of(folder: Path, ledger: list[dict[str, Any]]) -> tuple[str, str]:
    """The state of a run, and what there is to say of it."""
    wanted = stages_of(folder)
    left = [name for name in wanted if read_sealed(folder / name / "DONE.json") is None]
    last = ledger[-1] if ledger else {}
    if not left and wanted:
        return "complete", ""
    if last.get("state") == "running":
        return "running", f"{last['stage']} since it began, if its process lives"
    if last.get("state") == "failed":
        return "failed", f"{last['stage']}: {last.get('error') or 'no error was kept'}"[:200]
    return "unfinished", f"to do: {', '.join(left)}" if left else "stages.json is missing"


def links_of(facts: Facts) -> dict[str, str]:
    """Pages of a run that are there."""
    found = {}
    if (facts.folder / "report.html").is_file():
        found["report"] = f"{facts.name}/report.html"
    for run in facts.runs:
        page = facts.folder / run["folder"] / "interpret" / "latent.html"
        if page.is_file():
            words = "latent" if run["folder"] == "." else f"latent {run['name']}"
            found[words] = str(page.relative_to(facts.folder.parent))
    return found
