"""What the objectives of VAEs share. One convention: nats per image, summed over pixels and over latent dimensions.

Only the mean over images is a mean. Where both sums are means, as in many programs, the same β has
another size (Higgins et al., ICLR 2017, §4.2): β·dimensions/pixels, which `notes` tells.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from facefactory.facts import Facts
from facefactory.models import VAE
from facefactory.objectives import Batch, Objective, Phase
from facefactory.objectives.distances import Distance, weighed
from facefactory.objectives.likelihoods import Likelihood
from facefactory.schedule import Points, at

ACTIVE_NATS = 0.05  # a dimension with less KL than this carries nothing; interpret counts alike
LIKELIHOOD = "objective.likelihood"  # the path of its own parameters


@dataclass(frozen=True)
class Coded:
    """Images of a batch and their codes."""

    mu: Tensor  # [b, z_dim] of the posterior q(z|x)
    logvar: Tensor  # [b, z_dim]
    z: Tensor  # [b, z_dim] drawn from it

    @property
    def kl(self) -> Tensor:
        """KL(q(z|x) ‖ N(0, I)) of each dimension, [b, z_dim] nats (Kingma & Welling 2014, §B)."""
        return 0.5 * (self.mu.square() + self.logvar.exp() - 1 - self.logvar)


def code(model: VAE, images: Tensor, batch: Batch, purpose: str = "posterior") -> Coded:
    """Encode images [b, C, H, W] and draw a code of each; never narrower than the images: not bfloat16."""
    mu, logvar = model.encode(images, batch.c)
    mu = mu.to(images)
    logvar = logvar.to(images)
    z = mu + (0.5 * logvar).exp() * batch.draws.normal(purpose, mu.shape[1])
    return Coded(mu, logvar, z)


def active(kl: Tensor) -> Tensor:
    """How many dimensions carry something, by KL [b, z_dim]."""
    return (kl.mean(0) > ACTIVE_NATS).sum().to(kl)


def collapse(scalars: dict[str, float], z_dim: int) -> list[str]:
    """A sentence where codes carry nothing, by `kl_nats` and `active_units`."""
    if scalars["active_units"] >= 1:
        return []
    return [
        f"posterior collapse: an image's code has {scalars['kl_nats']:.3g} nats, and none of {z_dim} dimensions "
        f"more than {ACTIVE_NATS}; the decoder draws without it. Give a smaller beta, or a schedule that begins "
        "small, or a likelihood with a smaller sigma."
    ]


class Variational(nn.Module, Objective):
    """-log p(x|z), distances beside it, and a price on codes; files differ in the price."""

    needs: tuple[str, ...] = ("encode", "decode")

    def __init__(
        self, facts: Facts, model: VAE, likelihood: Likelihood, distances: dict[str, Distance]
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.distances = distances
        self.pixels = facts.channels * facts.height * facts.width
        self.z_dim = model.z_dim
        learned = isinstance(likelihood, nn.Module) and any(True for _ in likelihood.parameters())
        trained = (".", LIKELIHOOD) if learned else (".",)
        self.phases: tuple[Phase, ...] = (Phase("vae", trained),)

    def loss(self, phase: str, model: VAE, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """-log p(x|z) + distances + the price, nats per image."""
        images = batch.augment(batch.images, "real")
        coded = code(model, images, batch)
        decoded = model.decode(coded.z, batch.c).to(images)
        nll = self.likelihood.nats(decoded, images).sum(dim=(1, 2, 3)).mean()
        beside = weighed(self.distances, decoded, images, batch.kimg)
        kl = coded.kl.sum(dim=1).mean()
        price, shown = self.price(coded, kl, batch)
        common = {
            "reconstruction_nats": nll,
            "kl_nats": kl,
            "neg_elbo_nats": nll + kl,
            "active_units": active(coded.kl),
        }
        loss = sum(beside.values(), nll + price)
        return loss, {**common, **beside, **self.likelihood.scalars(), **shown}

    def price(self, coded: Coded, kl: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What codes cost, a scalar [nats], beside the likelihood, and scalars worth a curve; `kl`: the whole one [nats]."""
        raise NotImplementedError

    def collapsed(self, scalars: dict[str, float]) -> list[str]:
        """Posterior collapse."""
        return collapse(scalars, self.z_dim)

    def health(self, scalars: dict[str, float]) -> list[str]:
        """What the likelihood says."""
        return self.likelihood.health(scalars)

    def equivalent(self, beta: float | Points) -> str:
        """A β in the convention of means, in words."""
        now = at(beta, 0.0)
        mean = now * self.z_dim / self.pixels
        return (
            f"beta={now:g} on nats per image is {mean:.3g} where losses are means over {self.pixels} pixels "
            f"and {self.z_dim} dimensions"
        )
