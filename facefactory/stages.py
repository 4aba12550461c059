"""What each stage does: the work behind the names in pipeline.STAGES, and the rule by which it is done or skipped."""

import atexit
import dataclasses
import functools
import os
import platform
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefactory import UserError, __version__, config, pipeline, registry, rundir, say, sweep
from facefactory.cluster import local
from facefactory.pipeline import FINALIST, STAGES, Run, index_of, outputs_of
from facefactory.rundir import RunDir

if TYPE_CHECKING:
    from facefactory.data.index import Index
    from facefactory.training.trainer import Task

Outputs = tuple[dict[str, Any], list[Path]]  # what later stages depend on, and the files that must be there


class Interrupted(Exception):
    """A stop was asked for; what was done is saved."""


class Stop:
    """A flag that stop signals set; the training loop reads it once an iteration."""

    asked = False

    def __call__(self) -> bool:
        return self.asked

    def listen(self) -> None:
        """Set the flag on SIGINT, SIGTERM and SIGUSR2; a second Ctrl-C ends the process at once."""

        def handle(number: int, frame: object) -> None:
            self.asked = True
            if number == signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, handle)
        # while it ends, Python gives signals their deadly defaults back, and what has finished would count as failed
        atexit.register(lambda: [signal.signal(one, signal.SIG_IGN) for one in (signal.SIGTERM, signal.SIGUSR2)])


stop = Stop()


def pack(run: Run, folder: RunDir) -> Outputs:
    """Pack the set, or find it packed already."""
    from facefactory.data import index, pack

    if run.data.shards:
        found = index.read(Path(run.data.shards))
        found.verify(run.data.verify == "full")
    else:
        cpus = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
        plan = pack.plan(dataclasses.replace(run.pack, workers=max(run.pack.workers, cpus)))
        target = Path(run.paths.data) / "packed" / plan.folder_name
        try:
            found = index.read(target)
            found.verify(run.data.verify == "full")
        except UserError as error:
            if (target / "index.json").exists():
                say(f"pack: {error} Packing it anew.")
            found = pack.pack(plan, target, lambda done, total: say(f"pack: {done} of {total} shards"))
    return {"folder": str(found.folder), "images": found.images_digest, "labels": found.labels_digest}, []


def judge(run: Run, folder: RunDir) -> Outputs:
    """Find this set's judge beside the packed sets, or train it: once in folds for its own scores, once for use."""
    from facefactory import checkpoint

    index = index_of(folder)
    made_of = [STAGES["judge"].config(run), index.images_digest, index.labels_digest, __version__]
    home = Path(run.paths.data) / "judges" / config.digest(made_of)[:16]
    home.mkdir(parents=True, exist_ok=True)
    with rundir.locked(home / "lock"):
        if not (home / "results.json").exists():
            rundir.write_json(home / "results.json", _train_judge(run, index, home))
    facts = rundir.read_json(home / "results.json")
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
    from facefactory.training import distributed, trainer

    world, schema, group = distributed.join(run.judge.training), index.content["labels"], index.content["group"]
    splits = list(index.content["splits"])
    everyone = Shards(index, splits)
    groups = labels.people(everyone.table, group)
    fold = judging.folds(groups, run.judge.folds)

    def fit(name: str, shards: Shards, kimg: float) -> Any:
        options = dataclasses.replace(run.judge.training, total_kimg=kimg)
        objective = registry.build("objectives", run.judge.objective, schema)
        identity = config.digest([STAGES["judge"].config(run), name, index.labels_digest])
        (home / name).mkdir(exist_ok=True)
        what = (run.judge.model, objective, shards, index.images_digest, options, 0)  # no seed of a run: it is shared by all
        task = trainer.Task(*what, home / name, identity, name, should_stop=stop)
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


