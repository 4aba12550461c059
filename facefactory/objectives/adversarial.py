"""Two players: a critic's pair of losses, and terms that regularise one of them."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from facefactory.models import GAN
from facefactory.objectives import Batch, Objective, Phase, _players
from facefactory.objectives.critics import Critic, Seen
from facefactory.objectives.strengths import Strength
from facefactory.objectives.terms import Term
from facefactory.registry import Nested


class Component(nn.Module, Objective):
    """A generator against a discriminator.

    Args:
        critic: how logits are judged: a name of objectives/critics, or {name: …, its options}.
        terms: regularisers, e.g. {r1: {gamma: 1.0, interval: 8}}: names of objectives/terms and their options.
        strength: how likely each of training.augment is applied: a name of objectives/strengths, or {name: …, its options}.
    """

    needs: tuple[str, ...] = ("generator", "discriminator", "z_dim")
    averaged: tuple[str, ...] = ("generator",)

    def __init__(
        self,
        *,
        critic: Annotated[Any, Nested("objectives.critics")] = "non_saturating",
        terms: Annotated[Any, Nested("objectives.terms", many=True)] = {"r1": {}},  # noqa: B006
        strength: Annotated[Any, Nested("objectives.strengths")] = "scheduled",
    ) -> None:
        super().__init__()
        self.critic: Critic = critic
        self.terms: dict[str, Term] = terms
        self.strength: Strength = strength
        self.remembering = nn.ModuleDict()  # for checkpoints to keep
        learning = ["discriminator"]
        for name, term in self.terms.items():
            self.needs = (*self.needs, *term.needs)
            if isinstance(term, nn.Module):
                self.remembering[name] = term
            learning += [f"objective.remembering.{name}.{path}" for path in term.learns]
        self.phases = (
            Phase("discriminator", tuple(learning)),
            Phase("generator", ("generator",)),
        )

    def loss(self, phase: str, model: GAN, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of `discriminator` or `generator`."""
        p = self.strength.p(batch.kimg)
        always = isinstance(p, float) and p == 1
        if not always:
            batch = replace(batch, augment=partial(batch.augment, p=p))
        due = {
            name: term
            for name, term in self.terms.items()
            if term.trains in (phase, "both") and batch.iteration % term.interval == 0
        }
        player = self._discriminator if phase == "discriminator" else self._generator

        exact = any(term.differentiates for term in due.values())
        device = batch.images.device.type
        with _twice_differentiable(device) if exact else contextlib.nullcontext():
            seen, value, shown = player(model, batch, due)
            for name, term in due.items():
                extra = term(seen, model, batch).mean()
                shown[name] = extra
                value = value + extra * (term.weight(batch.kimg) * term.interval)
        if not always:
            shown["augment_p"] = torch.zeros_like(value) + p
        if phase == "discriminator":
            self.strength.see(seen.real_logits)
        return value, shown

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Terms and the augmentation's strength move their buffers."""
        self.strength.after(kimg, total)
        for term in self.terms.values():
            term.after(kimg, total)

    def collapsed(self, scalars: dict[str, float]) -> list[str]:
        """Mode collapse, and a discriminator that ran away."""
        return _players.collapsed(scalars)

    def health(self, scalars: dict[str, float]) -> list[str]:
        """A discriminator that is too good."""
        return _players.unwell(scalars)

    def _discriminator(
        self, model: GAN, batch: Batch, due: dict[str, Term]
    ) -> tuple[Seen, Tensor, dict[str, Tensor]]:
        needed = {images for term in due.values() for images in term.differentiates}
        with torch.no_grad():
            fake = generated(model, batch, "discriminator")
        fake = fake.detach().requires_grad_("fake" in needed)
        real = batch.images.detach().requires_grad_("real" in needed)

        # images of one kind at a time: a batch norm must not mix them
        real_logits, features = said(model, batch.augment(real, "real"), batch.c, due)
        fake_logits = model.discriminator(batch.augment(fake, "fake_discriminator"), batch.c)
        seen = Seen(real, fake, real_logits, fake_logits, features)
        value = self.critic.discriminator(seen).mean()
        shown = {
            "loss_d": value,
            "logits_real": real_logits.mean(),
            "logits_fake": fake_logits.mean(),
        }
        if batch.iteration % _players.INTERVAL == 0:
            shown |= _players.watched(seen)
        return seen, value, shown

    def _generator(
        self, model: GAN, batch: Batch, due: dict[str, Term]
    ) -> tuple[Seen, Tensor, dict[str, Tensor]]:
        fake = generated(model, batch, "generator")
        augmented = batch.augment(fake, "fake_generator")
        fake_logits, features = said(model, augmented, batch.c, due)
        real_logits = fake_logits.new_empty(0)
        if self.critic.pairs:
            with torch.no_grad():
                real_logits = model.discriminator(
                    batch.augment(batch.images, "real_generator"), batch.c
                )
        seen = Seen(batch.images, fake, real_logits, fake_logits, features)
        value = self.critic.generator(seen).mean()
        return seen, value, {"loss_g": value}


def said(
    model: GAN, images: Tensor, c: Tensor, due: dict[str, Term]
) -> tuple[Tensor, Tensor | None]:
    """Logits [b], and the discriminator's features [b, D] where a term reads them."""
    if any(term.reads for term in due.values()):
        logits, features = model.discriminator(images, c, True)
        return logits, features
    return model.discriminator(images, c), None


def generated(model: GAN, batch: Batch, purpose: str) -> Tensor:
    """A generated image for each of a batch, [b, C, H, W]."""
    z = batch.draws.normal(f"z_{purpose}", model.z_dim)
    more = (batch.draws, purpose) if getattr(model, "stochastic", False) else ()
    images: Tensor = model.generator(z, batch.c, *more)
    return images


@contextlib.contextmanager
def _twice_differentiable(device: str) -> Iterator[None]:
    """No autocast, because squared gradients lose too much in 16 bits, and no compiled network, which has no second derivative."""
    with torch.autocast(device, enabled=False), torch.compiler.set_stance("force_eager"):
        yield
