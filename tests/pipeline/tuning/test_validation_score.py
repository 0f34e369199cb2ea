"""The score that ranks trials distinguishes disentanglement from its counterfeits, without using the test split."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.recipe import Recipe
from pipeline.tuning.validation_score import disentanglement_scores, final_elbo
from pipeline.tuning.validation_split import ClipSubset, ValidationSplit, can_judge_swaps, split_as_training
from preprocessing.dataset.reader import ClipDataset
from vdsm.evaluation.clips import stack
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.pairs import chances, draw_pairs

LENGTH = 8


class Codes(NamedTuple):
    static: Tensor
    pose: Tensor
    dynamics: Tensor


class Oracle:
    """Recognises every clip of a split and finds the one that shows an identity in an action."""

    def __init__(self, clips: ClipSubset) -> None:
        self.frames = stack(clips, range(len(clips)), LENGTH)
        who = np.unique(clips.identities, return_inverse=True)[1]
        self.identity, self.action = torch.from_numpy(who), torch.from_numpy(clips.labels["action"])
        self.actions = len(clips.vocabulary["action"])

    def nearest(self, frames: Tensor) -> Tensor:
        """Return the index of the clip of the split that is nearest to each of `frames`."""
        return torch.cdist(frames.flatten(1), self.frames.flatten(1)).argmin(1)


class PerfectModel(Oracle):
    """Separates identity and action exactly; a `fault` makes it a counterfeit."""

    def __init__(self, clips: ClipSubset, fault: str = "") -> None:
        super().__init__(clips)
        self.fault = fault

    def encode(self, frames: Tensor) -> Codes:
        indices = self.nearest(frames)
        static = torch.nn.functional.one_hot(self.identity[indices]).float()
        dynamics = torch.nn.functional.one_hot(self.action[indices], self.actions).float()
        if self.fault == "ignores static":
            static = torch.zeros_like(static)
        if self.fault == "ignores dynamics":
            dynamics = torch.zeros_like(dynamics)
        if self.fault == "takes action 1 for 0":
            dynamics = torch.nn.functional.one_hot(self.action[indices].clamp(min=1), self.actions).float()
        if self.fault == "copies":  # the dynamics code holds the whole clip
            dynamics = torch.nn.functional.one_hot(indices, len(self.frames)).float()
        return Codes(static, dynamics[:, None].repeat(1, LENGTH, 1), dynamics)

    def poses(self, dynamics: Tensor, length: int) -> Tensor:
        return dynamics[:, None].repeat(1, length, 1)

    def decode(self, pose: Tensor, static: Tensor) -> Tensor:
        if self.fault == "copies":
            return self.frames[pose[:, 0].argmax(1)]
        wanted = [
            torch.nonzero((self.identity == who) & (self.action == action))[0, 0]
            for who, action in zip(static.argmax(1), pose[:, 0].argmax(1))
        ]
        return self.frames[torch.stack(wanted)]

    def sample_static(self, count: int, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def sample_dynamics(self, count: int, generator: torch.Generator) -> Tensor:
        raise NotImplementedError


class PerfectJudge(Judge):
    """A judge that classifies every clip of a split correctly."""

    def __init__(self, clips: ClipSubset) -> None:
        super().__init__(3, 64, {})
        self.oracle = Oracle(clips)
        tables = {name: torch.eye(len(names))[clips.labels[name]] for name, names in clips.vocabulary.items()}
        self.heads = torch.nn.ModuleDict({name: torch.nn.Linear(len(clips), table.shape[1], bias=False) for name, table in tables.items()})  # noqa: E501 # fmt: skip
        for name, table in tables.items():
            self.heads[name].weight.data = table.T.contiguous()

    def features(self, frames: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.oracle.nearest(frames), len(self.oracle.frames)).float()


@pytest.fixture(scope="module")
def split(small_figures: Path) -> ValidationSplit:
    recipe = Recipe.model_validate({"training": {"validation_fraction": 0.45}})
    return split_as_training(ClipDataset(str(small_figures), "train"), recipe)


def score(model: PerfectModel, clips: ClipSubset, judge: Judge | None) -> dict[str, float]:
    return disentanglement_scores(model, clips, judge, length=LENGTH, pairs=120, seed=0, sequence=True)


def test_no_validation_identity_is_trained_on_and_no_test_clip_is_in_either(
    split: ValidationSplit, small_figures: Path
) -> None:
    test = ClipDataset(str(small_figures), "test")
    assert set(split.train.identities).isdisjoint(split.validation.identities)
    assert set(split.train.identities + split.validation.identities).isdisjoint(test.identities)
    assert len(split.train) + len(split.validation) == len(ClipDataset(str(small_figures), "train"))


def test_the_validation_clips_are_those_that_training_holds_out(split: ValidationSplit, small_figures: Path) -> None:
    from pipeline.training.draws_of_keys import held_out

    everyone = ClipDataset(str(small_figures), "train").identities
    assert set(split.validation.identities) == held_out(everyone, 0, 0.45)


def test_a_perfect_model_scores_one(split: ValidationSplit) -> None:
    scores = score(PerfectModel(split.validation), split.validation, PerfectJudge(split.validation))
    assert scores["action"] == scores["static"] == scores["joint"] == scores["disentanglement"] == 1


def test_without_labels_a_perfect_model_loses_only_to_ties(split: ValidationSplit) -> None:
    scores = score(PerfectModel(split.validation), split.validation, None)
    assert scores["static"] == 1
    # One clip in six shows the same action and has the identical code; a tie counts half.
    assert scores["action"] == pytest.approx(1 - 1 / 6, abs=0.01)


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("fault", ["ignores static", "ignores dynamics", "copies"])
def test_a_counterfeit_scores_near_zero(split: ValidationSplit, fault: str, judged: bool) -> None:
    clips = split.validation
    scores = score(PerfectModel(clips, fault), clips, PerfectJudge(clips) if judged else None)
    assert max(scores["action"], scores["static"]) > 0.8  # one half is right, which makes it a counterfeit
    assert scores["disentanglement"] < 0.35


def test_the_action_score_is_the_accuracy_above_chance(split: ValidationSplit) -> None:
    clips = split.validation
    scores = score(PerfectModel(clips, "takes action 1 for 0"), clips, PerfectJudge(clips))
    pairs = draw_pairs(clips, 120, 0)
    accuracy = np.mean(clips.labels["action"][pairs.dynamics_of] != 0)
    chance = chances(clips, pairs)["action"]
    assert scores["action"] == pytest.approx((accuracy - chance) / (1 - chance))
    assert scores["static"] == 1


def test_labels_decide_whether_swaps_can_be_judged(split: ValidationSplit) -> None:
    assert can_judge_swaps(split.train)
    bare = ClipSubset(split.train, np.arange(3))
    bare.vocabulary = {"action": ["walk", "run"]}
    assert not can_judge_swaps(bare)


def test_the_final_elbo_is_the_last_validation_loss() -> None:
    records = [
        {"kind": "validation", "elbo": -0.5},
        {"kind": "train"},
        {"kind": "validation", "elbo": -0.3},
        {"kind": "train"},
    ]
    assert final_elbo(records) == 0.3
    with pytest.raises(ValueError, match="no validation"):
        final_elbo(records[1:2])
