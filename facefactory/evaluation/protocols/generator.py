"""The protocol for models that draw images: distances of features with their scale, and the nearest training faces."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ImageFilter
from scipy.spatial.distance import cdist

from facefactory import UserError, conditions
from facefactory.data.sets import pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import CHUNK, Shards
from facefactory.data.sets.pixels import grid
from facefactory.draws import normal
from facefactory.evaluation import Evaluation, features, weights
from facefactory.metrics import moments
from facefactory.metrics.features import frechet_distance, kernel_distance, precision_recall

SHOWN = 64  # faces in a grid
PAIRS = 12  # faces in the strip of nearest neighbours


def draws(model: Any, c: torch.Tensor, seed: int, purpose: str) -> Iterator[torch.Tensor]:
    """Chunks of generated images [n, H, W, C] uint8, one for each condition in `c` [count, columns].

    The first ones are the same for any count.
    """
    for start in range(0, len(c), CHUNK):
        wanted = c[start : start + CHUNK]
        full = wanted[
            torch.arange(CHUNK) % len(wanted)
        ]  # sums in a layer may depend on how many there are
        z = normal(seed, start, purpose, CHUNK, model.z_dim)
        with torch.inference_mode():
            images = model.sample(z.to(pixels.like(model)), full.to(pixels.like(model)))
        yield pixels.to_uint8(images).cpu()[: len(wanted)]


def draw(model: Any, c: torch.Tensor, seed: int, purpose: str) -> torch.Tensor:
    """Generated images [count, H, W, C] uint8, one for each condition in `c` [count, columns]."""
    return torch.cat(list(draws(model, c, seed, purpose)))


def distances(
    extract: features.Extractor, real: torch.Tensor, fake: torch.Tensor, suffix: str
) -> dict[str, float]:
    """fd_, kd_, precision_ and recall_<suffix> between two sets of images [N, H, W, C] uint8."""
    first, second = extract(real), extract(fake)
    found = kernel_distance.score(first, second)
    found |= frechet_distance.score(moments(first), moments(second))
    found |= precision_recall.score(first, second)
    return {f"{name}_{suffix}": value for name, value in found.items()}


def scale(
    extract: features.Extractor, real: torch.Tensor, held_out: torch.Tensor, suffix: str
) -> dict[str, float]:
    """What kd_<suffix> means here: real faces against held-out people (floor) and against those people spoilt (ceilings).

    The ceilings are the held-out faces blurred, one of them repeated, and noise. The kernel distance is unbiased, so these
    few faces and a thousand fakes share a scale; a Fréchet distance grows as sets shrink, so it has none.

    Raises:
        UserError: a judge does not put the floor below every ceiling: its distances mean nothing.
    """
    noise = torch.randint(
        0, 256, held_out.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    blur = ImageFilter.GaussianBlur(real.shape[1] / 16)
    blurred = np.stack(
        [np.array(grid(image[None], 1).filter(blur)) for image in held_out]
    ).reshape(held_out.shape)
    sets = {
        "floor": held_out,
        "blur": torch.from_numpy(blurred),
        "repeat": held_out[:1].expand_as(held_out),
        "noise": noise,
    }
    marks = {
        name: kernel_distance.score(extract(real), extract(images))["kd"]
        for name, images in sets.items()
    }
    wrong = [
        f"{name} ({mark:.4g})"
        for name, mark in marks.items()
        if name != "floor" and mark <= marks["floor"]
    ]
    if wrong and suffix == "judge":
        raise UserError(
            f"kd_{suffix} puts held-out real faces ({marks['floor']:.4g}) above {', '.join(wrong)}: these features cannot "
            "judge images. Train the judge longer (judge.training.total_kimg), on better labels or more people."
        )
    return marks


def nearest(
    fake: torch.Tensor, real: torch.Tensor, held_out: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Nearest training face of each fake by pixels, mirrored ones included, and the memorisation ratio.

    The ratio is the median distance of fakes to their nearest training face over that of held-out people; well below 1,
    the generator shows the training set.
    """
    images = torch.cat([fake, held_out])
    rows, twins, least = (
        images.flatten(1).double().numpy(),
        images.clone(),
        np.full(len(images), np.inf),
    )
    for part in real.split(CHUNK):
        faces = torch.cat([part, part.flip(2)])
        found = cdist(rows, faces.flatten(1).double().numpy())
        nearer = np.flatnonzero(found.min(1) < least)
        twins[nearer] = faces[found.argmin(1)[nearer]]
        least = np.minimum(least, found.min(1))
    drawn, usual = np.median(least[: len(fake)]), np.median(least[len(fake) :])
    if usual == 0:
        raise UserError(
            "at least half of the held-out faces are training faces, so copies cannot be told from new faces; "
            "evaluation.held_out must be another split than evaluation.reference, of other people."
        )
    return twins[: len(fake)], float(drawn / usual)


def evaluate(
    model: Any, judge: Any, digest: str, index: Index, options: Evaluation, seed: int, folder: Path
) -> dict[str, Any]:
    """Scores, scale, protocol and pictures of a generative model; pictures are written into `folder`."""
    reference, held_back = (
        Shards(index, split) for split in (options.reference, options.held_out)
    )
    real, held_out = (shards.some(options.reals) for shards in (reference, held_back))
    fake = draw(model, conditions.asked(model, reference, options.fakes), seed, "evaluation")
    extract = features.of_judge(judge)
    scores, marks = (
        distances(extract, real, fake, "judge"),
        {"kd_judge": scale(extract, real, held_out, "judge")},
    )
    protocol = {
        "judge": digest[:8],
        "pixels": real.shape[1],
        "fakes": len(fake),
        "reals": len(real),
        "held_out": len(held_out),
    }
    protocol |= {
        "reference_split": options.reference,
        "dataset": index.images_digest[:12],
        "seed": seed,
    }
    if staged := weights.find():
        extract = features.of_inception(staged, pixels.like(judge).device)
        found = distances(extract, real, fake, "inception")
        scores |= {"fid": found.pop("fd_inception"), "kid": found.pop("kd_inception"), **found}
        marks["kid"] = scale(extract, real, held_out, "inception")
        protocol |= {
            "inception": weights.SHA256[:8],
            "inception_resize": "to 299, bilinear as in the original FID code",
        }
    twins, ratio = nearest(fake, real, held_out)
    pixels.write(grid(fake[:SHOWN], 8), folder / "samples.png")
    pairs = min(PAIRS, len(fake))
    pixels.write(grid(torch.cat([fake[:pairs], twins[:pairs]]), pairs), folder / "nearest.png")
    if hasattr(
        model, "encode"
    ):  # training faces over held-out people, each above what the model makes of it
        rows = []
        for shards in (reference, held_back):
            positions = shards.chosen(options.reals)
            positions = positions[np.linspace(0, len(positions) - 1, PAIRS).astype(int)]
            shown = shards.images(positions)
            c = conditions.of_images(model, shards, positions).to(pixels.like(model))
            with torch.inference_mode():
                mu, _ = model.encode(pixels.to_model(shown).to(pixels.like(model)), c)
                made = model.decode(mu, c)
            rows += [shown, pixels.to_uint8(made).cpu()]
        pixels.write(grid(torch.cat(rows), PAIRS), folder / "reconstructions.png")
    absent = {} if staged else dict.fromkeys(("fid", "kid"), weights.how())
    return {
        "scores": scores,
        "scale": marks,
        "not_staged": absent,
        "memorisation_ratio": ratio,
        "protocol": protocol,
    }
