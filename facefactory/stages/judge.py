"""The set's own classifier: scored out of fold, trained once per set, shared by all runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefactory import UserError, __version__, rundir
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.runner import stop
from facefactory.stages import Outputs, Plan, Stage
from facefactory.stages._networks import device_of, require_trainable, trained
from facefactory.stages._sets import index_of, require_different, require_splits

if TYPE_CHECKING:
    from facefactory.data.sets.index import Index
    from facefactory.data.sets.loader import Shards


class Component(Stage):
    """Leaves `judge` and `path`: digest of its weights, and its newest checkpoint beside the packed sets."""

    sections = ("judge.",)
    needs = ("pack.images", "pack.labels")
    optional = True
    late = True
    share = "prepare"
    job_name = "prepare"

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """It can be trained and scored on this set."""
        import numpy as np

        from facefactory.data.packing import enough
        from facefactory.data.sets import labels

        if run.judge.training.ranks != 1:
            ranks = run.judge.training.ranks
            raise UserError(
                f"judge.training.ranks={ranks}; a judge is trained by one process, give 1."
            )
        if plan.faces is None:
            return
        require_splits(run, plan.faces)
        # its distances compare pairs of images
        compared = ("train", run.evaluation.reference, run.evaluation.held_out)
        enough.require_images(plan.faces.faces, dict.fromkeys(compared, 2))
        require_different(run, folder)
        people = len(np.unique(labels.people(plan.faces.faces.table, plan.faces.faces.group)))
        if run.judge.folds > people:
            raise UserError(
                f"judge.folds={run.judge.folds}, but the set has {people} people; give at most as many."
            )
        require_trainable(run.judge, plan.faces, plan)

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Find it beside the packed sets, or train it there."""
        from facefactory import checkpoint

        index = index_of(folder)
        made_of = [self.config(run), index.images_digest, index.labels_digest, __version__]
        home = Path(run.paths.data) / "judges" / rundir.digest(made_of)[:16]
        facts = rundir.read_sealed(home / "results.json")
        if facts is None:  # only then is anything locked or written: such folders may be read-only
            facts = self._made(run, index, home)
        newest = checkpoint.latest(home / "judge" / "checkpoints")
        if newest is None:
            raise UserError(
                f"the judge in {home} lost its checkpoint; remove that folder, and it is trained again."
            )
        target = folder.stage(self.name) / "results.json"
        rundir.write_json(target, {**facts, "folder": str(home)})
        return {"judge": facts["judge"], "path": str(newest)}, [target]

    def _made(self, run: Run, index: Index, home: Path) -> dict[str, Any]:
        """Train it, unless another process has just done it."""
        rundir.usable(home, "paths.data")
        home.mkdir(parents=True, exist_ok=True)
        with rundir.locked(home / "lock"):
            facts = rundir.read_sealed(home / "results.json")
            if facts is None:
                facts = self._train(run, index, home)
                rundir.write_sealed(home / "results.json", facts)
        return facts

    def _train(self, run: Run, index: Index, home: Path) -> dict[str, Any]:
        """Out-of-fold scores from `folds` classifiers, then the judge itself, trained on the train split."""
        import numpy as np
        import torch

        from facefactory import checkpoint, ranks
        from facefactory.data.sets import labels
        from facefactory.data.sets.loader import Shards
        from facefactory.evaluation import extractors, features
        from facefactory.evaluation import judge as judging
        from facefactory.training.trainer import Task

        index.require_different("train")
        # by this process alone, also where it is a rank among others
        world = ranks.alone(device_of(run.judge.training))
        schema, group = index.content.labels, index.content.group
        splits = list(index.content.splits)
        everyone = Shards(index, splits)
        groups = labels.people(everyone.table, group)
        fold = judging.folds(groups, run.judge.folds)

        def fit(name: str, shards: Shards, kimg: float) -> Any:
            (home / name).mkdir(exist_ok=True)
            task = Task(
                model=run.judge.model,
                objective=run.judge.objective,
                shards=shards,
                options=dataclasses.replace(run.judge.training, total_kimg=kimg),
                seed=0,  # no seed of a run: it is shared by all
                folder=home / name,
                identity=rundir.digest([self.config(run), name, index.labels_digest]),
                label=name,
                should_stop=stop,
            )
            return trained(task, world)

        # each person is judged once by a classifier that never saw them
        parts: dict[str, torch.Tensor] = {}
        for number in range(run.judge.folds):
            inside = np.flatnonzero(fold != number)
            outside = np.flatnonzero(fold == number)
            average = fit(
                f"fold-{number}", Shards(index, splits, inside), run.judge.fold_kimg
            ).average
            for name, values in features.logits(average, everyone, outside).items():
                whole = parts.setdefault(name, torch.zeros(len(everyone), values.shape[1]))
                whole[torch.from_numpy(outside)] = values

        # the one that all runs share
        done = fit("judge", Shards(index, "train"), run.judge.training.total_kimg)
        digest = checkpoint.digest(done.state())
        eye = extractors.file("judge").load(
            index.size, world.device, extractors.Judge(done.average, digest)
        )
        return {
            "judge": digest,
            "feature_dim": features.sample(eye, everyone.images(np.arange(1))).shape[1],
            "folds": run.judge.folds,
            "people": len(np.unique(groups)),
            "images": len(everyone),
            "labels": judging.scores(parts, everyone.table, schema, group),
        }
