"""The face set of a run: planned, or packed."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from facefactory import UserError, registry, rundir, say, surroundings
from facefactory.progress import Progress
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted, stop
from facefactory.stages import FaceSet, outputs_of

if TYPE_CHECKING:
    from facefactory.data.packing.recipes import Plan
    from facefactory.data.sets.index import Index


def plan_of(run: Run, folder: RunDir) -> "Plan":
    """What is to be packed; made once a command: listing millions of files on shared storage takes minutes."""
    from facefactory.data.packing import recipes

    if "plan" not in folder.kept:
        folder.kept["plan"] = recipes.plan(run.pack)
    plan: Plan = folder.kept["plan"]
    return plan


def index_of(folder: RunDir) -> "Index":
    """The packed set of a run, checked."""
    from facefactory.data.sets import index

    found = index.read(Path(outputs_of(folder, "pack.folder")["pack.folder"]))
    found.verify()
    return found


def known(run: Run, folder: RunDir, names: tuple[str, ...]) -> FaceSet | None:
    """The set that a command will pack or was told to read; None: it reads what was packed before."""
    if run.data.shards is not None:
        return _packed(Path(run.data.shards))
    return _planned(run, folder) if "pack" in names else None


def _packed(shards: Path) -> FaceSet:
    import numpy as np
    import pandas as pd

    from facefactory.data.packing import enough
    from facefactory.data.sets import index

    found = index.read(shards)
    found.verify()
    content = found.content
    sizes = {name: split.count for name, split in content.splits.items()}
    table = pd.concat([found.table(name) for name in sizes], ignore_index=True)
    splits = np.repeat(list(sizes), list(sizes.values()))
    faces = enough.Faces(table, splits, content.labels, content.group)
    return FaceSet(found.facts, faces, tuple(sizes), {})


def _planned(run: Run, folder: RunDir) -> FaceSet:
    from facefactory.data.packing import enough
    from facefactory.facts import Facts

    plan = plan_of(run, folder)
    facts = Facts(*run.pack.size, 1 if run.pack.color == "gray" else 3, plan.schema)
    faces = enough.Faces(plan.table, plan.splits, plan.schema, plan.recipe["group"])
    return FaceSet(facts, faces, tuple(plan.recipe["splits"]), plan.shares)


def require_splits(run: Run, found: FaceSet) -> None:
    """UserError: a split that scores are made with is none of the set's."""
    from facefactory.data.packing import enough

    splits = found.splits
    for name in ("reference", "held_out"):
        wanted = getattr(run.evaluation, name)
        if wanted in splits or (name == "held_out" and not wanted):
            continue
        if wanted in found.shares:
            raise enough.undivided(found.faces, found.shares, wanted)
        others = [
            split for split in splits if name == "reference" or split != run.evaluation.reference
        ]
        way = f"give evaluation.{name}={others[-1]}" if others else "give the recipe another one"
        complaint = f"evaluation.{name}={wanted!r} is no split of this set: {way}"
        raise registry.unknown(complaint, wanted, splits)


def require_different(run: Run, folder: RunDir) -> None:
    """UserError: the pictures of the train split that was packed elsewhere are all alike."""
    from facefactory.data.sets import index

    if run.data.shards is not None:
        index.read(Path(run.data.shards)).require_different("train")


def usable_data(run: Run, target: Path) -> None:
    """UserError: the folder where a set will be packed cannot be written."""
    if not (target / "index.json").exists():
        rundir.usable(target.parent, "paths.data")


def with_workers(plan: "Plan") -> "Plan":
    """A plan that is packed by as many processes as there are CPUs for it."""
    workers = max(plan.options.workers, surroundings.cpus_granted())
    options = dataclasses.replace(plan.options, workers=workers)
    return dataclasses.replace(plan, options=options)


def packed(run: Run, plan: "Plan", target: Path) -> "Index":
    """Pack a set, unless another process has just done it."""
    from facefactory.data.packing import pack
    from facefactory.data.sets import index

    rundir.usable(target.parent, "paths.data")
    target.parent.mkdir(parents=True, exist_ok=True)
    with rundir.locked(target.with_suffix(".lock")):
        try:
            found = index.read(target)
            found.verify(run.data.verify == "full")
        except UserError as error:
            if (target / "index.json").exists():
                say(f"pack: {error} Packing it anew.")
            with progress() as told:
                found = pack.pack(plan, target, told)
    return found


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int, float], None]]:
    """A function that says how far packing is, and ends it between two shards if a stop was asked for: what is written stays."""

    def told(done: int, total: int, left_s: float) -> None:
        bar.show(done, total, f"{timedelta(seconds=round(left_s))} left")
        if stop():
            raise Interrupted

    with contextlib.closing(Progress("pack", "shards")) as bar:
        yield told
