"""Adversarial losses with lazy R1.

Non-saturating (Goodfellow et al. 2014), hinge (Lim & Ye 2017); R1 gradient penalty γ/2·E‖∇D(x)‖² on real images
(Mescheder, Geiger & Nowozin 2018, eq. 9), applied every k-th iteration with weight k (Karras et al. 2020, §3.1).
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from facefactory import UserError
from facefactory.models import GAN
from facefactory.objectives import Batch, Phase

Kind = Literal["non_saturating", "hinge"]


class Component:
    """Two players.

    Args:
        schema: labels; unused, an unconditional GAN has none.
        loss: `non_saturating` or `hinge`.
        r1_gamma: γ of R1; 0 switches it off.
        r1_interval: R1 is applied every so many iterations.
    """

    needs = ("generator", "discriminator", "z_dim")
    uses_labels = False

    def __init__(
        self, schema: dict[str, Any], *, loss: Kind = "non_saturating", r1_gamma: float = 1.0, r1_interval: int = 8
    ) -> None:
        if r1_gamma < 0 or r1_interval < 1:
            found = f"r1_gamma={r1_gamma}, r1_interval={r1_interval}"
            raise UserError(f"adversarial: {found}; at least 0 (0 = off) and at least 1 are allowed.")
        self.kind, self.r1_gamma, self.r1_interval = loss, r1_gamma, r1_interval
        r1 = [Phase("r1", "discriminator", r1_interval)] if r1_gamma > 0 else []
        self.phases = (Phase("discriminator", "discriminator"), *r1, Phase("generator", "generator"))

    def loss(self, phase: str, model: GAN, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of `discriminator`, `r1` or `generator`."""
        if phase == "discriminator":
            with torch.no_grad():
                fake = model.generator(batch.normal("z_discriminator", model.z_dim))
            real_logits = model.discriminator(batch.augment(batch.images, "real"))
            fake_logits = model.discriminator(batch.augment(fake, "fake_discriminator"))
            if self.kind == "hinge":
                value = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
            else:
                value = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
            return value, {"loss_d": value, "logits_real": real_logits.mean(), "logits_fake": fake_logits.mean()}
        if phase == "r1":
            with torch.autocast(batch.images.device.type, enabled=False):  # squared gradients lose too much in bfloat16
                real = batch.images.detach().requires_grad_(True)
                logits = model.discriminator(batch.augment(real, "r1"))
                (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
                penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
            return penalty * (self.r1_gamma / 2 * self.r1_interval), {"r1": penalty}
        fake = model.generator(batch.normal("z_generator", model.z_dim))
        logits = model.discriminator(batch.augment(fake, "fake_generator"))
        value = -logits.mean() if self.kind == "hinge" else F.softplus(-logits).mean()
        return value, {"loss_g": value}
