"""The training loop's section of the config tree. This file is torch-free."""

from dataclasses import dataclass
from typing import Literal

from facefactory import UserError
from facefactory.config import key


@dataclass(frozen=True)
class Training:
    """How long, how fast, on what."""

    total_kimg: float = key(60.0, "images shown to the networks in all, thousands", low=0.001, resumes=True)
    batch_size: int = key(16, "images per iteration over all ranks", low=1)
    accumulate: int = key(1, "parts a rank's share of the batch is cut into to save memory", low=1)
    lr: float = key(8e-4, "Adam's learning rate", low=0.0)
    betas: list[float] = key([0.0, 0.99], "Adam's β1 and β2", low=0.0, high=1.0)
    precision: Literal["float32", "bfloat16", "float64"] = key("float32", "of the networks; bfloat16 = autocast")
    ema_half_life_kimg: float = key(5.0, "half-life of the averaged weights, thousands of images", low=0.0)
    augment: list[str] = key(
        ["brightness", "contrast", "translation"], "DiffAugment: brightness contrast saturation translation cutout"
    )
    checkpoint_kimg: float = key(10.0, "thousands of images between checkpoints", low=0.001, identity=False)
    log_kimg: float = key(1.0, "thousands of images between metric lines; 0 = none", low=0.0, identity=False)
    sample_kimg: float = key(20.0, "thousands of images between sample grids; 0 = none", low=0.0, identity=False)
    ranks: int = key(1, "processes that share a batch (DistributedDataParallel)", low=1, resumes=True)
    threads: int = key(1, "CPU threads per rank", low=1, resumes=True)
    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto = cuda where there is one", resumes=True)
    deterministic: bool = key(False, "CUDA: use deterministic kernels only, so that bits repeat")

    def batch_per_rank(self) -> int:
        """Images per iteration on one rank.

        Raises:
            UserError: batch_size cannot be shared out evenly.
        """
        if len(self.betas) != 2 or max(self.betas) >= 1:
            raise UserError(f"training.betas={self.betas}; give two numbers from 0 to below 1, e.g. [0.0,0.99].")
        parts = self.ranks * self.accumulate
        if self.batch_size % parts:
            near = max(parts, round(self.batch_size / parts) * parts)
            raise UserError(
                f"training.batch_size={self.batch_size} cannot be shared by training.ranks={self.ranks} x "
                f"training.accumulate={self.accumulate}; give a multiple of {parts}, e.g. {near}."
            )
        return self.batch_size // self.ranks
