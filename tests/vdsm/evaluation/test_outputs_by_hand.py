"""Which clip, code or drawing answers each pair: of the controls, of a renderer, of a model, of reconstructions."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.vdsm.evaluation.counting_progress import CountingProgress
from tests.vdsm.evaluation.six_clips import CLIPS, IDENTITY, SEED
from vdsm.evaluation import controls, outputs, renderer
from vdsm.evaluation.controls import control_scores
from vdsm.evaluation.inception import InceptionFeatures, inception_features
from vdsm.evaluation.judge import Verdicts
from vdsm.evaluation.judged_scores import Outputs
from vdsm.evaluation.model import CodeTable, encode_clips
from vdsm.evaluation.outputs import SwapDecoder, judged_outputs
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.reconstruction import reconstruction_scores, subsample
from vdsm.evaluation.renderer import RENDERER_PHASES, renderer_scores
from vdsm.evaluation.scores import mean_score

PAIRS = Pairs(np.array([0, 1, 2, 5]), np.array([2, 4, 1, 3]))
ACTION = CLIPS.labels["action"]


def numbered(count: int) -> Verdicts:
    """Return verdicts that say which clip they are on: the features and the action's probability are its number."""
    numbers = np.arange(count)
    return Verdicts(
        np.stack((numbers, -numbers), axis=1).astype(np.float64),
        {"action": numbers + 10, "hat": numbers + 20},
        numbers[:, None].astype(np.float32),
    )


def test_each_control_answers_with_the_clip_that_it_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[Pairs, NDArray[np.int64]]] = []

    def noted(clips: Any, pairs: Pairs, found: Outputs, real: Verdicts, seed: int, progress: Any) -> dict[str, Any]:
        assert (clips, seed) == (CLIPS, SEED)
        assert found.swap is not None
        chosen = found.swap.features[:, 0].astype(np.int64)
        assert found.swap.action.tolist() == real.action[chosen].tolist()
        assert {name: (values - real.values[name][chosen]).any() for name, values in found.swap.values.items()} == {
            "action": False,
            "hat": False,
        }
        answers.append((pairs, chosen))
        return {"answered": len(chosen)}

    monkeypatch.setattr(controls, "output_scores", noted)
    progress = CountingProgress()
    many = Pairs(np.tile(PAIRS.dynamics_of, 50), np.tile(PAIRS.static_of, 50))
    found = control_scores(CLIPS, many, numbered(6), SEED, progress)
    assert list(found) == ["perfect", "ignores_static", "ignores_dynamics", "copies", "shuffled"]
    # No clip shows cat running, as the second pair of four wants it.
    answerable = np.tile([True, False, True, True], 50)
    (perfect, ignores_static, ignores_dynamics, copies, shuffled) = answers
    assert perfect[0].dynamics_of.tolist() == many.dynamics_of[answerable].tolist()
    assert perfect[0].static_of.tolist() == many.static_of[answerable].tolist()
    assert perfect[1].tolist() == [2, 0, 2] * 50
    for pairs, _ in (ignores_static, ignores_dynamics, copies):
        assert pairs.dynamics_of.tolist() == many.dynamics_of.tolist()
        assert pairs.static_of.tolist() == many.static_of.tolist()
    assert ACTION[ignores_static[1]].tolist() == ACTION[many.dynamics_of].tolist()
    assert set(ignores_static[1].tolist()) == set(range(6))
    assert IDENTITY[ignores_dynamics[1]].tolist() == IDENTITY[many.static_of].tolist()
    assert set(ignores_dynamics[1].tolist()) == set(range(6))
    assert copies[1].tolist() == many.dynamics_of.tolist()
    assert sorted(shuffled[1].tolist()) == sorted(perfect[1].tolist())
    assert shuffled[1].tolist() != perfect[1].tolist()
    assert (progress.phases, progress.totals) == (["scoring the controls"], [5 * 200])


def test_a_control_without_any_answer_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "output_scores", lambda *args: {"some": 1})
    progress = CountingProgress()
    impossible = Pairs(np.array([1]), np.array([4]))
    found = control_scores(CLIPS, impossible, numbered(6), SEED, progress)
    assert [name for name, scores in found.items() if not scores] == ["perfect", "shuffled"]
    assert progress.totals == [3 * 200]


def test_the_samples_of_controls_and_renderers_follow_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "output_scores", lambda clips, pairs, found, *args: found.swap.features.tolist())
    first, again, other = (control_scores(CLIPS, PAIRS, numbered(6), seed) for seed in (1, 1, 3))
    assert first == again != other


class Program:
    """A renderer of five frames: identity n in action a has the value 10 n + a."""

    identities = ("ann", "bob", "cat", "dan")

    def draw(self, identity: str, action: int) -> NDArray[np.uint8]:
        value = 10 * self.identities.index(identity) + action
        return np.full((5, 2, 3, 1), value, np.uint8)


