"""What several stages do with networks: check, train and load them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from facefactory import UserError, registry, rundir, say, surroundings
from facefactory.run import Judge, Run, value_at
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted, stop
from facefactory.stages import FaceSet, Outputs, Plan, of, outputs_of
from facefactory.training import Training

if TYPE_CHECKING:
    import torch

    from facefactory.cluster import Profile
    from facefactory.data.sets.index import Index
    from facefactory.facts import Facts
    from facefactory.ranks import World
    from facefactory.training.trainer import Task, Trainer


def device_of(options: Training) -> torch.device:
    """Where this process computes; its threads and arithmetic are set."""
    from facefactory import ranks
    from facefactory.training import arithmetic

    device = ranks.device_of(options.device, options.threads)
    arithmetic.require(options, device)
    ranks.set_arithmetic(options.deterministic, options.tf32)
    return device


def join(options: Training) -> World:
    """This process among the ranks, with its device, threads and arithmetic set."""
    from facefactory import ranks

    return ranks.join(device_of(options))


def trained(task: Task, world: World, until_kimg: float | None = None) -> Trainer:
    """Train, or go on; Interrupted: a stop was asked for, and what was done is saved."""
    from facefactory.training import trainer

    outcome, done = trainer.fit(task, world, until_kimg)
    if outcome == "interrupted":
        raise Interrupted
    return done


def task_of(run: Run, folder: RunDir, index: Index, label: str) -> Task:
    """The training that a config tree describes, in the stage folder `train`."""
    from facefactory.data.sets.loader import Shards
    from facefactory.training.trainer import Task

    def samples(model: Any, clock: int) -> None:
        from facefactory import conditions, sampling
        from facefactory.data.sets import pixels

        if hasattr(model, "sample"):
            asked = conditions.asked(model, shards, sampling.SHOWN)
            images = sampling.draw(model, asked, run.seed, "evaluation")
            target = folder.stage("train") / "samples" / f"{clock:012d}.png"
            with rundir.atomic(target) as temporary:
                pixels.grid(images, 8).save(temporary, "PNG")

    index.require_different("train")
    shards = Shards(index, "train")
    return Task(
        model=run.model,
        objective=run.objective,
        shards=shards,
        options=run.training,
        seed=run.seed,
        folder=folder.stage("train"),
        identity=rundir.digest(of("train").config(run, resumes=False)),
        label=label,
        data=run.data,
        guard=folder.guard,
        should_stop=stop,
        draw_samples=samples,
        initial=initial_of(run, folder),
    )


def initial_of(run: Run, folder: RunDir) -> Path | None:
    """The checkpoint of the run that a training starts from; UserError: it has none that is finished."""
    if run.init_from is None:
        return None
    other = _other(run, folder)
    return other.path / outputs_of(other, "train.path")["train.path"]


def initial_digest(run: Run, folder: RunDir) -> dict[str, Any]:
    """What that checkpoint was; UserError: there is none."""
    if run.init_from is None:
        return {}
    found = outputs_of(_other(run, folder), "train.checkpoint")
    return {"init_from": found["train.checkpoint"]}


def _other(run: Run, folder: RunDir) -> RunDir:
    path = Path(str(run.init_from))
    if path.absolute() == folder.path.absolute():
        raise UserError("init_from names this very run; give another one.")
    if not (path / "config.yaml").is_file():
        beside = sorted(found.parent.name for found in path.parent.glob("*/config.yaml"))
        raise registry.unknown(f"init_from={path} is no run folder", path.name, beside)
    return RunDir(path)


def checkpoint_of(folder: RunDir) -> Outputs:
    """Digest, clock and path of the newest checkpoint of the stage `train`, and of its best snapshot, if it keeps one."""
    from facefactory import checkpoint

    newest = checkpoint.latest(folder.stage("train") / "checkpoints")
    assert newest is not None
    found = checkpoint.load(newest)
    outputs = {
        "checkpoint": checkpoint.digest(found),
        "kimg": found.clock / 1000,
        "path": str(newest.relative_to(folder.path)),
    }
    best = checkpoint.best_snapshot(found)
    if best is not None:
        outputs |= {"best_checkpoint": checkpoint.digest(best), "best_kimg": best.clock / 1000}
    return outputs, [newest]


def network_of(
    run: Run, folder: RunDir, stage: str, snapshot: Literal["last", "best"] = "last"
) -> Any:
    """The averaged networks that the stage `train` or `judge` made, where this process computes."""
    from facefactory import checkpoint

    path = folder.path / outputs_of(folder, f"{stage}.path")[f"{stage}.path"]
    return checkpoint.rebuild(path, snapshot)[0].to(device_of(run.training))


def likelihood_of(run: Run, folder: RunDir, model: Any) -> Any:
    """p(x|z) that the stage `train` trained a model with, as it was learned; None: its objective has none."""
    from facefactory import checkpoint
    from facefactory.data.sets import pixels

    path = folder.path / outputs_of(folder, "train.path")["train.path"]
    found = checkpoint.at_snapshot(path, run.snapshot)
    objective = registry.build("objectives", found.objective, checkpoint.facts_of(found), model)
    objective.load_state_dict(found.own)
    return getattr(objective.to(pixels.like(model).device), "likelihood", None)


def require_trainable(
    one: Run | Judge, found: FaceSet, plan: Plan, initial: Path | None = None
) -> None:
    """UserError: the set does not suffice for a training, or it cannot be built, or it needs more memory than there is."""
    from facefactory.data.packing import enough
    from facefactory.training import trainer

    objective = registry.module("objectives", one.objective["name"]).Component
    if "logits" in objective.needs:
        enough.require_classes(found.faces, found.facts.classes)
    _require_memory(one, found.facts, plan.profile)
    trainer.check(one.model, one.objective, one.training, found.facts, initial)


def require_balance(run: Run, found: FaceSet) -> None:
    """UserError: images shall be drawn by a label that has no classes, or by weights that do not fit it."""
    balance = run.data.balance
    classes = found.facts.classes
    if balance is not None and balance not in classes:
        raise registry.unknown(
            f"data.balance={balance!r} is no label with classes", balance, classes
        )
    run.data.shares(list(found.facts.labels[balance].classes) if balance else [])


def say_doubts(run: Run, trainings: list[Run], found: FaceSet, plan: Plan) -> None:
    """Say what works and may not be meant: few images, few people, copies."""
    from facefactory.data.packing import enough

    needs = [
        registry.module("objectives", one.objective["name"]).Component.needs for one in trainings
    ]
    classifies = any("logits" in names for names in needs)
    batch_size = max((one.training.batch_size for one in trainings), default=None)
    held_out = run.evaluation.held_out if "judge" in plan.names else None
    for doubt in enough.doubts(found.faces, batch_size, held_out, classifies):
        say(f"note: {doubt}.")
    for rule in rules_of(run, found.facts):
        say(f"note: {rule}.")


def rules_of(run: Run, facts: Facts) -> list[str]:
    """A sentence for each rule of a paper that speaks of an option of this run: what it is, and what it would be."""
    component = registry.module("models", run.model["name"]).Component
    if not hasattr(component, "rules"):
        return []
    sentences = []
    for rule in component.rules(facts, run.training.batch_size):
        applies = all(_name_at(run, key) == name for key, name in rule.where.items())
        own = value_at(run, rule.key)
        if applies and own is not None:
            shown = f"{own:g}" if isinstance(own, int | float) else own
            sentences.append(f"{rule.key} is {shown}; {rule.words} is {rule.value:g}")
    return sentences


def _name_at(run: Run, key: str) -> Any:
    """Of the component at a key."""
    found = value_at(run, key)
    return found.get("name") if isinstance(found, dict) else found


def _require_memory(one: Run | Judge, facts: Facts, profile: Profile | None) -> None:
    """UserError: a training needs more memory than it will have. What its layers hold in between is not counted."""
    from facefactory import checkpoint

    options = one.training
    each = 2 if options.precision == "float64" else 1
    copies = float(each * checkpoint.TRAINED)
    images = options.batch_per_rank() // options.accumulate
    pixels = facts.channels * facts.height * facts.width
    beside = (
        checkpoint.VALUE * each * images * 3.0 * pixels
    )  # real and generated ones, and a gradient

    # on a GPU the machine's own memory holds the networks while they are built and saved, no more
    gpus = profile.gpus_per_node > 0 if profile else surroundings.sees_gpus()
    if options.device != "cpu" and gpus:
        copies, beside = 2.0 * each, 0.0

    if profile is not None:
        room = profile.memory_gb * checkpoint.GB
        whose = "a process of the profile (memory_gb)"
    else:
        room = checkpoint.memory_here() / options.ranks
        whose = "this machine" + (
            f", for each of {options.ranks} ranks," if options.ranks > 1 else ""
        )
    if beside > room:
        size = f"{facts.height}x{facts.width} pixels (height x width)"
        raise UserError(
            f"{images} images at once of {size} need {beside / checkpoint.GB:,.1f} GB, and {whose} has "
            f"{room / checkpoint.GB:,.1f} GB: give a smaller training.batch_size, or training.accumulate."
        )
    checkpoint.require_memory(one.model, facts, copies, beside, room, whose)
