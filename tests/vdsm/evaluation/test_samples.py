"""Anyone's clips get the scores that the same clips get as the output of a model."""

import numpy as np
import pytest

from vdsm.evaluation.pairs import draw_pairs
from vdsm.evaluation.protocol import ProtocolConfig, measure
from vdsm.evaluation.samples import Samples, wanted_donors, score_samples

CONFIG = ProtocolConfig(clip_frames=4, pairs=96, batch_clips=20)


@pytest.fixture(scope="module")
def pairs(test_clips):
    return draw_pairs(test_clips, 96, 0)


@pytest.fixture(scope="module")
def make(test_clips, pairs, draw_square):
    """Samples of some kinds, drawn by `render(dynamics key, static key)`; by default perfect ones."""
    place = {key: index for index, key in enumerate(test_clips.keys)}

    def perfect(first, second):
        return draw_square(*test_clips.people[place[second]], int(test_clips.labels["action"][place[first]]))

    def made(kinds=("swap",), render=perfect):
        donors = [pair for kind in kinds for pair in dict.fromkeys(wanted_donors(test_clips, pairs)[kind])]
        return Samples(np.stack([render(*pair) for pair in donors]), donors)

    return made


def test_perfect_samples_have_the_scores_of_the_perfect_model(renderer, test_clips, judge, pairs, make):
    samples = make(("swap", "reconstruction"))
    order = np.random.default_rng(0).permutation(len(samples.donors))
    parts = [Samples(samples.frames[part], [samples.donors[n] for n in part]) for part in np.array_split(order, 3)]
    found = score_samples(judge, test_clips, pairs, parts, 4, 0)
    wanted = measure(renderer, test_clips, judge, CONFIG)
    names = {name for name in wanted.scores if name.startswith(("judge.", "swap.", "leakage.", "consistency."))}
    assert names
    assert {name: found.scores[name] for name in names} == {name: wanted.scores[name] for name in names}
    assert found.scores["reconstruction.mse"].value == 0
    near = wanted.scores["frechet.judge.swap"].value
    assert found.scores["frechet.judge.swap"].value == pytest.approx(near, abs=0.01)
    assert found.controls == wanted.controls
    assert not [name for name in found.scores if name.startswith(("prior.", "cycle.", "probe."))]


def test_samples_from_a_prior_are_scored_where_they_are_given(test_clips, judge, pairs, make, draw_square):
    def render(first, second):
        known = {key: index for index, key in enumerate(test_clips.keys)}
        person = test_clips.people[known[second]] if second else [0, 0, 0]
        return draw_square(*person, int(test_clips.labels["action"][known[first]]) if first else 3)

    samples = make(("swap", "prior_static", "prior_dynamics"), render)
    found = score_samples(judge, test_clips, pairs, [samples], 4, 0).scores
    assert found["prior.static.action.accuracy"].value == 1
    assert found["prior.static.colour.h_y"].value == pytest.approx(0)  # always the same identity
    assert found["prior.dynamics.static.joint"].value == 1
    assert found["prior.dynamics.h_y"].value < 0.1  # always the same action
    assert found["is"].value == pytest.approx(4, abs=0.2)


def test_samples_that_copy_clip_a_are_caught(test_clips, judge, pairs, make):
    known = dict(zip(test_clips.keys, test_clips.all_frames, strict=True))
    found = score_samples(judge, test_clips, pairs, [make(render=lambda first, second: known[first])], 4, 0)
    assert found.scores["swap.action.accuracy"].value == 1
    assert found.scores["leakage.colour"].value == 1
    assert found.scores["swap.static.joint"].value == pytest.approx(found.scores["swap.static.joint"].chance, abs=0.1)
    assert len(found.swapped.wrong) > 60


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda parts: [Samples(parts.frames[1:], parts.donors[1:])], "1 of 95 samples of the kind swap are missing"),
        (lambda parts: [parts, parts], "is duplicated"),
        (lambda parts: [parts._replace(donors=[("x", "y"), *parts.donors[1:]])], "is not in the pairs"),
    ],
)
def test_samples_that_are_not_those_of_the_pairs_are_refused(damage, words, test_clips, judge, pairs, make):
    with pytest.raises(ValueError, match=words):
        score_samples(judge, test_clips, pairs, damage(make()), 4, 0)


def test_a_kind_of_samples_is_given_whole_or_not_at_all(test_clips, judge, pairs, make):
    half = make(("swap", "reconstruction"))
    with pytest.raises(ValueError, match="1 of 64 samples of the kind reconstruction are missing"):
        score_samples(judge, test_clips, pairs, [Samples(half.frames[:-1], half.donors[:-1])], 4, 0)
