"""What each stage of a run does: the work behind the names in pipeline.STAGES, but for a sweep's (studies.py)."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from facefactory import Failed, UserError, __version__, config, pipeline, registry, rundir, say, surroundings
from facefactory.cluster import local
from facefactory.data import Pack
from facefactory.pipeline import STAGES, Run, index_of, outputs_of
from facefactory.progress import Progress
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted, Outputs, generated, stop
from facefactory.training import Training

if TYPE_CHECKING:
    from facefactory.data.index import Index
    from facefactory.data.recipes import Plan
    from facefactory.ranks import World
    from facefactory.training.trainer import Task


def pack(run: Run, folder: RunDir) -> Outputs:
    """Pack the set, or find it packed already."""
    from facefactory.data import index, survey
    from facefactory.report import dataset

    if run.data.shards:
        found = index.read(Path(run.data.shards))
        found.verify(run.data.verify == "full")
    else:
        plan, target = planned(run, folder)
        try:  # where it is complete nothing is locked or written: such folders may be read-only
            found = index.read(target)
            found.verify(run.data.verify == "full")
        except UserError:
            found = _packed(run, plan, target)
    try:
        page = survey.place(found) / "report.html"
        if not page.exists() or page.stat().st_mtime < (found.folder / "index.json").stat().st_mtime:
            survey.survey(found)
            dataset.write(found.folder, page.parent)
        say(f"pack: what is in the set: {page}")
    except OSError as error:
        say(f"pack: there is no page of what is in the set: {error}")
    return {"folder": str(found.folder), "images": found.images_digest, "labels": found.labels_digest}, []


def _packed(run: Run, plan: "Plan", target: Path) -> "Index":
    """Pack a set, unless another process has just done it."""
    from facefactory.data import index, pack

    rundir.usable(target.parent, "paths.data")
    target.parent.mkdir(parents=True, exist_ok=True)
    with rundir.locked(target.with_suffix(".lock")):
        try:
            found = index.read(target)
            found.verify(run.data.verify == "full")
        except UserError as error:
            if (target / "index.json").exists():
                say(f"pack: {error} Packing it anew.")
            with _progress() as packed:
                found = pack.pack(plan, target, packed)
    return found


def planned(run: Run, folder: RunDir) -> tuple["Plan", Path]:
    """What is to be packed, by as many processes as Slurm gave CPUs, and the folder for it."""
    plan = pipeline.plan_of(run, folder)
    cpus = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
    options = dataclasses.replace(plan.options, workers=max(plan.options.workers, cpus))
    return dataclasses.replace(plan, options=options), Path(run.paths.data) / "packed" / plan.folder_name


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int, float], None]]:
    """A function that says how far packing is, and ends it between two shards if a stop was asked for: what is written stays."""

    def packed(done: int, total: int, left_s: float) -> None:
        bar.show(done, total, f"{timedelta(seconds=round(left_s))} left")
        if stop():
            raise Interrupted

    with contextlib.closing(Progress("pack", "shards")) as bar:
        yield packed


def pack_part(run: Run, folder: RunDir, part: tuple[int, int]) -> None:
    """One element's share of the shards, in an array of jobs that pack a set together; the stage `pack` ends the work."""
    from facefactory.data import pack

    plan, target = planned(run, folder)
    if not (target / "index.json").exists():
        rundir.usable(target.parent, "paths.data")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _progress() as packed:
            pack.shards(plan, target, packed, part)


def judge(run: Run, folder: RunDir) -> Outputs:
    """Find this set's judge beside the packed sets, or train it: once in folds for its own scores, once for use."""
    from facefactory import checkpoint

    index = index_of(folder)
    made_of = [STAGES["judge"].config(run), index.images_digest, index.labels_digest, __version__]
    home = Path(run.paths.data) / "judges" / config.digest(made_of)[:16]
    facts = rundir.read_json(home / "results.json")
    if facts is None:  # only then is anything locked or written: such folders may be read-only
        rundir.usable(home, "paths.data")
        home.mkdir(parents=True, exist_ok=True)
        with rundir.locked(home / "lock"):
            facts = rundir.read_json(home / "results.json")
            if facts is None:
                facts = _train_judge(run, index, home)
                rundir.write_json(home / "results.json", facts)
    newest = checkpoint.latest(home / "judge" / "checkpoints")
    if newest is None:
        raise UserError(f"the judge in {home} lost its checkpoint; remove that folder, and it is trained again.")
    target = folder.stage("judge") / "results.json"
    rundir.write_json(target, {**facts, "folder": str(home)})
    return {"judge": facts["judge"], "path": str(newest)}, [target]


