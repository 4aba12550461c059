"""Where the results come from: faces, software, stages, ledger, config."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facefactory.report.facts import Facts, finite, text_of
from facefactory.report.sections import Section
from facefactory.rundir import read_json, read_ledger, read_sealed


@dataclass(frozen=True)
class Provenance:
    """What the files of a run say of its origin."""

    stages: list[dict[str, Any]]  # DONE.json of each stage that finished
    software: dict[str, Any]
    dataset: dict[str, Any] | None  # index.json of the packed faces
    ledger: list[dict[str, Any]]
    config: str  # the text of config.yaml
    called: str  # the commands


class Component(Section):
    """Faces, software, stages, ledger, config."""

    title = "Provenance"
    place = 110

    def data(self, facts: Facts) -> Provenance:
        """All of it, as far as the files are there."""
        folder = facts.folder
        paths = sorted(folder.glob("*/DONE.json")) + sorted(folder.glob("finalists/*/*/DONE.json"))
        kept = [path for path in paths if ".old-" not in path.parent.name]
        whole = {str(path.parent.relative_to(folder)): read_sealed(path) for path in kept}
        stages = [{"stage": stage, **done} for stage, done in whole.items() if done]
        software = [done["software"] for done in stages if "software" in done] or [{}]
        return Provenance(
            stages=finite(stages),
            software=software[-1],
            dataset=_dataset(stages),
            ledger=[timed(line) for line in read_ledger(folder)],
            config=text_of(folder / "config.yaml"),
            called=text_of(folder / "command.txt"),
        )


def _dataset(stages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The index of the packed faces, where it still lies there."""
    for done in stages:
        if done["stage"] == "pack" and "folder" in done.get("outputs", {}):
            packed = done["outputs"]["folder"]
            index = read_json(Path(packed) / "index.json")
            return {"folder": packed, **finite(index)} if isinstance(index, dict) else None
    return None


def timed(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the ledger with its time in words."""
    at = datetime.fromtimestamp(line["time"], UTC)
    return {**line, "time": at.isoformat(" ", "seconds")}
