"""Appearance, motion and change of clips, against a computation value by value."""

import itertools
import math

import numpy as np
import pytest
import torch

from vdsm.evaluation.traits import (
    COLOUR_LEVELS,
    GRID,
    HALF_CHANGE,
    SIDE,
    STEPS,
    appearance,
    join_traits,
    motion,
    traits_of,
)


def clips_of(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def slow_appearance(clip: torch.Tensor) -> list[float]:
    """Return the appearance of one clip [T, C, H, W], pixel by pixel."""
    channels = clip.shape[1]
    counts = dict.fromkeys(itertools.product(range(COLOUR_LEVELS), repeat=channels), 0.0)
    for pixel in clip.permute(0, 2, 3, 1).reshape(-1, channels).tolist():
        for colour in counts:
            nearness = [
                max(0.0, 1 - abs(value * (COLOUR_LEVELS - 1) - level))
                for value, level in zip(pixel, colour, strict=True)
            ]
            counts[colour] += math.prod(nearness)
    second = sorted(counts.values())[-2]
    # The first channel counts fastest.
    roots = [math.sqrt(min(counts[colour[::-1]], second)) for colour in counts]
    length = math.sqrt(sum(root**2 for root in roots))
    return [root / length for root in roots]


@pytest.mark.parametrize("channels", [1, 3])
def test_appearance_counts_colours_and_shares_them_between_bins(channels: int) -> None:
    frames = clips_of(2, 2, channels, 3, 4)
    frames[0, :, :, 0] = 1.0
    frames[1, 0] = 0.2
    found = appearance(frames)
    for clip, row in zip(frames, found, strict=True):
        assert row.tolist() == pytest.approx(slow_appearance(clip), abs=1e-5)


def test_appearance_forgets_positions_and_times_and_is_that_of_each_clip_alone() -> None:
    frames = clips_of(3, 4, 3, 8, 8)
    found = appearance(frames)
    torch.testing.assert_close(appearance(frames.flip(1, 3).transpose(3, 4)), found)
    torch.testing.assert_close(appearance(frames[1:2]), found[1:2])
    assert not torch.allclose(appearance(frames.flip(2)), found, atol=1e-3)


def test_large_frames_are_reduced_before_their_colours_are_counted() -> None:
    small = clips_of(1, 2, 3, SIDE, SIDE)
    large = small.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    torch.testing.assert_close(appearance(large), appearance(small))


def slow_motion(clip: torch.Tensor) -> list[float]:
    """Return the motion of one clip [T, C, H, W] whose sides GRID divides and with at most STEPS frames."""
    length, channels, height, width = clip.shape
    cells = [[[0.0] * GRID for _ in range(GRID)] for _ in range(length)]
    for time, y, x in itertools.product(range(length), range(height), range(width)):
        most = 0.0
        for channel in range(channels):
            values = sorted(clip[:, channel, y, x].tolist())
            most = max(most, abs(float(clip[time, channel, y, x]) - values[(length - 1) // 2]))
        cells[time][y * GRID // height][x * GRID // width] += most / (most + HALF_CHANGE)
    flat = [value for frame in cells for row in frame for value in row]
    size = math.sqrt(sum(value**2 for value in flat))
    return [value / size for value in flat]


def test_motion_says_where_and_when_a_clip_leaves_its_median() -> None:
    frames = clips_of(2, 5, 2, 16, 24)
    frames[1] = frames[1] * 0.02 + 0.5
    for clip, row in zip(frames, motion(frames), strict=True):
        assert row.tolist() == pytest.approx(slow_motion(clip), abs=1e-5)


def test_motion_hardly_depends_on_colours_and_is_zero_where_nothing_moves() -> None:
    frames = torch.zeros(2, 6, 3, 32, 32)
    for time in range(6):
        frames[0, time, :, 4 * time : 4 * time + 6, 10:16] = torch.tensor([1.0, 0.4, 0.1])[:, None, None]
        frames[1, time, :, 4 * time : 4 * time + 6, 10:16] = torch.tensor([0.3, 0.3, 0.9])[:, None, None]
    first, second = motion(frames)
    assert float(first @ second) > 0.999
    assert float(first @ motion(frames[:1].flip(1))[0]) < 0.7
    assert motion(frames[:1, :1].expand(-1, 6, -1, -1, -1)).abs().max() == 0


def test_motion_of_long_clips_has_a_bounded_size() -> None:
    assert motion(clips_of(1, 3 * STEPS, 1, 8, 8)).shape == (1, STEPS * GRID**2)
    assert motion(clips_of(1, 3, 1, 8, 8)).shape == (1, 3 * GRID**2)


def test_change_and_acceleration_are_means_of_differences() -> None:
    frames = clips_of(2, 5, 2, 3, 3)
    found = traits_of(frames)
    values = frames.double().numpy()
    for clip in range(2):
        steps = [np.abs(values[clip, time + 1] - values[clip, time]).mean() for time in range(4)]
        turns = [
            np.abs(values[clip, time] - 2 * values[clip, time + 1] + values[clip, time + 2]).mean() for time in range(3)
        ]
        assert found.change[clip] == pytest.approx(np.mean(steps), rel=1e-5)
        assert found.acceleration[clip] == pytest.approx(np.mean(turns), rel=1e-5)
    for length, name in ((1, "change"), (2, "acceleration")):
        assert getattr(traits_of(frames[:, :length]), name).tolist() == [0, 0]


def test_traits_of_batches_are_those_of_all_clips() -> None:
    frames = clips_of(5, 3, 3, 8, 8)
    whole, parts = traits_of(frames), join_traits([traits_of(frames[:2]), traits_of(frames[2:])])
    for name in ("appearance", "motion", "change", "acceleration"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-6)
        np.testing.assert_array_equal(getattr(whole.select([3, 0]), name), getattr(whole, name)[[3, 0]])
