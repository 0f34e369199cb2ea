"""A training that is paired by appearance or video reads neither labels nor identities."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training.job import Job, clip_table, stage_order
from pipeline.training.loop import train_run
from pipeline.training.samples_config import AppearanceConfig
from preprocessing.appearance.mining import MiningSettings
from preprocessing.appearance.pairs import MinedPairs, Video
from preprocessing.appearance.search import find_pairs
from preprocessing.dataset.reader import ClipDataset
from vdsm.config import AnnealingConfig

Jobs = Callable[..., Job]
Recorders = Callable[..., Any]
SETTINGS = MiningSettings(neighbours=8, mutual=True, max_distance=None)


@pytest.fixture(scope="module")
def shuffled(tiny_clips: ClipDataset) -> ClipDataset:
    """Return the training split with the identities, labels and factors of its clips in another order."""
    clips = copy.copy(tiny_clips)
    generator = np.random.default_rng(0)
    clips.identities = generator.permutation(clips.identities).tolist()
    clips.labels = {name: generator.permutation(column) for name, column in clips.labels.items()}
    assert clips.identities != tiny_clips.identities
    assert all(not np.array_equal(clips.labels[name], column) for name, column in tiny_clips.labels.items())
    return clips


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def weights(job: Job, recorder: Recorders) -> dict[str, Any]:
    recorded = recorder()
    outcome = train_run(job, recorded)
    assert outcome == (2, 6, True)
    found: dict[str, Any] = recorded.states[2, 6].weights
    return found


def trained(make: Jobs, recorder: Recorders, clips: ClipDataset, pairing: str, cache: Path) -> dict[str, Any]:
    pairs = find_pairs(clips, "colour", SETTINGS, cache) if pairing == "appearance" else None
    job = make(
        clips=clips,
        stage1={"steps": 8, "pairing": pairing},
        stage2={"steps": 6},
        checkpoint_interval=100,
        validation_interval=4,
    )
    return weights(replace(job, pairs=pairs), recorder)


@pytest.mark.slow
@pytest.mark.parametrize(("pairing", "is_same"), [("appearance", True), ("identity", False)])
def test_weights_do_not_depend_on_identities_or_labels(
    tiny_job: Jobs,
    recorder: Recorders,
    tiny_clips: ClipDataset,
    shuffled: ClipDataset,
    tmp_path: Path,
    pairing: str,
    is_same: bool,
) -> None:
    here = trained(tiny_job, recorder, tiny_clips, pairing, tmp_path / "here")
    there = trained(tiny_job, recorder, shuffled, pairing, tmp_path / "there")
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here) == is_same


def test_pairing_by_appearance_holds_out_the_same_clips_in_both_stages(
    tiny_job: Jobs, tiny_clips: ClipDataset, shuffled: ClipDataset, cache: Path
) -> None:
    pairs = find_pairs(tiny_clips, "colour", SETTINGS, cache)
    held = []
    for clips in (tiny_clips, shuffled):
        job = replace(tiny_job(clips=clips, stage1={"pairing": "appearance"}), pairs=pairs)
        held += [stage_order(job, stage).validation.tolist() for stage in (1, 2)]
    assert held[0]
    assert held[1:] == held[:1] * 3
    linked = pairs.groups(Video.of(tiny_clips))
    assert set(linked[held[0]]).isdisjoint(np.delete(linked, held[0]))


def test_no_held_out_clip_is_trained_on_as_a_partner(tiny_job: Jobs, tiny_clips: ClipDataset, cache: Path) -> None:
    pairs = find_pairs(tiny_clips, "colour", SETTINGS, cache)
    order = stage_order(replace(tiny_job(stage1={"pairing": "appearance"}), pairs=pairs), 1)
    batches = [order.at(step) for step in range(100)]
    partners = np.concatenate([batch.partners for batch in batches if batch.partners is not None])
    assert len(partners) == 400
    assert not set(partners) & set(order.validation)
    clips = np.concatenate([batch.clips for batch in batches])
    listed = set(zip(pairs.firsts.tolist(), pairs.partners.tolist(), strict=True))
    assert {(a, b) for a, b in zip(clips.tolist(), partners.tolist(), strict=True) if a != b} <= listed
    assert (clips != partners).mean() > 0.5


def test_clips_that_are_linked_through_another_are_no_partners(tiny_job: Jobs, tiny_clips: ClipDataset) -> None:
    links = np.array([(0, 1), (1, 0), (1, 2), (2, 1)])
    pairs = MinedPairs.of(len(tiny_clips), links, np.zeros(4), mutual_share=1, random_distances=np.zeros(0))
    job = replace(tiny_job(stage1={"pairing": "appearance"}), pairs=pairs)
    table = clip_table(job)
    assert list(table.groups) == [tiny_clips.keys[0]] * 3 + tiny_clips.keys[3:]
    assert table.lone == "keep"
    order = stage_order(job, 1)
    assert {0, 1, 2} <= set(order.train.tolist())
    drawn: dict[int, set[int]] = {}
    for step in range(300):
        batch = order.at(step)
        assert batch.partners is not None
        for clip, partner in zip(batch.clips.tolist(), batch.partners.tolist(), strict=True):
            drawn.setdefault(clip, set()).add(partner)
    assert [drawn[clip] for clip in (0, 1, 2)] == [{1}, {0, 2}, {1}]


@pytest.mark.parametrize("join", [0.5, 0.0])
def test_clips_of_a_look_that_does_a_single_thing_join_stage_1_late(
    tiny_job: Jobs, tiny_clips: ClipDataset, cache: Path, join: float
) -> None:
    late = np.arange(len(tiny_clips)) % 3 == 0
    pairs = replace(find_pairs(tiny_clips, "colour", SETTINGS, cache), one_motion=late)
    job = tiny_job(stage1={"steps": 400, "pairing": "appearance"}, appearance=AppearanceConfig(join=join))
    first, second = (stage_order(replace(job, pairs=pairs), stage) for stage in (1, 2))
    visits = [late[first.at(step).clips].any() for step in range(400)]
    assert any(visits[:200]) == (join == 0)
    assert any(visits[200:220])
    assert any(late[second.at(step).clips].any() for step in range(20))


@pytest.mark.parametrize("pairs", [None, "of fewer clips"])
def test_pairing_by_appearance_needs_the_pairs_of_these_clips(
    tiny_job: Jobs, tiny_clips: ClipDataset, pairs: str | None
) -> None:
    fewer = MinedPairs.of(
        len(tiny_clips) - 1, np.zeros((0, 2), dtype=np.int64), np.zeros(0), mutual_share=0, random_distances=np.zeros(0)
    )
    job = replace(tiny_job(stage1={"pairing": "appearance"}), pairs=fewer if pairs else None)
    with pytest.raises(ValueError, match="the pairs of these clips were not mined"):
        clip_table(job)


def test_pairs_are_not_used_by_another_pairing(tiny_job: Jobs, tiny_clips: ClipDataset, cache: Path) -> None:
    pairs = find_pairs(tiny_clips, "colour", SETTINGS, cache)
    table = clip_table(replace(tiny_job(), pairs=pairs))
    assert (table.pairs, table.lone, list(table.groups)) == (None, "refuse", tiny_clips.identities)
    unpaired = clip_table(tiny_job(stage1={"pairing": "none", "annealing": AnnealingConfig()}))
    assert (unpaired.pairs, unpaired.lone) == (None, "keep")


def videos(clips: ClipDataset, windows: int) -> ClipDataset:
    """Return the clips as if each `windows` of them were cut from one video."""
    cut = copy.copy(clips)
    cut.sources = [f"video{number // windows}.mp4" for number in range(len(clips))]
    cut.starts_s = np.arange(len(clips)) % windows * 1.5
    return cut


def test_pairing_by_video_takes_another_window_of_the_video(tiny_job: Jobs, tiny_clips: ClipDataset) -> None:
    cut = videos(tiny_clips, 5)
    order = stage_order(tiny_job(clips=cut, stage1={"pairing": "video"}), 1)
    seen = 0
    for step in range(60):
        batch = order.at(step)
        assert batch.partners is not None
        for clip, partner in zip(batch.clips.tolist(), batch.partners.tolist(), strict=True):
            assert cut.sources[clip] == cut.sources[partner]
            assert (clip == partner) == (cut.sources.count(cut.sources[clip]) == 1)
            seen += 1
    assert seen == 240
    assert {cut.sources[clip] for clip in order.train}.isdisjoint(cut.sources[clip] for clip in order.validation)


def test_pairing_by_video_refuses_a_generator(tiny_job: Jobs, tiny_clips: ClipDataset) -> None:
    with pytest.raises(ValueError, match=r"stage1\.pairing is video, but several clips start at the same time"):
        clip_table(tiny_job(stage1={"pairing": "video"}))
    assert not Video.of(tiny_clips).are_videos


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"neighbours": 0}, "neighbours is 0; it must be from 1 to 10,000"),
        ({"descriptor": "color"}, "descriptor is color; it must be colour, texture or an .npz file"),
        ({"descriptor": "own.npy"}, "an .npz file"),
        ({"max_distance": 0.0}, "max_distance is 0.0; it must be above 0 and at most 2"),
        ({"max_distance": -1.0}, "above 0"),
        ({"max_distance": 2.5}, "at most 2"),
        ({"max_distance": float("nan")}, "max_distance is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AppearanceConfig(**changes)


@pytest.mark.parametrize(
    "changes", [{}, {"descriptor": "texture"}, {"descriptor": "s3://bucket/own.npz"}, {"max_distance": 2}]
)
def test_settings_that_make_sense_are_kept(changes: dict[str, Any]) -> None:
    config = AppearanceConfig(**changes)
    assert all(getattr(config, name) == value for name, value in changes.items())
