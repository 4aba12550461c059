"""VAE-GAN: images are compared by what a discriminator sees in them (Larsen et al., ICML 2016, algorithm 1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.models import VAE
from facefactory.models._layers import norm2d
from facefactory.objectives import Batch, Objective, Phase
from facefactory.objectives._variational import active, code, collapse
from facefactory.schedule import Scheduled, at, least


class Discriminator(nn.Module):
    """Images [N, C, H, W] -> maps, and a logit [N]; any height and width."""

    def __init__(self, facts: Facts, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        into = facts.channels
        size = (facts.height, facts.width)
        for level in range(depth):
            out = width * 2**level
            layers.append(nn.Conv2d(into, out, 3, 2, 1))
            layers.append(norm2d("group" if level else "none", out))
            layers.append(nn.LeakyReLU(0.2))
            into = out
            size = (-(-size[0] // 2), -(-size[1] // 2))
        self.maps = nn.Sequential(*layers)
        self.head = nn.Linear(into * size[0] * size[1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N]: real or made."""
        return self.head(self.maps(images).flatten(1)).squeeze(1)


class Component(nn.Module, Objective):
    """Encoder: KL + ½ ‖f(x) - f(x̃)‖². Decoder: γ ½ ‖f(x) - f(x̃)‖² - log D(x̃) - log D(x_p). D: real against x̃ and x_p.

    f are the discriminator's last maps, x̃ the image decoded from its code, x_p one decoded from N(0, I).
    Sums over maps and dimensions, means over images.

    Args:
        facts: size and channels of the images.
        model: what is trained.
        beta: weight of the KL divergence, a number or a schedule in kimg.
        gamma: γ, how much the decoder minds the image itself beside the discriminator.
        width: channels of the discriminator's largest maps; doubled at each halving of the side.
        depth: how often it halves the side.
    """

    phases = (
        Phase("encoder", ("encoder",)),
        Phase("decoder", ("decoder",)),
        Phase("discriminator", ("objective.discriminator",)),
    )
    needs = ("encode", "decode", "encoder", "decoder")

    def __init__(
        self,
        facts: Facts,
        model: VAE,
        *,
        beta: Scheduled = 1.0,
        gamma: float = 0.01,
        width: int = 32,
        depth: int = 3,
    ) -> None:
        super().__init__()
        if least(beta) < 0 or gamma < 0 or width < 1 or depth < 1:
            raise UserError(
                f"vae_gan: beta={beta}, gamma={gamma}, width={width}, depth={depth}; "
                "beta and gamma must be at least 0, width and depth at least 1."
            )
        self.beta = beta
        self.gamma = gamma
        self.z_dim = model.z_dim
        self.discriminator = Discriminator(facts, width, depth)

    def loss(self, phase: str, model: VAE, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of `encoder`, `decoder` or `discriminator`."""
        if phase == "encoder":
            return self._encoder(model, batch)
        with torch.no_grad():
            z = code(model, batch.images, batch).z
        prior = batch.draws.normal("prior", self.z_dim)
        return (self._decoder if phase == "decoder" else self._discriminator)(
            model, batch, z, prior
        )

    def _encoder(self, model: VAE, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        coded = code(model, batch.images, batch)
        kl = coded.kl.sum(1).mean()
        unlike = self._unlike(model.decode(coded.z, batch.c), batch)
        shown = {"kl_nats": kl, "feature_nats": unlike, "active_units": active(coded.kl)}
        return unlike + at(self.beta, batch.kimg) * kl, shown

    def _decoder(
        self, model: VAE, batch: Batch, z: Tensor, prior: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        decoded = model.decode(z, batch.c)
        drawn = model.decode(prior, batch.c)
        fooled = F.softplus(-self._logits(decoded, batch, "decoded_decoder"))
        fooled = fooled + F.softplus(-self._logits(drawn, batch, "drawn_decoder"))
        loss_g = fooled.mean()
        return self.gamma * self._unlike(decoded, batch) + loss_g, {"loss_g": loss_g}

    def _discriminator(
        self, model: VAE, batch: Batch, z: Tensor, prior: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            decoded = model.decode(z, batch.c)
            drawn = model.decode(prior, batch.c)
        real = self._logits(batch.images, batch, "real")
        fakes = (
            self._logits(decoded, batch, "decoded_discriminator"),
            self._logits(drawn, batch, "drawn_discriminator"),
        )
        loss = (F.softplus(-real) + F.softplus(fakes[0]) + F.softplus(fakes[1])).mean()
        shown = {"loss_d": loss, "logits_real": real.mean(), "logits_fake": fakes[1].mean()}
        return loss, shown

    def _logits(self, images: Tensor, batch: Batch, purpose: str) -> Tensor:
        """What D says of images as it sees them, [b]."""
        return self.discriminator(batch.augment(images, purpose)).to(batch.images)

    def _unlike(self, decoded: Tensor, batch: Batch) -> Tensor:
        """½ ‖f(x) - f(x̃)‖², nats per image but for a constant (eq. 8)."""
        wanted = self.discriminator.maps(batch.images).to(batch.images)
        maps = self.discriminator.maps(decoded).to(batch.images)
        return 0.5 * (maps - wanted).square().flatten(1).sum(1).mean()

    def collapsed(self, scalars: dict[str, float]) -> list[str]:
        """Posterior collapse."""
        return collapse(scalars, self.z_dim)
