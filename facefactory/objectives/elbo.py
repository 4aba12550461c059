"""Evidence lower bound with β (Kingma & Welling 2014, eq. 10; Higgins et al. 2017, eq. 4), in nats per image.

The likelihood is a normal of fixed standard deviation around the decoder's output; sums run over
pixels and latent dimensions, the mean over images. Pixels are counted in -1…1, so the nats are
those of that scale.
"""

import math

from torch import Tensor, nn

from facefactory import UserError
from facefactory.models import VAE
from facefactory.objectives import Batch, Objective, Phase
from facefactory.schedule import Scheduled, at, least


class Component(nn.Module, Objective):
    """Negative ELBO.

    Args:
        beta: weight of the KL divergence, a number or a schedule in kimg.
        sigma: standard deviation of a pixel around its mean, in units of -1…1.
    """

    phases = (Phase("vae", (".",)),)
    needs = ("encode", "decode")

    def __init__(self, *, beta: Scheduled = 1.0, sigma: float = 0.15) -> None:
        super().__init__()
        if least(beta) < 0 or sigma <= 0:
            raise UserError(
                f"elbo: beta={beta}, sigma={sigma}; beta must be at least 0 and sigma above 0."
            )
        self.beta = beta
        self.sigma = sigma

    def loss(self, phase: str, model: VAE, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """-log p(x|z) + β KL(q(z|x) ‖ N(0, I)), nats per image."""
        images = batch.augment(batch.images, "real")
        mu, logvar = model.encode(images, batch.c)
        mu, logvar = (
            mu.to(images),
            logvar.to(images),
        )  # never narrower than the images: not bfloat16
        z = mu + (0.5 * logvar).exp() * batch.draws.normal("posterior", mu.shape[1])

        difference = model.decode(z, batch.c).to(images) - images
        scale = math.log(self.sigma * math.sqrt(2 * math.pi))
        nll = (difference.square() / (2 * self.sigma**2) + scale).sum(dim=(1, 2, 3)).mean()
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        shown = {"reconstruction_nats": nll, "kl_nats": kl, "neg_elbo_nats": nll + kl}
        return nll + at(self.beta, batch.kimg) * kl, shown
