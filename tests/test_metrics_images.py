"""PSNR and SSIM against hand-computed values and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from facefactory.metrics.images import AT_ONCE, Images, psnr, ssim


def faces(count: int = 3, channels: int = 3) -> Images:
    """Smooth pictures with some noise, 32 x 24."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 6, channels), np.uint8).repeat(4, 1).repeat(4, 2)
    return (coarse + rng.integers(-9, 10, coarse.shape)).clip(0, 255).astype(np.uint8)


def spoilt(images: Images) -> Images:
    noise = np.random.default_rng(1).normal(0, 20, images.shape)
    return (0.8 * images + noise + 10).clip(0, 255).astype(np.uint8)


def to_torch(images: Images) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).double()


def test_psnr_of_a_known_error() -> None:
    images = np.full((2, 4, 5, 1), 100, np.uint8)
    other = images.copy()
    other[0] += 5  # squared errors 25 and 0: mean 12.5
    assert psnr.score(images, other)["psnr"] == pytest.approx(
        10 * np.log10(255**2 / 12.5), rel=1e-12
    )
    assert psnr.score(images * 0, images * 0 + 255)["psnr"] == 0
    assert psnr.score(images, images)["psnr"] == np.inf


def test_ssim_of_flat_images_is_the_term_of_brightness() -> None:
    dark = np.full((1, 11, 11, 1), 100, np.uint8)
    light = np.full((1, 11, 11, 1), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    wanted = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim.score(dark, light)["ssim"] == pytest.approx(wanted, rel=1e-9)


def test_ssim_of_one_window_is_what_the_formula_gives_by_hand() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(
        0,
        256,
        (2, 1, 11, 11, 1),
        np.uint8,
    )
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    a, b = (image[0, :, :, 0].astype(float) for image in (x, y))
    mean_a = (weights * a).sum()
    mean_b = (weights * b).sum()
    var_a = (weights * (a - mean_a) ** 2).sum()
    var_b = (weights * (b - mean_b) ** 2).sum()
    covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
    c1 = 6.5025
    c2 = 58.5225
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    assert ssim.score(x, y)["ssim"] == pytest.approx(above / below, rel=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [3, AT_ONCE + 2])
def test_psnr_and_ssim_agree_with_torchmetrics(channels: int, count: int) -> None:
    images = faces(count, channels)
    other = spoilt(images)
    both = to_torch(other), to_torch(images)
    assert psnr.score(images, other)["psnr"] == pytest.approx(
        float(peak_signal_noise_ratio(*both, data_range=255.0)), rel=1e-6
    )
    _, places = structural_similarity_index_measure(
        *both, data_range=255.0, sigma=1.5, return_full_image=True
    )
    published = float(
        places[..., 5:-5, 5:-5].mean()
    )  # its mean takes in reflected borders, which Wang et al. leave out
    assert ssim.score(images, other)["ssim"] == pytest.approx(published, rel=1e-6)


def test_ssim_is_1_for_equal_images_0_for_noise_and_sees_blur_before_a_change_of_brightness() -> (
    None
):
    images = faces()
    noise = np.random.default_rng(3).integers(
        0,
        256,
        images.shape,
        np.uint8,
    )
    assert ssim.score(images, images)["ssim"] == pytest.approx(1)
    assert abs(ssim.score(noise, spoilt(faces()[::-1]))["ssim"]) < 0.05
    blurred = images.copy()
    blurred[:, 1:-1] = (images[:, :-2].astype(int) + images[:, 1:-1] + images[:, 2:]) // 3
    darker = (images * 0.9).astype(np.uint8)
    assert ssim.score(images, blurred)["ssim"] < ssim.score(images, darker)["ssim"]


def test_images_smaller_than_the_window_are_refused_with_their_size() -> None:
    small = np.zeros((1, 10, 30, 3), np.uint8)
    with pytest.raises(ValueError, match=r"at least 11 x 11 pixels; these have \(10, 30\)"):
        ssim.score(small, small)
