"""READ FIRST: what a stage of a chain is. One stage a file; the file's name is the stage's name.

A stage reads the files of the stages before it and adds its own; its DONE.json says of which config and
inputs they speak. Those who run stages (runner.py), turn them into Slurm jobs (chain.py) and check a
command line (command.py) ask the stage, and know none by name. This file is torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from facefactory import UserError, config, registry, rundir
from facefactory.cluster.launch import Job
from facefactory.run import Run
from facefactory.rundir import RunDir

if TYPE_CHECKING:
    from facefactory.cluster import Profile
    from facefactory.data.packing.enough import Faces
    from facefactory.facts import Facts

PACKAGE = "stages"
Outputs = tuple[
    dict[str, Any], list[Path]
]  # what later stages depend on, and the files that must be there


@dataclass(frozen=True)
class FaceSet:
    """What is known of a set before anything is packed or trained."""

    facts: Facts
    faces: Faces
    splits: tuple[str, ...]  # as they are or will be packed
    shares: dict[str, float]  # of splits that are dealt out; none where the set has its own


@dataclass(frozen=True)
class Plan:
    """What a command is about to do, as its stages' checks see it."""

    names: tuple[str, ...]  # the stages of the command
    profile: Profile | None  # of the cluster where they will run; None: this machine
    faces: FaceSet | None  # None: the command reads a set that was checked when it was packed


class Stage(Protocol):
    """A step of a chain. What is not written down in its file is as here."""

    sections: tuple[str, ...]  # beginnings of the config keys that its results depend on
    needs: tuple[str, ...] = ()  # outputs of earlier stages, as `train.checkpoint`
    optional: bool = False  # whether a command leaves it out where none of its stages asks for it
    late: bool = False  # whether a job on a finished run may change its sections
    always: bool = False  # whether it is done even where a stage before it has failed
    resumes: bool = False  # whether it decides itself what an interrupted start of it goes on with
    kind: Literal["cpu", "gpu"] = "gpu"  # of node that its job asks for
    share: str | None = None  # neighbours of one name share a job
    job_name: str | None = None  # what its job is called; its own name, unless told otherwise

    @property
    def name(self) -> str:
        """The file's name."""
        return type(self).__module__.rpartition(".")[2]

    def config(self, run: Run, *, resumes: bool = True) -> dict[str, Any]:
        """The keys that it depends on; `resumes=False`: those that may not change while it is interrupted."""
        flat = config.flat(run, resumes=resumes)
        found = {name: value for name, value in flat.items() if name.startswith(self.sections)}
        components = {
            name: str(value.get("name"))
            for name, value in found.items()
            if isinstance(value, dict)
        }
        files = {name: path for name, path in components.items() if path.endswith(".py")}
        return found | {
            f"{name} file": rundir.sha256(registry.own_file(path)) for name, path in files.items()
        }

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """Find what cannot work before anything starts, and say what may not be meant: UserError."""

    def forecast(self, run: Run, plan: Plan) -> list[str]:
        """Lines on what it will take, for `dry_run=true`."""
        return []

    def wanted(self, run: Run) -> bool:
        """Whether a run's config asks for it; a command leaves it out where it does not."""
        return True

    def suits(self, run: Run) -> bool:
        """Whether it can do anything with what this run makes."""
        return True

    def asks(self, run: Run) -> tuple[str, ...]:
        """Outputs of earlier stages that it reads in this run."""
        return self.needs

    def inputs(self, run: Run, folder: RunDir) -> dict[str, Any]:
        """Digests of what it reads; UserError: a stage before it is not finished."""
        return outputs_of(folder, *self.asks(run))

    def basis(self, run: Run, folder: RunDir) -> dict[str, Any]:
        """Of its inputs those without which nothing that it left is of use; the others may change while it is interrupted."""
        return self.inputs(run, folder)

    def open(self, run: Run, folder: RunDir) -> None:
        """Make its folder ready before it begins, or goes on."""

    def intact(self, run: Run, folder: RunDir) -> bool:
        """Whether nothing of it is to be done again, though it finished with this config and these inputs."""
        return True

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Do it; what was interrupted goes on."""
        ...

    def product(self, run: Run) -> Any:
        """The class of what it makes to be scored."""
        return object

    def output(self, run: Run, what: str) -> str:
        """The output `checkpoint` or `kimg` of the snapshot that is scored and drawn from.

        UserError: the run asks for one that this stage does not keep.
        """
        if run.snapshot != "last":
            raise UserError(
                f"snapshot={run.snapshot}: the stage {self.name} keeps no snapshots; leave it out."
            )
        return f"{self.name}.{what}"

    def average(self, run: Run) -> str:
        """Which averaged weights that has, as protocols name them."""
        return ""

    def made(self, run: Run, folder: RunDir) -> Any:
        """What it made, ready to be scored."""
        raise UserError(f"what the stage {self.name} makes cannot be scored.")

    def follow(self, run: Run, folder: RunDir) -> None:
        """What the other ranks of a job do while the first one works."""

    def part(self, run: Run, folder: RunDir, arguments: Sequence[str]) -> None:
        """One process's part of it, in a job that the stage planned itself."""
        raise UserError(f"the stage {self.name} has no parts.")

    def jobs(self, run: Run, folder: RunDir, options: Sequence[str]) -> list[Job]:
        """Its Slurm jobs; `options`: `key=value` of a job on a finished run."""
        return [self.job(run, folder, options)]

    def job(self, run: Run, folder: RunDir, options: Sequence[str] = (), **more: Any) -> Job:
        """The job of one process that does the stage, or several stages that share it."""
        command = ["stages", str(folder.path), self.name, *options]
        name = self.job_name or self.name
        return Job(name, [command], self.kind, on_gpu(run, self.kind), share=self.share, **more)


def on_gpu(run: Run, kind: str) -> bool:
    """Whether a job uses GPUs where its node has some."""
    return kind != "cpu" and run.training.device != "cpu"


def of(name: str) -> Stage:
    """A stage by name."""
    found: Stage = registry.build(PACKAGE, {"name": name})
    return found


def called_for(run: Run, names: Sequence[str]) -> list[Stage]:
    """The stages of a chain without those that the config does not want, and optional ones that no other asks for."""
    chain = [stage for stage in map(of, names) if stage.wanted(run)]
    asked = set[str]()
    for stage in chain:
        asked.update(output.partition(".")[0] for output in stage.asks(run))
    return [stage for stage in chain if not stage.optional or stage.name in asked]


def every() -> list[Stage]:
    """All stages there are."""
    return [of(name) for name in registry.names(PACKAGE)]


def outputs_of(folder: RunDir, *names: str) -> dict[str, Any]:
    """`stage.output` -> value from the DONE files of earlier stages; UserError: such a stage is not finished."""
    found = {}
    for name in names:
        stage, output = name.split(".")
        done = folder.done(stage)
        if done is None:
            raise UserError(
                f"{folder.path.name} has no finished stage {stage!r}; run its job first (train_… or sweep_…)."
            )
        if output not in done["outputs"]:
            raise UserError(
                f"{folder.path.name} has no {output.replace('_', ' ')}: its stage {stage!r} left none."
            )
        found[name] = done["outputs"][output]
    return found
