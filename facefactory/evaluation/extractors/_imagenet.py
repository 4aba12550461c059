"""How networks trained on ImageNet are shown images of any size."""

import torch
from torch.nn import functional as F

from facefactory.data.sets.transfer import send
from facefactory.facts import Size
from facefactory.weights.efficientnet_lite import DEVIATION, MEAN

LEAST = 64  # pixels, below which smaller images are enlarged
# Times their side, within LEAST and MOST. At their own size a grain of single pixels outweighs the faces: of drawn faces at 64 x 64, two GANs of each kind, smears
# with a grain had a kernel distance of 43 and 52 where heads with eyes and hair had 61 and 73; at twice that 3.7 and 3.8 against 3.0 and 3.3.
TIMES = 2
MOST = 224  # pixels, what such networks are trained at
STRIDE = 32  # pixels of the image to one of the last map


def enlarged(size: Size) -> Size:
    """The size at which images are shown: in their shape, the shorter side a multiple of STRIDE."""
    shorter = max(LEAST, -(-TIMES * min(size) // STRIDE) * STRIDE)
    scale = min(shorter / min(size), MOST / max(size))
    return Size(max(1, round(size.height * scale)), max(1, round(size.width * scale)))


class Show:
    """Images [n, H, W, C] uint8 -> [n, 3, *`enlarged`], standardised as in training."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size = enlarged(size)
        words = "" if size.is_square else " (height x width, in their shape)"
        self.rule = f"to {self.size}{words}, antialiased bilinear"
        self.mean = 255 * torch.tensor(MEAN, device=device)[:, None, None]
        self.deviation = 255 * torch.tensor(DEVIATION, device=device)[:, None, None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        shown = send(images, self.mean.device).permute(0, 3, 1, 2).float()
        if shown.shape[2:] != self.size:
            shown = F.interpolate(shown, self.size, mode="bilinear", antialias=True)
        shown = (shown.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        return shown.contiguous(memory_format=torch.channels_last)
