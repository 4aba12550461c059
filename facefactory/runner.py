"""The rule by which a stage is done, skipped or moved aside, and how a stop reaches it."""

import atexit
import contextlib
import dataclasses
import platform
import signal
import time
from collections.abc import Iterable
from typing import Any

from facefactory import UserError, failures, rundir, say, surroundings
from facefactory.cluster.local import STOPS
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Stage, of

SOFTWARE = ("facefactory", "torch", "numpy", "pillow")  # whose versions decide bits


class Interrupted(Exception):
    """Work ended before its time and can go on.

    A stop was asked for and what was done is saved, or what the message says.
    """


class Stop:
    """A flag that stop signals set; the training loop reads it once an iteration."""

    asked = False

    def __call__(self) -> bool:
        return self.asked

    def listen(self) -> None:
        """Set the flag on each of STOPS; a second Ctrl-C ends the process at once.

        One that came before, while the launcher of this process blocked it, counts too.
        """

        def handle(number: int, frame: object) -> None:
            self.asked = True
            if number == signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)

        def ignore() -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)

        for number in STOPS:
            signal.signal(number, handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        # while it ends, Python gives signals their deadly defaults back, and what has finished
        # would count as failed
        atexit.register(ignore)


stop = Stop()


def is_complete(run: Run, folder: RunDir, stage: Stage) -> bool:
    """Whether a stage's results are there and speak of this config and of what is there now before it."""
    done = folder.done(stage.name)
    wanted = stage.config(run)
    if done is None or done["config"] != wanted:
        return False  # and its inputs need not be looked at
    try:
        inputs = stage.inputs(run, folder)
        return folder.is_complete(stage.name, wanted, inputs) and stage.intact(run, folder)
    except UserError:
        return False


def can_begin(run: Run, folder: RunDir, stage: Stage) -> bool:
    """Whether the stages that it reads are finished."""
    try:
        stage.inputs(run, folder)
    except UserError:
        return False
    return True


def execute(run: Run, folder: RunDir, names: Iterable[str]) -> None:
    """Run stages in order; what is complete is skipped, what was interrupted goes on.

    Where one fails, those that are done in any case are done before the error goes on.
    """
    stages = [of(name) for name in names]
    try:
        for stage in stages:
            if stop():
                raise Interrupted(f"{stage.name} has not begun")
            _execute_one(run, folder, stage)
    except rundir.OwnerLost:
        raise
    except Exception as error:
        # where the disk is full, records do not fit either: the first file that did not is named
        full = isinstance(error, OSError) and error.errno in rundir.FULL
        with contextlib.suppress(OSError) if full else contextlib.nullcontext():
            state = "interrupted" if isinstance(error, Interrupted) else "failed"
            why: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"}
            if state == "failed":
                why["failure"] = dataclasses.asdict(failures.of_error(error))
            folder.record(stage.name, state, **why, log=surroundings.log())
            always = [other for other in stages if other.always and other.name != stage.name]
            if state == "failed":
                for last in always:
                    _execute_one(run, folder, last)
        raise


def follow(run: Run, folder: RunDir, names: Iterable[str]) -> None:
    """What another rank than the first has to do with some stages."""
    for name in names:
        stage = of(name)
        if not is_complete(run, folder, stage):
            stage.follow(run, folder)


def begin(run: Run, folder: RunDir, stage: Stage) -> dict[str, Any]:
    """Open a stage's folder; the digests of its inputs.

    What another config or other inputs left there is moved aside.
    """
    done = folder.done(stage.name)
    inputs = stage.inputs(run, folder)
    changed = done is not None and done["inputs"] != inputs
    if stage.resumes and changed and run.data.changed != "accept":
        folder.move_aside(stage.name)

    # a stage that resumes may go on with other inputs, if that is accepted
    identity: Any = stage.config(run, resumes=False)
    if not stage.resumes:
        identity = [identity, stage.basis(run, folder)]
    folder.begin(stage.name, rundir.digest(identity))
    stage.open(run, folder)
    return inputs


def _execute_one(run: Run, folder: RunDir, stage: Stage) -> None:
    """Run one stage, unless it is complete."""
    if is_complete(run, folder, stage):
        folder.kept.clear()
        return say(f"{stage.name}: complete")
    inputs = begin(run, folder, stage)
    folder.record(stage.name, "running")
    began = time.time()
    outputs = stage.work(run, folder)
    seconds = finish(run, folder, stage, inputs, outputs, began)
    folder.kept.clear()  # no later stage asks for it
    folder.record(stage.name, "finished", seconds=seconds)
    say(f"{stage.name}: done in {seconds:.0f} s")


def finish(
    run: Run, folder: RunDir, stage: Stage, inputs: dict[str, Any], outputs: Outputs, began: float
) -> float:
    """Write DONE.json with the versions that decide bits; the seconds since `began`."""
    from importlib import metadata

    seconds = round(time.time() - began, 1)
    facts, files = outputs
    versions = {name: metadata.version(name) for name in SOFTWARE}
    record = {
        "config": stage.config(run),
        "inputs": inputs,
        "outputs": facts,
        "seconds": seconds,
        "software": {"python": platform.python_version(), **versions},
    }
    folder.finish(stage.name, record, files)
    return seconds
