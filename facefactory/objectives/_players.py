"""What tells how two players fare, and the words for it.

The figures behind the thresholds: jobs/README.md, "Health".
"""

import torch
from torch import Tensor

from facefactory.objectives.critics import Seen

INTERVAL = 4  # they are looked at in iterations 0, 4, 8, …
BEGUN_KIMG = 1.0  # before that a generator may draw a single gray picture
LEAST_VARIETY = 0.05  # of the real images'
RUNAWAY = 1000.0  # logits
DECIDED = 0.995  # pairs of a real and a generated image that the discriminator puts in order


def watched(seen: Seen) -> dict[str, Tensor]:
    """Scalars of a batch; none where it has one image.

    spread_*: standard deviation of logits; sign_real: mean sign of D(x), which ADA adapts by (Karras
    et al. 2020, eq. 1); pairs_right: share of pairs with D(x) > D(G(z)); variety_*: variance over
    images, mean over pixels, which is half of the mean squared distance of two images.
    """
    if len(seen.fake_logits) < 2:
        return {}
    with torch.no_grad():
        real = seen.real_logits.float()
        fake = seen.fake_logits.float()
        return {
            "spread_real": real.std(),
            "spread_fake": fake.std(),
            "sign_real": real.sign().mean(),
            "pairs_right": (real > fake).float().mean(),
            "variety_real": seen.real.float().var(0).mean(),
            "variety_fake": seen.fake.float().var(0).mean(),
        }


def collapsed(scalars: dict[str, float]) -> list[str]:
    """Sentences on a game that is over, by the means of these scalars."""
    if "variety_fake" not in scalars:
        return []
    sentences = []
    share = scalars["variety_fake"] / max(scalars["variety_real"], 1e-12)
    if scalars["kimg"] > BEGUN_KIMG and share < LEAST_VARIETY:
        sentences.append(
            f"mode collapse: squared distances between generated images are {share:.2g} of those between real ones "
            f"(below {LEAST_VARIETY}). Give a smaller training.lr, a larger r1.gamma, or another critic."
        )
    size = max(abs(scalars[name]) for name in ("logits_real", "logits_fake", "spread_real"))
    if size > RUNAWAY:
        sentences.append(
            f"the discriminator ran away: its logits are {size:.2g} in size (beyond {RUNAWAY:g}). Give it a smaller "
            "learning rate, e.g. training.modules={discriminator: {lr: 1.0e-4}}, or a larger r1.gamma."
        )
    return sentences


def unwell(scalars: dict[str, float]) -> list[str]:
    """Sentences on a game that goes badly and may recover."""
    if scalars.get("pairs_right", 0.5) <= DECIDED:
        return []
    return [
        f"the discriminator tells {100 * scalars['pairs_right']:.1f} % of pairs of a real and a generated image apart: "
        "the generator learns little from it. Give more augmentation, or a smaller discriminator."
    ]
