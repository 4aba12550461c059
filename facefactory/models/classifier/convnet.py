"""A small convolutional classifier with one head a label; its features are the judge's."""

from torch import Tensor, nn

from facefactory.facts import Facts
from facefactory.models._layers import Norm, halving, smallest


class Component(nn.Module):
    """A convolutional classifier.

    Args:
        facts: size and channels of the images, classes per label (one head each).
        width: channels of the largest maps; doubled at each halving of the side.
        depth: how many times the side is halved.
        kernel: side of the convolutions [pixels].
        norm: normalisation; batch norm mixes the images of a batch.
        feature_dim: length of the feature vector before the heads.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 16,
        depth: int = 3,
        kernel: int = 4,
        norm: Norm = "group",
        feature_dim: int = 64,
    ) -> None:
        super().__init__()
        size = smallest(facts, depth, kernel, width=width, feature_dim=feature_dim)
        flat = width * 2 ** (depth - 1) * size[0] * size[1]
        down = halving(facts.channels, width, depth, kernel, norm)
        # tanh saturates: distances of its features missed blur and noise
        even = nn.LayerNorm(feature_dim, elementwise_affine=False)
        trunk = nn.Sequential(down, nn.Flatten(), nn.Linear(flat, feature_dim), even)
        self.head_keys = {name: _key(name, number) for number, name in enumerate(facts.classes)}
        heads = nn.ModuleDict()
        for name, count in facts.classes.items():
            heads[self.head_keys[name]] = nn.Linear(feature_dim, count)
        self.classifier = nn.ModuleDict({"trunk": trunk, "heads": heads})

    def features(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in -1…1 -> [N, feature_dim]."""
        return self.classifier["trunk"](images)

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """[N, C, H, W] in -1…1 -> label -> logits [N, classes]."""
        features = self.features(images)
        heads: nn.ModuleDict = self.classifier["heads"]  # type: ignore[assignment]
        return {name: heads[key](features) for name, key in self.head_keys.items()}


def _key(label: str, number: int) -> str:
    """A label's name where PyTorch takes it for a module's, else its number.

    No dots, and nothing that a module has itself, as `type`.
    """
    is_odd = not label or "." in label or label.startswith("label ")
    return f"label {number}" if is_odd or hasattr(nn.ModuleDict(), label) else label
