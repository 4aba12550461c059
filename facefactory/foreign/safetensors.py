"""Weights as a safetensors file, for a network that is registered here: nothing of the file is run."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.foreign import Range, checked
from facefactory.registry import Nested


class Component(nn.Module):
    """The network with these weights, behind the contract of `models.Generative`.

    Args:
        facts: of the set that it is compared with.
        weights: path of the file.
        sha256: its digest, in hex.
        network: a registered model and its options, e.g. {name: gan/dcgan, width: 32}.
        part: the sub-module whose weights the file holds; "" = all of the model.
        range: of the pixels that it gives.
        batch: images that it draws at once at most.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        weights: str,
        sha256: str,
        network: Annotated[Any, Nested("models")],
        part: str = "generator",
        range: Range = "minus_one_to_one",
        batch: int = 64,
    ) -> None:
        super().__init__()
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = checked(weights, sha256)
        self.network = network.eval()
        try:
            self.network.get_submodule(part).load_state_dict(load_file(path))
        except (SafetensorError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"foreign.weights={path} does not fit foreign.part={part!r}: {reason}"
            ) from None
        self.z_dim = network.z_dim
        self.conditions = network.conditions
        self.batch = max(1, batch)
        self.unit = range == "zero_to_one"

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim] -> images [N, C, H, W] in -1…1."""
        parts = []
        for some, labels in zip(z.split(self.batch), c.split(self.batch), strict=True):
            parts.append(self.network.sample(some, labels))
        images = torch.cat(parts)
        return images * 2 - 1 if self.unit else images