def _training(run: Run, folder: RunDir, index: "Index", label: str) -> "Task":
    """The training that a config tree describes, in the stage folder `train`."""
    from facefactory.data.loader import Shards
    from facefactory.training.trainer import Task

    def samples(model: Any, clock: int) -> None:
        from facefactory.evaluation.protocols import generator

        if hasattr(model, "sample"):
            images = generator.draw(model, generator.SHOWN, run.seed, "evaluation")
            with rundir.atomic(folder.stage("train") / "samples" / f"{clock:012d}.png") as temporary:
                generator.grid(images, 8).save(temporary, "PNG")

    target, identity = folder.stage("train"), config.digest(STAGES["train"].config(run, resumes=False))
    objective = registry.build("objectives", run.objective, index.content["labels"])
    what = (run.model, objective, Shards(index, "train"), index.images_digest, run.training, run.seed)
    return Task(*what, target, identity, label, run.data, guard=folder.guard, should_stop=stop, draw_samples=samples)


def train_rank(run: Run, folder: RunDir, label: str = "train") -> None:
    """One rank of the train stage."""
    from facefactory.training import distributed, trainer

    world = distributed.join(run.training)
    world.barrier()  # rank 0 may have had stages to do before this one
    outcome, _ = trainer.fit(_training(run, folder, index_of(folder), label), world)
    if outcome == "interrupted":
        raise Interrupted


def train(run: Run, folder: RunDir) -> Outputs:
    """Train here, or in as many ranks as asked for."""
    if run.training.ranks == 1 or "WORLD_SIZE" in os.environ:  # the second: this is rank 0 already
        train_rank(run, folder)
    else:
        owner = {rundir.OWNER_TOKEN: folder.token or "", "OMP_NUM_THREADS": str(run.training.threads)}
        code = local.ranks(run.training.ranks, ["facefactory", "rank", str(folder.path)], owner)
        if stop() or code == local.INTERRUPTED:
            raise Interrupted
        if code:
            raise RuntimeError(f"a rank of the training ended with exit code {code}; its message stands above.")
    return _trained(folder)


def _trained(folder: RunDir) -> Outputs:
    """Digest, clock and path of the newest checkpoint."""
    from facefactory import checkpoint

    newest = checkpoint.latest(folder.stage("train") / "checkpoints")
    assert newest is not None
    found = checkpoint.load(newest)
    relative = str(newest.relative_to(folder.path))
    return {"checkpoint": checkpoint.digest(found), "kimg": found.clock / 1000, "path": relative}, [newest]


def _models(folder: RunDir) -> tuple[Any, Any, str]:
    """The run's averaged networks, the judge's, and the judge's digest."""
    from facefactory import checkpoint

    found = outputs_of(folder, "train.path", "judge.path", "judge.judge")
    model, _ = checkpoint.rebuild(folder.path / found["train.path"])
    judge, _ = checkpoint.rebuild(Path(found["judge.path"]))
    return model, judge, found["judge.judge"]


def _results(folder: Path, found: dict[str, Any]) -> Outputs:
    """Write results.json beside the pictures of a stage."""
    rundir.write_json(folder / "results.json", found)
    return {"results": rundir.sha256(folder / "results.json")}, [folder / "results.json", *sorted(folder.glob("*.png"))]


def evaluate(run: Run, folder: RunDir) -> Outputs:
    """Score the trained model."""
    target = folder.stage("evaluate")
    protocol = registry.module("evaluation.protocols", run.evaluation.protocol)
    found = protocol.evaluate(*_models(folder), index_of(folder), run.evaluation, run.seed, target)
    return _results(target, {**found, "kimg": outputs_of(folder, "train.kimg")["train.kimg"]})


def interpret(run: Run, folder: RunDir) -> Outputs:
    """Look at what each latent dimension goes with."""
    from facefactory.interpret import matrix

    target, family = folder.stage("interpret"), run.model["name"].split("/")[0]
    model, judge, _ = _models(folder)
    return _results(target, matrix.interpret(family, model, judge, index_of(folder), run.interpret, run.seed, target))


