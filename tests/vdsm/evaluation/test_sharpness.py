"""Similarity and edge error, against computations pixel by pixel and an independent library."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from vdsm.evaluation.moving_pixels import fidelity_on
from vdsm.evaluation.sharpness import SCALES, gradient_error, similarity

Array = NDArray[np.float64]


def two_clips(height: int = 13, width: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two sets of clips [2, 2, 2, height, width] of which one is the other with noise."""
    generator = torch.Generator().manual_seed(3)
    real = torch.rand(2, 2, 2, height, width, generator=generator)
    return (real + 0.2 * torch.randn(real.shape, generator=generator)).clamp(0, 1), real


def reflected(index: int, size: int) -> int:
    """Return the pixel that a position outside of a line of `size` pixels shows."""
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
    return index


def slow_similarity(ours: Array, real: Array, y: int, x: int) -> float:
    """Return SSIM of two images [H, W] at one pixel: weighted means, variances and covariance of its surroundings."""
    height, width = real.shape
    weights, first, second = [], [], []
    for down in range(-5, 6):
        for right in range(-5, 6):
            weights.append(math.exp(-(down**2 + right**2) / (2 * 1.5**2)))
            where = reflected(y + down, height), reflected(x + right, width)
            first.append(ours[where])
            second.append(real[where])
    share = np.array(weights) / sum(weights)
    a, b = np.array(first), np.array(second)
    mean_a, mean_b = share @ a, share @ b
    covariance = share @ ((a - mean_a) * (b - mean_b))
    spread = share @ (a - mean_a) ** 2 + share @ (b - mean_b) ** 2
    light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    return float(light * (2 * covariance + 0.03**2) / (spread + 0.03**2))


def test_similarity_is_that_of_the_surroundings_of_each_pixel_averaged_over_channels() -> None:
    ours, real = two_clips()
    found = similarity(ours, real)
    assert (found.shape, found.dtype) == ((2, 2, 13, 9), torch.float64)
    for clip, time, y, x in ((0, 0, 0, 0), (0, 1, 6, 4), (1, 0, 12, 8), (1, 1, 3, 8)):
        each = [slow_similarity(ours[clip, time, c].double().numpy(), real[clip, time, c].double().numpy(), y, x)
                for c in range(2)]  # fmt: skip
        assert float(found[clip, time, y, x]) == pytest.approx(np.mean(each), abs=1e-12)


def test_similarity_agrees_with_torchmetrics_and_is_one_for_equal_frames() -> None:
    ours, real = two_clips(32, 24)
    flat = (part.double().flatten(0, 1) for part in (ours, real))
    _, image = structural_similarity_index_measure(*flat, data_range=1.0, reduction="none", return_full_image=True)
    inner = (..., slice(5, -5), slice(5, -5))
    expected = image.mean(1).unflatten(0, (2, 2))[inner]
    torch.testing.assert_close(similarity(ours, real)[inner], expected, atol=1e-10, rtol=0)
    flat_frames = torch.full((1, 1, 3, 32, 32), 0.3)
    torch.testing.assert_close(similarity(flat_frames, flat_frames), torch.ones(1, 1, 32, 32).double())


def slow_gradient_error(pixels: NDArray[np.bool_], ours: Array, real: Array) -> float:
    """Return the edge error of one clip [T, C, H, W], one difference after the other."""
    ratios = []
    for scale in SCALES:
        height, width = real.shape[2] // scale, real.shape[3] // scale
        error = edges = 0.0
        for y in range(height):
            for x in range(width):
                for below, beside in ((0, 1), (1, 0)):
                    if y + below >= height or x + beside >= width:
                        continue
                    here = slice(y * scale, (y + 1) * scale), slice(x * scale, (x + 1) * scale)
                    there = (
                        slice((y + below) * scale, (y + below + 1) * scale),
                        slice((x + beside) * scale, (x + beside + 1) * scale),
                    )
                    if not (pixels[here].any() or pixels[there].any()):
                        continue
                    for time in range(real.shape[0]):
                        for channel in range(real.shape[1]):
                            step, real_step = (
                                part[time, channel][there].mean() - part[time, channel][here].mean()
                                for part in (ours, real)
                            )
                            error += (step - real_step) ** 2
                            edges += real_step**2
        if edges:
            ratios.append(error / edges)
    return float(np.mean(ratios)) if ratios else math.nan


def test_edge_error_sums_the_differences_of_neighbours_at_three_scales() -> None:
    ours, real = two_clips()
    pixels = torch.rand(2, 13, 9, generator=torch.Generator().manual_seed(4)) > 0.85
    found = gradient_error(pixels, ours, real)
    for clip in range(2):
        expected = slow_gradient_error(pixels[clip].numpy(), ours[clip].double().numpy(), real[clip].double().numpy())
        assert 0.2 < expected < 2
        assert float(found[clip]) == pytest.approx(expected, rel=1e-9)


def bar(at: int, blur: int = 0) -> torch.Tensor:
    """Return a clip [1, 1, 1, 16, 32] of a bright bar 4 pixels wide, blurred over some pixels on each side."""
    line = torch.zeros(1, 1, 32)
    line[..., at : at + 4] = 1
    if blur:
        line = torch.nn.functional.avg_pool1d(line, 2 * blur + 1, 1, blur)
    return line.expand(1, 16, 32)[None, None]


def test_edge_error_of_equal_flat_and_displaced_frames() -> None:
    everything = torch.ones(1, 16, 32, dtype=torch.bool)
    assert float(gradient_error(everything, bar(12), bar(12))) == 0
    assert float(gradient_error(everything, torch.zeros_like(bar(12)), bar(12))) == pytest.approx(1)
    assert float(gradient_error(everything, bar(4), bar(20))) == pytest.approx(2)
    assert math.isnan(float(gradient_error(everything, bar(4), torch.zeros_like(bar(4)))))
    nowhere = torch.zeros(1, 16, 32, dtype=torch.bool)
    assert math.isnan(float(gradient_error(nowhere, bar(4), bar(4))))


def test_blur_costs_more_edges_the_wider_it_is() -> None:
    everything = torch.ones(1, 16, 32, dtype=torch.bool)
    errors = [float(gradient_error(everything, bar(12, blur), bar(12))) for blur in (0, 1, 2, 4)]
    assert errors == sorted(errors)
    assert 0.2 < errors[1] < errors[-1] < 1


def test_an_edge_blurred_over_some_pixels_misses_all_but_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdsm.evaluation.sharpness.SCALES", (1,))
    edge = (torch.arange(32) >= 16).float().expand(1, 1, 1, 8, 32)
    ramp = ((torch.arange(32) - 13) / 5).clamp(0, 1).expand(1, 1, 1, 8, 32)
    assert float(gradient_error(torch.ones(1, 8, 32, dtype=torch.bool), ramp, edge)) == pytest.approx(1 - 1 / 5)


def test_a_smeared_limb_costs_more_similarity_and_edges_than_squared_error() -> None:
    """The mean of two positions of a bar is nearer in mean squared error than the bar at a wrong one."""
    everything = torch.ones(1, 16, 32, dtype=torch.bool)
    sharp = fidelity_on(everything, bar(13), bar(12))
    smeared = fidelity_on(everything, 0.5 * (bar(9) + bar(15)), bar(12))
    assert smeared.ssim[0] < sharp.ssim[0]
    assert smeared.gradient[0] > sharp.gradient[0]
