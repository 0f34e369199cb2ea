"""The pictures of a report on clips of other kinds: no labels, grey, long, with continuous factors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.generation.user_clips import ClipList
from pipeline.report.explore import AHEAD, BEYOND, WITHIN, ended, with_time_bar
from pipeline.report.films import film, shown_fps
from pipeline.report.gallery import Shown, draw, fps_of
from pipeline.report.latent_map import categorical, colourings, continuous, latent_map, principal_plane
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.evaluation.measurement import Measurement, Swapped, latents_of
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.progress import NO_PROGRESS


class Pendulums(ClipList):
    """Grey clips of a bright dot that swings: no label, an angle for each frame, a length for each clip."""

    def __init__(self, clips: int, frames: int) -> None:
        self.angles = np.sin(np.linspace(0, 7, frames)[None] + np.arange(clips)[:, None])
        shown = np.zeros((clips, frames, 64, 64, 1), dtype=np.uint8)
        for clip in range(clips):
            for time, place in enumerate((32 + 25 * self.angles[clip]).astype(int)):
                shown[clip, time, 20 + clip : 26 + clip, place - 3 : place + 3] = 255
        super().__init__([f"pendulum-{clip}" for clip in range(clips)], list(shown), [25.0] * clips)
        self.factors = {"length": np.arange(clips, dtype=np.float64)}

    def tracks(self, index: int) -> dict[str, NDArray[np.float64]]:
        return {"angle": self.angles[index]}


def shown_of(clips: ClipList, length: int, sequence_stage: bool = True) -> Shown:
    config = ModelConfig(
        channels=1, num_experts=4, pose_size=4, dynamics_size=5, encoder_channels=(4, 4, 8, 8), encoder_hidden=16,
        static_hidden=8, decoder_channels=(16, 8, 8, 4), rnn_width=8, rnn_layers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Disentangler(config).eval()
    codes = encode_clips(model, clips, length)
    pairs = Pairs(np.array([0, 1]), np.array([1, 0]))
    nothing = Swapped(pairs, {}, {}, np.empty(0, dtype=np.int64))
    measured = Measurement({}, {}, nothing, latents_of(clips, codes), SwapDecoder(model, codes, length), [])
    return draw(clips, measured, sequence_stage, most_cells=60, seed=0, progress=NO_PROGRESS)


def test_grey_clips_without_labels_are_shown_at_their_speed_with_their_continuous_factors() -> None:
    found = shown_of(Pendulums(14, 20), length=20)
    assert found.transfer is not None
    assert found.transfer.labels == []
    assert found.transfer.identities == 10  # 60 cells for six donors
    assert [colouring.name for colouring in found.colourings] == ["length", "angle (middle frame)"]
    assert [len(map.points) for map in found.maps] == [14, 14, 14]
    assert found.absent == {"wrong": "Without labels nobody can say which swap is wrong."}
    assert found.rollouts is not None
    assert (found.rollouts.frames, found.rollouts.fps) == (80, 25.0)
    assert len(found.prior) == 3


def test_without_a_sequence_stage_what_needs_one_says_so() -> None:
    found = shown_of(Pendulums(4, 6), length=6, sequence_stage=False)
    assert "sequence stage is not trained" in found.absent["rollouts"]
    assert found.rollouts is None
    assert found.interpolation is not None
    assert [map.title for map in found.maps] == ["Static code", "Pose of the middle frame"]


def test_sheet_of_a_long_film_has_several_columns_and_frames_in_order() -> None:
    import base64
    import io

    from PIL import Image

    clip = np.zeros((30, 1000, 40, 3), dtype=np.uint8)
    clip[...] = np.arange(30)[:, None, None, None] * 8
    made = film(clip, 8.0, "shades")
    assert (made.rows, made.columns) == (16, 2)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.uri.partition(",")[2]))).convert("RGB"))
    for frame in range(30):
        column, row = divmod(frame, 16)
        assert abs(int(sheet[row * 1000 + 500, column * 40 + 20, 0]) - frame * 8) < 4
    with pytest.raises(ValueError, match="show fewer clips"):
        film(np.zeros((9, 9000, 4000, 3), dtype=np.uint8), 8.0, "too large")


def test_unknown_and_absurd_speeds_become_speeds_that_a_screen_can_show() -> None:
    assert [shown_fps(fps) for fps in (None, float("nan"), 0.0, 25.0, 1000.0)] == [8.0, 8.0, 8.0, 25.0, 60.0]
    assert fps_of(ClipList(["a"], [np.zeros((2, 4, 4, 3), dtype=np.uint8)], [float("nan")])) == 8.0


def test_plane_is_that_of_most_variance_whatever_the_rotation() -> None:
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


def test_map_stays_inside_its_drawing_and_thins_out_many_clips() -> None:
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


def test_continuous_factors_are_divided_evenly_and_unknown_ones_are_named() -> None:
    found = continuous("angle", np.array([0.0, 0.99, 7.0, np.nan]))
    assert found is not None
    assert found.values.tolist() == [0, 0, 6, 7]
    assert found.legend[0] == "0 to 1"
    assert found.legend[-1] == "unknown"
    assert continuous("still", np.ones(3)) is None
    assert colourings({}, {}, {"still": np.ones(3)}, ["a", "a", "a"]) == []


def test_rollouts_show_where_the_clip_and_the_training_ended() -> None:
    clip = np.full((4, 8, 16, 3), 200, dtype=np.uint8)
    faded = ended(clip[:2], 4)
    assert faded[:, 0, 0, 3].tolist() == [255, 255, 70, 70]
    barred = with_time_bar(clip, trained=2)
    assert barred.shape == (4, 8 + 3, 16, 4)
    assert [tuple(barred[time, -1, 3]) for time in range(4)] == [WITHIN] * 4
    assert [tuple(barred[time, -1, 15]) for time in range(4)] == [AHEAD, AHEAD, AHEAD, BEYOND]
    assert (barred[:, :8, :, :3] == 200).all()


def test_marks_of_a_map_differ_by_shape(root: Path) -> None:
    from pipeline.report.latent_map import marks

    shapes = marks().split("<g ")[1:]
    assert len({shape.partition(">")[2] + ("hollow" if "none" in shape else "") for shape in shapes}) == 13
    style = (root / "pipeline" / "report" / "page.css").read_text()
    assert all(f".value-{number} " in style for number in range(13)), json.dumps(style[:10])
