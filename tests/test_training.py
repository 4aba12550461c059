"""The loop: the same bits across breaks, the same gradients on any number of ranks, nothing lost or overwritten."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from registered import AUGMENTATIONS, FIRST, TRAININGS, without_batch_norm
from torch import Tensor, nn

from facefactory import UserError, checkpoint, registry
from facefactory.data import Data
from facefactory.data.sets import loader
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Batch, Shards, batches
from facefactory.data.sets.pixels import to_model
from facefactory.draws import Draws
from facefactory.ranks import World, device_of, join
from facefactory.rundir import OwnerLost
from facefactory.training import Training, arithmetic, augmentations, ema
from facefactory.training import trainer as trainer_file
from facefactory.training.log import Log
from facefactory.training.step import Step, trained_modules
from facefactory.training.trainer import Task, Trainer, fit

ALONE = World(0, 1, torch.device("cpu"))
BATCH = 12
LABELS = ("Person", "Glasses", "Beard")  # of the set in conftest.py
# Others than these three are tested by their names alone.
GAN = "gan/dcgan adversarial terms r1"
VAE = "vae/conv elbo"
CLASSIFIER = "classifier/convnet classification"
everything = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in {*FIRST, GAN} else [pytest.mark.slow])
        for kind in TRAININGS
    ],
)


@pytest.fixture(autouse=True)
def one_thread_and_short_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads change sums in their last bits; reading thousands of images ahead of six iterations is a waste."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(loader, "AHEAD", 2 * BATCH)
    yield
    torch.set_num_threads(before)


def stream_of(made: Trainer) -> Iterator[Batch]:
    """The training's batches from its first image on, with all labels."""
    return batches(
        made.task.shards,
        made.order,
        0,
        BATCH,
        0,
        BATCH,
        wanted=LABELS,
        before=made.step.conditions,
    )


def augmentations_of(kind: str) -> list[str]:
    """All for one training of each sort; one for each of the others, by turns: they cost more than small networks do."""
    if kind in {GAN, VAE, CLASSIFIER}:
        return AUGMENTATIONS
    turn = list(TRAININGS).index(kind)
    return [AUGMENTATIONS[turn % len(AUGMENTATIONS)]]


def make_task(
    index: Index, folder: Path, kind: str = GAN, batch_norm: bool = True, **changes: Any
) -> Task:
    """A training of six iterations of 12 images; `changes` are of Task or of Training."""
    options = {
        "total_kimg": 0.072,
        "batch_size": BATCH,
        "lr": 0.01,
        "augment": augmentations_of(kind),
        "checkpoint_kimg": 0.024,
        "log_kimg": 0.0,
        "sample_kimg": 0.0,
        "checkpoint_s": 0.0,
        "log_s": 0.0,
        "sample_s": 0.0,
    }

    # what of it is Training's, and the networks
    ours = {
        name: changes.pop(name) for name in list(changes) if name in Training.__dataclass_fields__
    }
    model, objective = TRAININGS[kind]
    model = model if batch_norm else without_batch_norm(model)
    folder.mkdir(parents=True, exist_ok=True)
    task = Task(
        model=registry.resolve("models", model),
        objective=registry.resolve("objectives", objective),
        shards=Shards(index, "train"),
        options=Training(**{**options, **ours}),
        seed=3,
        folder=folder,
        identity="this training",
    )
    return replace(task, **changes)


def stop_after(iterations: int) -> Callable[[], bool]:
    asked = itertools.count()
    return lambda: next(asked) >= iterations


def killed_after(iterations: int) -> Callable[[], bool]:
    """A process that asks so often is no more."""
    asked = itertools.count()
    return lambda: next(asked) >= iterations and os.kill(os.getpid(), signal.SIGKILL) is None


def newest(folder: Path) -> checkpoint.Checkpoint:
    path = checkpoint.latest(folder / "checkpoints")
    assert path is not None
    return checkpoint.load(path)


