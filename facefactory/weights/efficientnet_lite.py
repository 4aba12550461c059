"""EfficientNet-lite0, written from its published architecture.

Tan & Le, "EfficientNet", ICML 2019, table 1, in the variant "lite" (TensorFlow TPU models, 2020): no squeeze and
excitation, ReLU6, stem and head of fixed width. Convolutions pad as TensorFlow does ("SAME"): where an odd number of
pixels is to be added, the last side gets one more. The names are those of the published file of weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory.weights.folding import fold

EPSILON = 1e-3  # of the batch normalisation
# kernel, blocks, channels after them, stride of the first, expansion
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 2, 6),
    (5, 2, 40, 2, 6),
    (3, 3, 80, 2, 6),
    (5, 3, 112, 1, 6),
    (5, 4, 192, 2, 6),
    (3, 1, 320, 1, 6),
)
STEM = 32
HEAD = 1280
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's red, green and blue in 0…1
DEVIATION = (0.229, 0.224, 0.225)


def standardised(images: Tensor) -> Tensor:
    """Images [N, 3, H, W] in -1…1 as the network was trained on them."""
    mean = images.new_tensor(MEAN)[:, None, None]
    deviation = images.new_tensor(DEVIATION)[:, None, None]
    return ((images + 1) / 2 - mean) / deviation


class Convolution(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does."""

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, out, ceil(H / stride), ceil(W / stride)]."""
        kernel = self.kernel_size[0]
        stride = self.stride[0]
        missing = [
            max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in images.shape[2:]
        ]
        down, right = missing
        if down % 2 or right % 2:
            images = F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))
            down = right = 0
        padding = (down // 2, right // 2)
        return F.conv2d(images, self.weight, self.bias, stride, padding, 1, self.groups)


class Block(nn.Module):
    """Expansion, depthwise convolution, projection; added to its input where the shapes are equal."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expands = expansion > 1
        self.adds = stride == 1 and channels == out
        if self.expands:
            self._expand_conv = Convolution(channels, inner, 1)
            self._bn0 = nn.BatchNorm2d(inner, EPSILON)
        self._depthwise_conv = Convolution(inner, inner, kernel, stride, inner)
        self._bn1 = nn.BatchNorm2d(inner, EPSILON)
        self._project_conv = Convolution(inner, out, 1)
        self._bn2 = nn.BatchNorm2d(out, EPSILON)

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, out, H / stride, W / stride]."""
        maps = inputs
        if self.expands:
            maps = F.relu6(self._bn0(self._expand_conv(maps)), inplace=True)
        maps = F.relu6(self._bn1(self._depthwise_conv(maps)), inplace=True)
        maps = self._bn2(self._project_conv(maps))
        return inputs + maps if self.adds else maps

    def pairs(self) -> list[tuple[str, str]]:
        """The names of convolutions and of the normalisations that follow them."""
        found = [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        return [("_expand_conv", "_bn0"), *found] if self.expands else found


class Lite0(nn.Module):
    """The network: 4,652,008 parameters, 1000 classes of ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = Convolution(3, STEM, 3, 2)
        self._bn0 = nn.BatchNorm2d(STEM, EPSILON)
        blocks: list[Block] = []
        channels = STEM
        for kernel, count, out, stride, expansion in STAGES:
            for number in range(count):
                blocks.append(Block(channels, out, kernel, 1 if number else stride, expansion))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = Convolution(channels, HEAD, 1)
        self._bn1 = nn.BatchNorm2d(HEAD, EPSILON)
        self._fc = nn.Linear(HEAD, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] -> features [N, 1280], before the classes."""
        maps = F.relu6(self._bn0(self._conv_stem(images)), inplace=True)
        for block in self._blocks:
            maps = block(maps)
        maps = F.relu6(self._bn1(self._conv_head(maps)), inplace=True)
        return maps.mean((2, 3))

    def maps(self, images: Tensor, after: Sequence[int]) -> list[Tensor]:
        """Normalised images [N, 3, H, W] -> the maps after so many blocks, each; what lies beyond is not computed."""
        found = []
        maps = F.relu6(self._bn0(self._conv_stem(images)), inplace=True)
        for number, block in enumerate(self._blocks, 1):
            maps = block(maps)
            if number in after:
                found.append(maps)
            if number == max(after):
                break
        return found

    def classes(self, features: Tensor) -> Tensor:
        """Features [N, 1280] -> logits [N, 1000]."""
        found: Tensor = self._fc(features)
        return found

    def fold(self) -> None:
        """Put every normalisation into the convolution before it: the same function, a third faster."""
        fold(self, [("_conv_stem", "_bn0"), ("_conv_head", "_bn1")])
        for block in self._blocks:
            assert isinstance(block, Block)
            fold(block, block.pairs())


def load(path: str, device: torch.device) -> Lite0:
    """The network with the weights of a file, folded, for inference on a device."""
    network = Lite0()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)
    network.fold()
    return network.to(device).to(memory_format=torch.channels_last)
