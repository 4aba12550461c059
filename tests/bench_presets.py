"""Presets at equal processor seconds, from several seeds: scores and faces of GANs on two sets, of VAEs on one.

python tests/bench_presets.py FOLDER [PRESET …]; without names all of `COURSES`, one after the other:
hours of one core. What is there already is skipped. FOLDER gets `table.md`, `faces/*.png`, and a
config file for each training, which can be given again as `config=…`.
"""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_vaes
import yaml
from PIL import Image

from facefactory import command, config, rundir
from facefactory.run import JOBS
from facefactory.rundir import RunDir
from facefactory.stages._sets import index_of
from facefactory.training import trainer  # noqa: F401  # what is imported takes no time from a training

SEEDS = (0, 1, 2)
LEAST_KIMG = 0.064  # of the first of the trainings that tell a preset's speed
PROBE_S = 3.0  # processor seconds that the last of them takes longer at least
SCORES = ("kd_lite0", "clipped_density_lite0", "clipped_coverage_lite0", "vendi_lite0")
FACES_HIGH = 64  # pixels of a picture
COLOURS = 64  # of it
VAE_PRESETS = ("beta-vae", "tc", "factor", "two-stage", "vq", "vae")  # decisive ones first
STUDENTS = ("fc-gan-celeba", "facegen-dcgan3", "dcgan-celeba64", "progressive-celeba")
MODERN = ("r3-orl32", "stylegan2-orl32", "resnet-orl32")


@dataclass(frozen=True)
class Family:
    """How presets of one kind are trained and measured."""

    job: str
    preset: str  # its default
    scores: tuple[str, ...]  # the first one ranks
    measure: Callable[[RunDir], dict[str, float]]  # of a run that was evaluated
    picture: Callable[[dict[str, Any]], str] | None = None  # an SVG of all rows


@dataclass(frozen=True)
class Course:
    """A set, and what runs on it."""

    family: Family
    pack: dict[str, Any]
    seconds: float  # of a processor, for each training
    scoring: tuple[str, ...]  # how the protocol `quick` is changed
    presets: tuple[str, ...]


def of_samples(folder: RunDir) -> dict[str, float]:
    """The scores of what a run draws."""
    found = rundir.read_json(folder.path / "evaluate" / "results.json")["scores"]
    scores = {score["name"]: score["value"] for score in found}
    return {key: scores[key] for key in SCORES}


GANS = Family("train_gan", "dcgan-orl32", SCORES, of_samples)
VAES = Family(
    job="train_vae",
    preset="conv-orl32",
    scores=bench_vaes.SCORES,
    measure=bench_vaes.measure,
    picture=bench_vaes.picture,
)
COURSES = {
    "orl32": Course(
        family=GANS,
        pack={"recipe": "orl", "resolution": 32, "color": "gray"},
        seconds=60,
        scoring=("evaluation.fakes=1000",),
        presets=("dcgan-orl32", *STUDENTS, "fer-gan1", "fer-gan5", *MODERN),
    ),
    "drawn64": Course(
        family=GANS,
        pack={"recipe": "drawn", "resolution": 64, "color": "rgb"},
        seconds=90,
        scoring=("evaluation.fakes=500", "evaluation.reals=500", "evaluation.held_out="),
        presets=("dcgan-drawn64", *STUDENTS, "r3-drawn64", "stylegan2-drawn64"),
    ),
    "vaes64": Course(
        family=VAES,
        pack={"recipe": "drawn", "resolution": 64, "color": "rgb"},
        seconds=120,
        scoring=("evaluation.fakes=400", "evaluation.reals=500"),
        presets=tuple(f"{name}-drawn64" for name in VAE_PRESETS),
    ),
}


@dataclass(frozen=True)
class Trained:
    """A training and its scores."""

    seed: int
    kimg: float
    seconds: float  # of a processor
    scores: dict[str, float]


def budgeted(part: Any, share: float, name: str = "") -> Any:
    """A preset's tree, or a part of it below `name`, with all that is counted in kimg times `share`.

    These are keys that end in `_kimg`, their elements, and the points of schedules.
    """
    if isinstance(part, dict):
        scaled = {}
        for key, value in part.items():
            if isinstance(key, str):
                scaled[key] = budgeted(value, share, key)
            else:
                scaled[key * share] = budgeted(value, share, name)
        return scaled
    if isinstance(part, list):
        return [budgeted(value, share, name) for value in part]
    if "_kimg" in name and not isinstance(part, str):
        return part * share
    return part


