"""Scores of a trained model, with their protocol and pictures."""

from facefactory import registry
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage, outputs_of
from facefactory.stages._networks import network_of
from facefactory.stages._results import results
from facefactory.stages._sets import index_of, require_splits


class Component(Stage):
    """Leaves `results`: the digest of results.json."""

    sections = ("evaluation.", "seed")
    needs = ("train.checkpoint", "judge.judge", "pack.images", "pack.labels")
    late = True
    share = "scores"

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """The protocol and its splits exist."""
        registry.module("evaluation.protocols", run.evaluation.protocol)
        if plan.faces is not None:
            require_splits(run, plan.faces)

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Score it."""
        target = folder.stage(self.name)
        protocol = registry.module("evaluation.protocols", run.evaluation.protocol)
        model = network_of(run, folder, "train")
        judge = network_of(run, folder, "judge")
        digest = outputs_of(folder, "judge.judge")["judge.judge"]
        index = index_of(folder)
        found = protocol.evaluate(model, judge, digest, index, run.evaluation, run.seed, target)
        return results(target, {**found, "kimg": outputs_of(folder, "train.kimg")["train.kimg"]})
