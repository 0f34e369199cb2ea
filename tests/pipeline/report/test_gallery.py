"""Galleries of other kinds of clips: unlabelled, greyscale, long, with continuous factors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.generation.user_clips import ClipList
from pipeline.report.animation import display_fps, make_animation, median_fps
from pipeline.report.gallery import PHASES, Gallery, draw_gallery
from pipeline.report.latent_map import categorical, colourings, continuous, latent_map, marks, principal_plane
from pipeline.report.rollouts import BEYOND_RGBA, REMAINING_RGBA, TRAINED_RGBA, add_time_bar, fade_after_end
from tests.vdsm.evaluation.counting_progress import CountingProgress
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.evaluation.measurement import Measurement, Swapped, collect_latents
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.progress import NO_PROGRESS, Progress


class Pendulums(ClipList):
    """Greyscale clips of a swinging bright dot: no label, an angle per frame, a length per clip."""

    def __init__(self, clips: int, frames: int) -> None:
        self.angles = np.sin(np.linspace(0, 7, frames)[None] + np.arange(clips)[:, None])
        pixels = np.zeros((clips, frames, 64, 64, 1), dtype=np.uint8)
        for clip in range(clips):
            for time, x in enumerate((32 + 25 * self.angles[clip]).astype(int)):
                pixels[clip, time, 20 + clip : 26 + clip, x - 3 : x + 3] = 255
        super().__init__([f"pendulum-{clip}" for clip in range(clips)], list(pixels), [25.0] * clips)
        self.factors = {"length": np.arange(clips, dtype=np.float64)}

    def tracks(self, index: int) -> dict[str, NDArray[np.float64]]:
        return {"angle": self.angles[index]}


def gallery_of(clips: ClipList, length: int, sequence_stage: bool = True, progress: Progress = NO_PROGRESS) -> Gallery:
    config = ModelConfig(
        channels=1, num_experts=4, pose_size=4, dynamics_size=5, encoder_channels=(4, 4, 8, 8), encoder_hidden=16,
        static_hidden=8, decoder_channels=(16, 8, 8, 4), rnn_width=8, rnn_layers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Disentangler(config).eval()
    codes = encode_clips(model, clips, length)
    pairs = Pairs(np.array([0, 1]), np.array([1, 0]))
    unjudged = Swapped(pairs, {}, {}, np.empty(0, dtype=np.int64))
    measured = Measurement({}, {}, unjudged, collect_latents(clips, codes), SwapDecoder(model, codes, length), [])
    return draw_gallery(clips, measured, sequence_stage, max_cells=60, seed=0, progress=progress)


@pytest.mark.slow
def test_greyscale_clips_without_labels_are_shown_at_their_frame_rate_with_their_continuous_factors() -> None:
    found = gallery_of(Pendulums(14, 20), length=20)
    assert found.transfer is not None
    assert found.transfer.labels == []
    assert found.transfer.identities == 10  # 60 cells for six donors
    assert [colouring.name for colouring in found.colourings] == ["length", "angle (middle frame)"]
    assert [len(map.points) for map in found.maps] == [14, 14, 14]
    assert found.absent == {"wrong": "Without labels, wrong swaps cannot be identified."}
    assert found.rollouts is not None
    assert (found.rollouts.frames, found.rollouts.fps) == (80, 25.0)
    assert len(found.prior) == 3


def test_without_a_sequence_stage_sections_that_need_one_give_the_reason() -> None:
    found = gallery_of(Pendulums(4, 6), length=6, sequence_stage=False)
    assert "sequence stage is not trained yet" in found.absent["rollouts"]
    assert found.rollouts is None
    assert found.interpolation is not None
    assert [map.title for map in found.maps] == ["Static code", "Pose of the middle frame"]


def test_sprite_sheet_of_a_long_clip_has_several_columns_and_frames_in_order() -> None:
    import base64
    import io

    from PIL import Image

    clip = np.zeros((30, 1000, 40, 3), dtype=np.uint8)
    clip[...] = np.arange(30)[:, None, None, None] * 8
    animation = make_animation(clip, 8.0, "shades")
    assert (animation.rows, animation.columns) == (16, 2)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(animation.uri.partition(",")[2]))).convert("RGB"))
    for frame in range(30):
        column, row = divmod(frame, 16)
        assert abs(int(sheet[row * 1000 + 500, column * 40 + 20, 0]) - frame * 8) < 4
    with pytest.raises(ValueError, match="show fewer clips"):
        make_animation(np.zeros((9, 9000, 4000, 3), dtype=np.uint8), 8.0, "too large")


def test_unknown_and_absurd_frame_rates_become_rates_that_a_screen_can_show() -> None:
    assert [display_fps(fps) for fps in (None, float("nan"), 0.0, 25.0, 1000.0)] == [8.0, 8.0, 8.0, 25.0, 60.0]
    assert median_fps(ClipList(["a"], [np.zeros((2, 4, 4, 3), dtype=np.uint8)], [float("nan")])) is None


def test_principal_plane_does_not_depend_on_the_rotation_of_the_codes() -> None:
    generator = np.random.default_rng(0)
    flat = generator.normal(size=(200, 2)) * (5, 2)
    rotation, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    codes = np.pad(flat, ((0, 0), (0, 4))) @ rotation + 3
    found, shares = principal_plane(codes)
    covariance = np.linalg.eigvalsh(np.cov(flat.T))[::-1]
    np.testing.assert_allclose(np.var(found, axis=0, ddof=1), covariance)
    assert sum(shares) == pytest.approx(1)
    between = np.linalg.norm(found[:, None] - found[None], axis=-1)
    np.testing.assert_allclose(between, np.linalg.norm(flat[:, None] - flat[None], axis=-1), atol=1e-9)


def test_map_stays_inside_its_drawing_and_samples_large_datasets() -> None:
    codes = np.random.default_rng(0).standard_cauchy((3000, 3))
    names = categorical("colour", np.arange(3000) % 20, [f"c{value}" for value in range(20)])
    found = latent_map("code", codes, [names])
    assert len(found.points) == 900
    assert found.clips == 3000
    assert all(
        0 <= across <= 340 and 0 <= down <= 340 and 0 <= values[0] <= 12 for across, down, values in found.points
    )
    assert names.legend == [*(f"c{value}" for value in range(12)), "other"]
    still = latent_map("still", np.ones((5, 3)), [])
    assert {(across, down) for across, down, _ in still.points} == {(170.0, 170.0)}


def test_continuous_factors_are_divided_evenly_and_unknown_values_are_named() -> None:
    found = continuous("angle", np.array([0.0, 0.99, 7.0, np.nan]))
    assert found is not None
    assert found.values.tolist() == [0, 0, 6, 7]
    assert found.legend[0] == "0 to 1"
    assert found.legend[-1] == "unknown"
    assert continuous("still", np.ones(3)) is None
    assert colourings({}, {}, {"still": np.ones(3)}, ["a", "a", "a"]) == []


def test_rollouts_mark_the_end_of_the_clip_and_of_the_trained_length() -> None:
    clip = np.full((4, 8, 16, 3), 200, dtype=np.uint8)
    faded = fade_after_end(clip[:2], 4)
    assert faded[:, 0, 0, 3].tolist() == [255, 255, 70, 70]
    barred = add_time_bar(clip, trained=2)
    assert barred.shape == (4, 8 + 3, 16, 4)
    assert [tuple(barred[time, -1, 3]) for time in range(4)] == [TRAINED_RGBA] * 4
    assert [tuple(barred[time, -1, 15]) for time in range(4)] == [REMAINING_RGBA] * 3 + [BEYOND_RGBA]
    assert (barred[:, :8, :, :3] == 200).all()


def test_marks_of_a_map_differ_by_shape(root: Path) -> None:
    shapes = marks().split("<g ")[1:]
    assert len({shape.partition(">")[2] + ("hollow" if "none" in shape else "") for shape in shapes}) == 13
    style = (root / "pipeline" / "report" / "page.css").read_text()
    assert all(f".value-{number} " in style for number in range(13)), json.dumps(style[:10])


@pytest.mark.slow
@pytest.mark.parametrize("sequence_stage", [True, False])
def test_gallery_starts_the_promised_number_of_phases(sequence_stage: bool) -> None:
    progress = CountingProgress()
    gallery_of(Pendulums(4, 6), length=6, sequence_stage=sequence_stage, progress=progress)
    assert len(progress.phases) == PHASES
    assert progress.done == progress.totals
