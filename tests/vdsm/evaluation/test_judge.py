import copy
import inspect
import io
import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vdsm.evaluation.squares import Squares
from vdsm.evaluation import judge as judge_module
from vdsm.evaluation.clips import check_splits, stack
from vdsm.evaluation.judge import (
    Judge,
    JudgeConfig,
    dump_judge,
    judge_clips,
    judge_frames,
    judge_key,
    parse_judge,
    train_judge,
)

pytestmark = pytest.mark.slow


def test_judge_knows_the_factors_of_identities_it_has_never_seen(
    judge: Judge, train_clips: Squares, test_clips: Squares
) -> None:
    assert not set(train_clips.identities) & set(test_clips.identities)
    verdicts = judge_clips(judge, test_clips, 4)
    for name, values in verdicts.values.items():
        assert (values == test_clips.labels[name]).mean() >= 0.97, name


def test_judge_learns_from_real_training_clips_only(train_clips: Squares, test_clips: Squares) -> None:
    """Its training takes one split and no model, so neither generated clips nor test clips can reach it."""
    assert list(inspect.signature(train_judge).parameters) == ["clips", "config", "progress", "device"]
    read = test_clips.opened.copy()
    before = train_clips.opened.sum()
    train_judge(train_clips, JudgeConfig(steps=2, batch_clips=8, clip_frames=4))
    assert train_clips.opened.sum() - before >= 16
    assert (test_clips.opened == read).all()


def test_verdict_on_a_clip_does_not_depend_on_the_other_clips_of_its_batch(judge: Judge, test_clips: Squares) -> None:
    frames = stack(test_clips, range(16), 4)
    together = judge_frames(judge.train(), frames)
    assert not judge.training
    alone = np.concatenate([judge_frames(judge, frames[index : index + 1]).action for index in range(16)])
    np.testing.assert_allclose(together.action, alone, atol=1e-5)
    assert not [part for part in judge.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", ["type", "values", "training", "keys", "_modules"])
def test_a_factor_may_have_the_name_of_anything_that_a_module_has(train_clips: Squares, name: str) -> None:
    clips = copy.copy(train_clips)
    old = next(factor for factor in clips.vocabulary if factor != "action")
    clips.vocabulary = {name if factor == old else factor: names for factor, names in clips.vocabulary.items()}
    clips.labels = {name if factor == old else factor: values for factor, values in clips.labels.items()}
    config = JudgeConfig(steps=2, batch_clips=8, clip_frames=4)
    (renamed, judge), frames = (train_judge(data, config) for data in (clips, train_clips)), stack(clips, range(8), 4)
    stored = parse_judge(dump_judge(renamed, "key"), "key")
    assert (judge_frames(stored, frames).values[name] == judge_frames(judge, frames).values[old]).all()
    assert torch.equal(renamed(frames)[name], judge(frames)[old])


def test_same_seed_gives_the_same_judge_and_another_seed_another(train_clips: Squares) -> None:
    def weights(seed: int) -> torch.Tensor:
        trained = train_judge(train_clips, JudgeConfig(steps=3, batch_clips=8, clip_frames=4, seed=seed))
        return torch.cat([value.flatten() for value in trained.state_dict().values()])

    state = torch.random.get_rng_state()
    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_stored_judge_says_the_same_and_is_refused_for_other_data(judge: Judge, test_clips: Squares) -> None:
    config = JudgeConfig()
    key = judge_key("data", config)
    stored = dump_judge(judge, key)
    again = judge_clips(parse_judge(stored, key), test_clips, 4)
    np.testing.assert_array_equal(again.action, judge_clips(judge, test_clips, 4).action)
    others = {
        judge_key("other", config),
        judge_key("data", JudgeConfig(steps=1)),
        judge_key("data", JudgeConfig(seed=1)),
    }
    assert key not in others
    assert len(others) == 3
    with pytest.raises(ValueError, match="other data or settings"):
        parse_judge(stored, others.pop())
    with pytest.raises(ValueError, match="cannot be used"):
        parse_judge(stored[: len(stored) // 2], key)


def test_code_in_a_stored_judge_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return pathlib.Path.touch, (marker,)

    buffer = io.BytesIO()
    torch.save({"key": "k", "shape": Evil(), "state": {}}, buffer)
    with pytest.raises(ValueError, match="cannot be used"):
        parse_judge(buffer.getvalue(), "k")
    assert not marker.exists()


def test_shift_moves_every_frame_of_a_clip_alike() -> None:
    frames = torch.rand(3, 4, 3, 8, 8)
    moved = judge_module.random_shift(frames, 2, np.random.default_rng(0))
    padded = torch.nn.functional.pad(frames.flatten(1, 2), (2,) * 4, mode="replicate").view(3, 4, 3, 12, 12)
    for clip in range(3):
        shifts = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(moved[clip], padded[clip, ..., down : down + 8, right : right + 8])
        ]
        assert len(shifts) == 1


def test_brightness_of_the_whole_frame_reaches_the_judge() -> None:
    """GroupNorm alone would make uniformly grey frames of any brightness look the same."""
    torch.manual_seed(0)
    judge = Judge(3, 32, {"action": 2})
    dark, light = (torch.full((1, 2, 3, 32, 32), level) for level in (0.2, 0.8))
    assert (judge.features(dark) - judge.features(light)).abs().max() > 0.01


def test_clips_of_one_identity_in_both_splits_are_refused(train_clips: Squares, test_clips: Squares) -> None:
    check_splits(train_clips, test_clips, 4)
    with pytest.raises(ValueError, match="identities are in both train and test"):
        check_splits(train_clips, train_clips, 4)
    with pytest.raises(ValueError, match="has only 4 frames, but 5"):
        check_splits(train_clips, test_clips, 5)
