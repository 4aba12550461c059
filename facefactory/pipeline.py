"""READ FIRST: the config tree `Run`, the stages of a chain in their order, and what each stage's results depend on.

A stage reads the files of the stages before it and adds its own; DONE.json says of which config and inputs they speak.
What the stages do is in stages.py.
"""

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from facefactory import UserError, config, registry, rundir
from facefactory.config import key, section
from facefactory.data import Data, Pack
from facefactory.evaluation import Evaluation
from facefactory.interpret import Interpret
from facefactory.rundir import RunDir
from facefactory.sweep import Space, Sweep, check_space
from facefactory.training import Training

if TYPE_CHECKING:
    from facefactory.data.index import Index
    from facefactory.data.recipes import Plan

SEARCHED = ("model.", "objective.", "training.", "data.flip", "data.shift", "data.balance")
FIXED = ("training.total_kimg", "training.ranks", "training.threads", "training.device")
JOBS = Path(__file__).parents[1] / "jobs"


@dataclass(frozen=True)
class Paths:
    """Where things lie."""

    runs: str = key("runs", "folder of the run folders", identity=False)
    data: str = key("shards", "folder of packed sets and judges", identity=False)


@dataclass(frozen=True)
class Judge:
    """The classifier whose features and verdicts score everything else; one per dataset, shared by all runs."""

    model: dict[str, Any] = key({"name": "classifier/convnet"}, "network of the judge")
    objective: dict[str, Any] = key({"name": "classification"}, "its loss")
    training: Training = section(
        Training, total_kimg=35.0, batch_size=32, lr=1e-3, betas=[0.9, 0.99], ema_half_lives_kimg=[2.0], sample_kimg=0.0
    )
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
    seed: int = key(0, "seed of all randomness", low=0, high=2**63 - 1)
    cluster: Literal["auto", "local", "slurm"] = key("auto", "auto: Slurm where there is one, else this machine", identity=False)
    profile: str | None = key(None, "cluster profile: a name in slurm/ or ~/.config/facefactory/, or a path", identity=False)
    wait: bool = key(False, "on Slurm: return when all jobs have ended", identity=False)
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
    sweep: Sweep = section(Sweep)
    generate: Generate = section(Generate)


@dataclass(frozen=True)
class Stage:
    """A step of a chain: the config keys its results depend on, and the digests of what it reads."""

    sections: tuple[str, ...]
    inputs: Callable[[Run, RunDir], dict[str, Any]]

    def config(self, run: Run, *, resumes: bool = True) -> dict[str, Any]:
        """The keys this stage depends on; `resumes=False`: those that may not change while it is interrupted."""
        flat = config.flat(run, resumes=resumes)
        found = {name: value for name, value in flat.items() if name.startswith(self.sections)}
        components = {name: str(value.get("name")) for name, value in found.items() if isinstance(value, dict)}
        files = {name: path for name, path in components.items() if path.endswith(".py")}
        return found | {f"{name} file": rundir.sha256(registry.own_file(path)) for name, path in files.items()}


def outputs_of(folder: RunDir, *names: str) -> dict[str, Any]:
    """`stage.output` -> value from the DONE files of earlier stages; UserError: such a stage is not finished."""
    found = {}
    for name in names:
        stage, output = name.split(".")
        done = folder.done(stage) or {}
        if "outputs" not in done:
            raise UserError(f"{folder.path.name} has no finished stage {stage!r}; run its job first (train_… or sweep_…).")
        found[name] = done["outputs"][output]
    return found


def _reads(*names: str) -> Callable[[Run, RunDir], dict[str, Any]]:
    return lambda run, folder: outputs_of(folder, *names)


def _pack_inputs(run: Run, folder: RunDir) -> dict[str, Any]:
    """Digests of recipe, labels and images, or of the index of shards that were packed elsewhere."""
    from facefactory.data import index

    if run.data.shards:
        return {"index": config.digest(index.read(Path(run.data.shards)).content)}
    return dict(plan_of(run, folder).fingerprint)


def plan_of(run: Run, folder: RunDir) -> "Plan":
    """What is to be packed; made once a command: listing millions of files on shared storage takes minutes."""
    from facefactory.data import recipes

    if "plan" not in folder.kept:
        folder.kept["plan"] = recipes.plan(run.pack)
    plan: Plan = folder.kept["plan"]
    return plan


def _train_inputs(run: Run, folder: RunDir) -> dict[str, Any]:
    """Pixels; labels too where they are learned or balanced."""
    labelled = registry.module("objectives", run.objective["name"]).Component.uses_labels or run.data.balance
    return outputs_of(folder, "pack.images", *(["pack.labels"] if labelled else []))


def _sweep_inputs(run: Run, folder: RunDir) -> dict[str, Any]:
    """The judge, the pixels and what the search space holds."""
    return {**outputs_of(folder, "judge.judge", "pack.images"), "space": config.digest(space_of(run))}


def _report_inputs(run: Run, folder: RunDir) -> dict[str, Any]:
    """What every other stage left."""
    return {stage: done["outputs"] for stage in STAGES if stage not in ("report", "generate") and (done := folder.done(stage))}


