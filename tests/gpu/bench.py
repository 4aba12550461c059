"""How fast trainings, samples and features are on a GPU, each beside the eager bare loop of the same network in the same run.

python tests/gpu/bench.py [--out FOLDER] [--tiny]

writes gpu-bench.json and gpu-bench.md (device, driver, torch; per case images a second, share of the
time in which the GPU was busy, peak memory, ratio to the bare loop) and ends within four minutes:
cases that would begin later are left out and named. Without a GPU it says so and writes nothing;
`--tiny` measures nothing worth knowing, on a CPU, so that this file cannot rot.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import bench_step
from gpu_faces import CLASSIFIER, GAN, VAE, lacking, packed, task

from facefactory import checkpoint, ranks, sampling
from facefactory.data import Data
from facefactory.data.sets import device as on
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import features
from facefactory.evaluation.extractors import Judge
from facefactory.evaluation.extractors import judge as judges
from facefactory.metrics.features import frechet_distance
from facefactory.ranks import World
from facefactory.training.log import Log
from facefactory.training.trainer import Trainer

GB = 1e9  # bytes
GOAL = "DCGAN, bf16, channels last"  # the case that the goals of images a second speak of


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    side: int  # pixels
    width: int  # of the networks
    depth: int
    batch: int
    faces: int  # drawn
    samples: int
    iterations: int  # of a turn
    turns: int
    budget_s: float  # after which no case begins


FULL = Scale(
    64,
    64,
    4,
    256,
    4096,
    50_000,
    48,
    4,
    240.0,
)
TINY = Scale(
    16,
    4,
    2,
    8,
    60,
    40,
    2,
    1,
    240.0,
)


@dataclass(frozen=True)
class Case:
    """A training that is measured: its options, and where its images come from."""

    name: str
    kind: tuple[dict[str, Any], dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    stage: str = "none"


LOW = {"precision": "bfloat16"}
LAST = {**LOW, "channels_last": True}
CASES = (
    Case("DCGAN, float32", GAN),
    Case("DCGAN, bf16", GAN, LOW),
    Case(GOAL, GAN, LAST),
    Case("DCGAN, bf16, channels last, set on the device", GAN, LAST, "device"),
    Case("DCGAN, bf16, optimisers not fused", GAN, {**LOW, "fused": False}),
    Case("DCGAN, fp16, channels last", GAN, {**LAST, "precision": "float16"}),
    Case("VAE, float32", VAE),
    Case("VAE, bf16, channels last", VAE, LAST),
    Case("classifier, bf16, channels last", CLASSIFIER, LAST),
    Case("DCGAN, bf16, channels last, deterministic", GAN, {**LAST, "deterministic": True}),
    Case("VAE, bf16, channels last, compiled", VAE, {**LAST, "compile": True}),
    Case("DCGAN, bf16, channels last, compiled", GAN, {**LAST, "compile": True}),
)


@dataclass(frozen=True)
class Measured:
    """One line of the table; None where there is no such figure."""

    name: str
    images_per_s: float
    bare_images_per_s: float | None = None
    ratio: float | None = None  # median over turns
    ratio_low: float | None = None
    ratio_high: float | None = None
    busy: float | None = None  # share of the time, 0…1
    peak_gb: float | None = None
    seconds: float | None = None  # of the whole case


def synchronize(device: torch.device) -> None:
    """Wait for all that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Busy:
    """Asks nvidia-smi, five times a second, whether the GPU works."""

    def __init__(self, device: torch.device) -> None:
        self.process: subprocess.Popen[str] | None = None
        if device.type == "cuda" and shutil.which("nvidia-smi"):
            uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
            which = [f"--id=GPU-{uuid.removeprefix('GPU-')}"] if uuid else []
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
            self.process = subprocess.Popen(
                ["nvidia-smi", *which, *query],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self.process.stdout is not None
            self.process.stdout.readline()  # it has begun

    def share(self) -> float | None:
        """The mean since it was begun, without its first second; None: nothing can be told, as with MIG."""
        if self.process is None:
            return None
        self.process.terminate()
        lines = self.process.communicate()[0].splitlines()[5:]
        values = [float(line) for line in lines if line.strip().isdigit()]
        return sum(values) / len(values) / 100 if values else None


def bare(case: Case, trainer: Trainer, images: torch.Tensor) -> Callable[[int], None] | None:
    """The eager loop of the same network, on images that lie on the device; None: nobody wrote one."""
    options = trainer.task.options
    if options.precision == "float16" or case.kind is CLASSIFIER:
        return None
    plain = checkpoint.build(trainer.task.model, trainer.facts).to(images.device)
    loop = bench_step.bare_gan if case.kind is GAN else bench_step.bare_vae
    return loop(plain, images, options)


def seconds(iterate: Callable[[int], None], first: int, count: int, device: torch.device) -> float:
    """Of so many iterations, from an idle device to an idle device."""
    synchronize(device)
    began = time.perf_counter()
    for number in range(first, first + count):
        iterate(number)
    synchronize(device)
    return time.perf_counter() - began


def train(
    case: Case, index: Index, folder: Path, device: torch.device, scale: Scale
) -> Iterator[Measured]:
    """Turns of the trainer, fed from shards, and of the bare loop."""
    began = time.perf_counter()
    sizes = {"width": scale.width, "depth": scale.depth}
    model, objective = case.kind
    kind = ({**model, "z_dim": 128} if model is not CLASSIFIER[0] else model, objective)
    augment = ["brightness", "contrast", "translation"] if case.kind is GAN else []
    data = Data(stage=case.stage, draws="device")  # type: ignore[arg-type]
    batch = scale.batch
    asked = {"batch_size": batch, "augment": augment, **case.options}
    made = task(
        index,
        folder,
        kind,
        data,
        sizes=sizes,
        **asked,
    )
    ranks.set_arithmetic(made.options.deterministic, tf32=False)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)

    # the trainer and its stream of batches
    trainer = Trainer(made, World(0, 1, device))
    images = made.shards.images(np.arange(batch) % len(made.shards)).to(device)
    plain = bare(case, trainer, images)
    share = on.Share(
        batch,
        0,
        batch,
        trainer.labels_read,
        trainer.step.conditions,
    )
    stream = on.stream(
        made.shards,
        trainer.order,
        0,
        share,
        device,
        case.stage,
    )
    log = Log(folder, World(0, 1, device), "", 0)

    def ours(number: int) -> None:
        trainer.clock = trainer.step(next(stream), trainer.clock, log)

    # the first turns choose kernels, compile and draw ahead
    count = scale.iterations
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(scale.turns + 1):
        for name, iterate in (("ours", ours), ("bare", plain)):
            if iterate is not None:
                times[name].append(seconds(iterate, turn * count, count, device))
    per_turn = count * batch
    peak = torch.cuda.max_memory_allocated(device) / GB if device.type == "cuda" else None

    # how busy the device is while the trainer alone works
    watch = Busy(device)
    if watch.process is not None:
        until = time.perf_counter() + 3
        while time.perf_counter() < until:
            for number in range(count):
                ours(number)
        synchronize(device)
    busy = watch.share()
    stream.close()

    speed = per_turn / statistics.median(times["ours"][1:])
    if plain is None:
        found = Measured(case.name, speed)
    else:
        pairs = zip(
            times["bare"][1:],
            times["ours"][1:],
            strict=True,
        )
        ratios = [other / own for other, own in pairs]
        found = Measured(
            name=case.name,
            images_per_s=speed,
            bare_images_per_s=per_turn / statistics.median(times["bare"][1:]),
            ratio=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
        )
    took = time.perf_counter() - began
    yield replace(found, busy=busy, peak_gb=peak, seconds=took)


