"""Codebooks and the prior of their words, against counts that are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_codes import batch, draws, rand
from torch import Tensor

from facefactory import UserError, registry
from facefactory.facts import Facts
from facefactory.models.vae.vq import Prior
from facefactory.objectives.vq import perplexity

FACTS = Facts(16, 16, 1)


def model(**options: Any) -> Any:
    given = {"width": 4, "levels": 2, "codes": 6, "code_dim": 3, "prior_width": 8, **options}
    torch.manual_seed(0)
    return registry.build("models", {"name": "vae/vq", **given}, FACTS).double()


def objective(trained: Any, **options: Any) -> Any:
    return registry.build("objectives", {"name": "vq", **options}, FACTS, trained).double()


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([5, 5, 5, 5], 4),
        ([7, 0, 0, 0], 1),
        ([3, 3, 0, 0], 2),
        ([2, 1, 1, 0], 2 * math.sqrt(2)),
    ],
)
def test_perplexity_counts_words_in_effect(counts: list[float], words: float) -> None:
    assert perplexity(torch.tensor(counts)).item() == pytest.approx(words)


def counted(made: Any, vectors: Tensor, words: Tensor, turns: int = 1) -> None:
    """Iterations in which these codes [n, places, code_dim] take these words."""
    for _ in range(turns):
        made._count(vectors, words, draws(0, len(vectors), len(vectors)))
        made.after(0.0, lambda values: values)


def test_words_move_to_the_mean_of_the_codes_that_take_them() -> None:
    known = SimpleNamespace(codebook=torch.zeros(2, 3).double())
    made = objective(
        known,
        decay=0.9,
        revive=0.0,
    )
    vectors = rand(4, 5, 3)
    words = (torch.arange(20) % 2).view(4, 5)
    counted(made, vectors, words, turns=3)
    flat = vectors.flatten(0, 1)
    torch.testing.assert_close(
        known.codebook, torch.stack([flat[::2].mean(0), flat[1::2].mean(0)])
    )
    assert made.counts.tolist() == pytest.approx([10 * (1 - 0.9**3)] * 2)

    # and from there a tenth of the way to those of the next iteration
    counted(made, vectors + 1, words)
    step = 0.1 * 10 / made.counts[0]
    torch.testing.assert_close(known.codebook[0], flat[::2].mean(0) + step)


def test_a_word_that_nobody_uses_becomes_a_code_and_others_stay() -> None:
    known = SimpleNamespace(codebook=rand(4, 3))
    made = objective(
        known,
        decay=0.5,
        revive=0.1,
    )
    vectors = rand(6, 5, 3, seed=1)
    words = (torch.arange(30) % 2).view(6, 5)
    counted(made, vectors, words)
    codes = vectors.flatten(0, 1)
    for word in known.codebook[2:]:
        assert torch.cdist(word[None], codes).min() < 1e-12
    assert not torch.equal(known.codebook[2], known.codebook[3])
    torch.testing.assert_close(known.codebook[0], codes[::2].mean(0))


def test_without_revival_a_word_that_nobody_uses_stays_where_it_was() -> None:
    start = rand(4, 3)
    known = SimpleNamespace(codebook=start.clone())
    counted(objective(known, revive=0.0), rand(6, 5, 3), torch.zeros(6, 5, dtype=torch.long))
    assert torch.equal(known.codebook[1:], start[1:])


def test_a_collapsed_codebook_is_told() -> None:
    made = objective(SimpleNamespace(codebook=torch.zeros(100, 3)))
    assert made.health({"perplexity": 50.0}) == []
    assert "codebook collapse: 3 of 100 words" in made.health({"perplexity": 3.0})[0]


def test_the_loss_is_likelihood_and_distance_and_the_decoders_pull_reaches_the_encoder() -> None:
    trained = model()
    made = objective(trained, commitment=0.5)
    images = rand(5, 1, 16, 16).tanh()
    loss, shown = made.loss("vae", trained, batch(images))
    vectors = trained.vectors(images)
    words = trained.codebook[trained.words(vectors)]
    distance = (vectors - words).square().sum((1, 2)).mean()
    nll = made.likelihood.nats(trained.paint(words), images).sum((1, 2, 3)).mean()
    assert shown["commitment"].item() == pytest.approx(distance.item())
    assert shown["reconstruction_nats"].item() == pytest.approx(nll.item())
    assert loss.item() == pytest.approx((nll + 0.5 * distance).item())

    # as if the words were the codes
    found = torch.autograd.grad(loss, trained.encoder.head.bias)[0]
    leaf = words.detach().requires_grad_(True)
    nll = made.likelihood.nats(trained.paint(leaf), images).sum((1, 2, 3)).mean()
    pull = torch.autograd.grad(nll, leaf)[0] + 0.5 * 2 * (vectors - words).detach() / 5
    torch.testing.assert_close(found, pull.sum((0, 1)))


def test_reconstructions_are_what_nearest_words_paint() -> None:
    trained = model()
    images = rand(3, 1, 16, 16).tanh()
    vectors = trained.vectors(images)
    words = trained.words(vectors)
    distances = (vectors[:, :, None] - trained.codebook).square().sum(-1)
    assert torch.equal(words, distances.argmin(-1))
    painted = trained.paint(trained.codebook[words])
    torch.testing.assert_close(trained.reconstruct(images, torch.empty(3, 0)), painted)


# -- the prior -------------------------------------------------------------------------------------


def prior(told: int = 0) -> Prior:
    torch.manual_seed(1)
    made = Prior(codes=3, places=(2, 2), told=told, width=16).double()
    made.head.weight.data.mul_(8)  # far from even
    return made


def test_a_word_depends_on_those_before_it_alone() -> None:
    made = prior()
    words = torch.tensor([[0, 2, 1, 1]])
    whole = made(words, torch.empty(1, 0).double())
    for place in range(4):
        other = words.clone()
        other[0, place:] = (other[0, place:] + 1) % 3
        found = made(other, torch.empty(1, 0).double())
        torch.testing.assert_close(found[:, : place + 1], whole[:, : place + 1])
        assert place == 3 or not torch.allclose(found[:, place + 1 :], whole[:, place + 1 :])


def test_words_are_drawn_as_often_as_the_prior_says() -> None:
    made = prior(told=2)
    count = 20_000
    c = torch.tensor([[1.0, -1.0]]).double()
    u = torch.rand(
        count,
        4,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    drawn = made.draw(u, c.expand(count, -1))
    every = torch.cartesian_prod(*[torch.arange(3)] * 4)
    logits = made(every, c.expand(len(every), -1)).log_softmax(2)
    wanted = logits.gather(2, every[..., None]).sum((1, 2)).exp()
    places = torch.tensor([27, 9, 3, 1])
    shares = (drawn @ places).bincount(minlength=81) / count
    assert wanted.sum().item() == pytest.approx(1)
    assert wanted.max() > 3 * wanted.min()
    assert (shares - wanted).abs().max() < 0.01


def test_the_priors_loss_is_the_nats_of_an_images_words() -> None:
    trained = model()
    made = objective(trained)
    images = rand(5, 1, 16, 16).tanh()
    loss, shown = made.loss("prior", trained, batch(images))
    words = trained.words(trained.vectors(images))
    logits = trained.prior(words, torch.empty(5, 0).double()).log_softmax(2)
    wanted = -logits.gather(2, words[..., None]).sum((1, 2)).mean()
    assert loss.item() == shown["prior_nats"].item() == pytest.approx(wanted.item())


def test_a_codebook_of_one_word_is_refused() -> None:
    with pytest.raises(UserError, match="codes=1; a codebook has at least 2 words"):
        model(codes=1)
