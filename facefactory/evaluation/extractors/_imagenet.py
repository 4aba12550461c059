"""How networks trained on ImageNet are shown images of any size."""

import torch
from torch.nn import functional as F

from facefactory.data.sets.device import send

LEAST = (
    64  # pixels, below which smaller images are enlarged: the fastest that orders faces as eyes do
)
MOST = 224  # pixels, what such networks are trained at
STRIDE = 32  # pixels of the image to one of the last map
MEAN = (0.485, 0.456, 0.406)  # red, green, blue
DEVIATION = (0.229, 0.224, 0.225)


class Show:
    """Images [n, H, W, C] uint8 -> [n, 3, side, side], standardised as in training."""

    def __init__(self, side: int, device: torch.device) -> None:
        self.side = min(MOST, max(LEAST, -(-side // STRIDE) * STRIDE))
        self.rule = f"to {self.side}x{self.side}, antialiased bilinear"
        self.mean = 255 * torch.tensor(MEAN, device=device)[:, None, None]
        self.deviation = 255 * torch.tensor(DEVIATION, device=device)[:, None, None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        shown = send(images, self.mean.device).permute(0, 3, 1, 2).float()
        if shown.shape[2:] != (self.side, self.side):
            shown = F.interpolate(shown, (self.side, self.side), mode="bilinear", antialias=True)
        shown = (shown.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        return shown.contiguous(memory_format=torch.channels_last)
