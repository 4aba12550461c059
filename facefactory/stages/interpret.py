"""What each latent dimension of a trained model goes with."""

from pathlib import Path
from typing import Any

from facefactory import UserError, registry, rundir
from facefactory.interpret import combinations_of, factors_of
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage, of, outputs_of
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
            combinations_of(plan.faces.facts.labels, run.interpret)
        _others(run)

    def inputs(self, run: Run, folder: RunDir) -> dict[str, Any]:
        """What other runs have found too."""
        found = super().inputs(run, folder)
        for other in _others(run):
            digests = outputs_of(other, f"{self.name}.results")
            found |= {f"{other.path.name} {name}": digest for name, digest in digests.items()}
        return found

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Look at its spaces."""
        from facefactory.data.sets import pixels
        from facefactory.interpret import claims, witnesses
        from facefactory.report import latent

        target = folder.stage(self.name)
        model = of(run.subject).made(run, folder)
        judge = network_of(run, folder, "judge")
        others = {
            str(other.path): rundir.read_results(other.stage(self.name)) for other in _others(run)
        }
        index = index_of(folder)
        network = witnesses.network_here(index, pixels.like(judge).device)
        options = run.interpret
        found = claims.interpret(model, judge, index, options, run.seed, target, others, network)
        outputs, files = results(target, found)
        return outputs, [*files, *latent.write(target, folder.path.name)]


def _others(run: Run) -> list[RunDir]:
    """The runs whose dimensions are looked for; UserError: one is none, or was never interpreted."""
    found = []
    for name in run.interpret.runs:
        path = Path(name)
        if not (path / "config.yaml").is_file():
            beside = sorted(one.parent.name for one in path.parent.glob("*/config.yaml"))
            raise registry.unknown(
                f"interpret.runs: {path.name} is no run folder in {path.parent}", path.name, beside
            )
        if not rundir.read_results(path / "interpret").get("claims"):
            raise UserError(
                f"interpret.runs: {path.name} has no claims yet; python jobs/interpret.py run={path.name} makes them."
            )
        found.append(RunDir(path))
    return found