def same(one: Any, other: Any) -> bool:
    """Whether two trees of containers and tensors are equal to the last bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def differs_from_start(found: checkpoint.Checkpoint) -> bool:
    """Guard against a training that does nothing: every network moved away from its first weights."""
    start = checkpoint.build(found.model, checkpoint.facts_of(found), 3)
    facts = checkpoint.facts_of(found)
    objective = registry.build("objectives", found.objective, facts, start)
    trained = tuple(f"{path}." for path in trained_modules(objective) if path != ".")
    first = start.state_dict()
    return all(
        not torch.equal(first[key], found.networks[key])
        for key in first
        if key.endswith("weight") and (not trained or key.startswith(trained))
    )


# -- breaks ----------------------------------------------------------------------------------------------------------


@everything
def test_a_stopped_training_goes_on_as_if_nothing_had_happened(
    index: Index, tmp_path: Path, kind: str
) -> None:
    assert fit(make_task(index, tmp_path / "whole", kind), ALONE)[0] == "finished"
    for iterations, clock in ((1, 12), (2, 36)):
        stopped = make_task(
            index,
            tmp_path / "parts",
            kind,
            should_stop=stop_after(iterations),
        )
        assert fit(stopped, ALONE)[0] == "interrupted"
        assert newest(tmp_path / "parts").clock == clock
    outcome, trainer = fit(make_task(index, tmp_path / "parts", kind), ALONE)
    whole = newest(tmp_path / "whole")
    parts = newest(tmp_path / "parts")
    assert outcome == "finished"
    assert trainer.clock == whole.clock == 72
    assert same(vars(whole), vars(parts))
    assert differs_from_start(whole)


@pytest.mark.parametrize("iterations", [0, 5])
def test_a_killed_training_goes_on_from_its_last_checkpoint_with_the_same_bits(
    index: Index, tmp_path: Path, iterations: int
) -> None:
    def killed() -> bool:
        if stop():
            raise KeyboardInterrupt
        return False

    stop = stop_after(iterations)
    extra = {"data": Data(balance="Glasses"), "total_kimg": 0.1}
    fit(make_task(index, tmp_path / "whole", **extra), ALONE)
    with pytest.raises(KeyboardInterrupt):
        fit(make_task(index, tmp_path / "parts", should_stop=killed, **extra), ALONE)
    fit(make_task(index, tmp_path / "parts", **extra), ALONE)
    assert same(vars(newest(tmp_path / "whole")), vars(newest(tmp_path / "parts")))


def test_a_stop_before_the_first_iteration_leaves_a_checkpoint_at_zero(
    index: Index, tmp_path: Path
) -> None:
    fit(make_task(index, tmp_path, should_stop=lambda: True), ALONE)
    assert newest(tmp_path).clock == 0


def test_a_longer_budget_goes_on_and_a_finished_one_does_nothing(
    index: Index, tmp_path: Path
) -> None:
    fit(make_task(index, tmp_path / "whole", total_kimg=0.096), ALONE)
    fit(
        make_task(index, tmp_path / "parts", total_kimg=0.096),
        ALONE,
        until_kimg=0.048,
    )
    assert newest(tmp_path / "parts").clock == 48
    fit(make_task(index, tmp_path / "parts", total_kimg=0.096), ALONE)
    assert same(vars(newest(tmp_path / "whole")), vars(newest(tmp_path / "parts")))
    before = checkpoint.latest(tmp_path / "parts" / "checkpoints").stat().st_mtime_ns  # type: ignore[union-attr]
    assert fit(make_task(index, tmp_path / "parts", total_kimg=0.096), ALONE)[0] == "finished"
    assert checkpoint.latest(tmp_path / "parts" / "checkpoints").stat().st_mtime_ns == before  # type: ignore[union-attr]


def test_logging_and_sampling_touch_neither_training_nor_randomness(
    index: Index, tmp_path: Path
) -> None:
    drawn: list[int] = []

    def draw(model: Any, clock: int) -> None:
        drawn.append(clock)
        model.sample(torch.randn(2, model.z_dim), torch.empty(2, 0))

    fit(make_task(index, tmp_path / "quiet"), ALONE)
    loud = make_task(
        index,
        tmp_path / "loud",
        log_kimg=0.012,
        sample_kimg=0.024,
        checkpoint_kimg=0.012,
        draw_samples=draw,
    )
    fit(loud, ALONE)
    assert drawn == [24, 48, 72]
    lines = [
        json.loads(line)
        for line in (tmp_path / "loud" / "metrics-001.jsonl").read_text().splitlines()
    ]
    assert [line["kimg"] for line in lines] == [0.012, 0.024, 0.036, 0.048, 0.060, 0.072]
    assert {"loss_d", "loss_g"} <= lines[0].keys()
    assert ["r1" in line for line in lines] == [
        True,
        False,
    ] * 3
    assert same(vars(newest(tmp_path / "quiet")), vars(newest(tmp_path / "loud")))


def test_another_seed_is_another_training(index: Index, tmp_path: Path) -> None:
    fit(make_task(index, tmp_path / "a"), ALONE)
    fit(make_task(index, tmp_path / "b", seed=4), ALONE)
    assert not same(newest(tmp_path / "a").networks, newest(tmp_path / "b").networks)


def test_each_attempt_has_its_own_metrics_file(index: Index, tmp_path: Path) -> None:
    fit(make_task(index, tmp_path, log_kimg=0.012, should_stop=stop_after(2)), ALONE)
    fit(make_task(index, tmp_path, log_kimg=0.012), ALONE)
    counts = {
        path.name: len(path.read_text().splitlines()) for path in tmp_path.glob("metrics-*.jsonl")
    }
    assert counts == {"metrics-001.jsonl": 2, "metrics-002.jsonl": 4}


def test_a_training_that_diverges_says_so(index: Index, tmp_path: Path) -> None:
    with pytest.raises(
        FloatingPointError,
        match=r"not finite at .* kimg: the training diverged; lower training\.lr",
    ):
        fit(make_task(index, tmp_path, VAE, lr=1e30, log_kimg=0.012), ALONE)


def test_a_training_says_what_ails_it_once_and_writes_it_into_its_lines(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    likelihood = {"name": "gaussian_learned", "sigma": 3.0}
    task = make_task(
        index,
        tmp_path,
        VAE,
        log_kimg=0.012,
        lr=0.0,
    )
    objective = registry.resolve("objectives", {"name": "elbo", "likelihood": likelihood})
    fit(replace(task, objective=objective), ALONE)
    lines = (tmp_path / "metrics-001.jsonl").read_text().splitlines()
    assert all("sigma ran up" in json.loads(line)["health"][0] for line in lines)
    said = capsys.readouterr().err
    assert said.count("training: sigma ran up: images explain nothing") == 1
    assert said.count("training: beta=1 on nats per image is 0.0156 where losses are means") == 1


@everything
@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_every_precision_trains(index: Index, tmp_path: Path, kind: str, precision: str) -> None:
    _, trainer = fit(
        make_task(index, tmp_path, kind, precision=precision, total_kimg=0.024), ALONE
    )
    master = torch.float64 if precision == "float64" else torch.float32
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {master}
    assert differs_from_start(newest(tmp_path))


@everything
@pytest.mark.parametrize(
    "options",
    [
        {"precision": "float16"},
        {"channels_last": True},
        {"channels_last": True, "precision": "bfloat16", "accumulate": 2},
    ],
    ids=str,
)
def test_fast_paths_go_on_with_the_same_bits(
    index: Index, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    fit(make_task(index, tmp_path / "whole", kind, **options), ALONE)
    fit(make_task(index, tmp_path / "parts", kind, should_stop=stop_after(3), **options), ALONE)
    fit(make_task(index, tmp_path / "parts", kind, **options), ALONE)
    whole = newest(tmp_path / "whole")
    assert whole.clock == 72
    assert same(vars(whole), vars(newest(tmp_path / "parts")))
    assert all(bool(tensor.isfinite().all()) for tensor in whole.networks.values())
    if options.get("precision") == "float16":
        assert all(0 < state["scale"] <= 2**16 for state in whole.scalers.values())


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_halved(
    index: Index, tmp_path: Path
) -> None:
    made = Trainer(make_task(index, tmp_path, VAE, precision="float16"), ALONE)
    (player,) = made.step.players.values()
    player.scaler.load_state_dict({**player.scaler.state_dict(), "scale": 2.0**120})
    before = copy.deepcopy(made.model.state_dict())
    stream = stream_of(made)
    log: Any = Log(tmp_path, ALONE, "", 0)
    made.step(next(stream), 0, log)
    assert same(dict(before), dict(made.model.state_dict()))
    assert player.scaler.get_scale() == 2.0**119
    player.scaler.load_state_dict({**player.scaler.state_dict(), "scale": 8.0})
    made.step(next(stream), BATCH, log)
    assert not same(dict(before), dict(made.model.state_dict()))


def test_hidden_labels_look_missing_and_are_the_same_however_a_batch_is_cut(
    index: Index, tmp_path: Path
) -> None:
    told = {}
    for parts in (1, 3):
        options = {"data": Data(label_dropout=0.5), "accumulate": parts}
        kind = "gan/resnet adversarial terms mismatch"
        made = Trainer(make_task(index, tmp_path, kind, **options), ALONE)
        seen = made.step.parts(next(stream_of(made)), 0)
        told[parts] = [
            torch.cat([getattr(part, name) for part in seen]) for name in ("c", "wrong")
        ]
    c, wrong = told[1]
    assert torch.equal(c, told[3][0])
    assert torch.equal(wrong, told[3][1])
    hidden = (c == 0).all(1)
    assert 0 < hidden.sum() < BATCH
    assert torch.equal(hidden, (wrong == 0).all(1))
    assert c[~hidden].abs().min() == 1


def test_float16_is_refused_where_no_step_can_be_left_out() -> None:
    with pytest.raises(
        UserError, match=r"float16 cannot train generator by rmsprop.*give adam, adamw or sgd"
    ):
        Training(precision="float16", optimiser="rmsprop").check(("generator",))
    Training(precision="float16", optimiser="sgd").check(("generator",))


def test_bits_that_may_change_are_not_promised() -> None:
    with pytest.raises(UserError, match=r"deterministic=true promises bits that .*compile=true"):
        Training(deterministic=True, compile=True).check(("generator",))


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    arithmetic.require(Training(), torch.device("cpu"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"compile=true needs a C\+\+ compiler.*compile=false"):
        arithmetic.require(Training(compile=True), torch.device("cpu"))


@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
@pytest.mark.parametrize("kind", [GAN, VAE, CLASSIFIER])
def test_compiled_networks_learn_the_same_and_gradients_of_gradients_stay_eager(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With a compiler that changes nothing; what it is handed is counted."""
    graphs = []

    def counted(graph: Any, inputs: Any) -> Any:
        graphs.append(len(list(graph.graph.nodes)))
        return graph.forward

    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: real(self, backend=counted))
    torch._dynamo.reset()
    fit(make_task(index, tmp_path / "eager", kind, total_kimg=0.036), ALONE)
    assert not graphs
    options = {"compile": True, "total_kimg": 0.036}
    fit(make_task(index, tmp_path / "compiled", kind, **options), ALONE)
    assert graphs
    eager = newest(tmp_path / "eager")
    compiled = newest(tmp_path / "compiled")
    assert same(dict(eager.networks), dict(compiled.networks))
    assert same(eager.averages, compiled.averages)