def generate(run: Run, folder: RunDir) -> Outputs:
    """Draw images from the averaged networks into PNG files `00000000.png` …, or into shards of one split `train`."""
    import pandas as pd

    from facefactory import checkpoint
    from facefactory.data import pack
    from facefactory.evaluation.protocols import generator

    model, _ = checkpoint.rebuild(folder.path / outputs_of(folder, "train.path")["train.path"])
    if not hasattr(model, "sample"):
        raise UserError(f"{run.model['name']} draws no images; give run=… of a GAN or a VAE.")
    target = _generated(run, folder)
    pictures = target if run.generate.format == "png" else folder.stage("generate") / "png"
    pictures.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for chunk in generator.draws(model, run.generate.images, run.seed, "generate"):
        for image in chunk:
            path = pictures / f"{len(files):08d}.png"
            generator.grid(image[None], 1).save(path)
            files[path.name] = path
    if run.generate.format == "shards":
        recipe = {"name": "generated", "splits": {"train": 1.0}, "crop": "square", "group": None}
        options = dataclasses.replace(run.pack, resolution=image.shape[0], color="gray" if image.shape[2] == 1 else "rgb")
        plan = pack.Plan({**recipe, "origin": f"run {folder.path.name}"}, options, files, pd.DataFrame({"file": list(files)}), {})
        pack.pack(plan, target)
    say(f"generate: {len(files)} images in {target}")
    return {"images": len(files), "folder": str(target)}, []


def _generated(run: Run, folder: RunDir) -> Path:
    return Path(run.generate.out) if run.generate.out else folder.stage("generate") / "images"


def trial(parent: str, path: str, params: dict[str, Any], report: sweep.Report) -> None:
    """One trial of a study, in a Ray worker: train from rung to rung in a run folder of its own, score at each."""
    from facefactory import checkpoint
    from facefactory.data.loader import Shards
    from facefactory.evaluation import features
    from facefactory.evaluation.protocols import generator
    from facefactory.training import distributed, trainer

    above = RunDir(Path(parent))
    study = pipeline.load_run(above.path)
    run = pipeline.with_params(study, params, total_kimg=study.sweep.max_kimg, ranks=1)
    folder = _open(Path(path), run)
    (folder.path / "state.json").unlink(missing_ok=True)
    index, judge = index_of(above), checkpoint.rebuild(Path(outputs_of(above, "judge.path")["judge.path"]))[0]
    began, extract, real = (
        time.time(),
        features.of_judge(judge),
        Shards(index, run.evaluation.reference).some(run.evaluation.reals),
    )
    recorded = {line["kimg"] for line in rundir.read_jsonl(folder.path / "scores.jsonl")}
    try:
        task, world = _training(run, folder, index, folder.path.name), distributed.join(run.training)
        for rung in run.sweep.rungs():
            if rung in recorded:
                continue
            _, trained = trainer.fit(task, world, rung)
            if rung == run.sweep.rungs()[-1]:
                _finish(run, folder, "train", {"pack.images": index.images_digest}, _trained(folder), began)
            fake = generator.draw(trained.average, run.evaluation.fakes, run.seed, "evaluation")
            scores = generator.distances(extract, real, fake, "judge")
            task.draw_samples(trained.average, trained.clock)
            report({"kimg": rung, **scores, "seconds": round(time.time() - began, 1)})
    except rundir.OwnerLost:  # a newer copy trains it: its state is not ours to write
        raise
    except Exception as error:
        rundir.write_json(folder.path / "state.json", {"state": "failed", "error": f"{type(error).__name__}: {error}"})
        raise


def _open(path: Path, run: Run) -> RunDir:
    """The run folder of a trial or a finalist, owned by this process and ready to be trained."""
    made = rundir.prepare(path, config.dump(run), config.flat(run), pipeline.repeat_command(path, run), True)
    made.claim()
    made.begin("train", config.digest(STAGES["train"].config(run, resumes=False)))
    return made


