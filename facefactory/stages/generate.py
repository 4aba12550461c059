"""Images drawn from the averaged networks, as PNG files or shards, as a walk, or as a grid of truncations."""

import itertools
from pathlib import Path
from typing import Any, Literal

from facefactory import UserError, rundir, say
from facefactory.data import Pack
from facefactory.facts import Size
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage, of, outputs_of
from facefactory.stages._scores import truncated
from facefactory.stages._sets import index_of

ONE_FILE = {"gif": "walk.gif", "webp": "walk.webp", "truncation": "truncation.png"}
SCORED = "truncation.json"  # beside a grid, where the set's own features are known
LAST = {"shards": "index.json", **ONE_FILE, "truncation": SCORED}  # format -> what is written last
PSIS = (0.0, 0.25, 0.5, 0.75, 1.0)
ANIMATED: dict[str, Any] = {"duration": 50, "loop": 0, "lossless": True}  # milliseconds a frame


class Component(Stage):
    """Leaves `images` and `folder`: how many were drawn, and where they lie."""

    sections = ("generate.", "seed")
    late = True
    share = "scores"

    def asks(self, run: Run) -> tuple[str, ...]:
        """The model."""
        return (of(run.subject).output(run, "checkpoint"),)

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """A folder that was named holds no other pictures."""
        if run.generate.out:
            _target(run, folder)

    def intact(self, run: Run, folder: RunDir) -> bool:
        """The last file is there."""
        last = LAST.get(run.generate.format, f"{run.generate.images - 1:08d}.png")
        return (_target(run, folder)[0] / last).exists()

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Files `00000000.png` …, shards of one split `train`, `walk.gif`, `walk.webp` or `truncation.png`."""
        import torch

        from facefactory import conditions, sampling
        from facefactory.data.packing import pack, recipe_file, recipes
        from facefactory.data.sets import pixels
        from facefactory.data.sets.loader import Shards

        model = of(run.subject).made(run, folder)
        if not hasattr(model, "sample"):
            raise UserError(
                f"the model of {folder.path.name} draws no images; give run=… of a GAN or a VAE."
            )
        target, made = _target(run, folder)
        rundir.write_json(target / "generate.json", made)
        if run.generate.format in ONE_FILE:
            return _one_file(run, folder, model, target)
        pictures = target if run.generate.format == "png" else folder.stage(self.name) / "png"
        pictures.mkdir(parents=True, exist_ok=True)

        # one picture a file
        count = run.generate.images
        asked = torch.empty(count, 0)
        if getattr(model, "conditions", ()):
            asked = conditions.asked(model, Shards(index_of(folder), "train"), count)
        drawn = itertools.chain.from_iterable(
            sampling.draws(model, asked, run.seed, "generate", run.generate.psi)
        )
        for number, image in enumerate(drawn):
            pixels.write(pixels.grid(image[None], 1), pictures / f"{number:08d}.png")

        # shards are packed from the files, as any set is
        if run.generate.format == "shards":
            color: Literal["gray", "rgb"] = "gray" if image.shape[2] == 1 else "rgb"
            height, width, _ = image.shape
            options = Pack(
                root=str(pictures),
                resolution=Size(height, width).resolution,
                color=color,
                shard_images=run.pack.shard_images,
            )
            origin = f"run {folder.path.name}"
            given = {
                "name": "generated",
                "source": "folder",
                "splits": {"train": 1.0},
                "origin": origin,
            }
            pack.pack(recipes.plan(options, recipe_file.whole(given, target)), target)
        say(f"generate: {count} images in {target}")
        return {"images": count, "folder": str(target)}, []


def _one_file(run: Run, folder: RunDir, model: Any, target: Path) -> Outputs:
    """A walk through images, or the same images at several truncations, row by row."""
    import dataclasses

    import torch

    from facefactory import conditions, sampling
    from facefactory.data.sets import pixels
    from facefactory.data.sets.loader import Shards

    options = run.generate
    walks = options.format != "truncation"
    count = 1 if walks else options.images
    asked = torch.empty(count, 0)
    if getattr(model, "conditions", ()):
        asked = conditions.asked(model, Shards(index_of(folder), "train"), count)

    path = target / ONE_FILE[options.format]
    path.parent.mkdir(parents=True, exist_ok=True)
    if walks:
        frames = sampling.walk(model, asked, run.seed, options.stops, options.images, options.psi)
        first, *others = [pixels.grid(frame[None], 1) for frame in frames]
        with rundir.naming(path):
            first.save(path, save_all=True, append_images=others, **ANIMATED)
    else:
        grid = pixels.grid(sampling.truncations(model, asked, run.seed, PSIS), count)
        scored = truncated(run, folder, model, PSIS)
        captions = (
            [row.words() for row in scored.rows] if scored else [f"psi {psi:g}" for psi in PSIS]
        )
        pixels.write(pixels.captioned(grid, captions), path)
        if scored:
            rundir.write_json(target / SCORED, dataclasses.asdict(scored))
    say(f"generate: {path}")
    return {"images": options.images, "folder": str(target)}, []


def _target(run: Run, folder: RunDir) -> tuple[Path, dict[str, Any]]:
    """The folder of the pictures, and what they are, as generate.json there says; UserError: it holds others."""
    target = Path(run.generate.out) if run.generate.out else folder.stage("generate") / "images"
    told = run.generate
    options: dict[str, Any] = {"images": told.images, "format": told.format, "seed": run.seed}
    if told.psi != 1:
        options["psi"] = told.psi
    if told.format in ("gif", "webp"):
        options["stops"] = told.stops
    checkpoint = outputs_of(folder, of(run.subject).output(run, "checkpoint"))
    made = {"run": folder.path.name, **checkpoint, **options}
    finished = [(target / name).exists() for name in LAST.values()]
    used = any(finished) or any(target.glob("*.png"))
    if used and rundir.read_json(target / "generate.json") != made:
        raise UserError(
            f"generate.out: {target} holds other pictures; remove it, or give another folder."
        )
    return target, made