def _train_judge(run: Run, index: "Index", home: Path) -> dict[str, Any]:
    """Out-of-fold scores from `folds` classifiers, then the judge itself, trained on the train split."""
    import numpy as np
    import torch

    from facefactory import checkpoint
    from facefactory.data import labels
    from facefactory.data.loader import Shards
    from facefactory.evaluation import features
    from facefactory.evaluation import judge as judging
    from facefactory.evaluation.protocols import generator
    from facefactory.training import trainer

    index.require_different("train")
    world = join(run.judge.training)
    schema, group = index.content["labels"], index.content["group"]
    splits = list(index.content["splits"])
    everyone = Shards(index, splits)
    groups = labels.people(everyone.table, group)
    fold = judging.folds(groups, run.judge.folds)

    def fit(name: str, shards: Shards, kimg: float) -> Any:
        (home / name).mkdir(exist_ok=True)
        task = trainer.Task(
            model=run.judge.model,
            objective=run.judge.objective,
            shards=shards,
            options=dataclasses.replace(run.judge.training, total_kimg=kimg),
            seed=0,  # no seed of a run: it is shared by all
            folder=home / name,
            identity=config.digest([STAGES["judge"].config(run), name, index.labels_digest]),
            label=name,
            should_stop=stop,
        )
        outcome, trained = trainer.fit(task, world)
        if outcome == "interrupted":
            raise Interrupted
        return trained

    parts: dict[str, torch.Tensor] = {}
    for number in range(run.judge.folds):
        inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        average = fit(f"fold-{number}", Shards(index, splits, inside), run.judge.fold_kimg).average
        for name, values in features.logits(average, everyone, outside).items():
            parts.setdefault(name, torch.zeros(len(everyone), values.shape[1]))[torch.from_numpy(outside)] = values
    trained = fit("judge", Shards(index, "train"), run.judge.training.total_kimg)
    extract = features.of_judge(trained.average)
    options = run.evaluation
    real, held_out = (Shards(index, split).some(options.reals) for split in (options.reference, options.held_out))
    generator.scale(extract, real, held_out, "judge")  # refuses a judge before a sweep trusts it
    return {
        "judge": checkpoint.digest(trained.state()),
        "feature_dim": extract(everyone.images(np.arange(1))).shape[1],
        "folds": run.judge.folds,
        "people": len(np.unique(groups)),
        "images": len(everyone),
        "labels": judging.scores(parts, everyone.table, schema, group),
    }


def task_of(run: Run, folder: RunDir, index: "Index", label: str) -> "Task":
    """The training that a config tree describes, in the stage folder `train`."""
    from facefactory.data.loader import Shards
    from facefactory.training.trainer import Task

    def samples(model: Any, clock: int) -> None:
        from facefactory import conditions
        from facefactory.evaluation.protocols import generator

        if hasattr(model, "sample"):
            asked = conditions.asked(model, shards, generator.SHOWN)
            images = generator.draw(model, asked, run.seed, "evaluation")
            with rundir.atomic(folder.stage("train") / "samples" / f"{clock:012d}.png") as temporary:
                generator.grid(images, 8).save(temporary, "PNG")

    index.require_different("train")
    shards = Shards(index, "train")
    return Task(
        model=run.model,
        objective=run.objective,
        shards=shards,
        options=run.training,
        seed=run.seed,
        folder=folder.stage("train"),
        identity=config.digest(STAGES["train"].config(run, resumes=False)),
        label=label,
        data=run.data,
        guard=folder.guard,
        should_stop=stop,
        draw_samples=samples,
    )


def join(options: Training) -> "World":
    """This process among the ranks, with its device, threads and arithmetic set."""
    from facefactory import ranks

    device = ranks.device_of(options.device, options.threads)
    ranks.set_arithmetic(options.deterministic, options.tf32)
    return ranks.join(device)


def train_rank(run: Run, folder: RunDir, label: str = "train") -> None:
    """One rank of the train stage."""
    from facefactory.training import trainer

    surroundings.check_network()
    world = join(run.training)
    world.barrier()  # rank 0 may have had stages to do before this one
    outcome, _ = trainer.fit(task_of(run, folder, index_of(folder), label), world)
    if outcome == "interrupted":
        raise Interrupted