# -- memory ----------------------------------------------------------------------------------------------------------

CUDA_SAYS = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 139.81 GiB of "
    "which 12.19 MiB is free. Of the allocated memory 138 GiB is allocated by PyTorch."
)
CPU_SAYS = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 400000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError(CUDA_SAYS), r"\(Tried to allocate 20\.00 MiB\)"),
        (RuntimeError(CPU_SAYS), "out of memory on cpu"),
    ],
)
def test_out_of_memory_says_what_to_change_and_leaves_whole_checkpoints(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    fit(make_task(index, tmp_path / "whole", accumulate=2), ALONE)
    backward = Step.backward
    calls = itertools.count()

    def full(self: Step, *arguments: Any) -> None:
        if next(calls) == 7:  # the generator's, in the fourth iteration
            raise error
        backward(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "backward", full)
        with pytest.raises(UserError, match=said) as told:
            fit(make_task(index, tmp_path / "parts", accumulate=2), ALONE)
    assert "\n" not in str(told.value)
    assert (
        "It computes on 6 images at once: give training.accumulate=3 (4 at once, the same batch), "
        "or a smaller training.batch_size. The last checkpoint, checkpoint-000000000024.pt, is whole."
    ) in str(told.value)
    assert names(tmp_path / "parts") == ["checkpoint-000000000024.pt"]
    fit(make_task(index, tmp_path / "parts", accumulate=2), ALONE)
    assert same(vars(newest(tmp_path / "whole")), vars(newest(tmp_path / "parts")))


def test_other_faults_of_torch_are_no_lack_of_memory(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Step, *arguments: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Step, "backward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fit(make_task(index, tmp_path), ALONE)


def test_one_image_at_once_needs_a_smaller_model() -> None:
    assert "give a smaller model" in trainer_file._smaller(Training(batch_size=4, accumulate=4))


# -- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_once(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was stopped after 36 images."""
    folder = tmp_path_factory.mktemp("training")
    fit(make_task(index, folder, checkpoint_kimg=0.012, should_stop=stop_after(3)), ALONE)
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(trained_once, tmp_path / "trained")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_two_newest_checkpoints_are_kept(trained: Path) -> None:
    assert names(trained) == ["checkpoint-000000000024.pt", "checkpoint-000000000036.pt"]


def test_a_checkpoint_rebuilds_its_averaged_networks(index: Index, trained: Path) -> None:
    path = checkpoint.latest(trained / "checkpoints")
    assert path is not None
    model, found = checkpoint.rebuild(path)
    assert found.clock == 36
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    averaged = found.averages["5"]["generator"]
    assert same(dict(model.generator.state_dict()), dict(averaged))
    assert not same(averaged["project.weight"], found.networks["generator.project.weight"])
    assert same(
        model.discriminator.state_dict()["head.bias"], found.networks["discriminator.head.bias"]
    )
    assert model.sample(torch.zeros(1, 4), torch.empty(1, 0)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    "damage",
    ["truncated", "garbage", "empty", "another pickle", "no dictionary", "another format"],
)
def test_a_damaged_checkpoint_is_refused_by_name(index: Index, trained: Path, damage: str) -> None:
    path = trained / "checkpoints" / "checkpoint-000000000036.pt"
    whole = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "garbage":
            path.write_bytes(bytes(range(256)) * 10)
        case "empty":
            path.write_bytes(b"")
        case "another pickle":
            path.write_bytes(pickle.dumps({"format": 1, "run": os.getcwd}))
        case "no dictionary":
            torch.save([1, 2], path)
        case "another format":
            torch.save({**torch.load(path, weights_only=True), "format": 99}, path)
    with pytest.raises(
        UserError,
        match=r"checkpoint-000000000036\.pt is not a checkpoint this version reads.*(?i:remove it to go on)",
    ):
        fit(make_task(index, trained), ALONE)
    path.unlink()
    _, trainer = fit(make_task(index, trained), ALONE)
    assert trainer.clock == 72


class Trap:
    """A pickle that runs a command where it is opened carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_opening_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    torch.save({"format": 1, "model": Trap(tmp_path / "trapped")}, tmp_path / "checkpoint-1.pt")
    with pytest.raises(UserError, match="is not a checkpoint"):
        checkpoint.load(tmp_path / "checkpoint-1.pt")
    assert not (tmp_path / "trapped").exists()


def test_a_digest_names_the_weights_and_not_the_file(trained: Path, tmp_path: Path) -> None:
    path = checkpoint.latest(trained / "checkpoints")
    assert path is not None
    found = checkpoint.load(path)
    again = checkpoint.load(checkpoint.save(tmp_path / "elsewhere", found, lambda: None))
    assert checkpoint.digest(found) == checkpoint.digest(again)
    again.averages["5"]["generator"]["project.bias"].view(-1)[0] += 1
    assert checkpoint.digest(found) != checkpoint.digest(again)


def with_another(index: Index, split: str, **changes: str) -> Index:
    """The same set with another first shard in a split."""
    first, *others = index.split(split).shards
    shards = [dataclasses.replace(first, **changes), *others]
    changed = dataclasses.replace(index.split(split), shards=shards)
    splits = {**index.content.splits, split: changed}
    return Index(index.folder, dataclasses.replace(index.content, splits=splits))


def test_a_changed_set_refuses_unless_it_is_accepted(index: Index, trained: Path) -> None:
    other = with_another(index, "test", pixels_sha256="another")
    assert other.images_digest != index.images_digest
    with pytest.raises(
        UserError,
        match=r"the set changed since .* at 0\.036 kimg \(images was .*\).*data\.changed=accept",
    ):
        fit(make_task(other, trained), ALONE)
    with pytest.raises(UserError, match="the set changed"):
        fit(
            make_task(index, trained, shards=Shards(index, "train", torch.arange(20).numpy())),
            ALONE,
        )
    assert newest(trained).clock == 36
    fit(make_task(other, trained, data=Data(changed="accept")), ALONE)
    segments = newest(trained).segments
    assert [(found["clock"], found["images"]) for found in segments] == [
        (0, index.images_digest),
        (36, other.images_digest),
    ]
    assert {found["order"] for found in segments} == {"feistel-6-v1 over 45, balance None"}
    assert newest(trained).clock == 72


@pytest.mark.parametrize(
    ("kind", "balance", "refused"),
    [
        (CLASSIFIER, None, True),
        (GAN, "Glasses", True),
        (GAN, None, False),
    ],
)
def test_changed_labels_are_another_set_where_they_matter(
    index: Index, tmp_path: Path, kind: str, balance: str | None, refused: bool
) -> None:
    other = with_another(index, "train", table_sha256="another")
    data = Data(balance=balance)
    fit(make_task(index, tmp_path, kind, data=data, should_stop=stop_after(3)), ALONE)
    changed = make_task(other, tmp_path, kind, data=data)
    with (
        pytest.raises(UserError, match=r"the set changed since .*\(labels was")
        if refused
        else contextlib.nullcontext()
    ):
        fit(changed, ALONE)
    if refused:
        fit(replace(changed, data=replace(data, changed="accept")), ALONE)
    assert newest(tmp_path).clock == 72


def test_checkpoints_of_another_training_are_refused(index: Index, trained: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds checkpoints of another training; choose another run=… name"
    ):
        fit(make_task(index, trained, identity="another"), ALONE)


def test_a_copy_that_lost_the_folder_writes_nothing(index: Index, trained: Path) -> None:
    def lost() -> None:
        raise OwnerLost("a newer copy owns the folder")

    before = names(trained)
    with pytest.raises(OwnerLost):
        fit(make_task(index, trained, guard=lost), ALONE)
    assert names(trained) == before


# -- ranks -----------------------------------------------------------------------------------------------------------


def disturb(model: nn.Module) -> None:
    """Weights as they may be after some iterations: where some begin at 0, gradients do not reach those before them."""
    draws = torch.Generator().manual_seed(1)
    for weights in model.parameters():
        noise = torch.randn(weights.shape, generator=draws)
        weights.data += 0.02 * noise.to(weights)


def gradients(
    index: Index, world: World, folder: Path, kind: str, accumulate: int
) -> dict[str, Any]:
    """Phase -> parameter -> gradient of the batch at clock 36, which straddles an epoch's end (at 45)."""
    options = {"precision": "float64", "ranks": world.size, "accumulate": accumulate}
    trainer = Trainer(make_task(index, folder, kind, batch_norm=False, **options), world)
    trainer.clock = 36
    step = trainer.step
    disturb(trainer.model)
    stream = batches(
        trainer.task.shards,
        trainer.order,
        36,
        BATCH,
        step.lo,
        step.lo + step.share,
        False,
        LABELS,
        before=LABELS,
    )
    parts = step.parts(next(stream), trainer.clock)
    found = {}
    for name, player in step.players.items():
        step.backward(name, parts)
        found[name] = {
            str(n): None if p.grad is None else p.grad.clone()
            for n, p in enumerate(player.parameters)
        }
    return found


def work(
    rank: int,
    size: int,
    folder: Path,
    index: Index,
    cases: list[tuple[str, int]],
    breaks: bool,
    toy: tuple[Any, ...] = (),
    killed: bool = False,
) -> None:
    """What one rank does: gradients of each case, then trainings in one piece, with a break, and one that kills it."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        GLOO_SOCKET_IFNAME="lo",
    )
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/meet", rank=rank, world_size=size
    )
    world, loader.AHEAD = join(device_of("cpu", 1)), 2 * BATCH

    # gradients of each case
    torch.save(
        {case: gradients(index, world, folder, *case) for case in cases},
        folder / f"gradients-{rank}.pt",
    )

    # the same training with and without a break
    if breaks:
        options = {"ranks": size, "log_kimg": 0.012}
        fit(make_task(index, folder / "whole", **options), world)
        stop = stop_after(3) if rank == size - 1 else lambda: False  # one rank is told, all stop
        outcome, trainer = fit(
            make_task(index, folder / "parts", should_stop=stop, **options), world
        )
        assert (outcome, trainer.clock) == ("interrupted", 48)  # heard one iteration later
        fit(make_task(index, folder / "parts", **options), world)
    if toy:
        make, toys, kind = toy
        options = {"ranks": size, "precision": "float64"}
        if killed:
            dying = {"should_stop": killed_after(4), **options} if rank == 0 else options
            fit(make(index, folder / "killed", toys, kind, **dying), world)
        fit(make(index, folder / "two", toys, kind, **options), world)
        fit(make(index, folder / "parts", toys, kind, should_stop=stop_after(2), **options), world)
        fit(make(index, folder / "parts", toys, kind, **options), world)
        if (folder / "killed").exists():
            fit(make(index, folder / "killed", toys, kind, **options), world)
    torch.distributed.destroy_process_group()


def run_ranks(size: int, folder: Path, *arguments: Any, killed: bool = False) -> None:
    """Run `work` on `size` gloo ranks; torch (and _dynamo, for Adam) is imported once, by the server that forks."""
    (folder / "meet").unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["facefactory.training.trainer", "torch._dynamo", "pyarrow.parquet", "pytest"]
    )
    ranks = [
        context.Process(
            target=work, args=(rank, size, folder, *arguments), kwargs={"killed": killed}
        )
        for rank in range(size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=200)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    assert all(codes) if killed else not any(codes), f"exit codes of the ranks: {codes}"


@pytest.mark.parametrize(
    "kinds", [FIRST, pytest.param(list(TRAININGS), marks=pytest.mark.slow)], ids=["first", "all"]
)
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_have_the_gradients_of_one_process_and_survive_a_break(
    index: Index, tmp_path: Path, size: int, kinds: list[str]
) -> None:
    cases = [(kind, 3 if size == 2 else 1) for kind in kinds]
    run_ranks(size, tmp_path, index, cases, size == 4)
    found = [torch.load(tmp_path / f"gradients-{rank}.pt") for rank in range(size)]
    for kind, accumulate in cases:
        expected = gradients(index, ALONE, tmp_path, kind, 1)
        assert all(
            same(found[0][kind, accumulate], other[kind, accumulate]) for other in found
        )  # equal on all ranks
        compare(expected, found[0][kind, accumulate])
    if size == 4:
        whole = newest(tmp_path / "whole")
        parts = newest(tmp_path / "parts")
        assert whole.clock == 72
        assert same(vars(whole), vars(parts))
        assert len(list((tmp_path / "whole").glob("metrics-*.jsonl"))) == 1  # rank 0 writes alone


def compare(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Same phases and parameters, gradients equal to 1e-9; most are not zero (R1 does not depend on some biases)."""
    assert list(expected) == list(found)
    for phase, wanted in expected.items():
        assert list(wanted) == list(found[phase])
        assert (
            sum(gradient is not None and bool(gradient.any()) for gradient in wanted.values())
            >= len(wanted) / 2
        )
        for name, gradient in wanted.items():
            other = found[phase][name]
            assert (gradient is None) == (other is None), (phase, name)
            if gradient is not None:
                assert torch.allclose(gradient, other, rtol=0, atol=1e-9), (
                    phase,
                    name,
                    (gradient - other).abs().max(),
                )


@everything
def test_accumulation_has_the_gradients_of_the_whole_batch(
    index: Index, tmp_path: Path, kind: str
) -> None:
    expected = gradients(index, ALONE, tmp_path, kind, 1)
    for accumulate in (2, 12):
        compare(expected, gradients(index, ALONE, tmp_path, kind, accumulate))


def test_a_phase_leaves_the_other_networks_alone(index: Index, tmp_path: Path) -> None:
    trainer = Trainer(make_task(index, tmp_path), ALONE)
    loaded = next(
        batches(
            trainer.task.shards, trainer.order, 0, BATCH, 0, BATCH, False, LABELS, before=LABELS
        )
    )
    parts = trainer.step.parts(loaded, 0)
    trainer.step.backward("discriminator", parts)
    assert all(p.grad is None for p in trainer.model.generator.parameters())
    trainer.model.zero_grad(set_to_none=True)
    trainer.step.backward("generator", parts)
    assert all(p.grad is None for p in trainer.model.discriminator.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_never_a_silent_cpu_run() -> None:
    with pytest.raises(
        UserError, match=r"training\.device=cuda, but torch .* sees no GPU\. Check nvidia-smi"
    ):
        device_of("cuda", 1)
    assert device_of("auto", 1).type == "cpu"


# -- draws, flips, augmentation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["normal", "uniform"])
def test_a_ranks_draws_are_a_slice_of_the_global_draws(method: str) -> None:
    def draws(lo: int, hi: int, seed: int = 1, clock: int = 24) -> Draws:
        return Draws(seed, clock, 12, lo, hi, torch.device("cpu"))

    whole = getattr(draws(0, 12), method)("z", 5)
    assert whole.shape == (12, 5)
    for parts in ([0, 12], [0, 6, 12], [0, 3, 6, 9, 12]):
        assert torch.equal(
            torch.cat(
                [getattr(draws(a, b), method)("z", 5) for a, b in itertools.pairwise(parts)]
            ),
            whole,
        )
    others = [draws(0, 12, seed=2), draws(0, 12, clock=36)]
    assert all(not torch.equal(getattr(other, method)("z", 5), whole) for other in others)
    assert not torch.equal(getattr(draws(0, 12), method)("w", 5), whole)


def test_draws_have_their_distribution_and_leave_torchs_generator_alone() -> None:
    draws = Draws(
        0,
        0,
        20_000,
        0,
        20_000,
        torch.device("cpu"),
    )
    before = torch.get_rng_state()
    normal = draws.normal("z", 1)
    uniform = draws.uniform("u", 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert normal.mean().item() == pytest.approx(0, abs=0.03)
    assert normal.std().item() == pytest.approx(1, abs=0.03)
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert uniform.min() >= 0
    assert uniform.max() < 1


def test_half_of_the_images_are_mirrored_and_none_without_flip(
    index: Index, tmp_path: Path
) -> None:
    seen = {True: 0, False: 0}
    for flip in (True, False):
        trainer = Trainer(make_task(index, tmp_path, data=Data(flip=flip), augment=[]), ALONE)
        stream = batches(
            trainer.task.shards, trainer.order, 0, BATCH, 0, BATCH, False, LABELS, before=LABELS
        )
        for clock in range(0, 10 * BATCH, BATCH):
            loaded = next(stream)
            (part,) = trainer.step.parts(loaded, clock)
            for image, plain in zip(part.images, to_model(loaded.images), strict=True):
                mirrored = torch.equal(image, plain.flip(2))
                assert mirrored or torch.equal(image, plain)
                seen[flip] += mirrored
    assert 40 <= seen[True] <= 80
    assert seen[False] == 0


def draws_of(value: float) -> Callable[[str, int], Tensor]:
    return lambda purpose, columns: torch.full((4, columns), value)


def applied(kind: str, images: Tensor, u: Tensor) -> Tensor:
    """One augmentation."""
    found: Tensor = registry.module(augmentations.PACKAGE, kind).apply(images, u)
    return found


FACES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


STILL = {("x_flip", 0.999), ("rotation_90", 0.0)}  # draws that leave an image as it is


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("value", [0.0, 0.3, 0.999])
def test_augmentation_keeps_the_shape_and_does_something(kind: str, value: float) -> None:
    found = augmentations.augment(FACES, "real", [kind], draws_of(value))
    assert found.shape == FACES.shape
    assert found.dtype == FACES.dtype
    assert torch.isfinite(found).all()
    assert torch.equal(found, FACES) is ((kind, value) in STILL)


@pytest.mark.parametrize(
    "kind",
    [
        "brightness",
        "contrast",
        "saturation",
        "translation",
        "integer_translation",
        "scale",
        "anisotropic",
        "rotation",
    ],
)
def test_the_middle_draw_changes_nothing(kind: str) -> None:
    assert torch.allclose(
        augmentations.augment(FACES, "real", [kind], draws_of(0.5)), FACES, atol=1e-6
    )


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_augmentation_is_differentiable_twice(kind: str) -> None:
    u = torch.rand(
        2,
        2,
        generator=torch.Generator().manual_seed(1),
    )
    images = FACES[:2, :, :4, :4].double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: applied(kind, x, u), images)
    assert torch.autograd.gradgradcheck(lambda x: applied(kind, x, u).pow(3).sum(), images)


def test_each_augmentation_does_what_its_name_says() -> None:
    assert torch.allclose(
        applied("brightness", FACES, torch.full((4, 2), 0.9)), FACES + 0.4, atol=1e-6
    )
    low = applied("contrast", FACES, torch.zeros(4, 2))
    assert torch.allclose(low.mean((1, 2, 3)), FACES.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(low.std((1, 2, 3)), FACES.std((1, 2, 3)) / 2)
    gray = applied("saturation", FACES, torch.zeros(4, 2))
    assert torch.allclose(gray, FACES.mean(1, keepdim=True).expand_as(FACES))
    moved = applied(
        "translation", FACES, torch.tensor([[0.0, 0.999]] * 4)
    )  # 2 pixels down, 2 to the left
    assert torch.equal(moved[:, :, 2:, :-2], FACES[:, :, :-2, 2:])
    assert moved[:, :, :2].abs().sum() == moved[:, :, :, -2:].abs().sum() == 0
    blank = applied("cutout", FACES, torch.full((4, 2), 0.52)) == 0
    assert blank.sum(dim=(1, 2, 3)).tolist() == [3 * 8 * 8] * 4
    assert blank[:, :, 5:13, 5:13].all()


def test_turns_mirrors_and_moves_are_those_of_the_image() -> None:
    def at(kind: str, value: float) -> Tensor:
        return applied(kind, FACES, torch.full((4, 2), value))

    assert torch.equal(at("x_flip", 0.2), FACES.flip(3))
    for quarters in range(4):
        turned = FACES.rot90(quarters, (2, 3))
        assert torch.equal(at("rotation_90", quarters / 4 + 0.1), turned)
        assert torch.allclose(at("rotation", (quarters / 4 + 0.5) % 1), turned, atol=1e-5)
    oblong = applied("rotation_90", FACES[..., :10], torch.full((4, 2), 0.6))
    assert torch.equal(oblong, FACES[..., :10].flip(2, 3))

    # 2 pixels up and to the left; what comes in is the mirror image
    moved = at("integer_translation", 0.999)
    kept = FACES[:, :, 2:, 2:]
    beyond = FACES[:, :, -3:-1, 2:].flip(2)
    assert torch.equal(moved[:, :, :-2, :-2], kept)
    assert torch.equal(moved[:, :, -2:, :-2], beyond)


@pytest.mark.parametrize(("kind", "rows"), [("scale", 2**0.2), ("anisotropic", 2**-0.2)])
def test_scales_are_those_of_a_ramp(kind: str, rows: float) -> None:
    ramp = torch.arange(16.0).view(1, 1, 16, 1).expand(1, 1, 16, 16) - 7.5
    one_deviation = torch.full((1, 2), 0.8413447)
    for image, times in ((ramp, rows), (ramp.mT, 2**0.2)):
        found = applied(kind, image.contiguous(), one_deviation)
        wanted = image / times
        inside = slice(4, -4)
        torch.testing.assert_close(found[..., inside, inside], wanted[..., inside, inside])


def test_each_kind_comes_to_a_share_of_the_images() -> None:
    images = torch.zeros(1000, 1, 4, 4)
    draws = Draws(
        0,
        0,
        1000,
        0,
        1000,
        torch.device("cpu"),
    )
    for p in (0.0, 0.3, torch.tensor(0.3), 1.0):
        kinds = ["brightness"]
        found = augmentations.augment(images, "real", kinds, draws.uniform, p)
        changed = (found[:, 0, 0, 0] != 0).sum().item()
        assert changed == pytest.approx(1000 * p, abs=40)


def test_every_shift_is_equally_likely() -> None:
    u = (torch.arange(1000).view(-1, 1) + 0.5).expand(-1, 2) / 1000
    spot = torch.zeros(1000, 1, 16, 16)
    spot[:, :, 8, 8] = 1
    places = applied("translation", spot, u).flatten(1).argmax(1)
    assert places.bincount()[places.unique()].tolist() == [200] * 5


def test_each_image_has_its_own_draws() -> None:
    draws = Draws(
        0,
        0,
        4,
        0,
        4,
        torch.device("cpu"),
    )
    found = augmentations.augment(
        torch.zeros(4, 1, 16, 16),
        "real",
        ["brightness"],
        draws.uniform,
    )
    assert found.amax((1, 2, 3)).unique().numel() == 4
    other = augmentations.augment(
        torch.zeros(4, 1, 16, 16),
        "fake",
        ["brightness"],
        draws.uniform,
    )
    assert not torch.equal(found, other)


def test_an_unknown_augmentation_is_refused() -> None:
    augmentations.check(AUGMENTATIONS)
    with pytest.raises(
        UserError,
        match=r"training\.augment has 'rotate'; allowed are anisotropic, brightness, contrast",
    ):
        augmentations.check(["brightness", "rotate"])


# -- averaged weights ------------------------------------------------------------------------------------------------


def filled(value: float) -> nn.Module:
    module = nn.BatchNorm1d(3)
    for tensor in (*module.parameters(), module.running_mean, module.running_var):
        tensor.data.fill_(value)  # type: ignore[union-attr]
    return module


@pytest.mark.parametrize("batch_size", [1, 100, 500])
def test_after_a_half_life_the_average_is_half_way(batch_size: int) -> None:
    model = filled(0.0)
    average = ema.Average(model, (".",), half_life_kimg=0.5)
    model.load_state_dict(filled(1.0).state_dict())
    for clock in range(10**6 + batch_size, 10**6 + 501, batch_size):
        average.update(clock, batch_size)
    assert torch.allclose(average.model.weight, torch.full((3,), 0.5), atol=1e-4)
    assert torch.equal(average.model.running_mean, torch.ones(3))  # buffers are copied


@pytest.mark.parametrize(("half_life_kimg", "weight"), [(100.0, 0.5), (0.0, 1.0)])
def test_at_the_start_the_half_life_is_a_share_of_the_clock(
    half_life_kimg: float, weight: float
) -> None:
    model = filled(0.0)
    average = ema.Average(model, (".",), half_life_kimg)
    model.load_state_dict(filled(1.0).state_dict())
    average.update(
        1000, 50
    )  # 5 % of 1000 images = one batch; without half-life the average is the model
    assert torch.allclose(average.model.weight, torch.full((3,), weight))


def test_only_what_is_named_is_averaged_and_the_rest_is_the_models_own() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    average = ema.Average(model, ("0",), half_life_kimg=1.0)
    assert average.model[1] is model[1]
    assert average.model[0][0] is not model[0][0]
    assert not any(weights.requires_grad for weights in average.model[0].parameters())
    assert all(weights.requires_grad for weights in model.parameters())
    assert list(average.state()) == ["0"]