def search(run: Run, folder: RunDir) -> Outputs:
    """Search the space with Ray Tune."""
    target, ray = folder.stage("sweep"), os.environ.get("FACEFACTORY_RAY")
    space, work = pipeline.space_of(run), functools.partial(trial, str(folder.path))
    granted = run.training.device == "auto" and ("SLURM_JOB_GPUS" in os.environ or shutil.which("nvidia-smi"))
    gpus = 1.0 if run.training.device == "cuda" or granted else 0.0  # Ray keeps trials on GPUs of their own only if asked
    study = sweep.Study(target, space, run.sweep, run.seed, work, run.training.threads, gpus, stop, ray)
    trials = sweep.run(study)
    if stop() or any(one["state"] == "interrupted" for one in trials):  # the second: the process of a trial was killed
        raise Interrupted
    rundir.write_json(target / "results.json", {**sweep.budget(run.sweep), "trials": trials})
    if not sweep.best(trials, 1):
        errors = sorted({str(one["error"]) for one in trials})
        raise RuntimeError(f"all {len(trials)} trials failed: {'; '.join(errors)[:500]}")
    timeless = [[{key: value for key, value in line.items() if key != "seconds"} for line in one["scores"]] for one in trials]
    digest = config.digest([[one["name"], one["state"], scores] for one, scores in zip(trials, timeless, strict=True)])
    return {"trials": digest}, [target / "results.json"]


def places(run: Run, folder: RunDir) -> list[tuple[dict[str, Any], Path]]:
    """The best trials and the run folders in which they go on as finalists."""
    trials = rundir.read_json(folder.stage("sweep") / "results.json")["trials"]
    best = sweep.best(trials, run.sweep.finalists)
    return [(one, folder.stage("finalists") / f"{number}-{one['name']}") for number, one in enumerate(best)]


def open_finalist(run: Run, folder: RunDir, number: int) -> tuple[Run, RunDir]:
    """A finalist's config and run folder, where it goes on from its trial's last checkpoint."""
    from facefactory import checkpoint

    one, path = places(run, folder)[number]
    child = pipeline.with_params(run, one["params"])
    made = _open(path, child)
    source = checkpoint.latest(folder.stage("sweep") / "trials" / one["name"] / "train" / "checkpoints")
    if source is not None and checkpoint.latest(path / "train" / "checkpoints") is None:
        with rundir.atomic(path / "train" / "checkpoints" / source.name) as temporary:
            temporary.write_bytes(source.read_bytes())
    return child, made


def finalists(run: Run, folder: RunDir) -> Outputs:
    """The best trials go on, side by side, to the full budget; each is a run of its own."""
    runs = [open_finalist(run, folder, number)[1].path for number in range(len(places(run, folder)))]
    say(f"finalists: {len(runs)} runs to {run.training.total_kimg:g} kimg; logs: {folder.stage('finalists')}/*/log.txt")
    commands = [["facefactory", "stages", str(path), *FINALIST] for path in runs]
    logs = [path / "log.txt" for path in runs]
    own = [{"OMP_NUM_THREADS": str(run.training.threads), "FACEFACTORY_LOG": str(log)} for log in logs]
    codes = local.side_by_side(commands, run.sweep.parallel, logs, own, say)
    if stop() or local.INTERRUPTED in codes:
        stop.asked = True
        raise Interrupted
    return gather(run, folder)


def gather(run: Run, folder: RunDir) -> Outputs:
    """Write down how the finalists ended, the failed ones with the end of their log."""
    facts, done = [], []
    for one, path in places(run, folder):
        fact = {"name": path.name, "trial": one["name"], "folder": str(path.relative_to(folder.path))}
        child = pipeline.with_params(run, one["params"])
        if all(is_complete(child, RunDir(path), stage) for stage in ("evaluate", "interpret")):
            done.append(outputs_of(RunDir(path), "evaluate.results", "interpret.results"))
            facts.append(fact | {"state": "finished", "error": None, "log_tail": None})
        else:
            told = [line for line in rundir.read_jsonl(path / "jobs.jsonl") if line["state"] == "failed"] or [{}]
            log = Path(told[-1].get("log") or path / "log.txt")
            tail = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
            error = told[-1].get("error") or (tail or ["it left no word and no log"])[-1]
            facts.append(fact | {"state": "failed", "error": error, "log_tail": "\n".join(tail)})
    target = folder.stage("finalists") / "results.json"
    rundir.write_json(target, {"finalists": facts})
    if not done:
        raise RuntimeError(f"all finalists failed: {facts[0]['error']}")
    return {"results": config.digest([facts, done])}, [target]