def feed(index: Index, device: torch.device, scale: Scale) -> Iterator[Measured]:
    """Batches from shards to the device, on which nothing is done with them."""
    shards = Shards(index, "train")
    share = on.Share(scale.batch, 0, scale.batch)
    stream = on.stream(
        shards,
        shards.order(Data(), 0)[0],
        0,
        share,
        device,
    )
    count = 10 * scale.iterations

    def take(number: int) -> None:
        next(stream)

    seconds(take, 0, count, device)
    took = seconds(take, 0, count, device)
    stream.close()
    yield Measured("shards to the device", count * scale.batch / took, seconds=took)


def samples(index: Index, folder: Path, device: torch.device, scale: Scale) -> Iterator[Measured]:
    """Images drawn, looked at by a network and scored: by a judge as large as the GAN, and by Inception where it is."""
    sizes = {"width": scale.width, "depth": scale.depth}
    ranks.set_arithmetic(deterministic=False, tf32=False)
    gan = Trainer(task(index, folder, GAN, sizes=sizes), World(0, 1, device)).average
    judge = Trainer(task(index, folder, CLASSIFIER, sizes=sizes), World(0, 1, device)).average
    eyes: dict[str, Any] = {
        "the judge": judges.load((scale.side, scale.side), device, Judge(judge, "0" * 8))
    }
    inception = inception_here((scale.side, scale.side), device)
    if inception is not None:
        eyes["Inception"] = inception
    real = Shards(index, "train")
    for name, eye in eyes.items():
        features.look(eye, real.some(2))  # kernels are chosen
        began = time.perf_counter()
        drawn = sampling.draws(gan, torch.empty(scale.samples, 0), 0, "bench")
        fake = features.keep(eye, drawn, ["moments"])["moments"].value()
        known = features.keep(eye, real.chunks(), ["moments"])["moments"].value()
        frechet_distance.score(known, fake)
        took = time.perf_counter() - began
        words = f"{scale.samples:,} samples, looked at by {name} and scored"
        yield Measured(words, scale.samples / took, seconds=took)


