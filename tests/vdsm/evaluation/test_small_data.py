"""Reading clips, their codes and their pairs: six clips with every answer written out."""

import math

import numpy as np
import pytest
import torch

from tests.vdsm.evaluation.six_clips import CLIPS, IDENTITY, SEED, Six
from vdsm.evaluation.clips import check_splits, clips_per_batch, frame_factors, is_labelled, stack
from vdsm.evaluation.cycle import donor_rank
from vdsm.evaluation.measurement import collect_latents
from vdsm.evaluation.model import CodeTable
from vdsm.evaluation.pairs import draw_pairs
from vdsm.evaluation.protocol import expert_use, experts_in_use

PAIRS_OF_SEED = (
    ([1, 4, 3, 0, 2, 5, 5, 1], [3, 3, 0, 2, 1, 0, 3, 2]),
    ([1, 4, 0, 3, 2, 5, 2, 1], [2, 0, 5, 4, 1, 3, 4, 5]),
)


def test_windows_of_frames() -> None:
    whole = stack(CLIPS, [0, 5], 3)
    assert whole.shape == (2, 3, 1, 2, 2)
    assert torch.equal(whole[1, :, 0, 0, 0], torch.tensor([50.0, 51.0, 52.0]) / 255)
    assert torch.equal(stack(CLIPS, [5, 0], 2, np.array([2, 1]))[:, :, 0, 0, 0] * 255, torch.tensor([[52, 53], [1, 2]]))
    with pytest.raises(ValueError, match="clip a1 has fewer than 3 frames from frame 1 on; use fewer frames"):
        stack(CLIPS, [5, 1], 3, np.array([1, 1]))
    assert [clips_per_batch(length) for length in (1, 8, 255, 256, 1000)] == [256, 32, 1, 1, 1]


def test_latents_carry_the_labels_and_factors_of_their_clips() -> None:
    codes = CodeTable(torch.zeros(2, 4), torch.zeros(2, 3, 1), torch.zeros(2, 1))
    found = collect_latents(CLIPS, codes, np.array([5, 2]))
    assert {name: column.tolist() for name, column in found.labels.items()} == {
        "action": [0, 0],
        "hat": [1, 1],
        "hair": [2, 1],
    }
    assert (found.vocabulary, found.identities) == (CLIPS.vocabulary, ["cat", "bob"])
    assert {name: column.tolist() for name, column in found.factors.items()} == {"weight": [2.5, 1.0]}
    assert {name: track.tolist() for name, track in found.tracks.items()} == {"angle": [[5, 5.25, 5.5], [2, 2.25, 2.5]]}
    assert frame_factors(CLIPS, 2)["angle"].shape == (6, 2)
    assert frame_factors(CLIPS, 2, np.array([], dtype=np.int64)) == {}
    every = collect_latents(CLIPS, CodeTable(torch.zeros(6, 4), torch.zeros(6, 3, 1), torch.zeros(6, 1)))
    assert every.identities == list(CLIPS.identities)


def test_the_use_of_experts_is_their_mean_weight() -> None:
    static = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]])
    assert expert_use(static) == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3])
    assert expert_use(torch.cat((static, static), dim=1)) == pytest.approx([1 / 12, 1 / 12, 1 / 6, 1 / 6] * 2)
    assert expert_use(2 * static - 0.5) == expert_use(static * torch.arange(1, 7)[:, None]) == []
    assert expert_use(static / 4) == []
    codes = CodeTable(static, torch.zeros(6, 3, 1), torch.zeros(6, 1))
    found = experts_in_use(collect_latents(CLIPS, codes), SEED)
    entropy = 2 / 6 * math.log(6) + 2 / 3 * math.log(3)
    assert found.value == pytest.approx(math.exp(entropy))
    assert found.low <= found.value <= found.high
    assert (found.n, found.chance) == (6, None)


def test_a_donor_is_ranked_among_clips_of_other_identities() -> None:
    table = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]])
    codes = torch.tensor([[0.0], [2.5], [3.0], [9.0]])
    # Donors 0, 2, 2 and 1. The first code is its donor's; the second is as near to bob's other clip, which is no
    # candidate; the third is 1 from its donor and 1, 2, 2, 3 from the candidates; the last is far from everything.
    found = donor_rank(codes, table, np.array([0, 2, 2, 1]), IDENTITY, SEED)
    assert found.tolist() == [1.0, 1.0, (3 + 0.5) / 4, 0.0]


@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_are_the_same_on_every_machine_and_version(seed: int) -> None:
    # Known values: if they change, results on the same data can no longer be compared with earlier ones.
    pairs = draw_pairs(CLIPS, 8, seed)
    assert (pairs.dynamics_of.tolist(), pairs.static_of.tolist()) == PAIRS_OF_SEED[seed]
    assert len(pairs) == 8


def test_splits_that_allow_no_unbiased_measurement_are_refused() -> None:
    class Others(Six):
        identities = ("dan", "dan", "eve", "eve", "fay", "fay")

    class Alone(Six):
        identities = ("dan",) * 6

    class Empty(Six):
        def __len__(self) -> int:
            return 0

    check_splits(CLIPS, Others(), 3)
    for train, test, message in (
        (Empty(), Others(), "the train split is empty"),
        (CLIPS, Empty(), "the test split is empty; shard the data with a test fraction above 0"),
        (CLIPS, Alone(), "the test split has a single identity; a swap needs at least two"),
        (CLIPS, CLIPS, r"3 identities are in both train and test \(such as ann\)"),
    ):
        with pytest.raises(ValueError, match=message):
            check_splits(train, test, 3)
    with pytest.raises(ValueError, match="a clip of the train split has only 3 frames, but 4 are measured"):
        check_splits(CLIPS, Others(), 4)
    with pytest.raises(ValueError, match="the test split has a single identity; a swap needs at least two"):
        draw_pairs(Alone(), 4, 0)
    assert is_labelled(CLIPS)