def report(run: Run, folder: RunDir) -> Outputs:
    """One page of all that the run's files tell."""
    from facefactory.report import pages

    below = [path.parent for pattern in ("sweep/trials/*", "finalists/*") for path in folder.path.glob(f"{pattern}/config.yaml")]
    return {}, pages.write(folder.path, {path.name: pipeline.repeat_command(path, pipeline.load_run(path)) for path in below})


_WORKS = (pack, judge, train, evaluate, interpret, search, finalists, generate, report)
WORK: dict[str, Callable[[Run, RunDir], Outputs]] = dict(zip(STAGES, _WORKS, strict=True))  # both in the order of a chain


def _intact(run: Run, folder: RunDir, name: str) -> bool:
    """Whether nothing of a finished stage is to be done again: files outside the run folder are there, nothing in it failed."""
    if name == "generate":
        last = "index.json" if run.generate.format == "shards" else f"{run.generate.images - 1:08d}.png"
        return (_generated(run, folder) / last).exists()
    if name == "finalists":  # the same command tries failed ones again
        found = rundir.read_json(folder.stage(name) / "results.json")
        return all(one["state"] == "finished" for one in found["finalists"])
    if name == "pack":
        try:
            index_of(folder)
        except UserError as error:
            if run.data.shards:  # of others: not ours to pack anew
                raise
            say(f"pack: {error}")
            return False
    return True


def is_complete(run: Run, folder: RunDir, name: str) -> bool:
    """Whether a stage's results are there and speak of this config and of what is there now before it."""
    stage = STAGES[name]
    try:
        return folder.is_complete(name, stage.config(run), stage.inputs(run, folder)) and _intact(run, folder, name)
    except UserError:
        return False


def execute(run: Run, folder: RunDir, names: Iterable[str], work: Mapping[str, Callable[[Run, RunDir], Outputs]] = WORK) -> None:
    """Run stages in order; what is complete is skipped, what was interrupted goes on. A report is written in any case."""
    names = list(names)
    try:
        for name in names:
            if stop():
                raise Interrupted
            _execute_one(run, folder, name, work[name])
    except Exception as error:
        if not isinstance(error, rundir.OwnerLost):
            state = "interrupted" if isinstance(error, Interrupted) else "failed"
            folder.record(name, state, error=f"{type(error).__name__}: {error}", log=os.environ.get("FACEFACTORY_LOG"))
            if "report" in names and state == "failed" and name != "report":
                _execute_one(run, folder, "report", report)
        raise


def begin(run: Run, folder: RunDir, name: str) -> None:
    """Open a stage's folder; what lies there from another config or other inputs is moved aside."""
    stage = STAGES[name]
    inputs, started = stage.inputs(run, folder), stage.config(run, resumes=False)
    if name != "train":
        return folder.begin(name, config.digest([started, inputs]))
    done = folder.done(name)  # a training that was interrupted decides itself whether changed images are accepted
    if done is not None and done["inputs"] != inputs and run.data.changed != "accept":
        folder.move_aside(name)
    folder.begin(name, config.digest(started))


def _execute_one(run: Run, folder: RunDir, name: str, work: Callable[[Run, RunDir], Outputs]) -> None:
    """Run one stage, unless it is complete."""
    stage = STAGES[name]
    inputs = stage.inputs(run, folder)
    if folder.is_complete(name, stage.config(run), inputs) and _intact(run, folder, name):
        return say(f"{name}: complete")
    begin(run, folder, name)
    folder.record(name, "running")
    began = time.time()
    seconds = _finish(run, folder, name, inputs, work(run, folder), began)
    folder.record(name, "finished", seconds=seconds)
    say(f"{name}: done in {seconds:.0f} s")


def _finish(run: Run, folder: RunDir, name: str, inputs: dict[str, Any], outputs: Outputs, began: float) -> float:
    """Write DONE.json with the versions that decide bits; the seconds since `began`."""
    seconds = round(time.time() - began, 1)
    software = {name: version(name) for name in ("facefactory", "torch", "numpy", "pillow")}
    record = {"config": STAGES[name].config(run), "inputs": inputs, "outputs": outputs[0], "seconds": seconds}
    folder.finish(name, {**record, "software": {"python": platform.python_version(), **software}}, outputs[1])
    return seconds
