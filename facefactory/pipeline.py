"""READ FIRST: the config tree `Run`, the stages, and how a job runs them.

A stage reads the files of the stages before it and adds its own; DONE.json says of which config and inputs they speak.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from facefactory import UserError, config, rundir, sweep
from facefactory.cluster.local import INTERRUPTED
from facefactory.config import key, section
from facefactory.data import Data, Pack
from facefactory.evaluation import Evaluation
from facefactory.interpret import Interpret
from facefactory.rundir import RunDir
from facefactory.training import Training

if TYPE_CHECKING:
    from facefactory.data.index import Index
    from facefactory.training.trainer import Task

JOBS = Path(__file__).parents[1] / "jobs"


@dataclass(frozen=True)
class Paths:
    """Where things lie."""

    runs: str = key("runs", "folder of the run folders", identity=False)
    data: str = key("shards", "folder of packed sets and judges", identity=False)


def _judge_training() -> Training:
    return Training(total_kimg=35.0, batch_size=32, lr=1e-3, betas=[0.9, 0.99], ema_half_life_kimg=2.0, sample_kimg=0.0)


@dataclass(frozen=True)
class Judge:
    """The classifier whose features and verdicts score everything else; one per dataset, shared by all runs."""

    model: dict[str, Any] = key({"name": "classifier/convnet"}, "network of the judge")
    objective: dict[str, Any] = key({"name": "classification"}, "its loss")
    training: Training = field(default_factory=_judge_training)
    folds: int = key(5, "parts of the out-of-fold check, cut between people", low=2)
    fold_kimg: float = key(20.0, "budget of each fold, thousands of images", low=0.001)


@dataclass(frozen=True)
class Generate:
    """What jobs/generate.py draws."""

    images: int = key(64, "how many", low=1)
    out: str | None = key(None, "folder for them; default <run>/generate/images")
    format: Literal["png", "shards"] = key("png", "PNG files, or shards as jobs/pack_shards.py makes them")


@dataclass(frozen=True)
class Run:
    """The whole config tree."""

    run: str | None = key(None, "name of the run folder; default: job, preset and a digest of the config", identity=False)
    seed: int = key(0, "seed of all randomness", low=0)
    cluster: Literal["auto", "local"] = key(
        "auto", "auto: this machine, unless it has sbatch; local: this machine", identity=False
    )
    changed: Literal["refuse", "accept"] = key("refuse", "a run that exists with another config", identity=False)
    dry_run: bool = key(False, "print plan and config, start nothing", identity=False)
    paths: Paths = section(Paths)
    pack: Pack = section(Pack)
    data: Data = section(Data)
    model: dict[str, Any] = key({"name": "gan/dcgan"}, "network and its options; --help model.name=… lists them")
    objective: dict[str, Any] = key({"name": "adversarial"}, "what is minimised; --help objective.name=… lists its options")
    training: Training = section(Training)
    judge: Judge = section(Judge)
    evaluation: Evaluation = section(Evaluation)
    interpret: Interpret = section(Interpret)
    sweep: sweep.Sweep = section(sweep.Sweep)
    generate: Generate = section(Generate)


class Interrupted(Exception):
    """A stop was asked for; what was done is saved."""


class Stop:
    """A flag that stop signals set; the training loop reads it once an iteration."""

    asked = False

    def __call__(self) -> bool:
        return self.asked

    def listen(self) -> None:
        """Set the flag on SIGINT, SIGTERM and SIGUSR2; the second signal ends the process at once."""

        def handle(number: int, frame: object) -> None:
            self.asked = True
            signal.signal(number, signal.SIG_DFL)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, handle)


stop = Stop()


# -- stages ----------------------------------------------------------------------------------------------------------

Outputs = tuple[dict[str, Any], list[Path]]  # what later stages depend on, and the files that must be there


@dataclass(frozen=True)
class Stage:
    """A step of a chain.

    `sections`: the config keys it depends on; `inputs`: digests of what it reads; `work` does it; `valid` may find
    that what it left earlier is damaged.
    """

    sections: tuple[str, ...]
    inputs: Callable[[Run, RunDir], dict[str, Any]]
    work: Callable[[Run, RunDir], Outputs]
    valid: Callable[[Run, RunDir], bool] = lambda run, folder: True

    def config(self, run: Run, *, resumes: bool = True) -> dict[str, Any]:
        """The keys this stage depends on."""
        flat = config.flat(run, resumes=resumes)
        return {name: value for name, value in flat.items() if name.startswith(self.sections)}


def outputs_of(folder: RunDir, *names: str) -> dict[str, Any]:
    """`stage.output` -> value from the DONE files of earlier stages."""
    found = {}
    for name in names:
        stage, output = name.split(".")
        done = folder.done(stage)
        if done is None:
            raise UserError(
                f"{folder.path.name} has no finished stage {stage!r}; run the job that makes it first (train_… or sweep_…)."
            )
        found[name] = done["outputs"][output]
    return found


def index_of(folder: RunDir) -> Index:
    """The packed set of a run, checked."""
    from facefactory.data import index

    found = index.read(Path(outputs_of(folder, "pack.folder")["pack.folder"]))
    found.verify()
    return found


def pack_inputs(run: Run, folder: RunDir) -> dict[str, Any]:
    """Digests of recipe, labels and images, or of the index of shards that were packed elsewhere."""
    from facefactory.data import index, pack

    if run.data.shards:
        return {"index": config.digest(index.read(Path(run.data.shards)).content)}
    return dict(pack.plan(run.pack).fingerprint)


def pack_stage(run: Run, folder: RunDir) -> Outputs:
    """Pack the set, or find it packed already."""
    from facefactory.data import index, pack

    if run.data.shards:
        found = index.read(Path(run.data.shards))
        found.verify(run.data.verify == "full")
    else:
        plan = pack.plan(run.pack)
        target = Path(run.paths.data) / "packed" / plan.folder_name
        try:
            found = index.read(target)
            found.verify(run.data.verify == "full")
        except UserError as error:
            if (target / "index.json").exists():
                say(f"pack: {error} Packing it anew.")
            found = pack.pack(plan, target, lambda done, total: say(f"pack: {done} of {total} shards"))
    return {"folder": str(found.folder), "images": found.images_digest, "labels": found.labels_digest}, []


def pack_valid(run: Run, folder: RunDir) -> bool:
    """Whether the shards are still what index.json says; damaged ones are named, and packed anew if we packed them."""
    try:
        index_of(folder)
    except UserError as error:
        if run.data.shards:
            raise
        say(f"pack: {error}")
        return False
    return True


def train_inputs(run: Run, folder: RunDir) -> dict[str, Any]:
    """Pixels; labels too where they are learned or balanced."""
    from facefactory import registry

    labelled = registry.module("objectives", run.objective["name"]).Component.uses_labels or run.data.balance
    return outputs_of(folder, "pack.images", *(["pack.labels"] if labelled else []))


def training_task(run: Run, folder: RunDir, index: Index, label: str = "train") -> Task:
    """The training that a config tree describes, in the stage folder `train`."""
    from facefactory import registry
    from facefactory.data.loader import Shards
    from facefactory.training.trainer import Task

    def samples(model: Any, clock: int) -> None:
        from facefactory.evaluation.protocols import generator

        if hasattr(model, "sample"):
            target = folder.stage("train") / "samples" / f"{clock:012d}.png"
            images = generator.draw(model, generator.SHOWN, run.seed, "evaluation")
            with rundir.atomic(target) as temporary:
                generator.grid(images, 8).save(temporary, "PNG")

    return Task(
        model=run.model,
        objective=registry.build("objectives", run.objective, index.content["labels"]),
        shards=Shards(index, "train"),
        images=index.images_digest,
        options=run.training,
        seed=run.seed,
        folder=folder.stage("train"),
        identity=config.digest(STAGES["train"].config(run, resumes=False)),
        label=label,
        flip=run.data.flip,
        balance=run.data.balance,
        changed=run.data.changed,
        guard=folder.guard,
        should_stop=stop,
        draw_samples=samples,
    )


def train_rank(run: Run, folder: RunDir, label: str = "train") -> None:
    """One rank of the train stage."""
    from facefactory.training import distributed, trainer

    world = distributed.join(run.training)
    outcome, _ = trainer.fit(training_task(run, folder, index_of(folder), label), world)
    if outcome == "interrupted":
        raise Interrupted


def train_outputs(folder: RunDir) -> Outputs:
    """Digest and clock of the newest checkpoint."""
    from facefactory import checkpoint

    newest = checkpoint.latest(folder.stage("train") / "checkpoints")
    assert newest is not None
    found = checkpoint.load(newest)
    relative = str(newest.relative_to(folder.path))
    return {"checkpoint": checkpoint.digest(found), "kimg": found.clock / 1000, "path": relative}, [newest]


def train_stage(run: Run, folder: RunDir) -> Outputs:
    """Train here, or in as many ranks as asked for."""
    from facefactory.cluster import local

    if run.training.ranks == 1:
        train_rank(run, folder)
    else:
        owner = {rundir.OWNER_TOKEN: folder.token or "", "OMP_NUM_THREADS": str(run.training.threads)}
        code = local.ranks(run.training.ranks, ["facefactory", "rank", str(folder.path)], owner)
        if stop() or code == INTERRUPTED:
            raise Interrupted
        if code:
            raise RuntimeError(f"a rank of the training ended with exit code {code}; its message stands above.")
    return train_outputs(folder)


def judge_stage(run: Run, folder: RunDir) -> Outputs:
    """Find this set's judge beside the packed sets, or train it: once in folds for its own scores, once for use."""
    from facefactory import __version__, checkpoint

    index = index_of(folder)
    made_of = [STAGES["judge"].config(run), index.images_digest, index.labels_digest, __version__]
    home = Path(run.paths.data) / "judges" / config.digest(made_of)[:16]
    home.mkdir(parents=True, exist_ok=True)
    with rundir.locked(home / "lock"):
        if not (home / "results.json").exists():
            rundir.write_json(home / "results.json", train_judge(run, index, home))
    facts = rundir.read_json(home / "results.json")
    newest = checkpoint.latest(home / "judge" / "checkpoints")
    if newest is None:
        raise UserError(f"the judge in {home} lost its checkpoint; remove that folder, and it is trained again.")
    target = folder.stage("judge") / "results.json"
    rundir.write_json(target, {**facts, "folder": str(home)})
    return {"judge": facts["judge"], "path": str(newest)}, [target]


