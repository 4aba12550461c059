"""What is promised on a GPU. Each test runs on the CPU too, where it is small; `make gpu` runs those of the GPU.

It needs torch, numpy, pandas, pyarrow, pillow, pyyaml, omegaconf, pydantic, scipy, rich and pytest,
and no cluster, no network and no data.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_faces import CLASSIFIER, GAN, VAE, lacking, packed, task
from torch import Tensor
from torch import distributed as dist

from facefactory import UserError, checkpoint, ranks, sampling
from facefactory.data import Data
from facefactory.data.sets import device as on
from facefactory.data.sets import loader
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import features
from facefactory.evaluation.extractors import Judge
from facefactory.evaluation.extractors import judge as judges
from facefactory.philox import Sheet
from facefactory.ranks import World
from facefactory.training.log import Log
from facefactory.training.step import Step
from facefactory.training.trainer import Trainer, fit

# torch says much about itself on a GPU that no CPU hears
pytestmark = pytest.mark.filterwarnings("default")
CPU = torch.device("cpu")
BATCH = 12
KINDS = {"gan": GAN, "vae": VAE, "classifier": CLASSIFIER}
kinds = pytest.mark.parametrize(
    "kind",
    KINDS.values(),
    ids=list(KINDS),
)


# read when cuBLAS is first used, which may be in a test before the one that needs it
if lacking() is None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
WITHOUT = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """60 drawn faces, 16 x 16, RGB, in several shards."""
    return packed(tmp_path_factory.mktemp("drawn"), 60, 16, 20)


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=[pytest.mark.gpu, WITHOUT])])
def device(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[torch.device]:
    """The CPU, and a GPU where there is one; kernels whose bits repeat, one thread."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # and no later test inherits it
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ranks.set_arithmetic(deterministic=True, tf32=False)
    yield torch.device(request.param)
    ranks.set_arithmetic(deterministic=False, tf32=False)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache folder of the person who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading thousands of images ahead of six iterations is a waste."""
    monkeypatch.setattr(loader, "AHEAD", 2 * BATCH)
    monkeypatch.setattr(on, "AHEAD", 2 * BATCH)


def alone(device: torch.device) -> World:
    return World(0, 1, device)


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


def stop_after(iterations: int) -> Callable[[], bool]:
    asked = itertools.count()
    return lambda: next(asked) >= iterations


# -- bits --------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize(
    ("precision", "channels_last"),
    [
        ("float32", False),
        ("bfloat16", True),
        ("float16", False),
    ],
)
def test_a_stopped_training_goes_on_with_the_same_bits(
    drawn: Index,
    tmp_path: Path,
    device: torch.device,
    kind: Any,
    precision: str,
    channels_last: bool,
) -> None:
    """With the scale of float16's losses, which takes some iterations to fit those of a VAE."""
    iterations = 20 if precision == "float16" else 6
    options = {
        "precision": precision,
        "channels_last": channels_last,
        "deterministic": True,
        "total_kimg": iterations * BATCH / 1000,
    }
    data = Data(shift=1, draws="device")
    whole = task(drawn, tmp_path / "whole", kind, data, **options)
    parts = task(drawn, tmp_path / "parts", kind, data, **options)
    fit(whole, alone(device))
    stopped = replace(parts, should_stop=stop_after(iterations // 2))
    assert fit(stopped, alone(device))[0] == "interrupted"
    fit(parts, alone(device))
    expected = newest(tmp_path / "whole")
    assert expected.clock == iterations * BATCH
    assert same(vars(expected), vars(newest(tmp_path / "parts")))
    assert bool(next(iter(expected.scalers.values()))) == (precision == "float16")
    start = checkpoint.build(expected.model, checkpoint.facts_of(expected), 3).state_dict()
    assert not same(dict(start), dict(expected.networks))


@kinds
def test_images_that_lie_on_the_device_train_with_the_same_bits(
    drawn: Index, tmp_path: Path, device: torch.device, kind: Any
) -> None:
    found = []
    for stage in ("none", "device"):
        data = Data(stage=stage, draws="device")  # type: ignore[arg-type]
        fit(task(drawn, tmp_path / stage, kind, data, deterministic=True), alone(device))
        found.append(newest(tmp_path / stage))
    assert same(vars(found[0]), vars(found[1]))


@pytest.mark.parametrize("stage", ["none", "device"])
def test_the_same_images_come_in_the_same_order_as_on_the_cpu(
    drawn: Index, device: torch.device, stage: str
) -> None:
    """Also while the host runs ahead: what a batch holds is looked at late."""
    shards = Shards(drawn, "train")
    order = shards.order(Data(), 3)[0]
    share = on.Share(BATCH, 2, 9, ["Smiling"], ["Smiling"])
    there = on.stream(shards, order, 36, share, device, stage)
    here = on.stream(shards, order, 36, share, CPU)
    for _ in range(40):
        moved = next(there)
        plain = next(here)
        assert moved.images.device.type == device.type
        assert torch.equal(moved.images.cpu(), plain.images)
        assert torch.equal(moved.labels["Smiling"].cpu(), plain.labels["Smiling"])
        assert torch.equal(moved.before["Smiling"].cpu(), plain.before["Smiling"])
    there.close()
    here.close()


def test_buffers_are_not_filled_again_before_they_were_copied(
    drawn: Index, device: torch.device
) -> None:
    """No batch is looked at until all have come, behind work that keeps the device busy."""
    shards = Shards(drawn, "train")
    order = shards.order(Data(), 3)[0]
    stream = on.stream(
        shards,
        order,
        0,
        on.Share(BATCH, 0, BATCH),
        device,
    )
    busy = torch.ones(2048 if device.type == "cuda" else 16, device=device).diag()
    kept = []
    for _ in range(30):
        batch = next(stream)
        for _ in range(20):
            busy = busy @ busy
        kept.append((batch.images.clone(), batch.positions))
    for images, positions in kept:
        assert torch.equal(images.cpu(), shards.images(positions))
    stream.close()


def test_the_device_draws_the_cpus_integers(device: torch.device) -> None:
    there = Sheet(7, 40, 8, 24, device)
    here = Sheet(7, 40, 8, 24, CPU)
    for clock in range(0, 40 * 40, 40):
        for columns, purpose in ((1, "flip"), (6, "z")):
            drawn = there.draw("uniform", clock, purpose, columns).cpu()
            assert torch.equal(drawn, here.draw("uniform", clock, purpose, columns))
            normal = there.draw("normal", clock, purpose, columns).cpu().numpy()
            expected = here.draw("normal", clock, purpose, columns).numpy()
            np.testing.assert_array_max_ulp(normal, expected, 1)


@kinds
def test_gradients_are_those_of_the_cpu(
    drawn: Index, tmp_path: Path, device: torch.device, kind: Any
) -> None:
    """To 1e-3 of the largest of each tensor, in float32 without TF32."""
    gradients = []
    for where in (device, CPU):
        data = Data(draws="device", shift=1)
        made = Trainer(task(drawn, tmp_path, kind, data), alone(where))
        share = on.Share(BATCH, 0, BATCH, made.labels_read)
        stream = on.stream(made.task.shards, made.order, 0, share, where)
        parts = made.step.parts(next(stream), 0)
        found = {}
        for name, player in made.step.players.items():
            made.step.backward(name, parts)
            for number, weights in enumerate(player.parameters):
                found[name, number] = None if weights.grad is None else weights.grad.cpu()
        gradients.append(found)
        stream.close()
    one, other = gradients
    assert one.keys() == other.keys()
    assert len(one) > 3
    for name, gradient in one.items():
        expected = other[name]
        assert (gradient is None) == (expected is None), name
        if gradient is not None:
            least = 1e-3 * float(expected.abs().max()) + 1e-6
            assert torch.allclose(gradient, expected, rtol=0, atol=least), name


# -- speed that can be shown without a clock ---------------------------------------------------------


@kinds
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_no_iteration_waits_for_the_device(
    drawn: Index, tmp_path: Path, device: torch.device, kind: Any, precision: str
) -> None:
    """CUDA itself raises where the host would; on CPUs tests/test_host_reads.py counts."""
    ranks.set_arithmetic(deterministic=False, tf32=False)  # some of those kernels synchronise
    data = Data(draws="device", shift=1)
    made = Trainer(task(drawn, tmp_path, kind, data, precision=precision), alone(device))
    share = on.Share(BATCH, 0, BATCH, made.labels_read, made.step.conditions)
    stream = on.stream(made.task.shards, made.order, 0, share, device)
    log = Log(tmp_path, alone(device), "", 0)
    clock = 0
    times = 40 if device.type == "cuda" else 3
    for _ in range(times):  # purposes are met, optimisers make their state, kernels are chosen
        clock = made.step(next(stream), clock, log)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(times):
            clock = made.step(next(stream), clock, log)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    stream.close()
    assert clock == 2 * times * BATCH
    assert all(weights.isfinite().all() for weights in made.model.parameters())


# -- ranks and processes -----------------------------------------------------------------------------


def train_in(folder: Path, index: Index, device: str, seed: int, iterations: int) -> None:
    """A training in a process of its own."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(1)
    ranks.set_arithmetic(deterministic=True, tf32=False)
    data = Data(draws="device")
    total = iterations * BATCH / 1000
    made = task(
        index,
        folder,
        GAN,
        data,
        seed,
        deterministic=True,
        total_kimg=total,
    )
    fit(made, alone(torch.device(device)))


def run_together(
    device: torch.device, *arguments: tuple[Any, ...], work: Callable[..., None] = train_in
) -> None:
    """A process for each; on CPUs they are forked by a server that imports torch once."""
    context: Any = multiprocessing.get_context("spawn" if device.type == "cuda" else "forkserver")
    if device.type == "cpu":
        context.set_forkserver_preload(["facefactory.training.trainer", "torch._dynamo", "pytest"])
    processes = [context.Process(target=work, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=180)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * len(processes)


def test_two_processes_on_one_device_do_not_disturb_each_others_bits(
    drawn: Index, tmp_path: Path, device: torch.device
) -> None:
    iterations = 60 if device.type == "cuda" else 3
    given = [(drawn, str(device), seed, iterations) for seed in (3, 4)]
    run_together(device, *[(tmp_path / f"together-{one[2]}", *one) for one in given])
    train_in(tmp_path / "alone-3", *given[0])
    one = newest(tmp_path / "together-3")
    other = newest(tmp_path / "together-4")
    assert same(one.networks, newest(tmp_path / "alone-3").networks)
    assert not same(one.networks, other.networks)


def train_ranks(folder: Path, index: Index, device: str, size: int, rank: int) -> None:
    """A rank of a training, whose gradients DDP averages in the device's own group."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        GLOO_SOCKET_IFNAME="lo",
    )
    torch.set_num_threads(1)
    here = torch.device(device, rank) if device == "cuda" else torch.device(device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    ranks.set_arithmetic(deterministic=True, tf32=False)
    dist.init_process_group(
        "gloo",
        f"file://{folder}/meet",
        rank=rank,
        world_size=size,
    )
    talk, compute = ranks.groups(here)

    # one rank alone is DDP's with a group of one, so that a single GPU tries NCCL
    world = World(rank, max(2, size), here, talk, compute)
    made = task(
        index,
        folder,
        GAN,
        Data(draws="device"),
        ranks=size,
        deterministic=True,
    )
    outcome, trainer = fit(made, world)
    assert outcome == "finished"
    assert trainer.clock == 72
    total = world.sum(torch.ones(1, device=here))
    (folder / f"rank-{rank}.json").write_text(json.dumps(total.tolist()))
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [1, 2])
def test_ranks_train_in_the_devices_own_group(
    drawn: Index, tmp_path: Path, device: torch.device, size: int
) -> None:
    """NCCL on GPUs, gloo on CPUs; that of one rank is the training without ranks."""
    there = torch.cuda.device_count() if device.type == "cuda" else size
    if there < size:
        pytest.skip(f"NCCL needs a GPU a rank: {size} are asked for, {there} is here")
    folder = tmp_path / "ranks"
    folder.mkdir()
    given = [(folder, drawn, device.type, size, rank) for rank in range(size)]
    run_together(device, *given, work=train_ranks)
    assert json.loads((folder / "rank-0.json").read_text()) == [float(size)]
    fit(
        task(drawn, tmp_path / "one", GAN, Data(draws="device"), deterministic=True), alone(device)
    )
    if size == 1:
        assert same(newest(folder).networks, newest(tmp_path / "one").networks)


# -- memory ------------------------------------------------------------------------------------------


def test_out_of_memory_is_told_and_leaves_a_whole_checkpoint(
    drawn: Index, tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU it is its own allocator that refuses; on the CPU that is simulated."""
    options = {"checkpoint_kimg": 0.024, "deterministic": True}
    data = Data(draws="device")
    fit(task(drawn, tmp_path / "whole", GAN, data, **options), alone(device))
    backward = Step.backward
    calls = itertools.count()

    def full(self: Step, *arguments: Any) -> None:
        if next(calls) == 7:
            if device.type == "cpu":
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2 GiB. And so on"
                )
            free = torch.cuda.mem_get_info(device)[1]
            torch.empty(
                2 * free,
                dtype=torch.uint8,
                device=device,
            )
        backward(self, *arguments)

    parts = task(drawn, tmp_path / "parts", GAN, data, **options)
    with monkeypatch.context() as patch:
        patch.setattr(Step, "backward", full)
        with pytest.raises(
            UserError, match=r"out of memory on .*\(Tried to allocate .*accumulate=2"
        ):
            fit(parts, alone(device))
    assert newest(tmp_path / "parts").clock == 24
    fit(parts, alone(device))
    assert same(vars(newest(tmp_path / "whole")), vars(newest(tmp_path / "parts")))


# -- samples and features ----------------------------------------------------------------------------


def test_samples_and_features_are_those_of_the_cpu(
    drawn: Index, tmp_path: Path, device: torch.device
) -> None:
    shards = Shards(drawn, "train")
    conditions = torch.empty(300, 0)
    found = []
    for where in (device, CPU):
        gan = Trainer(task(drawn, tmp_path, GAN), alone(where)).average
        seen = Trainer(task(drawn, tmp_path, CLASSIFIER), alone(where)).average
        images = sampling.draw(gan, conditions, 5, "evaluation")
        assert images.shape == (300, 16, 16, 3)
        assert images.device.type == "cpu"
        eye = judges.load((16, 16), where, Judge(seen, "0123456789"))
        looked = features.look(eye, shards.images())
        found.append((images, looked.features, features.logits(seen, shards)["Smiling"]))
        assert looked.features.device.type == "cpu"
    (images, seen_there, said_there), (plain, seen_here, said_here) = found
    assert (images.int() - plain.int()).abs().max() <= 1
    assert torch.allclose(seen_there, seen_here, atol=1e-3)
    assert torch.allclose(said_there, said_here, atol=1e-3)
