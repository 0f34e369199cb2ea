"""The score that ranks trials tells separation from its counterfeits, without a look at the test split."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.recipe import Recipe
from pipeline.tuning.objective import ClipSubset, Split, disentanglement, divide, final_elbo, is_labelled
from preprocessing.dataset.reader import ClipDataset
from vdsm.evaluation.clips import stack
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.pairs import chances, draw_pairs

LENGTH = 8


class Codes(NamedTuple):
    static: Tensor
    pose: Tensor
    dynamics: Tensor


class Knowing:
    """Recognises every clip of a split and finds the one that shows an identity in an action."""

    def __init__(self, clips: ClipSubset) -> None:
        self.frames = stack(clips, range(len(clips)), LENGTH)
        who = np.unique(clips.identities, return_inverse=True)[1]
        self.identity, self.action = torch.from_numpy(who), torch.from_numpy(clips.labels["action"])
        self.actions = len(clips.vocabulary["action"])

    def places(self, frames: Tensor) -> Tensor:
        """The clip of the split that each of `frames` is nearest to."""
        return torch.cdist(frames.flatten(1), self.frames.flatten(1)).argmin(1)


class PerfectModel(Knowing):
    """Separates identity and action exactly; `ignores` or `entangles` makes it a counterfeit."""

    def __init__(self, clips: ClipSubset, fault: str = "") -> None:
        super().__init__(clips)
        self.fault = fault

    def encode(self, frames: Tensor) -> Codes:
        places = self.places(frames)
        static = torch.nn.functional.one_hot(self.identity[places]).float()
        dynamics = torch.nn.functional.one_hot(self.action[places], self.actions).float()
        if self.fault == "ignores static":
            static = torch.zeros_like(static)
        if self.fault == "ignores dynamics":
            dynamics = torch.zeros_like(dynamics)
        if self.fault == "takes action 1 for 0":
            dynamics = torch.nn.functional.one_hot(self.action[places].clamp(min=1), self.actions).float()
        if self.fault == "copies":  # the dynamics code holds the whole clip
            dynamics = torch.nn.functional.one_hot(places, len(self.frames)).float()
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


class KnowingJudge(Judge):
    """A judge that is right about every clip of a split."""

    def __init__(self, clips: ClipSubset) -> None:
        super().__init__(3, 64, {})
        self.knowing = Knowing(clips)
        tables = {name: torch.eye(len(names))[clips.labels[name]] for name, names in clips.vocabulary.items()}
        self.heads = torch.nn.ModuleDict({name: torch.nn.Linear(len(clips), table.shape[1], bias=False) for name, table in tables.items()})  # noqa: E501 # fmt: skip
        for name, table in tables.items():
            self.heads[name].weight.data = table.T.contiguous()

    def features(self, frames: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.knowing.places(frames), len(self.knowing.frames)).float()


@pytest.fixture(scope="module")
def split(figures_dataset: Path) -> Split:
    recipe = Recipe.model_validate({"training": {"validation_fraction": 0.45}})
    return divide(ClipDataset(str(figures_dataset), "train"), recipe)


def score(model: PerfectModel, clips: ClipSubset, judge: Judge | None) -> dict[str, float]:
    return disentanglement(model, clips, judge, length=LENGTH, pairs=120, seed=0, sequence=True)


def test_no_validation_identity_is_trained_on_and_no_test_clip_is_in_either(
    split: Split, figures_dataset: Path
) -> None:
    test = ClipDataset(str(figures_dataset), "test")
    assert set(split.train.identities).isdisjoint(split.validation.identities)
    assert set(split.train.identities + split.validation.identities).isdisjoint(test.identities)
    assert len(split.train) + len(split.validation) == len(ClipDataset(str(figures_dataset), "train"))


def test_the_validation_clips_are_those_of_the_training(split: Split, figures_dataset: Path) -> None:
    from pipeline.training.order import held_out

    everyone = ClipDataset(str(figures_dataset), "train").identities
    assert set(split.validation.identities) == held_out(everyone, 0, 0.45)


def test_a_perfect_model_scores_one(split: Split) -> None:
    found = score(PerfectModel(split.validation), split.validation, KnowingJudge(split.validation))
    assert found["action"] == found["static"] == found["joint"] == found["disentanglement"] == 1


def test_without_labels_only_ties_keep_a_perfect_model_from_one(split: Split) -> None:
    found = score(PerfectModel(split.validation), split.validation, None)
    assert found["static"] == 1
    # One clip in six shows the same action and has the very same code; a tie counts half.
    assert found["action"] == pytest.approx(1 - 1 / 6, abs=0.01)


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("fault", ["ignores static", "ignores dynamics", "copies"])
def test_a_counterfeit_scores_next_to_nothing(split: Split, fault: str, judged: bool) -> None:
    clips = split.validation
    found = score(PerfectModel(clips, fault), clips, KnowingJudge(clips) if judged else None)
    assert max(found["action"], found["static"]) > 0.8  # one half is right, which is what makes it a counterfeit
    assert found["disentanglement"] < 0.35


def test_the_action_score_is_the_accuracy_above_chance(split: Split) -> None:
    clips = split.validation
    found = score(PerfectModel(clips, "takes action 1 for 0"), clips, KnowingJudge(clips))
    pairs = draw_pairs(clips, 120, 0)
    accuracy = np.mean(clips.labels["action"][pairs.dynamics_of] != 0)
    chance = chances(clips, pairs)["action"]
    assert found["action"] == pytest.approx((accuracy - chance) / (1 - chance))
    assert found["static"] == 1


def test_labels_decide_whether_swaps_can_be_judged(split: Split) -> None:
    assert is_labelled(split.train)
    bare = ClipSubset(split.train, np.arange(3))
    bare.vocabulary = {"action": ["walk", "run"]}
    assert not is_labelled(bare)


def test_the_last_validation_counts_as_a_loss() -> None:
    records = [
        {"kind": "validation", "elbo": -0.5},
        {"kind": "train"},
        {"kind": "validation", "elbo": -0.3},
        {"kind": "train"},
    ]
    assert final_elbo(records) == 0.3
    with pytest.raises(ValueError, match="no validation"):
        final_elbo(records[1:2])
