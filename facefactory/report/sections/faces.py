"""What the models draw, beside real faces: grids of the same z, how they came to be, nearest faces, reconstructions."""

import re
from pathlib import Path
from typing import Any

from facefactory.report.facts import Facts
from facefactory.report.sections import Section

MOMENTS = 6  # of a training that are shown
TRIALS = 12  # whose last samples are shown


class Component(Section):
    """Pictures; report.json names their files."""

    title = "Faces"
    place = 60
    kinds = ("sweep", "generative", "pictures")

    def suits(self, facts: Facts) -> bool:
        """Of what draws faces."""
        return super().suits(facts) and not any(run["labels"] for run in facts.runs)

    def data(self, facts: Facts) -> dict[str, list[str]]:
        """Run -> the sample grids that its training drew, over time."""
        return {run["name"]: grids(facts.folder, run["folder"]) for run in facts.runs}

    def best_trials(self, facts: Facts) -> list[dict[str, Any]]:
        """The trials that got furthest with the best scores: name, kimg, score."""
        rows: list[dict[str, Any]] = []
        for trial in facts.trials:
            last = trial.last(facts.metric)
            if last is not None:
                rows.append({"name": trial.name, "kimg": last[0], "score": last[1]})
        rows.sort(key=lambda row: (-row["kimg"], facts.sign * row["score"]))
        return rows[:TRIALS]

    def moment(self, name: str) -> str:
        """The clock of a grid's file, in thousands of images."""
        digits = re.sub(r"\D", "", Path(name).stem)
        return f"{int(digits) / 1000:.3g}" if digits else "?"

    def height(self, facts: Facts) -> int:
        """Of one image of a grid [pixels]; 0: it is not known."""
        resolution = str((facts.config.get("pack") or {}).get("resolution", ""))
        first = resolution.partition("x")[0]
        return int(first) if first.isdigit() else 0


def grids(folder: Path, run: str) -> list[str]:
    """Sample grids of a run's training, from the first to the last, as many as are shown."""
    drawn = sorted((folder / run / "train/samples").glob("*.png"))
    if len(drawn) > MOMENTS:
        step = (len(drawn) - 1) / (MOMENTS - 1)
        drawn = [drawn[round(step * number)] for number in range(MOMENTS)]
    return [str(path.relative_to(folder)) for path in drawn]
