"""Fidelity on the pixels that move, against a computation pixel by pixel."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.vdsm.evaluation.counting_progress import CountingProgress
from tests.vdsm.evaluation.six_clips import SEED
from vdsm.evaluation.moving_pixels import (
    GREY_LEVELS,
    REACH,
    fidelity_on,
    moving_pixels,
    moving_scores,
    moving_swap_scores,
)
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.scores import mean_score
from vdsm.evaluation.sharpness import similarity


def slowly_moving(clip: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels of one clip [T, H, W, C] move, one after the other."""
    length, height, width, channels = clip.shape
    found = np.zeros((height, width), dtype=bool)
    for y in range(height):
        for x in range(width):
            for channel in range(channels):
                values = [int(value) for value in clip[:, y, x, channel]]
                median = sorted(values)[(length - 1) // 2]
                if max(abs(value - median) for value in values) > GREY_LEVELS:
                    found[max(y - REACH, 0) : y + REACH + 1, max(x - REACH, 0) : x + REACH + 1] = True
    return found


def as_frames(clips: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(clips).permute(0, 1, 4, 2, 3).float() / 255


def jittered(count: int, length: int = 4) -> NDArray[np.uint8]:
    """Return clips [count, length, 9, 7, 2] of noise below the threshold, in which a few pixels change by more."""
    generator = np.random.default_rng(0)
    base = generator.integers(40, 200, (count, 1, 9, 7, 2))
    clips = base + generator.integers(-9, 10, (count, length, 9, 7, 2))
    for clip in clips:
        y, x = generator.integers(9), generator.integers(7)
        clip[generator.integers(length), y, x, generator.integers(2)] += 30 + int(generator.integers(5))
    return clips.astype(np.uint8)


@pytest.mark.parametrize("length", [4, 5])
def test_a_pixel_moves_if_a_channel_leaves_its_median_and_so_do_its_neighbours(length: int) -> None:
    clips = jittered(12, length)
    expected = np.stack([slowly_moving(clip) for clip in clips])
    assert 0.05 < expected.mean() < 0.5
    np.testing.assert_array_equal(moving_pixels(as_frames(clips)).numpy(), expected)


@pytest.mark.parametrize(("change", "moves"), [(GREY_LEVELS, False), (GREY_LEVELS + 1, True)])
def test_the_threshold_is_exact_for_every_grey_level(change: int, moves: bool) -> None:
    dark = np.arange(0, 256 - change, dtype=np.uint8)
    clips = np.repeat(dark[:, None, None, None, None], 3, axis=1)
    clips[:, 1] += np.uint8(change)
    assert bool(moving_pixels(as_frames(clips)).all()) is moves
    assert bool(moving_pixels(as_frames(clips)).any()) is moves


def test_only_the_chosen_pixels_count() -> None:
    generator = torch.Generator().manual_seed(0)
    real, ours = (torch.rand(3, 4, 2, 5, 6, generator=generator) for _ in range(2))
    chosen = torch.rand(3, 5, 6, generator=generator) > 0.6
    chosen[2] = False
    found = fidelity_on(chosen, ours, real)
    for clip in range(2):
        errors = [
            float(ours[clip, time, channel, y, x] - real[clip, time, channel, y, x]) ** 2
            for time in range(4) for channel in range(2) for y in range(5) for x in range(6) if chosen[clip, y, x]
        ]  # fmt: skip
        assert found.mse[clip] == pytest.approx(np.mean(errors), rel=1e-5)
        assert found.psnr[clip] == pytest.approx(10 * math.log10(1 / np.mean(errors)), rel=1e-5)
    assert np.isnan(found.mse[2])
    assert np.isnan(found.psnr[2])
    assert fidelity_on(chosen, real, real).psnr[0] == 100
    similar = similarity(ours, real)[0, :, chosen[0]]
    assert found.ssim[0] == pytest.approx(float(similar.mean()), rel=1e-9)
    assert np.isnan(found.ssim[2])
    assert np.isnan(found.gradient[2])


class Dots:
    """Clips of a dot that moves on a constant ground; those of the last identity stand still."""

    keys = ("0", "1", "2", "3", "4", "5")
    identities = ("ann", "ann", "bob", "bob", "cat", "cat")
    clip_frames = (4,) * 6

    def __init__(self) -> None:
        self.labels: dict[str, NDArray[np.int64]] = {}
        self.vocabulary: dict[str, list[str]] = {}
        self.all_frames = np.full((6, 4, 16, 16, 1), 30, dtype=np.uint8)
        for clip in range(4):
            for time in range(4):
                self.all_frames[clip, time, 2 + 3 * time, 3 + clip] = 200

    def __len__(self) -> int:
        return 6

    def frames(self, index: int) -> NDArray[np.uint8]:
        return self.all_frames[index]


DOTS = Dots()


def dim(batch: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
    """Return the clips with every value a tenth too low."""
    return 0.9 * as_frames(DOTS.all_frames[batch])


def test_scores_compare_a_model_with_a_still_on_the_clips_that_move() -> None:
    indices = np.arange(6)
    progress = CountingProgress()
    found = moving_scores(DOTS, indices, 4, {"poses": dim, "self_swap": dim}, 4, SEED, progress)
    assert (progress.phases, progress.totals, progress.done) == (["comparing moving pixels"], [6], [6])
    people = np.array([0, 0, 1, 1])
    psnr, still = [], []
    for clip in range(4):
        real = DOTS.all_frames[clip] / 255
        moving = slowly_moving(DOTS.all_frames[clip])
        psnr.append(-10 * np.log10(np.square(0.1 * real)[:, moving].mean()))
        still.append(-10 * np.log10(np.square(real - real[:1])[:, moving].mean()))
    for name in ("poses", "self_swap"):
        assert found[f"moving.{name}.psnr"].value == pytest.approx(np.mean(psnr), rel=1e-5)
        gains = mean_score(np.subtract(psnr, still), people, 0.0, SEED)
        score = found[f"moving.{name}.gain"]
        assert (score.value, score.low, score.high) == pytest.approx((gains.value, gains.low, gains.high), rel=1e-5)
        assert (score.n, score.chance) == (4, 0.0)
    assert found["moving.first_frame.psnr"].value == pytest.approx(np.mean(still), rel=1e-5)
    assert "moving.first_frame.gain" not in found
    share = [slowly_moving(clip).mean() for clip in DOTS.all_frames]
    assert (found["moving.share"].value, found["moving.share"].n) == (pytest.approx(np.mean(share)), 6)


def test_data_in_which_nothing_moves_has_no_score_but_the_share() -> None:
    found = moving_scores(DOTS, np.array([4, 5]), 4, {"poses": dim}, 4, SEED, NO_PROGRESS)
    assert {name for name, score in found.items() if score.n} == {"moving.share"}
    assert found["moving.share"].value == 0


def test_a_model_that_repeats_the_first_frame_gains_nothing() -> None:
    def still(batch: NDArray[np.int64]) -> torch.Tensor:
        return as_frames(DOTS.all_frames[batch])[:, :1].expand(-1, 4, -1, -1, -1)

    found = moving_scores(DOTS, np.arange(4), 4, {"self_swap": still}, 4, SEED, NO_PROGRESS)
    assert found["moving.self_swap.gain"].value == 0


def test_nothing_moves_in_a_frame_that_is_repeated_without_a_copy() -> None:
    assert not moving_pixels(as_frames(jittered(3))[:, :1].expand(-1, 6, -1, -1, -1)).any()


def drawn(dynamics_of: int, static_of: int) -> NDArray[np.uint8]:
    """Return the true swap: the motion of one clip, as bright as the other one's number, and a frame too long."""
    frames = DOTS.all_frames[dynamics_of].copy()
    frames[frames > 100] = 100 + 20 * static_of
    return np.concatenate([frames, frames[:1]])


def test_swaps_are_compared_with_the_true_ones_where_these_move() -> None:
    pairs = Pairs(np.array([0, 1, 3, 4]), np.array([5, 4, 2, 0]))
    truth = np.stack([drawn(*pair)[:4] for pair in zip(pairs.dynamics_of, pairs.static_of, strict=True)])

    def dimmed(numbers: NDArray[np.int64]) -> torch.Tensor:
        return 0.9 * as_frames(truth[numbers])

    progress = CountingProgress()
    decoders = {"swap": dimmed, "pose_swap": lambda numbers: as_frames(truth[numbers])}
    found = moving_swap_scores(DOTS, pairs, 4, drawn, decoders, 3, SEED, progress)
    assert (progress.phases, progress.totals, progress.done) == (["comparing swaps with the true ones"], [4], [4])
    measures = ("psnr", "mse", "ssim", "gradient", "gain")
    assert set(found) == {f"moving.{name}.{measure}" for name in decoders for measure in measures}
    mse = [np.square(0.1 * clip / 255)[:, slowly_moving(clip)].mean() for clip in truth[:3]]
    still = [np.square((clip - clip[:1].astype(float)) / 255)[:, slowly_moving(clip)].mean() for clip in truth[:3]]
    score, gain = found["moving.swap.mse"], found["moving.swap.gain"]
    # The fourth pair has the motion of a clip that stands still.
    people = np.array([0, 0, 1])
    expected = mean_score(np.array(mse), people, None, SEED)
    assert (score.value, score.low, score.high) == pytest.approx(
        (expected.value, expected.low, expected.high), rel=1e-5
    )
    assert (score.n, gain.n, gain.chance) == (3, 3, 0.0)
    assert gain.value == pytest.approx(np.mean(10 * np.log10(np.divide(still, mse))), rel=1e-5)
    assert found["moving.swap.gradient"].value == pytest.approx(0.1**2, rel=1e-5)
    assert found["moving.pose_swap.psnr"].value == 100
    assert found["moving.pose_swap.ssim"].value == pytest.approx(1)
    assert found["moving.pose_swap.gradient"].value == 0
