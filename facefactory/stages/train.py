"""One training, by as many ranks as asked for."""

import dataclasses
from typing import Any

from facefactory import Failed, registry, rundir, surroundings
from facefactory.cluster import local
from facefactory.cluster.launch import Job
from facefactory.run import TRAINS, Run
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted, stop
from facefactory.stages import Outputs, Plan, Stage, outputs_of
from facefactory.stages._networks import (
    checkpoint_of,
    initial_digest,
    initial_of,
    join,
    network_of,
    require_balance,
    require_trainable,
    say_doubts,
    task_of,
    trained,
)
from facefactory.stages._sets import index_of, require_different, require_splits
from facefactory.stages._snapshots import require_kept, require_snapshots, scored_again, scorer_of


class Component(Stage):
    """Leaves `checkpoint`, `kimg` and `path`: digest of the weights, clock, and the newest file.

    Where snapshots are scored, `best_checkpoint` and `best_kimg` too: the same of the best of them.
    """

    sections = TRAINS
    resumes = True

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """Images, labels, batch sizes and network shapes fit."""
        from facefactory.data.packing import enough

        if plan.faces is None:
            return
        require_snapshots(run)
        require_splits(run, plan.faces)
        enough.require_images(plan.faces.faces, {"train": 2})
        require_different(run, folder)
        require_balance(run, plan.faces)
        require_trainable(run, plan.faces, plan, initial_of(run, folder))
        say_doubts(run, [run], plan.faces, plan)

    def inputs(self, run: Run, folder: RunDir) -> dict[str, Any]:
        """Pixels; labels too where they are learned, asked for or balanced."""
        objective = registry.module("objectives", run.objective["name"]).Component
        labelled = objective.uses_labels or run.model.get("conditions") or run.data.balance
        found = outputs_of(folder, "pack.images", *(["pack.labels"] if labelled else []))
        model = registry.module("models", run.model["name"]).Component
        published = getattr(model, "pretrained", ())
        found |= initial_digest(run, folder)
        return {**found, "pretrained": list(published)} if published else found

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Train here, or start the ranks; in a job of several ranks this is the first of them."""
        if run.training.ranks == 1 or surroundings.world_size() > 1:
            self.follow(run, folder)
        else:
            owner = {rundir.OWNER_TOKEN: folder.token or ""}
            command = ["facefactory", "follow", str(folder.path), self.name]
            code = local.ranks(run.training.ranks, command, owner)
            if code == local.INTERRUPTED:
                raise Interrupted
            if code and stop():
                raise Interrupted(
                    f"a rank ended with exit code {code} before it could save, so the training "
                    "goes on from its newest checkpoint, if it has one"
                )
            if code:
                raise Failed(
                    f"a rank of the training ended with exit code {code}; its message stands above."
                )
        outputs, files = checkpoint_of(folder)
        return outputs, [*files, *scored_again(run, folder)]

    def follow(self, run: Run, folder: RunDir) -> None:
        """One rank."""
        surroundings.check_network()
        world = join(run.training)
        world.barrier()  # the first rank may have had stages to do before this one
        index = index_of(folder)
        task = task_of(run, folder, index, self.name)
        trained(dataclasses.replace(task, scorer=scorer_of(run, index)), world)

    def product(self, run: Run) -> Any:
        """The model's class."""
        return registry.module("models", run.model["name"]).Component

    def output(self, run: Run, what: str) -> str:
        """Of the last weights, or of the best snapshot."""
        require_kept(run)
        return f"{self.name}.{'best_' if run.snapshot == 'best' else ''}{what}"

    def average(self, run: Run) -> str:
        """The half-life of the first average [kimg], or its schedule, and which snapshot of it, if not the last."""
        from facefactory.schedule import word

        half_life = word(run.training.ema_half_lives_kimg[0])
        return half_life if run.snapshot == "last" else f"{half_life}, {run.snapshot} snapshot"

    def made(self, run: Run, folder: RunDir) -> Any:
        """The averaged networks."""
        require_kept(run)
        return network_of(run, folder, self.name, run.snapshot)

    def job(self, run: Run, folder: RunDir, options: Any = (), **more: Any) -> Job:
        """A process a rank."""
        return super().job(run, folder, options, processes=run.training.ranks, **more)
