"""Anyone's clips get the scores that the same clips get as the output of a model."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from tests.resamples import rough_scores
from tests.vdsm.evaluation.counting_progress import CountingProgress
from tests.vdsm.evaluation.squares import PerfectModel, Squares, SquaresProgram, draw
from vdsm.evaluation import finished
from vdsm.evaluation import samples as samples_module
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.protocol import ProtocolConfig, measure
from vdsm.evaluation.samples import Samples, check_samples, sample_phases, score_samples

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_resamples")]

CONFIG = ProtocolConfig(clip_frames=4, pairs=96, batch_clips=20)

Make = Callable[..., Samples]


def rows(samples: Samples, chosen: Iterable[int]) -> Samples:
    """Return some of the samples."""
    frames = samples.frames()[list(chosen)]
    return Samples([samples.donors[row] for row in chosen], lambda: frames)


def test_perfect_samples_have_the_scores_of_the_perfect_model(
    renderer: PerfectModel, test_clips: Squares, judge: Judge, pairs: Pairs, make_samples: Make
) -> None:
    samples = make_samples(("swap", "reconstruction"))
    order = np.random.default_rng(0).permutation(len(samples.donors))
    parts = {str(part[0]): rows(samples, part) for part in np.array_split(order, 3)}
    found = score_samples(judge, test_clips, pairs, parts, 4, 0)
    with rough_scores():
        wanted = measure(renderer, test_clips, judge, CONFIG)
    names = {name for name in wanted.scores if name.startswith(("judge.", "swap.", "leakage.", "consistency."))}
    assert names
    assert {name: found.scores[name] for name in names} == {name: wanted.scores[name] for name in names}
    assert found.scores["reconstruction.mse"].value == 0
    near = wanted.scores["frechet.judge.swap"].value
    assert found.scores["frechet.judge.swap"].value == pytest.approx(near, abs=0.01)
    # What needs no label is measured on models alone.
    judged = {
        control: {name: score for name, score in scores.items() if not name.startswith(("likeness.", "smoothness."))}
        for control, scores in wanted.controls.items()
    }
    assert found.controls == judged
    assert not [name for name in found.scores if name.startswith(("prior.", "cycle.", "probe."))]


def test_samples_from_a_prior_are_scored_where_they_are_given(
    test_clips: Squares, judge: Judge, pairs: Pairs, make_samples: Make
) -> None:
    def render(dynamics_of: str, static_of: str) -> np.ndarray:
        index_of = {key: index for index, key in enumerate(test_clips.keys)}
        person = test_clips.people[index_of[static_of]] if static_of else [0, 0, 0]
        return draw(*person, int(test_clips.labels["action"][index_of[dynamics_of]]) if dynamics_of else 3)

    samples = make_samples(("swap", "prior_static", "prior_dynamics"), render)
    found = score_samples(judge, test_clips, pairs, {"all": samples}, 4, 0).scores
    assert found["prior.static.action.accuracy"].value == 1
    assert found["prior.static.colour.h_y"].value == pytest.approx(0)  # always the same identity
    assert found["prior.dynamics.static.joint"].value == 1
    assert found["prior.dynamics.h_y"].value < 0.1  # always the same action
    assert found["is"].value == pytest.approx(4, abs=0.2)


def test_samples_that_copy_clip_a_are_caught(
    test_clips: Squares, judge: Judge, pairs: Pairs, make_samples: Make
) -> None:
    known = dict(zip(test_clips.keys, test_clips.all_frames, strict=True))
    copies = make_samples(render=lambda dynamics_of, static_of: known[dynamics_of])
    found = score_samples(judge, test_clips, pairs, {"all": copies}, 4, 0)
    assert found.scores["swap.action.accuracy"].value == 1
    assert found.scores["leakage.colour"].value == 1
    assert found.scores["swap.static.joint"].value == pytest.approx(found.scores["swap.static.joint"].chance, abs=0.1)
    assert len(found.swapped.wrong) > 60


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda all: {"a": rows(all, range(1, 95))}, "1 of 95 samples of the kind swap are missing"),
        (lambda all: {"a": all, "b": all}, "b: .* is duplicated; it is in a already"),
        (lambda all: {"a": replace(all, donors=[("x", "y"), *all.donors[1:]])}, "a: .* is not in the pairs"),
    ],
)
def test_samples_that_are_not_those_of_the_pairs_are_refused(
    damage: Callable[[Samples], dict[str, Samples]], message: str, test_clips: Squares, pairs: Pairs, make_samples: Make
) -> None:
    with pytest.raises(ValueError, match=message):
        check_samples(test_clips, pairs, damage(make_samples()))


def test_a_kind_of_samples_must_be_complete_or_absent(test_clips: Squares, pairs: Pairs, make_samples: Make) -> None:
    half = make_samples(("swap", "reconstruction"))
    with pytest.raises(ValueError, match="1 of 64 samples of the kind reconstruction are missing"):
        check_samples(test_clips, pairs, {"a": rows(half, range(len(half.donors) - 1))})


class Interrupted(Exception):
    """Stands for the death of the process."""


class Kept(dict[str, bytes]):
    """Finished work in memory; the process dies when it has kept `left` more results."""

    left = 1000

    def put(self, name: str, data: bytes) -> None:
        assert name not in self, f"{name} was computed twice"
        self[name] = data
        self.left -= 1
        if not self.left:
            raise Interrupted


@rough_scores()
def test_an_interrupted_scoring_resumes_without_repeating_what_was_kept(
    test_clips: Squares, judge: Judge, pairs: Pairs, drawing: SquaresProgram, make_samples: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It dies after every single result; the scores are those of a scoring that was never interrupted, bit for bit."""
    monkeypatch.setattr(finished, "BATCHES_PER_BLOCK", 1)
    monkeypatch.setattr(samples_module, "clips_per_batch", lambda length: 20)
    samples = make_samples(("swap", "reconstruction"))
    order = np.random.default_rng(1).permutation(len(samples.donors))
    parts = {str(part[0]): rows(samples, part) for part in np.array_split(order, 3)}
    wanted = score_samples(judge, test_clips, pairs, parts, 4, 0, renderer=drawing)
    kept, deaths = Kept(), 0
    while True:
        kept.left, progress = 1, CountingProgress()
        try:
            found = score_samples(judge, test_clips, pairs, parts, 4, 0, progress, renderer=drawing, finished=kept)
            break
        except Interrupted:
            deaths += 1
    assert deaths == len(kept) > 10
    assert found.scores == wanted.scores
    assert found.controls == wanted.controls
    assert all(np.array_equal(found.swapped.judged[name], values) for name, values in wanted.swapped.judged.items())
    assert progress.phases == sample_phases(renderer=True)
    assert progress.done == progress.totals
