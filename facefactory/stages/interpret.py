"""What each latent dimension of a trained model goes with."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facefactory import UserError, registry, rundir, say
from facefactory.cluster.launch import Job
from facefactory.interpret import combinations_of, factors_of
from facefactory.interpret.sharing import Pending, Sharing
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage, of, on_gpu, outputs_of
from facefactory.stages._networks import network_of
from facefactory.stages._results import results
from facefactory.stages._sets import index_of


class Component(Stage):
    """Leaves `results`: the digest of results.json."""

    sections = ("interpret.", "seed")
    needs = ("judge.judge", "pack.images", "pack.labels")
    late = True
    share = "scores"

    def suits(self, run: Run) -> bool:
        """Classifiers draw no faces to look at."""
        return hasattr(of(run.subject).product(run), "sample")

    def asks(self, run: Run) -> tuple[str, ...]:
        """The model too."""
        return (of(run.subject).output(run, "checkpoint"), *self.needs)

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """There are faces to look at, and the set has the labels that codes shall be held against."""
        if not self.suits(run):
            raise UserError(
                "interpret: this model draws no faces to look at; give run=… of a GAN or a VAE."
            )
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
        """Look at its spaces; what other jobs have made of it is used."""
        from facefactory.report import latent

        target = folder.stage(self.name)
        place = self._parts(run, folder)
        outputs, files = results(target, self._found(run, folder, Sharing(place)))
        written = [*files, *latent.write(target, folder.path.name)]
        shutil.rmtree(place, ignore_errors=True)
        return outputs, written

    def part(self, run: Run, folder: RunDir, arguments: Sequence[str]) -> None:
        """`K/N`: every N-th chunk of faces from the K-th, and, where all faces are there, every N-th walk."""
        number, _, parts = arguments[0].partition("/")
        sharing = Sharing(self._parts(run, folder), int(number), int(parts))
        try:
            self._found(run, folder, sharing)
        except Pending as rest:
            say(f"{self.name}: part {arguments[0]} is done; {rest}")

    def jobs(self, run: Run, folder: RunDir, options: Sequence[str]) -> list[Job]:
        """Where several jobs share the work, an array for the faces and one for the walks, and a job that ends the work."""
        whole = self.job(run, folder, options)
        tasks = run.interpret.tasks
        if tasks == 1:
            return [whole]
        home = str(folder.path)
        parts = [["part", home, self.name, f"{one}/{tasks}", *options] for one in range(tasks)]
        gpus = on_gpu(run, self.kind)
        arrays = [
            Job(name, parts, self.kind, gpus, sized_by="interpret.tasks")
            for name in ("faces", "walks")
        ]
        return [*arrays, whole]

    def _parts(self, run: Run, folder: RunDir) -> Path:
        """Where what is shared lies, of this config and these inputs."""
        made_of = [self.config(run), self.inputs(run, folder)]
        return folder.path / "private" / f"{self.name}-{rundir.digest(made_of)[:16]}"

    def _found(self, run: Run, folder: RunDir, sharing: Sharing) -> dict[str, Any]:
        """What is said of its spaces; Pending: as `claims.interpret`."""
        from facefactory.data.sets import pixels
        from facefactory.interpret import claims, witnesses

        judge = network_of(run, folder, "judge")
        facts = rundir.read_results(folder.stage("judge"))
        index = index_of(folder)
        others = {
            str(other.path): rundir.read_results(other.stage(self.name)) for other in _others(run)
        }
        return claims.interpret(
            of(run.subject).made(run, folder),
            judge,
            index,
            run.interpret,
            run.seed,
            folder.stage(self.name),
            others,
            witnesses.network_here(index, pixels.like(judge).device),
            witnesses.out_of_fold(facts["labels"], index.content.labels),
            sharing,
        )


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
