"""Run folders that a stage makes for trainings of its own."""

from pathlib import Path

from facefactory import config, rundir
from facefactory.run import Run, repeat_command
from facefactory.rundir import RunDir
from facefactory.stages import of


def open_training(path: Path, run: Run) -> RunDir:
    """The run folder of a trial or a finalist, owned by this process and ready to be trained."""
    made = rundir.prepare(
        path, config.dump(run), config.flat(run), repeat_command(path, run), True
    )
    made.claim()
    made.begin("train", rundir.digest(of("train").config(run, resumes=False)))
    return made
