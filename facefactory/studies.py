"""What the stages of a sweep do: trials in Ray's workers, the search around them, and the finalists, each a run of its own."""

import functools
import os
import time
from pathlib import Path
from typing import Any

from facefactory import Failed, config, pipeline, rundir, runner, say, stages, surroundings, sweep
from facefactory.cluster import local
from facefactory.pipeline import FINALIST, STAGES, Run, index_of, outputs_of
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted, Outputs, stop


def trial(parent: str, path: str, params: dict[str, Any], report: sweep.Report) -> None:
    """One trial of a study, in a Ray worker: train from rung to rung in a run folder of its own, score at each."""
    from facefactory import conditions
    from facefactory.data.loader import Shards
    from facefactory.evaluation import features
    from facefactory.evaluation.protocols import generator
    from facefactory.training import trainer

    above = RunDir(Path(parent))
    study = pipeline.load_run(above.path)
    run = pipeline.with_params(study, params, total_kimg=study.sweep.max_kimg, ranks=1)
    folder = _open(Path(path), run)
    (folder.path / "state.json").unlink(missing_ok=True)
    index, began = index_of(above), time.time()
    extract = features.of_judge(stages.network_of(run, above, "judge"))
    reference = Shards(index, run.evaluation.reference)
    real = reference.some(run.evaluation.reals)
    recorded = {line["kimg"] for line in rundir.read_jsonl(folder.path / "scores.jsonl")}
    try:
        task, world = stages.task_of(run, folder, index, folder.path.name), stages.join(run.training)
        for rung in run.sweep.rungs():
            if rung in recorded:
                continue
            _, trained = trainer.fit(task, world, rung)
            if rung == run.sweep.rungs()[-1]:
                runner.finish(run, folder, "train", {"pack.images": index.images_digest}, stages.checkpoint_of(folder), began)
            asked = conditions.asked(trained.average, reference, run.evaluation.fakes)
            fake = generator.draw(trained.average, asked, run.seed, "evaluation")
            scores = generator.distances(extract, real, fake, "judge")
            task.draw_samples(trained.average, trained.clock)
            report({"kimg": rung, **scores, "seconds": round(time.time() - began, 1)})
    except Exception as error:
        if not isinstance(error, rundir.OwnerLost):  # a newer copy trains it: its state is not ours to write
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
    target, ray = folder.stage("sweep"), os.environ.get(surroundings.RAY_ADDRESS)
    space, work = pipeline.space_of(run), functools.partial(trial, str(folder.path))
    granted = run.training.device == "auto" and surroundings.sees_gpus()
    gpus = 1.0 if run.training.device == "cuda" or granted else 0.0  # Ray keeps trials on GPUs of their own only if asked
    study = sweep.Study(
        folder=target,
        space=space,
        options=run.sweep,
        seed=run.seed,
        trial=work,
        threads=run.training.threads,
        gpus=gpus,
        needs_gpus=run.training.device == "cuda",
        should_stop=stop,
        ray=ray,
    )
    trials = sweep.run(study)
    cut = [one["name"] for one in trials if one["state"] == "interrupted"]
    if cut and not stop():  # their processes were killed
        raise Interrupted(f"trials {', '.join(cut)} ended before their time and go on from their last checkpoints")
    if stop():
        raise Interrupted
    rundir.write_json(target / "results.json", {"metric": sweep.METRIC, "trials": trials})
    if not sweep.best(trials, 1):
        errors = sorted({str(one["error"]) for one in trials})
        raise Failed(f"all {len(trials)} trials failed: {'; '.join(errors)[:500]}")
    timeless = [[{key: value for key, value in line.items() if key != "seconds"} for line in one["scores"]] for one in trials]
    digest = config.digest([[one["name"], one["state"], scores] for one, scores in zip(trials, timeless, strict=True)])
    return {"trials": digest}, [target / "results.json"]


def places(run: Run, folder: RunDir) -> list[tuple[str, Run, Path]]:
    """The names of the best trials, and the configs and run folders with which they go on as finalists."""
    advice = "Give the command of the sweep again: it writes the file anew from its trials."
    trials = rundir.need_json(folder.stage("sweep") / "results.json", advice)["trials"]
    best = [(one["name"], pipeline.with_params(run, one["params"])) for one in sweep.best(trials, run.sweep.finalists)]
    return [(name, child, folder.stage("finalists") / f"{number}-{name}") for number, (name, child) in enumerate(best)]


def open_finalist(folder: RunDir, name: str, child: Run, path: Path) -> RunDir:
    """The run folder of a place, where it goes on from its trial's last checkpoint."""
    from facefactory import checkpoint

    made = _open(path, child)
    source = checkpoint.latest(folder.stage("sweep") / "trials" / name / "train" / "checkpoints")
    if source is not None and checkpoint.latest(path / "train" / "checkpoints") is None:
        with rundir.atomic(path / "train" / "checkpoints" / source.name) as temporary:
            temporary.write_bytes(source.read_bytes())
    return made


def finalists(run: Run, folder: RunDir) -> Outputs:
    """The best trials go on, side by side, to the full budget; each is a run of its own."""
    runs = [open_finalist(folder, *place).path for place in places(run, folder)]
    say(f"finalists: {len(runs)} runs to {run.training.total_kimg:g} kimg; logs: {folder.stage('finalists')}/*/log.txt")
    commands = [["facefactory", "stages", str(path), *FINALIST] for path in runs]
    logs = [path / "log.txt" for path in runs]
    own = [{"FACEFACTORY_LOG": str(log)} for log in logs]
    codes = local.side_by_side(commands, run.sweep.parallel, logs, own, say)
    if stop() or local.INTERRUPTED in codes:
        stop.asked = True
        raise Interrupted
    return gather(run, folder)


def gather(run: Run, folder: RunDir) -> Outputs:
    """Write down how the finalists ended, the failed ones with the end of their log."""
    facts, done = [], []
    for name, child, path in places(run, folder):
        fact: dict[str, Any] = {"name": path.name, "trial": name, "folder": str(path.relative_to(folder.path))}
        if all(runner.is_complete(child, RunDir(path), stage) for stage in ("evaluate", "interpret")):
            done.append(outputs_of(RunDir(path), "evaluate.results", "interpret.results"))
            facts.append(fact | {"state": "finished", "error": None, "log_tail": None})
        else:
            told = [line for line in rundir.read_jsonl(path / "jobs.jsonl") if line["state"] == "failed"] or [{}]
            tail = rundir.tail(Path(told[-1].get("log") or path / "log.txt"))
            error = told[-1].get("error") or (tail or "it left no word and no log").splitlines()[-1]
            facts.append(fact | {"state": "failed", "error": error, "log_tail": tail})
    target = folder.stage("finalists") / "results.json"
    rundir.write_json(target, {"finalists": facts})
    if not done:
        raise Failed(f"all finalists failed: {facts[0]['error']}")
    return {"results": config.digest([facts, done])}, [target]


WORK: dict[str, runner.Work] = {"sweep": search, "finalists": finalists}
WORK |= {name: getattr(stages, name) for name in STAGES.keys() - WORK.keys()}
