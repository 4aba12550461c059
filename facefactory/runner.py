"""The rule by which a stage is done, skipped or moved aside, and how a stop that was asked for reaches it."""

import atexit
import contextlib
import os
import platform
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from facefactory import UserError, config, rundir, say
from facefactory.pipeline import STAGES, Run, index_of, outputs_of
from facefactory.rundir import RunDir

Outputs = tuple[dict[str, Any], list[Path]]  # what later stages depend on, and the files that must be there
Work = Callable[[Run, RunDir], Outputs]


class Interrupted(Exception):
    """Work ended before its time and can go on: a stop was asked for and what was done is saved, or what the message says."""


class Stop:
    """A flag that stop signals set; the training loop reads it once an iteration."""

    asked = False

    def __call__(self) -> bool:
        return self.asked

    def listen(self) -> None:
        """Set the flag on SIGINT, SIGTERM and SIGUSR2; a second Ctrl-C ends the process at once."""

        def handle(number: int, frame: object) -> None:
            self.asked = True
            if number == signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, handle)
        # while it ends, Python gives signals their deadly defaults back, and what has finished would count as failed
        atexit.register(lambda: [signal.signal(one, signal.SIG_IGN) for one in (signal.SIGTERM, signal.SIGUSR2)])


stop = Stop()


def generated(run: Run, folder: RunDir) -> tuple[Path, dict[str, Any]]:
    """The folder of the pictures that the stage `generate` draws, and what they are, as generate.json there says.

    UserError: it holds others.
    """
    target = Path(run.generate.out) if run.generate.out else folder.stage("generate") / "images"
    options = {"images": run.generate.images, "format": run.generate.format, "seed": run.seed}
    made = {"run": folder.path.name, **outputs_of(folder, "train.checkpoint"), **options}
    used = (target / "index.json").exists() or any(target.glob("*.png"))
    if used and rundir.read_json(target / "generate.json") != made:
        raise UserError(f"generate.out: {target} holds other pictures; remove it, or give another folder.")
    return target, made


def _intact(run: Run, folder: RunDir, name: str) -> bool:
    """Whether nothing of a finished stage is to be done again: files outside the run folder are there, nothing in it failed.

    UserError: a packed set is damaged.
    """
    if name == "generate":
        last = "index.json" if run.generate.format == "shards" else f"{run.generate.images - 1:08d}.png"
        return (generated(run, folder)[0] / last).exists()
    if name == "finalists":  # the same command tries failed ones again
        found = rundir.read_json(folder.stage(name) / "results.json")
        return found is not None and all(one["state"] == "finished" for one in found["finalists"])
    if name == "pack":
        index_of(folder)
    return True


def is_complete(run: Run, folder: RunDir, name: str) -> bool:
    """Whether a stage's results are there and speak of this config and of what is there now before it."""
    stage, done = STAGES[name], folder.done(name)
    try:
        if done is None or done.get("config") != stage.config(run):
            return False  # and its inputs need not be looked at
        return folder.is_complete(name, stage.config(run), stage.inputs(run, folder)) and _intact(run, folder, name)
    except UserError:
        return False


def execute(run: Run, folder: RunDir, names: Iterable[str], work: Mapping[str, Work]) -> None:
    """Run stages in order; what is complete is skipped, what was interrupted goes on. A report is written in any case."""
    names = list(names)
    try:
        for name in names:
            if stop():
                raise Interrupted
            _execute_one(run, folder, name, work[name])
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in rundir.FULL
        # where the disk is full, records do not fit either: the first file that did not is the one to name
        with contextlib.suppress(OSError) if full else contextlib.nullcontext():
            if not isinstance(error, rundir.OwnerLost):
                state = "interrupted" if isinstance(error, Interrupted) else "failed"
                folder.record(name, state, error=f"{type(error).__name__}: {error}", log=os.environ.get("FACEFACTORY_LOG"))
                if "report" in names and state == "failed" and name != "report":
                    _execute_one(run, folder, "report", work["report"])
        raise


def begin(run: Run, folder: RunDir, name: str) -> dict[str, Any]:
    """Open a stage's folder, where what another config or other inputs left is moved aside; the digests of the inputs."""
    stage, done = STAGES[name], folder.done(name)
    inputs, started = stage.inputs(run, folder), stage.config(run, resumes=False)
    trains = name == "train"  # one that was interrupted decides itself whether changed images are accepted
    if trains and done is not None and done.get("inputs") != inputs and run.data.changed != "accept":
        folder.move_aside(name)
    folder.begin(name, config.digest(started if trains else [started, inputs]))
    return inputs


def _execute_one(run: Run, folder: RunDir, name: str, work: Work) -> None:
    """Run one stage, unless it is complete."""
    if is_complete(run, folder, name):
        folder.kept.clear()
        return say(f"{name}: complete")
    inputs = begin(run, folder, name)
    folder.record(name, "running")
    began = time.time()
    seconds = finish(run, folder, name, inputs, work(run, folder), began)
    folder.kept.clear()  # no later stage asks for it
    folder.record(name, "finished", seconds=seconds)
    say(f"{name}: done in {seconds:.0f} s")


def finish(run: Run, folder: RunDir, name: str, inputs: dict[str, Any], outputs: Outputs, began: float) -> float:
    """Write DONE.json with the versions that decide bits; the seconds since `began`."""
    seconds = round(time.time() - began, 1)
    software = {name: version(name) for name in ("facefactory", "torch", "numpy", "pillow")}
    record = {"config": STAGES[name].config(run), "inputs": inputs, "outputs": outputs[0], "seconds": seconds}
    folder.finish(name, {**record, "software": {"python": platform.python_version(), **software}}, outputs[1])
    return seconds
