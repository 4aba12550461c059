"""Scores of a trained model, with their protocol and pictures."""

import dataclasses

from facefactory.evaluation import subjects
from facefactory.run import Run, headline_of
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage, of, outputs_of
from facefactory.stages._networks import likelihood_of
from facefactory.stages._results import results
from facefactory.stages._scores import (
    context_of,
    judge_needed,
    require_scorable,
    say_protocols,
)
from facefactory.stages._sets import index_of, require_splits


class Component(Stage):
    """Leaves `results`: the digest of results.json."""

    sections = ("evaluation.", "seed")
    needs = ("pack.images", "pack.labels")
    late = True
    share = "scores"

    def asks(self, run: Run) -> tuple[str, ...]:
        """What is scored, and the judge, where the protocol asks for one."""
        return (of(run.subject).output(run, "checkpoint"), *self.needs, *judge_needed(run))

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """The protocol and its splits exist, and it is one for such a model."""
        headline_of(run)
        require_scorable(run)
        if plan.faces is not None:
            require_splits(run, plan.faces)

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Score it."""
        from facefactory.evaluation import autoencoders

        target = folder.stage(self.name)
        subject = of(run.subject)
        model = subject.made(run, folder)
        context = context_of(run, folder, index_of(folder), headline_of(run))
        if autoencoders.reconstructs(model):
            likelihood = likelihood_of(run, folder, model)
            context = dataclasses.replace(context, likelihood=likelihood)
        found = subjects.file(run.evaluation.scoring).full(model, context, target)
        say_protocols(found)
        clock = subject.output(run, "kimg")
        kimg = outputs_of(folder, clock)[clock]
        return results(target, {**found, "kimg": kimg, "snapshot": run.snapshot})
