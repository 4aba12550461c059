"""Images seen through an affine map, by weighted sums of pixels, which can be differentiated twice."""

import torch
from torch import Tensor

FARTHEST = 3.0  # standard deviations that a draw lies from its mean at most


def normal(u: Tensor) -> Tensor:
    """Uniform draws in 0…1 -> normal ones."""
    return torch.special.ndtri(u).clamp(-FARTHEST, FARTHEST)


def resized(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images [N, C, H, W], so many times [N] as high and as wide around their middle."""
    return resampled(images, torch.diag_embed(torch.stack([1 / rows, 1 / columns], 1)))


def resampled(images: Tensor, back: Tensor) -> Tensor:
    """Images [N, C, H, W]: each pixel is the bilinear mean of four of the old ones, mirrored beyond the edges.

    `back` [N, 2, 2] leads from a new place to the old one, both (row, column) from the middle, in pixels. Nothing is
    smoothed before: images that shrink lose details, where the paper filters them.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - (height - 1) / 2
    columns = torch.arange(width, device=images.device) - (width - 1) / 2
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).view(-1, 2)
    old = grid.to(back) @ back.mT  # [N, H · W, 2]
    row = old[..., 0] + (height - 1) / 2
    column = old[..., 1] + (width - 1) / 2

    # the four around each place
    top = row.floor()
    left = column.floor()
    down = row - top
    right = column - left
    flat = images.flatten(2)
    seen = torch.zeros_like(flat)
    for near_row, row_share in ((top, 1 - down), (top + 1, down)):
        for near_column, column_share in ((left, 1 - right), (left + 1, right)):
            index = mirrored(near_row, height) * width + mirrored(near_column, width)
            pixels = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))
            seen = seen + pixels * (row_share * column_share)[:, None]
    return seen.view(images.shape)


def mirrored(place: Tensor, side: int) -> Tensor:
    """Whole places beyond 0…side - 1, mirrored at the edges' pixels, as often as it takes."""
    period = max(1, 2 * side - 2)
    inside = place.remainder(period)
    return torch.minimum(inside, period - inside).long().clamp(0, side - 1)