_TRAINS = ("seed", "model", "objective", *SEARCHED, "data.weights", "data.window_images")
STAGES = {
    "pack": Stage(("pack.", "data.shards"), _pack_inputs),
    "judge": Stage(("judge.",), _reads("pack.images", "pack.labels")),
    "train": Stage(_TRAINS, _train_inputs),
    "evaluate": Stage(("evaluation.", "seed"), _reads("train.checkpoint", "judge.judge", "pack.images", "pack.labels")),
    "interpret": Stage(("interpret.", "seed"), _reads("train.checkpoint", "judge.judge", "pack.images", "pack.labels")),
    "sweep": Stage(("sweep.", "evaluation.", *_TRAINS), _sweep_inputs),
    "finalists": Stage(
        ("sweep.finalists", "training.", "evaluation.", "interpret."),
        _reads("sweep.trials", "judge.judge", "pack.images", "pack.labels"),
    ),
    "generate": Stage(("generate.", "seed"), _reads("train.checkpoint")),
    "report": Stage((), _report_inputs),
}
FINALIST = ("pack", "judge", "train", "evaluate", "interpret")  # the stages of a finalist, a run of its own


def index_of(folder: RunDir) -> "Index":
    """The packed set of a run, checked."""
    from facefactory.data import index

    found = index.read(Path(outputs_of(folder, "pack.folder")["pack.folder"]))
    found.verify()
    return found


def config_of(path: Path) -> dict[str, Any]:
    """The content of a run folder's config.yaml.

    UserError: it lacks keys that the run was made with: it was cut, and what it lacks is not what defaults say.
    """
    file = path / "config.yaml"
    content = config.read_yaml(file)
    for name in rundir.read_json(path / "identity.json") or {}:
        part: Any = content
        for word in name.split("."):
            part = part.get(word, ...) if isinstance(part, dict) else ...
        if part is ...:
            raise UserError(
                f"{file} {rundir.DAMAGED}: it has no {name}. Give the command that made the run again "
                f"(the first line of {path / 'command.txt'}); it writes the file anew."
            )
    return content


def load_run(path: Path, options: Sequence[str] = ()) -> Run:
    """The resolved config of a run folder, with the `key=value` options of a job that works on a finished run."""
    return config.load(Run, list(options), [config_of(path)])


def resolve(run: Run) -> Run:
    """Every default of the components filled in, every relative path made absolute; UserError: no such component or option."""

    def absolute(path: str | None) -> str | None:
        try:
            return None if path is None else str(Path(os.path.expandvars(path)).expanduser().absolute())
        except RuntimeError as error:
            raise UserError(f"{path}: {error} Write the whole path.") from None

    def named(name: str) -> str:
        return str(absolute(name)) if str(name).endswith((".py", ".yaml", ".yml")) else name

    def component(package: str, spec: dict[str, Any]) -> dict[str, Any]:
        return registry.resolve(package, {**spec, "name": named(spec["name"])})

    replace = dataclasses.replace
    judged = {"model": component("models", run.judge.model), "objective": component("objectives", run.judge.objective)}
    return replace(
        run,
        paths=Paths(str(absolute(run.paths.runs)), str(absolute(run.paths.data))),
        pack=replace(run.pack, recipe=named(run.pack.recipe), root=absolute(run.pack.root), labels=absolute(run.pack.labels)),
        sweep=replace(run.sweep, space=named(run.sweep.space)),
        data=replace(run.data, shards=absolute(run.data.shards)),
        generate=replace(run.generate, out=absolute(run.generate.out)),
        model=component("models", run.model),
        objective=component("objectives", run.objective),
        training=run.training.resolved(),
        judge=replace(run.judge, training=run.judge.training.resolved(), **judged),
    )


def space_of(run: Run) -> Space:
    """The search space, checked."""
    name = run.sweep.space
    space = config.read_yaml(registry.own_file(name) if name.endswith((".yaml", ".yml")) else JOBS / "spaces" / f"{name}.yaml")
    check_space(space, name)
    for param in space:
        if not param.startswith(SEARCHED) or param in FIXED:
            raise UserError(f"space {name}: {param} is the same for all trials; a space may hold {', '.join(SEARCHED)} keys.")
    return space


def with_params(run: Run, params: dict[str, Any], **training: Any) -> Run:
    """The config tree of a trial; a model of another name starts from its own defaults."""
    tree = dataclasses.asdict(run)
    for part in ("model", "objective"):
        name = params.get(f"{part}.name", tree[part]["name"])
        if name != tree[part]["name"]:
            tree[part] = {"name": name}
    arguments = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in params.items()]
    made = config.load(Run, arguments, [tree])
    return resolve(dataclasses.replace(made, training=dataclasses.replace(made.training, **training)))


def own_files(run: Run) -> list[str]:
    """Files of the user's that a run reads: models, objectives, search space."""
    parts = (run.model, run.objective, run.judge.model, run.judge.objective)
    names = [run.sweep.space, *(part["name"] for part in parts)]
    return sorted({name for name in names if name.endswith((".py", ".yaml", ".yml"))})


def repeat_command(path: Path, run: Run) -> str:
    """The command that trains a run folder's config again, under another name."""
    job = {"gan": "train_gan", "vae": "train_vae"}.get(run.model["name"].split("/")[0], "train_classifier")
    return f"python jobs/{job}.py config={shlex.quote(str(path / 'config.yaml'))} run=repeat-{path.name}"
