"""Judge and probes learn as documented: their objectives, steps, learning rates and batches."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.vdsm.evaluation.counting_progress import CountingProgress
from tests.vdsm.evaluation.squares import Squares
from vdsm.evaluation import judge as judge_module
from vdsm.evaluation import probes
from vdsm.evaluation.clips import stack
from vdsm.evaluation.judge import Judge, JudgeConfig, judge_clips, judge_frames, random_shift, train_judge
from vdsm.evaluation.probes import fit_linear, fit_mlp

pytestmark = pytest.mark.slow


class Noting(torch.optim.AdamW):
    """An AdamW that records its settings, its learning rates and the norms of its gradients."""

    made: list["Noting"] = []  # noqa: RUF012

    def __init__(self, parameters: Any, **options: Any) -> None:
        super().__init__(parameters, **options)
        self.options, self.rates, self.norms = options, list[float](), list[float]()
        self.made.append(self)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        gradients = [one.grad for group in self.param_groups for one in group["params"] if one.grad is not None]
        self.rates.append(self.param_groups[0]["lr"])
        self.norms.append(float(torch.cat([one.flatten() for one in gradients]).norm()))
        super().step(closure)


@pytest.fixture
def optimisers(monkeypatch: pytest.MonkeyPatch) -> list[Noting]:
    monkeypatch.setattr(torch.optim, "AdamW", Noting)
    Noting.made = []
    return Noting.made


def test_ridge_regression_is_at_its_optimum() -> None:
    draw = torch.Generator().manual_seed(0)
    codes, target = torch.randn(40, 3, generator=draw), torch.randn(40, 2, generator=draw)
    # Least squares with one more row per weight: sqrt(penalty) times that weight should be 0.
    inputs = np.c_[codes.double().numpy(), np.ones(40)]
    rows = np.r_[inputs, math.sqrt(1e-3 * 40) * np.eye(4)]
    weights = np.linalg.lstsq(rows, np.r_[target.double().numpy(), np.zeros((4, 2))], rcond=None)[0]
    unseen = torch.randn(5, 3, generator=draw)
    expected = np.c_[unseen.double().numpy(), np.ones(5)] @ weights
    np.testing.assert_allclose(fit_linear(codes, target, 0, 0)(unseen).numpy(), expected, rtol=1e-9)


def test_logistic_regression_is_at_its_optimum() -> None:
    draw = torch.Generator().manual_seed(0)
    codes = torch.randn(60, 2, generator=draw)
    target = (codes @ torch.randn(2, 3, generator=draw) + torch.randn(60, 3, generator=draw)).argmax(1)
    predict = fit_linear(codes, target, 3, 0)
    bias = predict(torch.zeros(1, 2))[0]
    weights = predict(torch.eye(2)) - bias
    logits = predict(codes)
    torch.testing.assert_close(logits, codes.double() @ weights + bias)
    assert not logits.requires_grad
    residual = (logits.softmax(1) - functional.one_hot(target, 3)) / 60
    # The bias is not penalised: the mean of its residuals is 0.
    assert residual.sum(0).abs().max() < 1e-5
    assert (codes.double().T @ residual + 1e-3 * weights).abs().max() < 1e-5


@pytest.mark.parametrize(("rows", "steps", "batch"), [(50, 4, 50), (256, 4, 256), (300, 4, 256), (1300, 10, 256)])
def test_the_network_sees_enough_batches_at_a_falling_rate(
    monkeypatch: pytest.MonkeyPatch, optimisers: list[Noting], rows: int, steps: int, batch: int
) -> None:
    monkeypatch.setattr(probes, "STEPS", 4)
    monkeypatch.setattr(probes, "PASSES", 2)
    sizes: Counter[int] = Counter()
    randint = torch.randint

    def noted(*args: Any, **options: Any) -> Tensor:
        drawn = randint(*args, **options)
        sizes[len(drawn)] += 1
        assert int(drawn.min()) >= 0
        assert rows // 2 < int(drawn.max()) < rows
        return drawn

    monkeypatch.setattr(torch, "randint", noted)
    predict = fit_mlp(torch.randn(rows, 3), torch.randn(rows, 2), 0, 0)
    (optimiser,) = optimisers
    assert optimiser.options == {"lr": 3e-3, "weight_decay": 0.01, "foreach": True}
    assert optimiser.rates == pytest.approx([3e-3 * (1 + math.cos(math.pi * n / steps)) / 2 for n in range(steps)])
    assert sizes == {batch: steps}
    assert [tuple(one.shape) for one in optimiser.param_groups[0]["params"]] == [(128, 3), (128,), (2, 128), (2,)]
    assert not predict(torch.randn(4, 3)).requires_grad
    if steps == 10:
        assert steps == 2 * rows // 256


def test_the_network_minimises_the_squared_error_of_numbers_and_the_cross_entropy_of_labels() -> None:
    draw = torch.Generator().manual_seed(0)
    codes = torch.randn(400, 3, generator=draw)
    numbers = torch.stack((codes[:, 0] * 2 + 1, codes[:, 1].abs()), dim=1)
    assert (fit_mlp(codes, numbers, 0, 0)(codes) - numbers).square().mean() < 0.02
    # A label that is drawn with known probabilities: the logits tell them, which those of a squared error would not.
    labels = (torch.rand(400, generator=draw) < 0.8).long()
    shares = fit_mlp(torch.zeros(400, 1), labels, 2, 0)(torch.zeros(1, 1)).softmax(1)[0]
    assert float(shares[1]) == pytest.approx(float(labels.float().mean()), abs=0.02)


@pytest.mark.parametrize(("steps", "warm_up"), [(5, 5), (30, 20)])
def test_the_judge_warms_up_and_follows_half_a_cosine_with_clipped_gradients(
    train_clips: Squares, optimisers: list[Noting], steps: int, warm_up: int
) -> None:
    config = JudgeConfig(steps=steps, batch_clips=8, clip_frames=4, learning_rate=0.5, shift=1)
    progress = CountingProgress()
    judge = train_judge(train_clips, config, progress)
    (optimiser,) = optimisers
    assert optimiser.options["weight_decay"] == 0.01
    wanted = [0.5 * min(1, (step + 1) / warm_up) * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert optimiser.rates == pytest.approx(wanted)
    assert max(optimiser.norms) == pytest.approx(1, rel=1e-3)
    assert not judge.training
    assert (progress.phases, progress.totals, progress.done) == (["training the judge on real clips"], [steps], [steps])


def test_the_judge_sees_every_clip_once_in_each_pass_from_any_of_its_windows(
    train_clips: Squares, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[tuple[list[int], list[int]]] = []

    def noted(clips: Any, indices: Any, length: int, starts: Any, device: torch.device) -> Tensor:
        assert length == 3
        batches.append((list(indices), list(starts)))
        return stack(clips, indices, length, starts, device)

    monkeypatch.setattr(judge_module, "stack", noted)
    train_judge(train_clips, JudgeConfig(steps=12, batch_clips=32, clip_frames=3))
    seen = [index for batch, _ in batches for index in batch]
    assert len(train_clips) == 128
    for start in range(0, 384, 128):
        assert sorted(seen[start : start + 128]) == list(range(128))
    assert seen[:128] != seen[128:256]
    assert Counter(start for _, starts in batches for start in starts).keys() == {0, 1}
    # 48 does not divide 128: a batch takes what remains of a pass and begins the next one.
    batches.clear()
    train_judge(train_clips, JudgeConfig(steps=8, batch_clips=48, clip_frames=3))
    assert {len(batch) for batch, _ in batches} == {48}
    seen = [index for batch, _ in batches for index in batch]
    for start in range(0, 384, 128):
        assert sorted(seen[start : start + 128]) == list(range(128))


def test_labels_with_a_single_value_are_not_judged_except_the_action(train_clips: Squares) -> None:
    class One(Squares):
        def __init__(self) -> None:
            super().__init__("train")
            self.vocabulary = {"action": ["only"], "colour": self.vocabulary["colour"], "hat": ["none"]}
            self.labels = {**self.labels, "action": 0 * self.labels["action"], "hat": 0 * self.labels["action"]}

    judge = train_judge(One(), JudgeConfig(steps=1, batch_clips=4, clip_frames=2))
    assert judge.values == {"action": 1, "colour": 4}
    assert (judge.channels, judge.frame_size, judge.width) == (3, 32, 32)


def test_features_are_mean_and_maximum_over_frames_and_the_mean_of_the_recurrent_net() -> None:
    torch.manual_seed(0)
    judge = Judge(3, 32, {"action": 2, "hat": 3}, width=8).eval()
    frames = torch.rand(2, 5, 3, 32, 32)
    found = judge_frames(judge, frames)
    with torch.no_grad():
        for clip in range(2):
            each = [
                judge.frame_features(torch.cat((judge.frame_encoder(frame[None])[0], frame.mean((1, 2)))))
                for frame in frames[clip]
            ]
            in_time = judge.over_time(torch.stack(each)[None])[0][0]
            features = torch.cat((torch.stack(each).mean(0), torch.stack(each).amax(0), in_time.mean(0)))
            np.testing.assert_allclose(found.features[clip], features, atol=1e-5)
            logits = {name: head(features).double() for name, head in judge.heads.items()}
            np.testing.assert_allclose(found.action[clip], logits["action"].softmax(0), atol=1e-5)
            assert {name: int(value[clip]) for name, value in found.values.items()} == {
                name: int(value.argmax()) for name, value in logits.items()
            }
        assert judge(frames)["hat"].shape == (2, 3)
    assert found.features.shape == (2, 4 * 4 * 8)


def test_verdicts_of_batches_are_joined_in_order(test_clips: Squares) -> None:
    torch.manual_seed(0)
    judge, progress = Judge(3, 32, {"action": 4, "side": 3}, width=8), CountingProgress()
    found, whole = judge_clips(judge, test_clips, 3, 25, progress), judge_frames(judge, stack(test_clips, range(64), 3))
    np.testing.assert_allclose(found.action, whole.action, atol=1e-6)
    np.testing.assert_allclose(found.features, whole.features, atol=1e-5)
    assert found.values.keys() == whole.values.keys() == {"action", "side"}
    assert all((found.values[name] == whole.values[name]).all() for name in found.values)
    assert (progress.phases, progress.totals, progress.done) == (["judging real test clips"], [64], [64])


def test_shifts_are_even_in_both_directions_and_none_leaves_the_clip_alone() -> None:
    frames = torch.arange(81.0).view(1, 1, 1, 9, 9).expand(4000, 1, 1, 9, 9)
    generator = np.random.default_rng(0)
    centre = random_shift(frames, 1, generator)[:, 0, 0, 4, 4]
    # The pixel in the middle becomes one of nine, each about 444 times: four standard deviations are 80.
    counts = Counter(centre.tolist())
    assert counts.keys() == {30.0, 31.0, 32.0, 39.0, 40.0, 41.0, 48.0, 49.0, 50.0}
    assert all(abs(count - 4000 / 9) < 80 for count in counts.values())
    state = generator.bit_generator.state
    assert random_shift(frames, 0, generator) is frames
    assert generator.bit_generator.state == state
