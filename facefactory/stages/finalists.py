"""The best trials go on to the full budget; each is a run of its own."""

import dataclasses
from collections.abc import Sequence

from facefactory import Failed, rundir, runner, say, surroundings
from facefactory.cluster.launch import Job
from facefactory.run import Run, with_params
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Stage, called_for, of, on_gpu, outputs_of
from facefactory.stages._trials import Place, best_trials, failed, open_training, run_here
from facefactory.trials import Finalist, folder_of

TRAINED = ("pack", "train")  # the stages of a finalist that lead to its networks
LOOKS = ("evaluate", "interpret")  # those that look at them


def looks(run: Run) -> list[str]:
    """Those that suit models of this kind."""
    return [name for name in LOOKS if of(name).suits(run)]


def stages_of(run: Run) -> list[str]:
    """All that a finalist goes through."""
    return [stage.name for stage in called_for(run, ["pack", "judge", "train", *looks(run)])]


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
            paths = [_open(folder, place).path for place in self.places(run, folder)]
            run_here(self.name, paths, stages_of(run), run)
        return self._gathered(run, folder)

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
        home = folder.stage(self.name)
        return [
            Place(trial.name, with_params(run, trial.params), home / f"{number}-{trial.name}")
            for number, trial in enumerate(best_trials(run, folder))
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
                how = failed(place.path).fields()
                finalists.append(dataclasses.replace(finalist, **how))

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
