"""One page of all that a run's files tell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facefactory import UserError
from facefactory.cluster.launch import Job
from facefactory.run import Run, load_run, repeat_command
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage, every


class Component(Stage):
    """Leaves nothing that others depend on."""

    sections = ()
    kind = "cpu"
    always = True
    share = "last"

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """The run whose claims shall stand beside is there, and has some."""
        if run.compare.claims is None:
            return
        beside = Path(run.compare.claims)
        if not (beside / "interpret" / "results.json").is_file():
            raise UserError(
                f"compare.claims={beside} has no interpret/results.json; give a run for which "
                "jobs/interpret.py has run (of a sweep: a folder of its finalists/)."
            )

    def inputs(self, run: Run, folder: RunDir) -> dict[str, Any]:
        """What every other stage left."""
        found = {}
        for stage in every():
            done = folder.done(stage.name)
            if stage.name != self.name and done:
                found[stage.name] = done["outputs"]
        return found

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Write report.html and report.json."""
        from facefactory.report import pages

        configs = [
            *folder.path.glob("sweep/trials/*/config.yaml"),
            *folder.path.glob("finalists/*/config.yaml"),
            *folder.path.glob("repeats/*/config.yaml"),
        ]
        below = [path.parent for path in configs]
        repeat = {path.name: repeat_command(path, load_run(path)) for path in below}
        beside = run.compare.claims
        return {}, pages.write(folder.path, repeat, Path(beside) if beside else None)

    def jobs(self, run: Run, folder: RunDir, options: Sequence[str]) -> list[Job]:
        """A job that comes last, however the others ended."""
        command = ["last", str(folder.path), self.name, *options]
        return [Job(self.name, [command], "cpu", gpus=False, after="any", share=self.share)]
