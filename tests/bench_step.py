"""`make bench`, part `step`: iterations of the trainer beside a bare loop of the same networks, turn by turn in one run."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import checkpoint, registry
from facefactory.data import Data
from facefactory.data.sets import pixels
from facefactory.data.sets.loader import Batch
from facefactory.facts import Facts
from facefactory.ranks import World
from facefactory.training import Training
from facefactory.training.augmentations import augment
from facefactory.training.step import Step

Iteration = Callable[[int], None]
ALONE = World(0, 1, torch.device("cpu"))
TURNS = {
    32: 40,
    64: 6,
}  # of each side, by the images' size: no case takes two minutes on an idle core
AUGMENT = ["brightness", "contrast", "translation"]


class Silent:
    """A log that nothing is written to."""

    def add(self, shown: dict[str, Tensor]) -> None:
        """Forget it."""


def plainly(images: Tensor) -> Callable[[str, int], Tensor]:
    """Draws as plain loops make them, where the images lie."""
    return lambda purpose, columns: torch.rand(len(images), columns, device=images.device)


def mirrored(images: Tensor) -> Tensor:
    """Half of the images mirrored, as floats."""
    real = pixels.to_model(images)
    turned = torch.rand(len(real), 1, 1, 1, device=real.device) < 0.5
    return torch.where(turned, real.flip(3), real)


def bare_gan(model: Any, images: Tensor, options: Training) -> Iteration:
    """A DCGAN with DiffAugment, lazy R1, Adam and an averaged generator, written down in one go, where the images lie."""
    average = copy.deepcopy(model.generator).requires_grad_(False)
    common = {"lr": options.lr, "betas": tuple(options.betas), "foreach": True}
    adam_d = torch.optim.Adam(model.discriminator.parameters(), **common)
    adam_g = torch.optim.Adam(model.generator.parameters(), **common)
    low = options.precision == "bfloat16"
    uniform = plainly(images)

    def iterate(iteration: int) -> None:
        real = mirrored(images)
        due = iteration % 8 == 0

        model.generator.requires_grad_(False)
        model.discriminator.requires_grad_(True)
        adam_d.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low and not due):
            with torch.no_grad():
                fake = model.generator(torch.randn(len(real), model.z_dim, device=real.device))
            leaf = real.detach().requires_grad_(due)
            real_logits = model.discriminator(augment(leaf, "real", AUGMENT, uniform))
            fake_logits = model.discriminator(augment(fake, "fake", AUGMENT, uniform))
            loss = (F.softplus(-real_logits) + F.softplus(fake_logits)).mean()
            if due:
                (gradient,) = torch.autograd.grad(
                    real_logits.sum(),
                    leaf,
                    create_graph=True,
                )
                loss = loss + 4 * gradient.square().sum((1, 2, 3)).mean()
        loss.backward()
        adam_d.step()

        model.generator.requires_grad_(True)
        model.discriminator.requires_grad_(False)
        adam_g.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
            fake = model.generator(torch.randn(len(real), model.z_dim, device=real.device))
            logits = model.discriminator(augment(fake, "fake", AUGMENT, uniform))
            loss = F.softplus(-logits).mean()
        loss.backward()
        adam_g.step()
        follow(average, model.generator)

    return iterate


def bare_vae(model: Any, images: Tensor, options: Training) -> Iteration:
    """A VAE with a normal likelihood, Adam and an average."""
    average = copy.deepcopy(model).requires_grad_(False)
    common = {"lr": options.lr, "betas": tuple(options.betas), "foreach": True}
    adam = torch.optim.Adam(model.parameters(), **common)
    low = options.precision == "bfloat16"
    none = torch.empty(
        len(images),
        0,
        device=images.device,
    )

    def iterate(iteration: int) -> None:
        real = mirrored(images)
        adam.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
            mu, logvar = (part.float() for part in model.encode(real, none))
            z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
            error = (model.decode(z, none).float() - real).square() / (2 * 0.15**2)
            kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
            loss = error.sum((1, 2, 3)).mean() + kl.mean()
        loss.backward()
        adam.step()
        follow(average, model)

    return iterate


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module) -> None:
    """Move an average towards the weights."""
    old = list(average.parameters())
    torch._foreach_lerp_(old, [weights.detach() for weights in model.parameters()], 0.01)
    for kept, now in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(now)


def ours(
    model: nn.Module, objective: str, facts: Facts, images: Tensor, options: Training
) -> Iteration:
    """The trainer's step on the same images."""
    loss = registry.build("objectives", {"name": objective}, facts, model)
    step = Step(
        model,
        loss,
        facts,
        options,
        Data(),
        0,
        ALONE,
        len(images),
    )
    batch = Batch(
        images,
        {},
        {},
        torch.arange(len(images)).numpy(),
    )
    log: Any = Silent()

    def iterate(iteration: int) -> None:
        step(batch, iteration * options.batch_size, log)

    return iterate


def seconds(iterate: Iteration, first: int, count: int) -> float:
    """An iteration's, over a few."""
    began = time.perf_counter()
    for number in range(first, first + count):
        iterate(number)
    return (time.perf_counter() - began) / count


def case(
    name: str, spec: dict[str, Any], objective: str, side: int, size: int, precision: str
) -> None:
    """Print one comparison: images a second of both, and the median of the turns' ratios."""
    facts = Facts(side, side, 3 if side > 32 else 1)
    images = torch.randint(
        0,
        256,
        (size, side, side, facts.channels),
        dtype=torch.uint8,
    )
    augmented = AUGMENT if objective == "adversarial" else []
    options = Training(
        batch_size=size,
        precision=precision,
        augment=augmented,
    )  # type: ignore[arg-type]
    made = checkpoint.build(spec, facts)
    plain = (bare_gan if objective == "adversarial" else bare_vae)(
        copy.deepcopy(made), images, options
    )
    full = ours(made, objective, facts, images, options)

    count = 16 if side <= 32 else 8  # a whole round of the lazy term
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for turn in range(TURNS[side] + 1):  # the first warms up
        for side_name, iterate in (("bare", plain), ("ours", full)):
            times[side_name].append(seconds(iterate, turn * count, count))
    ratios = [bare / own for bare, own in zip(times["bare"][1:], times["ours"][1:], strict=True)]
    speeds = {side_name: size / statistics.median(found[1:]) for side_name, found in times.items()}
    print(
        f"{name:28}{precision:10}{speeds['ours']:9.0f} images/s, bare loop {speeds['bare']:7.0f}: "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )


def main() -> None:
    """All cases, on one thread."""
    torch.set_num_threads(1)
    print("step: the trainer's iteration beside a bare loop of the same networks and augmentation")
    dcgan = {"name": "gan/dcgan", "z_dim": 64}
    for precision in ("float32", "bfloat16"):
        case("dcgan-orl32, batch 16", {**dcgan, "width": 16}, "adversarial", 32, 16, precision)
        case(
            "DCGAN 64x64, batch 64",
            {**dcgan, "width": 32, "depth": 4},
            "adversarial",
            64,
            64,
            precision,
        )
        case(
            "VAE 64x64, batch 64",
            {"name": "vae/conv", "width": 32, "depth": 4},
            "elbo",
            64,
            64,
            precision,
        )


if __name__ == "__main__":
    main()
