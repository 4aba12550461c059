"""A trained run for notebooks and scripts: `facefactory.load("runs/first")`."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from facefactory import UserError, conditions, registry, sampling
from facefactory.data.sets import pixels
from facefactory.data.sets.loader import CHUNK, Shards
from facefactory.facts import Label
from facefactory.run import Run, load_run
from facefactory.rundir import RunDir
from facefactory.stages import of
from facefactory.stages._sets import index_of

Value = str | int | bool | None  # a class by its word or number; None: not known
Asked = Mapping[str, Value | Sequence[Value]]


@dataclass(frozen=True)
class Loaded:
    """The averaged networks of a run. Images are uint8 tensors [N, H, W, C], codes float32 [N, z_dim].

    What a label says is one value for all images, or a value an image; labels that are left out
    are those of the set's own images, in the order of jobs/generate.py.
    """

    folder: RunDir
    run: Run
    model: Any  # the network, in torch

    def sample(
        self, n: int, *, labels: Asked | None = None, seed: int | None = None, psi: float = 1.0
    ) -> Tensor:
        """n images [n, H, W, C]; with nothing else given, the first n of jobs/generate.py.

        `seed`: the run's own where there is none; `psi`: of truncation (`sampling.images_of`).
        UserError: the model draws nothing, or has no such label.
        """
        self._require("sample")
        if n < 1:
            raise UserError(f"n={n}; draw at least one image.")
        c = self._condition(n, labels)
        chosen = self.run.seed if seed is None else seed
        return sampling.draw(self.model, c, chosen, "generate", psi)

    def encode(self, images: Tensor, *, labels: Asked | None = None) -> Tensor:
        """Images -> means of their posteriors [N, z_dim]; UserError: it has no encoder, or they do not fit."""
        self._require("encode")
        if images.dtype != torch.uint8 or images.shape[1:] != self._shape:
            shown = f"{images.dtype} {list(images.shape)}"
            raise UserError(
                f"images are {shown}; this model takes torch.uint8 {['N', *self._shape]}."
            )
        c = self._condition(len(images), labels)
        like = pixels.like(self.model)
        means = []
        with torch.inference_mode():
            for part, asked in zip(images.split(CHUNK), c.split(CHUNK), strict=True):
                mu, _ = self.model.encode(pixels.to_model(part).to(like), asked.to(like))
                means.append(mu.float().cpu())
        return torch.cat(means)

    def decode(self, codes: Tensor, *, labels: Asked | None = None) -> Tensor:
        """Codes -> images [N, H, W, C]; UserError: it has no decoder, or they do not fit."""
        self._require("decode")
        if codes.shape[1:] != (self.model.z_dim,):
            raise UserError(
                f"codes are {list(codes.shape)}; this model takes ['N', {self.model.z_dim}]."
            )
        c = self._condition(len(codes), labels)
        like = pixels.like(self.model)
        images = []
        with torch.inference_mode():
            for part, asked in zip(codes.split(CHUNK), c.split(CHUNK), strict=True):
                decoded = self.model.decode(part.to(like), asked.to(like))
                images.append(pixels.to_uint8(decoded).cpu())
        return torch.cat(images)

    @staticmethod
    def pictures(images: Tensor) -> list[Image.Image]:
        """[N, H, W, C] uint8 -> PIL images."""
        return [pixels.grid(image[None], 1) for image in images]

    def _require(self, method: str) -> None:
        if not hasattr(self.model, method):
            able = [name for name in ("sample", "encode", "decode") if hasattr(self.model, name)]
            raise UserError(
                f"the model of {self.folder.path.name} cannot {method}; it can {' and '.join(able) or 'none of these'}."
            )

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """Of an image: height, width and channels, as it draws one."""
        columns = self._condition(1, None)
        like = pixels.like(self.model)
        with torch.inference_mode():
            drawn = self.model.sample(torch.zeros(1, self.model.z_dim).to(like), columns.to(like))
        return tuple(pixels.to_uint8(drawn).shape[1:])

    def _condition(self, count: int, labels: Asked | None) -> Tensor:
        """[count, columns]: what is asked for, as the model takes it."""
        names: tuple[str, ...] = getattr(self.model, "conditions", ())
        for name in labels or {}:
            if name not in names:
                whose = f"labels: the model of {self.folder.path.name} is told no {name!r}"
                raise registry.unknown(whose, name, names)
        if not names:
            return torch.empty(count, 0)

        # those that were left out are asked for as the set has them
        schema = self._shards.index.facts.labels
        columns = self._shards.labels(names)
        places = torch.from_numpy(conditions.positions(self._shards, count))
        values = {name: columns[name][places] for name in names}
        for name, given in (labels or {}).items():
            values[name] = codes_of(name, schema[name], given, count)
        return conditions.vector(values, names, schema)

    @cached_property
    def _shards(self) -> Shards:
        return Shards(index_of(self.folder), "train")


def codes_of(name: str, label: Label, given: Value | Sequence[Value], count: int) -> Tensor:
    """Class numbers [count] int64 of what a label is to say, -1 for None.

    UserError: it has no such class, or there are more or fewer values than images.
    """
    one = given is None or isinstance(given, str | int)
    values: list[Value] = [given] * count if one else list(given)  # type: ignore[arg-type,list-item]
    if len(values) != count:
        raise UserError(
            f"labels[{name!r}] has {len(values)} values for {count} images; give one, or one an image."
        )
    codes = []
    for value in values:
        if value is None:
            codes.append(-1)
        elif isinstance(value, str) and value in label.classes:
            codes.append(label.classes.index(value))
        elif isinstance(value, int) and 0 <= value < len(label.classes):
            codes.append(int(value))
        else:
            complaint = f"labels[{name!r}]={value!r} is no class, and no number of one"
            raise registry.unknown(complaint, value, label.classes)
    return torch.tensor(codes)


def load(
    run: str | Path,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    snapshot: Literal["last", "best"] | None = None,
) -> Loaded:
    """The networks of a run folder that is finished, where they shall compute.

    `snapshot`: of its training; what the run itself says where it is not given. UserError: there is no such run, or it has not been trained to its end.
    """
    path = Path(run).expanduser()
    if not (path / "config.yaml").is_file():
        beside = sorted(other.parent.name for other in path.parent.glob("*/config.yaml"))
        raise registry.unknown(f"{path} is no run folder", path.name, beside)
    folder = RunDir(path.absolute())
    options = load_run(folder.path)
    stage = of(options.subject)
    inside = sorted(str(found.parents[1]) for found in path.glob("*/*/*/DONE.json"))
    if folder.done(stage.name) is None and inside:
        raise UserError(f"{path} holds runs, and is none to be drawn from; load {inside[0]}.")

    # this process keeps its threads; the run's arithmetic is that of training
    training = dataclasses.replace(
        options.training,
        device=device,
        threads=torch.get_num_threads(),
        deterministic=False,
        precision="float32",
    )
    chosen = options.snapshot if snapshot is None else snapshot
    here = dataclasses.replace(options, training=training, snapshot=chosen)
    return Loaded(folder, here, stage.made(here, folder))