def inception_here(size: tuple[int, int], device: torch.device) -> Any:
    """Inception, if its weights and the package around it are here."""
    try:
        from facefactory.evaluation import extractors

        if extractors.missing("inception") is not None:
            return None
        return extractors.load("inception", size, device, None)
    except ImportError:
        return None


def surroundings(device: torch.device, tiny: bool) -> dict[str, Any]:
    """What the figures were measured on."""
    found: dict[str, Any] = {
        "mode": "tiny, on a CPU: no figure means anything" if tiny else "full",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "device": platform.processor() or platform.machine(),
        "driver": None,
        "memory_gb": None,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"] = properties.name
        found["memory_gb"] = properties.total_memory / GB
        found["cudnn"] = torch.backends.cudnn.version()
        found["driver"] = driver()
    return found


def driver() -> str | None:
    """The driver's version, as nvidia-smi tells it."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(
            query,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = told.stdout.split()
    return lines[0] if lines else None


def goals(lines: list[Measured]) -> list[dict[str, Any]]:
    """What is aimed at on one GPU of the H200's class, and whether it was reached; None: nothing tells."""
    by_name = {line.name: line for line in lines}
    goal = by_name.get(GOAL)
    scored = [line.seconds for line in lines if "Inception" in line.name]

    def judged(words: str, value: float | None, reached: bool) -> dict[str, Any]:
        return {"goal": words, "value": value, "reached": None if value is None else reached}

    speed = goal.images_per_s if goal else None
    ratio = goal.ratio if goal else None
    busy = goal.busy if goal else None
    took = scored[0] if scored else None
    return [
        judged(f"{GOAL}: at least 60,000 images/s", speed, (speed or 0) >= 60_000),
        judged(f"{GOAL}: at least 3 x the bare loop", ratio, (ratio or 0) >= 3),
        judged(f"{GOAL}: GPU busy at least 95 %", busy, (busy or 0) >= 0.95),
        judged("50,000 samples scored by Inception in 60 s", took, (took or 1e9) < 60),
    ]


def figure(value: float | None, form: str) -> str:
    """A cell of the table."""
    return "–" if value is None else format(value, form)


def markdown(report: dict[str, Any]) -> str:
    """The same as a page."""
    about = report["surroundings"]
    memory = figure(about["memory_gb"], ".0f")
    rows = [
        "# Bench on a GPU",
        "",
        f"{about['device']}, {memory} GB, driver {about['driver']}, torch {about['torch']}, "
        f"CUDA {about['cuda']} ({about['mode']}).",
        "",
        "| case | images/s | bare loop | ratio (lowest to highest) | GPU busy | peak GB |",
        "| --- | --: | --: | --: | --: | --: |",
    ]

    # a row a case
    for line in report["cases"]:
        ratio = figure(line["ratio"], ".2f")
        if line["ratio"] is not None:
            ratio += f" ({line['ratio_low']:.2f} to {line['ratio_high']:.2f})"
        cells = [
            line["name"],
            figure(line["images_per_s"], ",.0f"),
            figure(line["bare_images_per_s"], ",.0f"),
            ratio,
            figure(line["busy"], ".0%"),
            figure(line["peak_gb"], ".2f"),
        ]
        rows.append(f"| {' | '.join(cells)} |")

    # goals, and what was left out
    rows.append("")
    words = {True: "reached", False: "not reached", None: "not measured"}
    for one in report["goals"]:
        rows.append(f"- {one['goal']}: {words[one['reached']]} ({figure(one['value'], ',.2f')})")
    rows += [f"- left out: {one['name']}: {one['why']}" for one in report["left_out"]]
    return "\n".join(rows) + "\n"


def measure(device: torch.device, scale: Scale, folder: Path, tiny: bool) -> dict[str, Any]:
    """All cases; one that fails, or has no time left, is named with the reason."""
    began = time.perf_counter()
    index = packed(
        folder,
        scale.faces,
        scale.side,
        max(16, scale.faces // 16),
    )
    lines: list[Measured] = []
    left_out: list[dict[str, str]] = []

    def trained(case: Case) -> tuple[str, Callable[[], Iterable[Measured]]]:
        return case.name, lambda: train(case, index, folder / case.name, device, scale)

    # what a compiler takes minutes for comes last
    work: list[tuple[str, Callable[[], Iterable[Measured]]]] = [
        ("shards to the device", lambda: feed(index, device, scale)),
        *(trained(case) for case in CASES if not case.options.get("compile")),
        ("samples", lambda: samples(index, folder / "samples", device, scale)),
    ]
    compiled = [case for case in CASES if case.options.get("compile")]
    if tiny:
        why = "a compiler takes minutes on a CPU"
        left_out += [{"name": case.name, "why": why} for case in compiled]
    else:
        work += [trained(case) for case in compiled]
    for name, measured in work:
        if time.perf_counter() - began > scale.budget_s:
            left_out.append({"name": name, "why": f"no time left ({scale.budget_s:.0f} s)"})
            continue
        try:
            for line in measured():
                lines.append(line)
                tell(line)
        except Exception as error:  # the others are worth having
            if tiny:
                raise
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            left_out.append({"name": name, "why": why})
    if inception_here((scale.side, scale.side), device) is None:
        why = "its weights, or torch-fidelity, are not here"
        left_out.append({"name": "Inception", "why": why})
    return {
        "version": 1,
        "surroundings": surroundings(device, tiny),
        "cases": [asdict(line) for line in lines],
        "goals": goals(lines),
        "left_out": left_out,
        "seconds": time.perf_counter() - began,
    }


def tell(line: Measured) -> None:
    """A line for the person who watches."""
    beside = "" if line.ratio is None else f", {line.ratio:.2f} x the bare loop"
    print(f"{line.name}: {line.images_per_s:,.0f} images/s{beside}", flush=True)


def main(arguments: list[str]) -> int:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("gpu-bench"),
        help="folder of the files",
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="on a CPU, to see that it works",
    )
    given = parser.parse_args(arguments)
    reason = lacking()
    if reason and not given.tiny:
        print(f"bench: {reason}; nothing was measured")
        return 0
    device = torch.device("cpu") if given.tiny else torch.device("cuda", 0)

    warnings.simplefilter("ignore")  # torch's about its own progress
    scale = TINY if given.tiny else FULL
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        report = measure(device, scale, Path(folder), given.tiny)
    given.out.mkdir(parents=True, exist_ok=True)
    page = markdown(report)
    (given.out / "gpu-bench.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.out / "gpu-bench.md").write_text(page)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