class Bench:
    """A course's trainings, in a folder that is gone on with."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.course = COURSES[name]
        self.folder = folder
        self.place = folder / name
        self.place.mkdir(parents=True, exist_ok=True)
        own = {"pack": self.course.pack}
        self._start("set", own, 0, ("pack",))
        labels = index_of(RunDir(self.place / "runs" / "set")).content.labels
        self.labels = [key for key, label in labels.items() if label.kind == "binary"]

    def all_of(self, preset: str) -> Iterator[Trained]:
        """Its trainings from every seed; one that diverges is told and left out."""
        for seed in SEEDS:
            record = self.place / f"{Path(preset).stem}-{seed}.json"
            if not record.exists():
                try:
                    done = self._one(preset, seed)
                except FloatingPointError as error:
                    print(f"{self.name}, {preset}, seed {seed}: {error}", flush=True)
                    continue
                rundir.write_json(record, dataclasses.asdict(done))
            yield Trained(**rundir.read_json(record))

    def _one(self, preset: str, seed: int) -> Trained:
        """Train and score one."""
        fixed, per_kimg = self._speed(preset)
        kimg = round((self.course.seconds - fixed) / per_kimg, 3)
        name = f"{Path(preset).stem}-{seed}"
        seconds = self._train(preset, kimg, seed, name)

        # scores by the project's own protocol, and the first faces
        words = [f"run={name}", f"paths.runs={self.place / 'runs'}", "cluster=local"]
        protocol = ["evaluation.protocol=quick", *self.course.scoring]
        command.start(
            "evaluate",
            ("pack", "judge", "evaluate"),
            None,
            [*words, *protocol],
        )
        evaluated = self.place / "runs" / name / "evaluate"
        scores = self.course.family.measure(RunDir(self.place / "runs" / name))
        if seed == SEEDS[0]:
            self._show(preset, evaluated / "samples.png")
        return Trained(seed, kimg, seconds, scores)

    def _speed(self, preset: str) -> tuple[float, float]:
        """Processor seconds that any training takes, and those of a thousand images, by short ones."""
        record = self.place / f"{Path(preset).stem}-speed.json"
        if not record.exists():
            kimg = LEAST_KIMG
            first = self._train(preset, kimg, 0, "probe")
            speed = (0.0, first / kimg)
            last = first
            while first < PROBE_S and last - first < PROBE_S:
                kimg *= 8 if last - first < PROBE_S / 16 else 2
                last = self._train(preset, kimg, 0, "probe")
                per_kimg = (last - first) / (kimg - LEAST_KIMG)
                speed = (first - LEAST_KIMG * per_kimg, per_kimg)
            rundir.write_json(record, list(speed))
        fixed, per_kimg = rundir.read_json(record)
        return fixed, per_kimg

    def _train(self, preset: str, kimg: float, seed: int, name: str) -> float:
        """Processor seconds of the whole command, from a plan to the last checkpoint."""
        return self._start(
            name,
            self.tree(preset, kimg),
            seed,
            ("pack", "train"),
        )

    def tree(self, preset: str, kimg: float) -> dict[str, Any]:
        """Its config for this set and a budget; labels are those that the set has."""
        own = preset.endswith(".yaml")
        path = Path(preset) if own else JOBS / "presets" / f"{preset}.yaml"
        whole = config.read_yaml(path)
        tree = budgeted(whole, kimg / whole["training"]["total_kimg"])
        tree["pack"] = self.course.pack
        tree["training"]["sample_kimg"] = 0
        if "conditions" in tree["model"]:
            tree["model"]["conditions"] = self.labels
        return tree

    def _start(self, name: str, tree: dict[str, Any], seed: int, stages: tuple[str, ...]) -> float:
        """Processor seconds of stages, as a job runs them, whatever a broken-off command left of that run."""
        shutil.rmtree(self.place / "runs" / name, ignore_errors=True)
        path = self.place / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        words = [f"config={path}", f"run={name}", f"seed={seed}", "cluster=local"]
        places = [f"paths.runs={self.place / 'runs'}", f"paths.data={self.folder / 'packed'}"]
        before = time.process_time()
        family = self.course.family
        command.start(
            family.job,
            stages,
            family.preset,
            [*words, *places],
        )
        return time.process_time() - before

    def _show(self, preset: str, samples: Path) -> None:
        """The first rows of the grid that scores leave, which have the same z for all presets of one z_dim."""
        target = self.folder / "faces" / f"{self.name}-{Path(preset).stem}.png"
        target.parent.mkdir(exist_ok=True)
        with Image.open(samples) as grid:
            top = grid.crop((0, 0, grid.width, FACES_HIGH))
            top.quantize(COLOURS).save(target, optimize=True)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    mean = statistics.mean(values)
    digits = 1
    for least in (2, 0.1):
        digits += abs(mean) < least
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def row(preset: str, runs: list[Trained], scores: tuple[str, ...]) -> str:
    """A line of a table."""
    kimg = statistics.mean([run.kimg for run in runs])
    seconds = statistics.mean([run.seconds for run in runs])
    cells = [f"`{preset}`", f"{kimg:.3g}", f"{seconds:.0f}"]
    for name in scores:
        values = [run.scores[name] for run in runs if name in run.scores]
        cells.append(spread(values) if values else "–")
    return f"| {' | '.join(cells)} |"


def complete(rows: dict[str, list[Trained]]) -> dict[str, list[Trained]]:
    """The presets that were trained from every seed."""
    return {preset: runs for preset, runs in rows.items() if len(runs) == len(SEEDS)}


def table(name: str, rows: dict[str, list[Trained]]) -> str:
    """A course's rows, the least kernel distance first."""
    scores = COURSES[name].family.scores
    whole = complete(rows)

    def distance(preset: str) -> float:
        return statistics.mean([run.scores[scores[0]] for run in whole[preset]])

    seconds = COURSES[name].seconds
    title = f"`{name}`: {seconds:g} processor seconds a training, {len(SEEDS)} seeds"
    columns = f"| preset | kimg | processor seconds | {' | '.join(scores)} |"
    lines = [row(preset, whole[preset], scores) for preset in sorted(whole, key=distance)]
    return "\n".join([title, "", columns, f"|{' --- |' * (3 + len(scores))}", *lines, ""])


def main() -> None:
    """All courses; the table is written anew after every preset."""
    folder = Path(sys.argv[1]).absolute()
    asked = sys.argv[2:]
    tables: dict[str, str] = {}
    for name, course in COURSES.items():
        bench = Bench(folder, name)
        rows: dict[str, list[Trained]] = {}
        for preset in course.presets:
            if not asked or preset in asked:
                rows[preset] = list(bench.all_of(preset))
                tables[name] = table(name, rows)
                (folder / "table.md").write_text("\n".join(tables.values()))
        whole = complete(rows)
        if course.family.picture and whole:
            (folder / f"{name}.svg").write_text(course.family.picture(whole))
    print((folder / "table.md").read_text())


if __name__ == "__main__":
    main()
