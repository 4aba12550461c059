"""Vector quantisation (van den Oord et al., NeurIPS 2017, eq. 3), its codebook moved by averages (§A.1), and a prior of the words.

Words that are hardly used are put where codes are: each becomes a code of the batch (as in Jukebox,
Dhariwal et al. 2020, §B.1). All counts are those of the whole batch, over parts and ranks.
"""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError
from facefactory.draws import Draws
from facefactory.facts import Facts
from facefactory.objectives import Batch, Objective, Phase
from facefactory.objectives.distances import Distance, weighed
from facefactory.objectives.likelihoods import Likelihood
from facefactory.registry import Nested

USED = 0.1  # share of the codebook that should be


def perplexity(counts: Tensor) -> Tensor:
    """exp(entropy) of the words' use [codes]: how many there are in effect."""
    shares = counts / counts.sum().clamp(min=1e-12)
    return torch.special.entr(shares).sum().exp()


class Component(nn.Module, Objective):
    """-log p(x | words) + commitment · ‖e(x) - word‖², summed over places, + distances; the prior's phase: -log p(words).

    Args:
        facts: size and channels of the images.
        model: what is trained; its codebook moves with the averages of the codes that take each word.
        commitment: weight of the distance between codes and their words.
        decay: of the averages, an iteration.
        revive: a word that is used less than this, as a share of an even use, is put elsewhere; 0: none is.
        likelihood: p(x | words): a name of objectives/likelihoods, or {name: …, its options}.
        distances: what else reconstructions are compared by, e.g. {perceptual: {weight: 10}}: names of objectives/distances.
    """

    needs = ("codebook", "vectors", "words", "paint", "prior")
    counts: Tensor  # [codes] averages of how many codes take a word
    sums: Tensor  # [codes, code_dim] averages of their sum
    seen: Tensor  # [codes, 1 + code_dim] counts and sums of the iteration

    def __init__(
        self,
        facts: Facts,
        model: Any,
        *,
        commitment: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.1,
        likelihood: Annotated[Any, Nested("objectives.likelihoods")] = "gaussian",
        distances: Annotated[Any, Nested("objectives.distances", many=True)] = {},  # noqa: B006
    ) -> None:
        super().__init__()
        if commitment < 0 or not 0 <= decay < 1 or not 0 <= revive < 1:
            raise UserError(
                f"vq: commitment={commitment}, decay={decay}, revive={revive}; "
                "commitment is at least 0, the others are from 0 to below 1."
            )
        self.commitment = commitment
        self.decay = decay
        self.revive = revive
        self.likelihood: Likelihood = likelihood
        self.distances: dict[str, Distance] = distances
        learned = any(True for _ in likelihood.parameters())
        own = ("objective.likelihood",) if learned else ()
        self.phases = (
            Phase("vae", ("encoder", "decoder", *own)),
            Phase("prior", ("prior",)),
        )

        codes, code_dim = model.codebook.shape
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, code_dim))
        self.register_buffer("seen", torch.zeros(codes, 1 + code_dim), persistent=False)
        self._candidates: list[tuple[Draws, Tensor]] = []
        self._model = (model,)  # a tuple: its networks are not the objective's

    def loss(self, phase: str, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of `vae` or `prior`."""
        images = batch.augment(batch.images, "real")
        if phase == "prior":
            with torch.no_grad():
                words = model.words(model.vectors(images).to(images))
            logits = model.prior(words, batch.c).to(images)
            nats = F.cross_entropy(logits.flatten(0, 1), words.flatten(), reduction="sum")
            return nats / len(images), {"prior_nats": nats / len(images)}

        vectors = model.vectors(images).to(images)
        words = model.words(vectors)
        chosen = F.embedding(words, model.codebook)
        self._count(vectors.detach(), words, batch.draws)

        # the decoder sees words, the encoder what the decoder says of them
        passed = vectors + (chosen - vectors).detach()
        decoded = model.paint(passed).to(images)
        nll = self.likelihood.nats(decoded, images).sum(dim=(1, 2, 3)).mean()
        beside = weighed(self.distances, decoded, images, batch.kimg)
        distance = (vectors - chosen).square().sum(dim=(1, 2)).mean()
        shown = {
            "reconstruction_nats": nll,
            "commitment": distance,
            "perplexity": perplexity(self.counts),
            **beside,
            **self.likelihood.scalars(),
        }
        return sum(beside.values(), nll + self.commitment * distance), shown

    def _count(self, vectors: Tensor, words: Tensor, draws: Draws) -> None:
        """Add codes to those of the iteration, and keep one of each image for words that nobody uses."""
        every = torch.arange(len(self.counts), device=words.device)
        taken = (words.flatten()[:, None] == every).to(vectors)  # F.one_hot reads back on CPUs
        self.seen += torch.cat([taken.sum(0)[:, None], taken.T @ vectors.flatten(0, 1)], 1)
        place = (draws.uniform("revive", 1) * vectors.shape[1]).long()
        place = place.clamp(max=vectors.shape[1] - 1)[:, 0]
        rows = vectors[torch.arange(len(vectors), device=place.device), place]
        self._candidates.append((draws, rows))

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Move the codebook."""
        seen = total(self.seen)
        self.counts.lerp_(seen[:, 0], 1 - self.decay)
        self.sums.lerp_(seen[:, 1:], 1 - self.decay)
        self.seen = torch.zeros_like(self.seen)

        # a code of each image of the global batch
        first, rows = self._candidates[0]
        codes = rows.new_zeros(first.batch_size, rows.shape[1])
        for where, rows in self._candidates:
            codes[where.lo : where.hi] = rows
        self._candidates = []
        codes = total(codes)

        # the first word that is not used takes the first of them
        even = self.counts.mean()
        unused = self.counts < self.revive * even
        number = (unused.cumsum(0) - 1).clamp(min=0) % len(codes)
        self.counts.copy_(torch.where(unused, even, self.counts))
        self.sums.copy_(torch.where(unused[:, None], even * codes[number], self.sums))
        used = self.counts[:, None] > 0
        codebook = self._model[0].codebook
        codebook.copy_(
            torch.where(used, self.sums / self.counts[:, None].clamp(min=1e-12), codebook)
        )

    def health(self, scalars: dict[str, float]) -> list[str]:
        """A codebook of few words, and what the likelihood says."""
        found = self.likelihood.health(scalars)
        used = scalars["perplexity"] / len(self.counts)
        if used < USED:
            found.append(
                f"codebook collapse: {scalars['perplexity']:.3g} of {len(self.counts)} words are used in effect; "
                "give a higher objective.revive, a smaller training.lr, or fewer model.codes."
            )
        return found