def train_judge(run: Run, index: Index, home: Path) -> dict[str, Any]:
    """Out-of-fold scores from `folds` classifiers, then the judge itself, trained on the train split."""
    import numpy as np
    import torch

    from facefactory import checkpoint, registry
    from facefactory.data import labels, pixels
    from facefactory.data.loader import Shards
    from facefactory.evaluation import features
    from facefactory.evaluation import judge as judging
    from facefactory.evaluation.protocols import generator
    from facefactory.training import distributed, trainer

    world, schema, group = distributed.join(run.judge.training), index.content["labels"], index.content["group"]
    everyone = Shards(index, list(index.content["splits"]))
    groups = labels.people(everyone.table, group)
    fold = judging.folds(groups, run.judge.folds)

    def fit(name: str, shards: Shards, kimg: float) -> Any:
        options = dataclasses.replace(run.judge.training, total_kimg=kimg)
        objective = registry.build("objectives", run.judge.objective, schema)
        identity = config.digest([run.judge.model, run.judge.objective, dataclasses.asdict(options), index.labels_digest])
        (home / name).mkdir(exist_ok=True)
        task = trainer.Task(
            run.judge.model,
            objective,
            shards,
            index.images_digest,
            options,
            run.seed,
            home / name,
            identity,
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
        trained = fit(f"fold-{number}", Shards(index, list(index.content["splits"]), inside), run.judge.fold_kimg)
        with torch.inference_mode():
            logits = trained.average.logits(pixels.to_model(everyone.images(outside)).to(features.like(trained.average)))
        for name, values in logits.items():
            parts.setdefault(name, torch.zeros(len(everyone), values.shape[1]))[torch.from_numpy(outside)] = values.cpu()
    trained = fit("judge", Shards(index, "train"), run.judge.training.total_kimg)
    real, held_out = Shards(index, run.evaluation.reference).images(), Shards(index, run.evaluation.held_out).images()
    generator.scale(features.of_judge(trained.average), real, held_out, "judge")  # refuses a judge before a sweep trusts it
    return {
        "judge": checkpoint.digest(trained.state()),
        "feature_dim": features.of_judge(trained.average)(everyone.images(np.arange(1))).shape[1],
        "folds": run.judge.folds,
        "people": len(np.unique(groups)),
        "images": len(everyone),
        "labels": judging.scores(parts, everyone.table, schema, group),
    }


def trained_and_judged(folder: RunDir) -> tuple[Any, Any, str]:
    """The run's averaged networks, the judge's, and the judge's digest."""
    from facefactory import checkpoint

    found = outputs_of(folder, "train.path", "judge.path", "judge.judge")
    model, _ = checkpoint.rebuild(folder.path / found["train.path"])
    judge, _ = checkpoint.rebuild(Path(found["judge.path"]))
    return model, judge, found["judge.judge"]


def evaluate_stage(run: Run, folder: RunDir) -> Outputs:
    """Score the trained model."""
    from facefactory import registry

    target = folder.stage("evaluate")
    protocol = registry.module("evaluation.protocols", run.evaluation.protocol)
    found = protocol.evaluate(*trained_and_judged(folder), index_of(folder), run.evaluation, run.seed, target)
    found["kimg"] = outputs_of(folder, "train.kimg")["train.kimg"]
    rundir.write_json(target / "results.json", found)
    return {"results": rundir.sha256(target / "results.json")}, [target / "results.json", *sorted(target.glob("*.png"))]


def interpret_stage(run: Run, folder: RunDir) -> Outputs:
    """Look at what each latent dimension goes with."""
    from facefactory.interpret import matrix

    target, family = folder.stage("interpret"), run.model["name"].split("/")[0]
    model, judge, _ = trained_and_judged(folder)
    found = matrix.interpret(family, model, judge, index_of(folder), run.interpret, run.seed, target)
    rundir.write_json(target / "results.json", found)
    return {"results": rundir.sha256(target / "results.json")}, [target / "results.json", target / "traversals.png"]


def generated_folder(run: Run, folder: RunDir) -> Path:
    """Where generated images go."""
    return Path(run.generate.out) if run.generate.out else folder.stage("generate") / "images"


def generate_stage(run: Run, folder: RunDir) -> Outputs:
    """Draw images from the averaged networks into PNG files `00000000.png` …, or into shards of one split `train`."""
    import pandas as pd

    from facefactory import checkpoint
    from facefactory.data import pack
    from facefactory.evaluation.protocols import generator

    model, _ = checkpoint.rebuild(folder.path / outputs_of(folder, "train.path")["train.path"])
    if not hasattr(model, "sample"):
        raise UserError(f"{run.model['name']} draws no images; give run=… of a GAN or a VAE.")
    target = generated_folder(run, folder)
    pictures = target if run.generate.format == "png" else folder.stage("generate") / "png"
    pictures.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for chunk in generator.draws(model, run.generate.images, run.seed, "generate"):
        for image in chunk:
            path = pictures / f"{len(files):08d}.png"
            generator.grid(image[None], 1).save(path)
            files[path.name] = path
    if run.generate.format == "shards":
        recipe = {
            "name": "generated",
            "splits": {"train": 1.0},
            "crop": "square",
            "group": None,
            "origin": f"run {folder.path.name}",
        }
        options = dataclasses.replace(run.pack, resolution=image.shape[0], color="gray" if image.shape[2] == 1 else "rgb")
        pack.pack(pack.Plan(recipe, options, files, pd.DataFrame({"file": list(files)}), {}), target)
    say(f"generate: {len(files)} images in {target}")
    return {"images": len(files), "folder": str(target)}, []


def generated_valid(run: Run, folder: RunDir) -> bool:
    """Whether the images are still there."""
    target = generated_folder(run, folder)
    return (target / ("index.json" if run.generate.format == "shards" else f"{run.generate.images - 1:08d}.png")).exists()


def space_of(run: Run) -> sweep.Space:
    """The search space, checked."""
    name = run.sweep.space
    path = Path(name) if name.endswith((".yaml", ".yml")) else JOBS / "spaces" / f"{name}.yaml"
    space = config.read_yaml(path)
    sweep.check_space(space, name)
    return space


def with_params(run: Run, params: dict[str, Any], **training: Any) -> Run:
    """The config tree of a trial; a model of another name starts from its own defaults."""
    tree = dataclasses.asdict(run)
    for part in ("model", "objective"):
        name = params.get(f"{part}.name")
        if name is not None and name != tree[part]["name"]:
            tree[part] = {"name": name}
    nested: dict[str, Any] = {}
    for dotted, value in params.items():
        *parents, last = dotted.split(".")
        functools.reduce(lambda node, part: node.setdefault(part, {}), parents, nested)[last] = value
    made = config.load(Run, [], [tree, nested])
    return resolve(dataclasses.replace(made, training=dataclasses.replace(made.training, **training)))


def trial(parent: str, path: str, params: dict[str, Any], report: sweep.Report) -> None:
    """One trial of a study, in a Ray worker: train from rung to rung in a run folder of its own, score at each."""
    from facefactory import checkpoint
    from facefactory.data.loader import Shards
    from facefactory.evaluation import features
    from facefactory.evaluation.protocols import generator
    from facefactory.training import distributed, trainer

    above = RunDir(Path(parent))
    study = load_run(above.path)
    run = with_params(study, params, total_kimg=study.sweep.max_kimg, ranks=1)
    folder = rundir.prepare(Path(path), config.dump(run), config.flat(run), repeat_command(Path(path), run), True)
    folder.claim()
    (folder.path / "state.json").unlink(missing_ok=True)
    index, judge = index_of(above), checkpoint.rebuild(Path(outputs_of(above, "judge.path")["judge.path"]))[0]
    began, extract, real = time.time(), features.of_judge(judge), Shards(index, run.evaluation.reference).images()
    try:
        stage = STAGES["train"]
        folder.begin("train", config.digest(stage.config(run, resumes=False)))
        task = training_task(run, folder, index, folder.path.name)
        world = distributed.join(run.training)
        recorded = {line["kimg"] for line in rundir.read_jsonl(folder.path / "scores.jsonl")}
        for rung in run.sweep.rungs():
            if rung in recorded:
                continue
            _, trained = trainer.fit(task, world, rung)
            if rung == run.sweep.rungs()[-1]:
                found, files = train_outputs(folder)
                facts = {"config": stage.config(run), "inputs": {"pack.images": index.images_digest}, "outputs": found}
                folder.finish("train", facts | {"seconds": round(time.time() - began, 1), "software": software()}, files)
            fake = generator.draw(trained.average, run.evaluation.fakes, run.seed, "evaluation")
            scores = generator.distances(extract, real, fake, "judge")
            task.draw_samples(trained.average, trained.clock)
            report({"kimg": rung, **scores, "seconds": round(time.time() - began, 1)})
    except Exception as error:
        rundir.write_json(folder.path / "state.json", {"state": "failed", "error": f"{type(error).__name__}: {error}"})
        raise


def sweep_stage(run: Run, folder: RunDir) -> Outputs:
    """Search the space with Ray Tune."""
    target = folder.stage("sweep")
    gpus = 1.0 if run.training.device == "cuda" else 0.0
    work = functools.partial(trial, str(folder.path))
    trials = sweep.run(target, space_of(run), run.sweep, run.training.threads, run.seed, work, gpus)
    if stop():
        raise Interrupted
    rundir.write_json(target / "results.json", {**sweep.budget(run.sweep), "trials": trials})
    if not sweep.best(trials, 1):
        errors = sorted({str(one["error"]) for one in trials})
        raise RuntimeError(f"all {len(trials)} trials failed: {'; '.join(errors)[:500]}")
    digest = config.digest([[one["name"], one["state"], one["scores"]] for one in trials])
    return {"trials": digest}, [target / "results.json"]


FINALIST_STAGES = ("pack", "judge", "train", "evaluate", "interpret")


def finalists_stage(run: Run, folder: RunDir) -> Outputs:
    """The best trials go on, side by side, from their checkpoints to the full budget; each is a run of its own."""
    from facefactory import checkpoint
    from facefactory.cluster import local

    target = folder.stage("finalists")
    trials = rundir.read_json(folder.stage("sweep") / "results.json")["trials"]
    runs: list[tuple[str, RunDir]] = []
    for number, one in enumerate(sweep.best(trials, run.sweep.finalists)):
        child = with_params(run, one["params"])
        path = target / f"{number}-{one['name']}"
        made = rundir.prepare(path, config.dump(child), config.flat(child), repeat_command(path, child), True)
        made.begin("train", config.digest(STAGES["train"].config(child, resumes=False)))
        source = checkpoint.latest(folder.stage("sweep") / "trials" / one["name"] / "train" / "checkpoints")
        if source is not None and checkpoint.latest(path / "train" / "checkpoints") is None:
            with rundir.atomic(path / "train" / "checkpoints" / source.name) as temporary:
                temporary.write_bytes(source.read_bytes())
        runs.append((one["name"], made))
    commands = [["facefactory", "stages", str(made.path), *FINALIST_STAGES] for _, made in runs]
    say(f"finalists: {len(runs)} runs to {run.training.total_kimg:g} kimg; logs: {target}/*/log.txt")
    threads = {"OMP_NUM_THREADS": str(run.training.threads)}
    codes = local.side_by_side(commands, run.sweep.parallel, [made.path / "log.txt" for _, made in runs], threads, say)
    if stop() or INTERRUPTED in codes:
        stop.asked = True
        raise Interrupted
    facts = []
    for (name, made), code in zip(runs, codes, strict=True):
        tail = (made.path / "log.txt").read_text(errors="replace").splitlines()[-15:]
        failed = {"state": "failed", "error": tail[-1] if tail else f"exit code {code}", "log_tail": "\n".join(tail)}
        fact = {"name": made.path.name, "trial": name, "folder": str(made.path.relative_to(folder.path))}
        facts.append(fact | (failed if code else {"state": "finished", "error": None, "log_tail": None}))
    rundir.write_json(target / "results.json", {"finalists": facts})
    if all(fact["state"] == "failed" for fact in facts):
        raise RuntimeError(f"all finalists failed: {facts[0]['error']}")
    done = [
        outputs_of(made, "evaluate.results", "interpret.results") for (_, made), code in zip(runs, codes, strict=True) if not code
    ]
    return {"results": config.digest([facts, done])}, [target / "results.json"]


def report_inputs(run: Run, folder: RunDir) -> dict[str, Any]:
    """What every other stage left."""
    return {stage: done["outputs"] for stage in STAGES if stage not in ("report", "generate") and (done := folder.done(stage))}


def report_stage(run: Run, folder: RunDir) -> Outputs:
    """One page of all that the run's files tell."""
    from facefactory.report import pages

    below = [path.parent for path in folder.path.glob("*/trials/*/config.yaml")] + [
        p.parent for p in folder.path.glob("finalists/*/config.yaml")
    ]
    repeat = {path.name: repeat_command(path, load_run(path)) for path in below}
    return {}, pages.write(folder.path, repeat)


STAGES: dict[str, Stage] = {
    "pack": Stage(("pack.", "data.shards"), pack_inputs, pack_stage, pack_valid),
    "train": Stage(("seed", "model", "objective", "training.", "data.flip", "data.balance"), train_inputs, train_stage),
    "judge": Stage(("judge.",), lambda run, folder: outputs_of(folder, "pack.images", "pack.labels"), judge_stage),
    "evaluate": Stage(
        ("evaluation.", "seed"),
        lambda run, folder: outputs_of(folder, "train.checkpoint", "judge.judge", "pack.images"),
        evaluate_stage,
    ),
    "interpret": Stage(
        ("interpret.", "seed"),
        lambda run, folder: outputs_of(folder, "train.checkpoint", "judge.judge", "pack.images", "pack.labels"),
        interpret_stage,
    ),
    "sweep": Stage(
        ("sweep.", "seed", "model", "objective", "training.", "data.flip", "data.balance", "evaluation."),
        lambda run, folder: outputs_of(folder, "judge.judge", "pack.images"),
        sweep_stage,
    ),
    "finalists": Stage(
        ("sweep.finalists", "training.", "evaluation.", "interpret."),
        lambda run, folder: outputs_of(folder, "sweep.trials", "judge.judge", "pack.images", "pack.labels"),
        finalists_stage,
    ),
    "generate": Stage(
        ("generate.", "seed"), lambda run, folder: outputs_of(folder, "train.checkpoint"), generate_stage, generated_valid
    ),
    "report": Stage((), report_inputs, report_stage),
}


def execute(run: Run, folder: RunDir, names: Iterable[str]) -> None:
    """Run stages in order; what is complete is skipped, what was interrupted goes on. A report is written in any case."""
    names = list(names)
    try:
        for name in names:
            execute_one(run, folder, name)
    except Exception as error:
        if not isinstance(error, rundir.OwnerLost):
            folder.record(
                name, "interrupted" if isinstance(error, Interrupted) else "failed", error=f"{type(error).__name__}: {error}"
            )
            if "report" in names and not isinstance(error, Interrupted) and name != "report":
                execute_one(run, folder, "report")
        raise


def execute_one(run: Run, folder: RunDir, name: str) -> None:
    """Run one stage, unless it is complete."""
    stage = STAGES[name]
    wanted, inputs = stage.config(run), stage.inputs(run, folder)
    if folder.is_complete(name, wanted, inputs) and stage.valid(run, folder):
        return say(f"{name}: complete")
    if name == "train":  # a training that was interrupted decides itself whether changed images are accepted
        done = folder.done(name)
        if done is not None and done["inputs"] != inputs and run.data.changed != "accept":
            folder.move_aside(name)
        folder.begin(name, config.digest(stage.config(run, resumes=False)))
    else:
        folder.begin(name, config.digest([stage.config(run, resumes=False), inputs]))
    folder.record(name, "running")
    began = time.time()
    outputs, files = stage.work(run, folder)
    record = {"config": wanted, "inputs": inputs, "outputs": outputs, "seconds": round(time.time() - began, 1)}
    folder.finish(name, {**record, "software": software()}, files)
    folder.record(name, "finished", seconds=record["seconds"])
    say(f"{name}: done in {record['seconds']:.0f} s")


def software() -> dict[str, str]:
    """Versions that decide bits."""
    import platform
    from importlib.metadata import version

    return {"python": platform.python_version(), **{name: version(name) for name in ("facefactory", "torch", "numpy", "pillow")}}


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


# -- configs ---------------------------------------------------------------------------------------------------------


def load_run(path: Path) -> Run:
    """The resolved config of a run folder."""
    return config.load(Run, [], [config.read_yaml(path / "config.yaml")])


def resolve(run: Run) -> Run:
    """Every default of the components filled in, every relative path made absolute.

    Raises:
        UserError: a component or an option that does not exist.
    """
    from facefactory import registry

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().absolute())

    def component(package: str, spec: dict[str, Any]) -> dict[str, Any]:
        if str(spec.get("name", "")).endswith(".py"):
            spec = {**spec, "name": absolute(spec["name"])}
        return registry.resolve(package, spec)

    return dataclasses.replace(
        run,
        paths=Paths(str(absolute(run.paths.runs)), str(absolute(run.paths.data))),
        pack=dataclasses.replace(run.pack, root=absolute(run.pack.root), labels=absolute(run.pack.labels)),
        data=dataclasses.replace(run.data, shards=absolute(run.data.shards)),
        generate=dataclasses.replace(run.generate, out=absolute(run.generate.out)),
        model=component("models", run.model),
        objective=component("objectives", run.objective),
        judge=dataclasses.replace(
            run.judge, model=component("models", run.judge.model), objective=component("objectives", run.judge.objective)
        ),
    )


def repeat_command(path: Path, run: Run) -> str:
    """The command that trains a run folder's config again, under another name."""
    job = {"gan": "train_gan", "vae": "train_vae"}.get(run.model["name"].split("/")[0], "train_classifier")
    return f"python jobs/{job}.py config={shlex.quote(str(path / 'config.yaml'))} run=repeat-{path.name}"