def test_a_renderer_draws_the_swap_a_new_identity_and_a_new_action(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, NDArray[np.int64]] = {}

    def judged(judge: Any, pairs: Pairs, decode: Any, batch_clips: int, phase: str, progress: Any) -> str:
        frames = [decode(slice(start, min(start + batch_clips, len(pairs)))) for start in range(0, len(pairs), 3)]
        clips = torch.cat(frames)
        assert clips.shape == (len(pairs), 4, 1, 2, 3)
        assert clips.dtype == torch.float32
        assert (judge, batch_clips) == ("judge", 3)
        drawn[phase] = (clips[:, 0, 0, 0, 0] * 255).round().long().numpy()
        return phase

    found: list[Any] = []
    monkeypatch.setattr(renderer, "judge_pairs", judged)
    monkeypatch.setattr(renderer, "output_scores", lambda *args: found.append(args) or {"done": 1})
    monkeypatch.setattr(Outputs, "frechet_resamples", 7)
    progress = CountingProgress()
    many: Any = Pairs(np.tile(PAIRS.dynamics_of, 50), np.tile(PAIRS.static_of, 50))
    arguments = ("judge", CLIPS, many, Program(), "real", 4, 3, SEED, progress)
    assert renderer_scores(*arguments) == {"done": 1}  # type: ignore[arg-type]
    assert tuple(drawn) == RENDERER_PHASES[:3]
    swaps, identities, actions = drawn.values()
    assert swaps.tolist() == (10 * IDENTITY[many.static_of] + ACTION[many.dynamics_of]).tolist()
    assert (identities % 10).tolist() == ACTION[many.dynamics_of].tolist()
    assert np.bincount(identities // 10).min() > 25  # a quarter of 200 each
    assert (actions // 10).tolist() == IDENTITY[many.static_of].tolist()
    assert np.bincount(actions % 10, minlength=2).min() > 70
    ((clips, pairs, got, real, seed, last),) = found
    assert (clips, pairs, real, seed, last) == (CLIPS, many, "real", SEED, progress)
    assert got == Outputs(*RENDERER_PHASES[:3])  # type: ignore[arg-type]
    assert (progress.phases, progress.totals) == ([RENDERER_PHASES[3]], [7])


class Adding:
    """A model whose codes are numbers: static = 100 n, dynamics = n and pose = n + 1/4 for clip n of `CLIPS`."""

    def encode(self, frames: Tensor) -> CodeTable:
        number = (frames[:, 0, 0, 0, :1] * 25.5).round()
        return CodeTable(100 * number, (number + 0.25)[:, None].expand(-1, frames.shape[1], 1), number)

    def poses(self, dynamics: Tensor, length: int) -> Tensor:
        return dynamics[:, None].expand(-1, length, 1)

    def decode(self, pose: Tensor, static: Tensor) -> Tensor:
        return (pose + static[:, None])[..., None, None]

    def sample_static(self, count: int, generator: torch.Generator) -> Tensor:
        return -100 * torch.randint(1, 4, (count, 1), generator=generator)

    def sample_dynamics(self, count: int, generator: torch.Generator) -> Tensor:
        return -torch.rand(count, 1, generator=generator)


def decoder_of(model: Adding) -> SwapDecoder:
    return SwapDecoder(model, encode_clips(model, CLIPS, 3, 4), 3, 2)


def test_the_codes_of_clips_are_encoded_in_batches() -> None:
    sizes: list[int] = []

    class Noting(Adding):
        def encode(self, frames: Tensor) -> CodeTable:
            assert torch.is_inference_mode_enabled()
            sizes.append(len(frames))
            return super().encode(frames)

    progress = CountingProgress()
    table = encode_clips(Noting(), CLIPS, 3, 4, progress, phase="the phase")
    assert sizes == [4, 2]
    assert table.static[:, 0].tolist() == [0, 100, 200, 300, 400, 500]
    assert table.pose[:, 2, 0].tolist() == [0.25, 1.25, 2.25, 3.25, 4.25, 5.25]
    assert table.dynamics[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert (progress.phases, progress.totals, progress.done) == (["the phase"], [6], [6])
    assert encode_clips(Adding(), CLIPS, 3, 2, indices=np.array([4, 1, 3])).dynamics[:, 0].tolist() == [4, 1, 3]


@pytest.mark.parametrize("sequence_stage", [True, False])
def test_a_model_answers_a_pair_with_the_codes_of_its_clips(
    monkeypatch: pytest.MonkeyPatch, sequence_stage: bool
) -> None:
    def judged(judge: Any, frames: Tensor) -> Verdicts:
        assert (judge, torch.is_inference_mode_enabled()) == ("judge", True)
        assert frames.shape[1:] == (3, 1, 1, 1)
        assert len(frames) <= 2
        values = frames[:, 2, 0, 0].numpy()
        return Verdicts(values.astype(np.float64), {"action": values[:, 0]}, values)

    monkeypatch.setattr(outputs, "judge_frames", judged)
    observed: list[float] = []
    progress, model = CountingProgress(), Adding()
    found = judged_outputs(
        "judge", decoder_of(model), PAIRS, sequence_stage, SEED, progress,  # type: ignore[arg-type]
        lambda frames: observed.extend(frames[:, 0, 0, 0, 0].tolist()),
    )  # fmt: skip

    def shown(verdicts: Verdicts | None) -> list[float]:
        assert verdicts is not None
        return [float(value) for value in verdicts.features[:, 0]]

    assert found.reconstructed is not None
    assert found.reconstructed.tolist() == [0, 1, 2, 5]
    assert shown(found.reconstruction) == [0.25, 101.25, 202.25, 505.25]
    if not sequence_stage:
        assert (found.swap, found.prior_static, found.prior_dynamics, observed) == (None, None, None, [])
        assert (progress.phases, progress.totals, progress.done) == (["reconstructing"], [4], [4])
        return
    generator = torch.Generator().manual_seed(SEED)
    static, dynamics = model.sample_static(4, generator)[:, 0], model.sample_dynamics(4, generator)[:, 0]
    assert shown(found.swap) == observed == [200, 401, 102, 305]
    assert shown(found.prior_static) == [float(a + s) for a, s in zip((0, 1, 2, 5), static, strict=True)]
    wanted = [float(d + 100 * b) for d, b in zip(dynamics, (2, 4, 1, 3), strict=True)]
    assert shown(found.prior_dynamics) == pytest.approx(wanted)
    assert progress.phases == ["reconstructing", "swapping dynamics codes", "sampling identities", "sampling actions"]
    assert progress.totals == progress.done == [4, 4, 4, 4]


def test_reconstructions_are_compared_with_the_clips_and_with_their_mean_frames() -> None:
    progress, asked = CountingProgress(), []

    class Large(type(CLIPS)):  # type: ignore[misc]
        """The clips with frames large enough for the windows of SSIM."""

        def frames(self, index: int) -> NDArray[np.uint8]:
            frames: NDArray[np.uint8] = np.repeat(np.repeat(CLIPS.frames(index), 8, axis=1), 8, axis=2)
            return frames

    def decode(batch: NDArray[np.int64]) -> Tensor:
        asked.append(batch.tolist())
        assert torch.is_inference_mode_enabled()
        values = torch.tensor([10 * n + t + 0.1 * n for n in batch.tolist() for t in range(3)]) / 255
        return values.view(-1, 3, 1, 1, 1).expand(-1, 3, 1, 16, 16).float()

    indices = np.array([1, 2, 5])
    found = reconstruction_scores(Large(), indices, 3, decode, 2, SEED, progress)
    assert asked == [[1, 2], [5]]
    errors = [(0.1 * number / 255) ** 2 for number in (1, 2, 5)]
    still = 2 / 3 / 255**2  # the mean frame is one below, none, and one above the three frames
    clusters = np.array([0, 1, 2])
    assert list(found) == [f"{kind}.{name}" for kind in ("reconstruction", "still") for name in ("mse", "psnr", "ssim")]
    expected = {
        "reconstruction.mse": errors,
        "reconstruction.psnr": [-10 * np.log10(error) for error in errors],
        "still.mse": [still] * 3,
        # Two frames are off by one; the middle one is equal, and so at the bound of 100 dB.
        "still.psnr": [(2 * 20 * np.log10(255) + 100) / 3] * 3,
    }
    for name, values in expected.items():
        wanted = mean_score(np.array(values), clusters, None, SEED)
        score = found[name]
        assert (score.value, score.low, score.high) == pytest.approx((wanted.value, wanted.low, wanted.high), rel=1e-3)
        assert (score.n, score.chance) == (3, None)
    assert (progress.phases, progress.totals, progress.done) == (["comparing reconstructions"], [3], [3])


def test_many_clips_are_thinned_out_evenly() -> None:
    assert subsample(np.arange(160)).tolist() == list(range(160))
    assert subsample(np.arange(161)).tolist() == list(range(0, 161, 2))
    assert len(subsample(np.arange(1000))) == 143


class Colours(torch.nn.Module):
    """A network whose features are the first pixel of each channel."""

    def forward(self, frames: Tensor) -> Tensor:
        assert frames.dtype == torch.uint8
        return frames[:, :, 0, 0].float()[:, :, None]


def test_inception_features_are_those_of_the_middle_frame_in_eight_bits_and_three_channels() -> None:
    observer = InceptionFeatures(Colours())
    frames = torch.zeros(2, 5, 1, 4, 4)
    frames[0, 2], frames[1, 2], frames[:, 3] = 1.7, 100.4 / 255, 0.9
    observer(frames)
    observer(torch.full((1, 1, 3, 4, 4), -0.5))
    assert observer.features.tolist() == [[255] * 3, [100] * 3, [0] * 3]
    progress = CountingProgress()
    found = inception_features(Colours(), CLIPS, np.array([3, 0, 5]), 3, 2, progress)
    assert found.tolist() == [[31] * 3, [1] * 3, [51] * 3]
    assert progress.phases == ["Inception features of real clips"]
    assert (progress.totals, progress.done) == ([3], [3])
