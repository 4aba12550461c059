"""Evidence lower bound with β (Kingma & Welling 2014, eq. 10; Higgins et al. 2017, eq. 4), in nats per image.

The likelihood is a normal of fixed standard deviation around the decoder's output; sums run over pixels and latent
dimensions, the mean over images. Pixels are counted in -1…1, so the nats are those of that scale.
"""

import math
from typing import Any

from torch import Tensor

from facefactory import UserError
from facefactory.models import VAE
from facefactory.objectives import Batch, Phase


class Component:
    """Negative ELBO.

    Args:
        schema: labels; unused.
        beta: weight of the KL divergence.
        sigma: standard deviation of a pixel around its mean, in units of -1…1.
    """

    phases = (Phase("vae", "."),)
    needs = ("encode", "decode")
    uses_labels = False

    def __init__(self, schema: dict[str, Any], *, beta: float = 1.0, sigma: float = 0.15) -> None:
        if beta < 0 or sigma <= 0:
            raise UserError(f"elbo: beta={beta}, sigma={sigma}; beta must be at least 0 and sigma above 0.")
        self.beta, self.sigma = beta, sigma

    def loss(self, phase: str, model: VAE, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """-log p(x|z) + β KL(q(z|x) ‖ N(0, I)), nats per image."""
        images = batch.augment(batch.images, "real")
        mu, logvar = model.encode(images)
        mu, logvar = mu.to(images), logvar.to(images)  # never narrower than the images: not bfloat16
        z = mu + (0.5 * logvar).exp() * batch.normal("posterior", mu.shape[1])
        difference = model.decode(z).to(images) - images
        scale = math.log(self.sigma * math.sqrt(2 * math.pi))
        reconstruction = (difference.square() / (2 * self.sigma**2) + scale).sum(dim=(1, 2, 3)).mean()
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        shown = {"reconstruction_nats": reconstruction, "kl_nats": kl, "neg_elbo_nats": reconstruction + kl}
        return reconstruction + self.beta * kl, shown
