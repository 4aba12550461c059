"""The protocol for models that draw images: distances of features with their scale, and the nearest training faces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy.spatial.distance import cdist

from facefactory import UserError
from facefactory.data import pixels
from facefactory.data.index import Index
from facefactory.data.loader import Shards
from facefactory.evaluation import Evaluation, features, weights
from facefactory.metrics.features import frechet_distance, kernel_distance, precision_recall
from facefactory.training.random import normal

CHUNK = 256  # images drawn at once
SHOWN = 64  # faces in a grid
PAIRS = 12  # faces in the strip of nearest neighbours
ORDERED = ("fd", "kd")


def draws(model: Any, count: int, seed: int, purpose: str) -> Iterator[torch.Tensor]:
    """Chunks of generated images [n, H, W, C] uint8, `count` in all; the first ones are the same for any count."""
    example = features.like(model)
    for start in range(0, count, CHUNK):
        with torch.inference_mode():
            z = normal(seed, start, purpose, CHUNK, model.z_dim).to(example)
            images = pixels.to_uint8(model.sample(z)).cpu()
        yield images[: count - start]


def draw(model: Any, count: int, seed: int, purpose: str) -> torch.Tensor:
    """Generated images [count, H, W, C] uint8."""
    return torch.cat(list(draws(model, count, seed, purpose)))


def grid(images: torch.Tensor, columns: int) -> Image.Image:
    """[N, H, W, C] uint8 -> one picture, row by row; what does not fill a row is left out."""
    rows = len(images) // columns
    height, width, channels = images.shape[1:]
    tiled = images[: rows * columns].view(rows, columns, height, width, channels).permute(0, 2, 1, 3, 4)
    array = tiled.reshape(rows * height, columns * width, channels).numpy()
    return Image.fromarray(array[..., 0] if channels == 1 else array)


def distances(extract: features.Extractor, real: torch.Tensor, fake: torch.Tensor, suffix: str) -> dict[str, float]:
    """fd_, kd_, precision_ and recall_<suffix> between two sets of images [N, H, W, C] uint8."""
    first, second = extract(real), extract(fake)
    precision, recall = precision_recall.score(first, second)
    return {
        f"kd_{suffix}": kernel_distance.score(first, second),
        f"fd_{suffix}": frechet_distance.score(first, second),
        f"precision_{suffix}": precision,
        f"recall_{suffix}": recall,
    }


def scale(extract: features.Extractor, real: torch.Tensor, held_out: torch.Tensor, suffix: str) -> dict[str, dict[str, float]]:
    """What a distance means here: real faces against held-out people (floor) and against those people spoilt (ceilings).

    The ceilings are the held-out faces blurred, one of them repeated, and noise: same people, same count as the floor.

    Raises:
        UserError: the features do not put the floor below every ceiling: their distances mean nothing.
    """
    side = real.shape[1]
    noise = torch.randint(0, 256, held_out.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    blurred = torch.stack([_blur(image, side / 16) for image in held_out])
    sets = {"floor": held_out, "blur": blurred, "repeat": held_out[:1].expand_as(held_out).contiguous(), "noise": noise}
    found = {name: distances(extract, real, images, suffix) for name, images in sets.items()}
    table = {f"{kind}_{suffix}": {name: values[f"{kind}_{suffix}"] for name, values in found.items()} for kind in ORDERED}
    for name, marks in table.items():
        wrong = [ceiling for ceiling in ("blur", "repeat", "noise") if marks[ceiling] <= marks["floor"]]
        if wrong:
            raise UserError(
                f"{name} puts held-out real faces ({marks['floor']:.4g}) above {', '.join(f'{w} ({marks[w]:.4g})' for w in wrong)}: "
                "these features cannot judge images. Train the judge longer (judge.training.total_kimg), on better labels or more people."
            )
    return table


def _blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    flat = image.numpy()
    picture = Image.fromarray(flat[..., 0] if flat.shape[2] == 1 else flat).filter(ImageFilter.GaussianBlur(sigma))
    return torch.from_numpy(np.array(picture).reshape(flat.shape))


def nearest(fake: torch.Tensor, real: torch.Tensor, held_out: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Nearest training face of each fake by pixels, mirrored ones included, and the memorisation ratio.

    The ratio is the median distance of fakes to their nearest training face over that of held-out people; well below 1,
    the generator shows the training set.
    """
    both = torch.cat([real, real.flip(2)])
    flat = both.flatten(1).double().numpy()
    found = cdist(fake.flatten(1).double().numpy(), flat)
    other = cdist(held_out.flatten(1).double().numpy(), flat).min(1)
    usual = np.median(other)
    if usual == 0:
        raise UserError(
            "at least half of the held-out faces are training faces, so copies cannot be told from new faces; "
            "evaluation.held_out must be another split than evaluation.reference, of other people."
        )
    return both[found.argmin(1)], float(np.median(found.min(1)) / usual)


def evaluate(
    model: Any, judge: Any, judge_digest: str, index: Index, options: Evaluation, seed: int, folder: Path
) -> dict[str, Any]:
    """Scores, scale, protocol and pictures of a generative model; pictures are written into `folder`."""
    shards, others = Shards(index, options.reference), Shards(index, options.held_out)
    real, held_out = shards.images(), others.images()
    fake = draw(model, options.fakes, seed, "evaluation")
    extract = features.of_judge(judge)
    scores, marks = distances(extract, real, fake, "judge"), scale(extract, real, held_out, "judge")
    absent = {}
    staged = weights.find(weights.INCEPTION)
    if staged is None:
        absent = dict.fromkeys(("fid", "kid"), weights.how(weights.INCEPTION))
    else:
        inception = features.of_inception(staged)
        names = {"fd_inception": "fid", "kd_inception": "kid"}
        scores |= {names.get(k, k): v for k, v in distances(inception, real, fake, "inception").items()}
        marks |= {names[k]: v for k, v in scale(inception, real, held_out, "inception").items()}
    twins, ratio = nearest(fake, real, held_out)
    grid(fake[:SHOWN], 8).save(folder / "samples.png")
    pairs = min(PAIRS, len(fake))
    grid(torch.cat([fake[:pairs], twins[:pairs]]), pairs).save(folder / "nearest.png")
    if hasattr(model, "encode"):  # training faces over held-out people, each above what the model makes of it
        rows = []
        for source in (real, held_out):
            shown = source[np.linspace(0, len(source) - 1, PAIRS).astype(int)]
            with torch.inference_mode():
                rows += [shown, pixels.to_uint8(model.decode(model.encode(pixels.to_model(shown))[0]))]
        grid(torch.cat(rows), PAIRS).save(folder / "reconstructions.png")
    return {
        "scores": scores,
        "scale": marks,
        "not_staged": absent,
        "memorisation": {
            "ratio": ratio,
            "meaning": "median pixel distance of generated faces to the nearest training face, over that of held-out people's faces",
        },
        "protocol": {
            "features": f"judge {judge_digest[:8]}" + (f", inception {weights.INCEPTION.sha256[:8]}" if staged else ""),
            "resize": f"judge: none ({real.shape[1]} pixels)"
            + ("; inception: 299, bilinear as in the original FID code" if staged else ""),
            "fakes": len(fake),
            "reals": len(real),
            "held_out": len(held_out),
            "reference_split": options.reference,
            "dataset": index.images_digest[:12],
            "seed": seed,
        },
    }
