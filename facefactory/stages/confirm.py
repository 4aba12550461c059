"""The best trials once more from fresh seeds, at the full budget: what their configs are worth, beside what the search saw in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from facefactory import Failed, confirmation, rundir, runner, surroundings
from facefactory.cluster.launch import Job
from facefactory.confirmation import Confirmed, Repeat
from facefactory.run import Run, goal_of, headline_of, with_params
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Stage, called_for, of, on_gpu
from facefactory.stages._trials import Place, best_trials, failed, open_training, run_here
from facefactory.trials import Trial

FOLDER = "repeats"  # below the run folder: what is trained from a seed stays, whoever is best
LAST_SEED = 2**63 - 1


def stages_of(run: Run) -> list[str]:
    """All that a repeat goes through."""
    return [stage.name for stage in called_for(run, ["pack", "judge", "train", "evaluate"])]


def seeds(run: Run) -> list[int]:
    """Fresh ones: those after the run's own."""
    return [(run.seed + 1 + number) % LAST_SEED for number in range(run.sweep.confirm_seeds)]


class Component(Stage):
    """Leaves `results`: a digest of what the repeats scored."""

    sections = (
        *("sweep.finalists", "sweep.confirm_seeds"),
        *("training.", "evaluation.", "seed"),
    )
    needs = ("sweep.trials", "pack.images", "pack.labels")

    def wanted(self, run: Run) -> bool:
        """Where fresh seeds are asked for."""
        return run.sweep.confirm_seeds > 0

    def asks(self, run: Run) -> tuple[str, ...]:
        """The judge too, where a repeat's stages ask for one."""
        return (*self.needs, *(["judge.judge"] if "judge" in stages_of(run) else []))

    def intact(self, run: Run, folder: RunDir) -> bool:
        """None has failed: the same command tries failed ones again."""
        found = rundir.read_results(folder.stage(self.name))
        confirmed = map(Confirmed.read, found.get("trials", []))
        states = [repeat.state for one in confirmed for repeat in one.repeats]
        return bool(states) and set(states) == {"finished"}

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Train and score them side by side; where an array has done so, write down how they ended."""
        if not surroundings.in_chain_job():
            places = self.places(run, folder)
            paths = [open_training(place.path, place.run).path for place in places]
            run_here(self.name, paths, stages_of(run), run)
        return self._gathered(run, folder)

    def part(self, run: Run, folder: RunDir, arguments: Sequence[str]) -> None:
        """`PLACE`: one repeat; there is nothing to do where the search has fewer trials."""
        places = self.places(run, folder)[int(arguments[0]) :]
        for place in places[:1]:
            names = stages_of(place.run)
            if surroundings.own_rank() > 0:
                return runner.follow(place.run, RunDir(place.path), names)
            runner.execute(place.run, open_training(place.path, place.run), names)

    def jobs(self, run: Run, folder: RunDir, options: Sequence[str]) -> list[Job]:
        """An array that trains and scores, however the finalists end, and, with the report, a job that gathers."""
        home = str(folder.path)
        count = run.sweep.finalists * run.sweep.confirm_seeds
        train = [["part", home, self.name, str(number)] for number in range(count)]
        gather = [["last", home, self.name]]
        gpus = on_gpu(run, self.kind)
        ranks = run.training.ranks
        return [
            Job(self.name, train, "gpu", gpus, processes=ranks, after="any"),
            Job("report", gather, "cpu", gpus=False, after="any", share="last"),
        ]

    def places(self, run: Run, folder: RunDir) -> list[Place]:
        """A training for each of the best trials and each seed; the trial's first seeds come first."""
        found = []
        for seed in seeds(run):
            fresh = dataclasses.replace(run, seed=seed)
            for trial in best_trials(run, folder):
                path = folder.path / FOLDER / f"{trial.name}-seed{seed}"
                found.append(Place(trial.name, with_params(fresh, trial.params), path))
        return found

    def _gathered(self, run: Run, folder: RunDir) -> Outputs:
        """Write down what they scored, beside what the search and the finalists did."""
        goal = headline_of(run)
        repeats: dict[str, list[Repeat]] = {}
        for place in self.places(run, folder):
            repeats.setdefault(place.trial, []).append(_repeat(place, folder, goal.metric))

        # beside what was known before
        finalists = rundir.read_results(folder.stage("finalists")).get("finalists", [])
        homes = {entry["trial"]: folder.path / entry["folder"] for entry in finalists}
        searched = goal_of(run)
        found = []
        for trial in best_trials(run, folder):
            home = homes.get(trial.name)
            score = None if home is None else _score(RunDir(home), goal.metric)
            found.append(_confirmed(trial, searched.metric, score, repeats[trial.name]))

        target = folder.stage(self.name) / "results.json"
        content = confirmation.summary(found, goal, searched)
        rundir.write_json(target, content)
        if content["confirmed_best"] is None:
            raise Failed(f"all repeats failed: {found[0].repeats[0].error}")
        return {"results": rundir.digest(content["trials"])}, [target]


def _repeat(place: Place, folder: RunDir, metric: str) -> Repeat:
    """How a repeat ended."""
    own = RunDir(place.path)
    below = str(place.path.relative_to(folder.path))
    repeat = Repeat(place.path.name, below, place.run.seed, "finished")
    if runner.is_complete(place.run, own, of("evaluate")):
        return dataclasses.replace(repeat, score=_score(own, metric))
    return dataclasses.replace(repeat, **failed(place.path).fields())


def _confirmed(
    trial: Trial, metric: str, finalist: float | None, repeats: Sequence[Repeat]
) -> Confirmed:
    """What is known of a trial; `metric`: that of the search."""
    kimg, score = trial.last(metric) or (None, None)
    return Confirmed(trial.name, score, kimg, finalist, tuple(repeats))


def _score(folder: RunDir, metric: str) -> float | None:
    """What a run folder's stage evaluate has of a metric."""
    found: list[dict[str, Any]] = rundir.read_results(folder.stage("evaluate")).get("scores", [])
    values: list[float] = [one["value"] for one in found if one["name"] == metric]
    return values[0] if values else None