def train(run: Run, folder: RunDir) -> Outputs:
    """Train here, or in as many ranks as asked for."""
    if run.training.ranks == 1 or "WORLD_SIZE" in os.environ:  # the second: this is rank 0 already
        train_rank(run, folder)
    else:
        owner = {rundir.OWNER_TOKEN: folder.token or ""}
        code = local.ranks(run.training.ranks, ["facefactory", "rank", str(folder.path)], owner)
        if stop() or code == local.INTERRUPTED:
            raise Interrupted
        if code:
            raise Failed(f"a rank of the training ended with exit code {code}; its message stands above.")
    return checkpoint_of(folder)


def checkpoint_of(folder: RunDir) -> Outputs:
    """Digest, clock and path of the newest checkpoint."""
    from facefactory import checkpoint

    newest = checkpoint.latest(folder.stage("train") / "checkpoints")
    assert newest is not None
    found = checkpoint.load(newest)
    relative = str(newest.relative_to(folder.path))
    return {"checkpoint": checkpoint.digest(found), "kimg": found.clock / 1000, "path": relative}, [newest]


def network_of(run: Run, folder: RunDir, stage: str) -> Any:
    """The averaged networks that the stage `train` or `judge` made, where this process computes."""
    from facefactory import checkpoint, ranks

    path = folder.path / outputs_of(folder, f"{stage}.path")[f"{stage}.path"]
    return checkpoint.rebuild(path)[0].to(ranks.device_of(run.training.device, run.training.threads))


def _results(folder: Path, found: dict[str, Any]) -> Outputs:
    """Write results.json beside the pictures of a stage."""
    rundir.write_json(folder / "results.json", found)
    return {"results": rundir.sha256(folder / "results.json")}, [folder / "results.json", *sorted(folder.glob("*.png"))]


def evaluate(run: Run, folder: RunDir) -> Outputs:
    """Score the trained model."""
    target = folder.stage("evaluate")
    protocol = registry.module("evaluation.protocols", run.evaluation.protocol)
    model, judge = network_of(run, folder, "train"), network_of(run, folder, "judge")
    digest = outputs_of(folder, "judge.judge")["judge.judge"]
    found = protocol.evaluate(model, judge, digest, index_of(folder), run.evaluation, run.seed, target)
    return _results(target, {**found, "kimg": outputs_of(folder, "train.kimg")["train.kimg"]})


def interpret(run: Run, folder: RunDir) -> Outputs:
    """Look at what each latent dimension goes with."""
    from facefactory.interpret import claims

    target = folder.stage("interpret")
    model, judge = network_of(run, folder, "train"), network_of(run, folder, "judge")
    return _results(target, claims.interpret(model, judge, index_of(folder), run.interpret, run.seed, target))


def generate(run: Run, folder: RunDir) -> Outputs:
    """Draw images from the averaged networks into PNG files `00000000.png` …, or into shards of one split `train`."""
    import torch

    from facefactory import conditions
    from facefactory.data import pack, pixels, recipe_file, recipes
    from facefactory.data.loader import Shards
    from facefactory.evaluation.protocols import generator

    model = network_of(run, folder, "train")
    if not hasattr(model, "sample"):
        raise UserError(f"{run.model['name']} draws no images; give run=… of a GAN or a VAE.")
    target, made = generated(run, folder)
    rundir.write_json(target / "generate.json", made)
    pictures = target if run.generate.format == "png" else folder.stage("generate") / "png"
    pictures.mkdir(parents=True, exist_ok=True)
    asked = torch.empty(run.generate.images, 0)
    if getattr(model, "conditions", ()):
        asked = conditions.asked(model, Shards(index_of(folder), "train"), run.generate.images)
    drawn = itertools.chain.from_iterable(generator.draws(model, asked, run.seed, "generate"))
    for number, image in enumerate(drawn):
        pixels.write(generator.grid(image[None], 1), pictures / f"{number:08d}.png")
    if run.generate.format == "shards":
        color: Literal["gray", "rgb"] = "gray" if image.shape[2] == 1 else "rgb"
        options = Pack(root=str(pictures), resolution=image.shape[0], color=color, shard_images=run.pack.shard_images)
        given = {"name": "generated", "source": "folder", "splits": {"train": 1.0}, "origin": f"run {folder.path.name}"}
        pack.pack(recipes.plan(options, recipe_file.whole(given, target)), target)
    say(f"generate: {run.generate.images} images in {target}")
    return {"images": run.generate.images, "folder": str(target)}, []


def report(run: Run, folder: RunDir) -> Outputs:
    """One page of all that the run's files tell."""
    from facefactory.report import pages

    below = [path.parent for pattern in ("sweep/trials/*", "finalists/*") for path in folder.path.glob(f"{pattern}/config.yaml")]
    return {}, pages.write(folder.path, {path.name: pipeline.repeat_command(path, pipeline.load_run(path)) for path in below})
