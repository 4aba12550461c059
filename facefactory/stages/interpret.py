"""What each latent dimension of a trained model goes with."""

from facefactory.interpret import factors_of
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage, of
from facefactory.stages._networks import network_of
from facefactory.stages._results import results
from facefactory.stages._sets import index_of


class Component(Stage):
    """Leaves `results`: the digest of results.json."""

    sections = ("interpret.", "seed")
    needs = ("judge.judge", "pack.images", "pack.labels")
    late = True
    share = "scores"

    def asks(self, run: Run) -> tuple[str, ...]:
        """The model too."""
        return (of(run.subject).output(run, "checkpoint"), *self.needs)

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """The set has the labels that codes shall be held against."""
        if plan.faces is not None:
            factors_of(plan.faces.facts.labels, run.interpret)

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Look at its spaces."""
        from facefactory.interpret import claims
        from facefactory.report import latent

        target = folder.stage(self.name)
        model = of(run.subject).made(run, folder)
        judge = network_of(run, folder, "judge")
        found = claims.interpret(model, judge, index_of(folder), run.interpret, run.seed, target)
        outputs, files = results(target, found)
        return outputs, [*files, *latent.write(target, folder.path.name)]
