"""The built-in figures: what everything that learns from them may rely on."""

from collections import Counter

import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing.clip import Label
from preprocessing.sources.config import FiguresConfig
from preprocessing.sources.figure_motion import ACTIONS, FOREARM, SHIN, THIGH, UPPER_ARM, joints_at
from preprocessing.sources.figures import BACKGROUND, VOCABULARY, Figure, FiguresSource, render

PHASES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
ATTRIBUTES = ("skin", "hat", "shirt", "trousers")


def source(seed: int = 0, identities: int = 60) -> FiguresSource:
    return FiguresSource(FiguresConfig(identities=identities), seed)


def test_there_are_enough_attributes_and_actions() -> None:
    assert len(ACTIONS) >= 6
    assert [len(VOCABULARY[name]) >= 4 for name in ATTRIBUTES] == [True] * 4


def test_every_figure_performs_every_action_once() -> None:
    figures = source()
    for item in figures.items()[:3]:
        clips = list(figures.clips(item))
        assert [VOCABULARY["action"][clip.labels["action"]] for clip in clips] == list(ACTIONS)
        assert {clip.identity for clip in clips} == {item.key}
        assert {(clip.frames.shape, clip.frames.dtype) for clip in clips} == {((8, 64, 64, 3), np.dtype(np.uint8))}


@pytest.mark.slow
def test_no_combination_of_attributes_is_in_both_splits_or_chosen_twice() -> None:
    figures = source(identities=500)
    looks: Counter[tuple[Label, ...]] = Counter()
    for item in figures.items():
        clip = next(figures.clips(item))
        looks[tuple(clip.labels[name] for name in ATTRIBUTES)] += 1
    assert len(looks) == 500
    assert Counter(item.split for item in figures.items()) == {"train": 400, "test": 100}


def test_the_seed_determines_the_clips() -> None:
    def first_clips(seed: int) -> list[bytes]:
        figures = source(seed)
        return [clip.frames.tobytes() for clip in figures.clips(figures.items()[0])]

    assert first_clips(3) == first_clips(3)
    assert first_clips(3) != first_clips(4)


def test_figures_start_an_action_at_different_phases() -> None:
    figures = source()
    walks = [next(figures.clips(item)) for item in figures.items()[:10]]
    silhouettes = {(clip.frames[0] != BACKGROUND).any(-1).tobytes() for clip in walks}
    assert len(silhouettes) >= 9


@pytest.mark.parametrize("action", ACTIONS)
def test_limbs_have_constant_length(action: str) -> None:
    joints = joints_at(action, PHASES)
    for limbs, upper, lower in ((joints.arms, UPPER_ARM, FOREARM), (joints.legs, THIGH, SHIN)):
        for root, middle, end in limbs:
            np.testing.assert_allclose(np.linalg.norm(middle - root, axis=1), upper)
            np.testing.assert_allclose(np.linalg.norm(end - middle, axis=1), lower)


def test_every_action_moves_differently() -> None:
    """No action resembles another one at any shift of the phase."""
    figure = Figure(skin=0, hat=0, shirt=4, trousers=0)
    videos = {action: render(figure, joints_at(action, PHASES)).astype(float) / 255 for action in ACTIONS}
    for name, video in videos.items():
        assert np.abs(np.diff(video, axis=0)).mean() > 0.002, f"{name} hardly moves"
        for other, another in videos.items():
            if other != name:
                difference = min(np.abs(video - np.roll(another, shift, axis=0)).mean() for shift in range(len(PHASES)))
                assert difference > 0.005, f"{name} looks like {other}"


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_value_of_an_attribute_is_visible(attribute: str) -> None:
    still = joints_at("walk", PHASES[:1])
    base = {"skin": 0, "hat": 0, "shirt": 0, "trousers": 0}
    images = [render(Figure(**(base | {attribute: value})), still)[0] for value in range(len(VOCABULARY[attribute]))]
    for index, one in enumerate(images):
        for two in images[:index]:
            changed = (np.abs(one.astype(int) - two).max(-1) > 30).sum()
            assert changed >= 40, f"two values of {attribute} differ in only {changed} pixels"


def test_more_identities_than_combinations_are_an_error() -> None:
    with pytest.raises(UserError, match="identities is 501, but there are only 500"):
        source(identities=501)


def test_the_true_swap_has_the_motion_of_one_clip_and_the_look_of_another() -> None:
    figures = source()
    first, second = figures.items()[:2]
    clips, others = (list(figures.clips(item)) for item in (first, second))
    for action, clip in enumerate(clips):
        np.testing.assert_array_equal(figures.true_swap(clip.key, first.key), clip.frames)
        swapped = figures.true_swap(clip.key, second.key)
        assert (swapped != clip.frames).any()
        # Below the hats, where anything is seen follows from the motion alone, whatever its colour.
        shown, wanted, own = (
            (frames[:, 44:] != BACKGROUND).any(-1) for frames in (swapped, clip.frames, others[action].frames)
        )
        assert (shown != wanted).mean() < 0.001, "but for the faintest pixels of an edge"
        if VOCABULARY["action"][action] in ("walk", "kick"):
            assert (shown != own).mean() > 0.01, "phase and speed are those of the first clip"


def test_a_repeated_clip_begins_as_the_single_one_and_moves_on_at_its_speed() -> None:
    once, thrice = source(), FiguresSource(FiguresConfig(identities=60), 0, repeat=3)
    first, again = once.items()[0], thrice.items()[0]
    assert again.estimated_bytes == 3 * first.estimated_bytes
    for short, long in zip(once.clips(first), thrice.clips(again), strict=True):
        assert long.frames.shape == (24, 64, 64, 3)
        np.testing.assert_array_equal(long.frames[:8], short.frames)
        assert {**vars(long), "frames": None} == {**vars(short), "frames": None}
        # The end is no pause: it moves as much as the start.
        early, late = (
            np.abs(np.diff(part.astype(float), axis=0)).mean() for part in (long.frames[:12], long.frames[12:])
        )
        assert 0.5 < late / early < 2


def test_larger_frames_show_the_same_scene() -> None:
    joints = joints_at("wave", PHASES)
    figure = Figure(skin=0, hat=1, shirt=2, trousers=3)
    small, large = (render(figure, joints, size).astype(float) / 255 for size in (64, 128))
    assert large.shape == (len(PHASES), 128, 128, 3)
    reduced = large.reshape(len(PHASES), 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(reduced - small).mean() < 0.005
    assert np.abs(reduced - small).max() < 0.5  # half a pixel of an edge
