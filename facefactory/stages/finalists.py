"""The best trials go on to the full budget; each is a run of its own."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facefactory import Failed, UserError, failures, rundir, runner, say, search, surroundings
from facefactory.cluster import local
from facefactory.cluster.launch import Job
from facefactory.failures import Failure
from facefactory.run import Run, goal_of, with_params
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted, stop
from facefactory.stages import Outputs, Stage, called_for, of, on_gpu, outputs_of
from facefactory.stages._trials import open_training
from facefactory.trials import Finalist, Trial, folder_of

TRAINED = ("pack", "train")  # the stages of a finalist that lead to its networks
LOOKS = ("evaluate", "interpret")  # those that look at them


def looks(run: Run) -> list[str]:
    """Those that suit models of this kind."""
    return [name for name in LOOKS if of(name).suits(run)]


def stages_of(run: Run) -> list[str]:
    """All that a finalist goes through."""
    return [stage.name for stage in called_for(run, ["pack", "judge", "train", *looks(run)])]


@dataclass(frozen=True)
class Place:
    """A finalist: the trial that it goes on from, its config and its run folder."""

    trial: str
    run: Run
    path: Path


class Component(Stage):
    """Leaves `results`: a digest of how the finalists ended and what they scored."""

    sections = ("sweep.finalists", "training.", "evaluation.", "interpret.")
    needs = ("sweep.trials", "pack.images", "pack.labels")

    def asks(self, run: Run) -> tuple[str, ...]:
        """The judge too, where a finalist's stages ask for one: it is there before several of them begin at once."""
        return (*self.needs, *(["judge.judge"] if "judge" in stages_of(run) else []))

    def intact(self, run: Run, folder: RunDir) -> bool:
        """None has failed: the same command tries failed ones again."""
        found = rundir.read_results(folder.stage(self.name))
        if not found:
            return False
        finalists = [Finalist.read(entry) for entry in found["finalists"]]
        return all(finalist.state == "finished" for finalist in finalists)

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Train and score them side by side; where jobs of a chain have done so, write down how they ended."""
        if not surroundings.in_chain_job():
            self._run_here(run, folder)
        return self._gathered(run, folder)

    def _run_here(self, run: Run, folder: RunDir) -> None:
        """All of them, as processes of this machine."""
        runs = [_open(folder, place).path for place in self.places(run, folder)]
        logs = [path / "log.txt" for path in runs]
        where = folder.stage(self.name)
        say(
            f"finalists: {len(runs)} runs to {run.training.total_kimg:g} kimg; logs: {where}/*/log.txt"
        )
        commands = [["facefactory", "stages", str(path), *stages_of(run)] for path in runs]
        own = [{"FACEFACTORY_LOG": str(log)} for log in logs]
        codes = local.side_by_side(commands, run.sweep.parallel, logs, own, say)
        if stop() or local.INTERRUPTED in codes:
            stop.asked = True
            raise Interrupted

    def part(self, run: Run, folder: RunDir, arguments: Sequence[str]) -> None:
        """`PLACE NAME…`: stages of one finalist."""
        number, *names = arguments
        places = self.places(run, folder)
        if int(number) >= len(places):
            return say(f"finalists: the sweep has no trial in place {number}")
        place = places[int(number)]
        if surroundings.own_rank() > 0:
            return runner.follow(place.run, RunDir(place.path), names)
        own = _open(folder, place)
        own.claim()
        runner.execute(place.run, own, names)

    def jobs(self, run: Run, folder: RunDir, options: Sequence[str]) -> list[Job]:
        """An array that trains, an array that scores, and, with the report, a job that gathers."""
        home = str(folder.path)
        gpus = on_gpu(run, self.kind)
        numbers = [str(number) for number in range(run.sweep.finalists)]
        train = [["part", home, self.name, number, *TRAINED] for number in numbers]
        score = [["part", home, self.name, number, *stages_of(run)] for number in numbers]
        gather = [["last", home, self.name]]
        return [
            Job(
                self.name,
                train,
                "gpu",
                gpus,
                processes=run.training.ranks,
                opens=self.name,
                sized_by="sweep.finalists",
            ),
            Job("evaluate", score, "gpu", gpus, after="each", sized_by="sweep.finalists"),
            Job("report", gather, "cpu", gpus=False, after="any", share="last"),
        ]

    def places(self, run: Run, folder: RunDir) -> list[Place]:
        """The best trials, as runs that go on."""
        searched = folder.stage("sweep")
        found = rundir.read_results(searched)
        if not found:
            raise UserError(
                f"{searched / 'results.json'} is missing or damaged; "
                "give the command of the sweep again: it is written anew."
            )
        tried = [Trial.read(entry) for entry in found["trials"]]
        best = search.best(tried, run.sweep.finalists, goal_of(run))
        home = folder.stage(self.name)
        return [
            Place(trial.name, with_params(run, trial.params), home / f"{number}-{trial.name}")
            for number, trial in enumerate(best)
        ]

    def _gathered(self, run: Run, folder: RunDir) -> Outputs:
        """Write down how they ended, the failed ones with the end of their log."""
        finalists = []
        done = []
        for place in self.places(run, folder):
            own = RunDir(place.path)
            below = str(place.path.relative_to(folder.path))
            finalist = Finalist(place.path.name, place.trial, below, "finished")
            names = looks(place.run)
            if all(runner.is_complete(place.run, own, of(name)) for name in names):
                done.append(outputs_of(own, *(f"{name}.results" for name in names)))
                finalists.append(finalist)
            else:
                finalists.append(_failed(finalist, place.path))

        entries = [dataclasses.asdict(finalist) for finalist in finalists]
        target = folder.stage(self.name) / "results.json"
        rundir.write_json(target, {"finalists": entries})
        if not done:
            raise Failed(f"all finalists failed: {finalists[0].error}")
        return {"results": rundir.digest([entries, done])}, [target]


def _open(folder: RunDir, place: Place) -> RunDir:
    """The run folder of a place, where it goes on from its trial's last checkpoint."""
    from facefactory import checkpoint

    made = open_training(place.path, place.run)
    own = place.path / "train" / "checkpoints"
    trial = folder_of(folder.stage("sweep"), place.trial)
    source = checkpoint.latest(trial.path / "train" / "checkpoints")
    if source is not None and checkpoint.latest(own) is None:
        with rundir.atomic(own / source.name) as temporary:
            temporary.write_bytes(source.read_bytes())
    return made


def _failed(finalist: Finalist, path: Path) -> Finalist:
    """With what its own ledger and log say of its end."""
    lines = rundir.read_ledger(path)
    last = ([line for line in lines if line["state"] == "failed"] or [{}])[-1]
    tail = rundir.tail(Path(last.get("log") or path / "log.txt"))
    error = last.get("error") or (tail or "it left no word and no log").splitlines()[-1]
    why = Failure.read(last.get("failure")) or failures.of_words(tail or error)
    return dataclasses.replace(finalist, state="failed", error=error, log_tail=tail, failure=why)
