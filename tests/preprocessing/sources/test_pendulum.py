"""The pendulum obeys its equation of motion and is rendered at its position."""

import hashlib
import math

import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing.clip import check
from preprocessing.sources.config import PendulumConfig, SourceConfig
from preprocessing.sources.pendulum import (
    GRAVITY,
    LENGTHS,
    VIEW_M,
    Pendulum,
    PendulumSource,
    period,
    render,
    swing_angles,
)
from preprocessing.sources.registry import make_source


def source(seed: int = 0, **settings: int) -> PendulumSource:
    made = make_source(SourceConfig(name="pendulum", pendulum=PendulumConfig(**settings)), seed)  # type: ignore[arg-type]
    assert isinstance(made, PendulumSource)
    return made


@pytest.mark.parametrize("length", list(LENGTHS.values()))
@pytest.mark.parametrize("amplitude", [0.15, 1.0, 2.2])
def test_energy_is_conserved_and_the_period_is_exact(length: float, amplitude: float) -> None:
    times = np.arange(0, 20, 0.002)
    angles = swing_angles(amplitude, length, times)
    speeds = np.gradient(angles, times)
    energy = 0.5 * (length * speeds) ** 2 - GRAVITY * length * np.cos(angles)
    assert np.ptp(energy[2:-2]) < 1e-3 * (1 + abs(energy[0]))
    np.testing.assert_allclose(
        swing_angles(amplitude, length, np.arange(8) * period(amplitude, length)), amplitude, atol=1e-6
    )
    crossings = times[1:][(angles[:-1] > 0) & (angles[1:] <= 0)]
    assert np.diff(crossings).mean() == pytest.approx(period(amplitude, length), rel=2e-4)


def test_small_swings_have_the_textbook_period_and_large_ones_a_longer_one() -> None:
    assert period(1e-4, 1.0) == pytest.approx(2 * math.pi * math.sqrt(1 / GRAVITY), rel=1e-8)
    # 2 pi sqrt(l / g) (1 + a^2 / 16 + 11 a^4 / 3072 + ...)
    assert period(0.3, 1.0) == pytest.approx(period(1e-4, 1.0) * (1 + 0.09 / 16 + 11 * 0.0081 / 3072), rel=1e-6)
    assert period(2.2, 1.0) > 1.3 * period(0.3, 1.0)


def test_a_small_swing_is_a_cosine() -> None:
    times = np.linspace(0, 5, 60)
    angles = swing_angles(1e-3, 0.8, times)
    np.testing.assert_allclose(angles, 1e-3 * np.cos(times * math.sqrt(GRAVITY / 0.8)), atol=2e-9)


@pytest.mark.slow
def test_the_bob_is_rendered_at_the_labelled_angle() -> None:
    found = source(identities=12, clips_per_identity=3)
    rows, columns = np.mgrid[:64, :64] + 0.5
    pixel = VIEW_M / 64
    for item in found.items():
        for clip in found.clips(item):
            check(clip, found)
            assert clip.frames.shape == (60, 64, 64, 3)
            background = clip.frames[:, :1, :1].astype(float)
            length = list(LENGTHS.values())[clip.labels["length"]]  # type: ignore[index]
            angles = np.array(clip.labels["angle"])
            contrast = np.abs(clip.frames - background).sum(-1)
            bob = np.stack([32 + np.sin(angles) * length / pixel, 32 + np.cos(angles) * length / pixel], axis=-1)
            near = np.hypot(columns - bob[:, 0, None, None], rows - bob[:, 1, None, None]) < 2
            assert contrast[near].min() > 40
            # the mirrored position shows only background
            turned = np.abs(angles) > 0.5
            mirrored = np.hypot(columns - 64 + bob[:, 0, None, None], rows - bob[:, 1, None, None]) < 2
            assert contrast[turned][mirrored[turned]].max(initial=0) < 40


def test_edges_are_anti_aliased() -> None:
    found = source(identities=4)
    frames = next(iter(found.clips(found.items()[0]))).frames
    assert all(len(np.unique(frame.reshape(-1, 3), axis=0)) > 20 for frame in frames)


@pytest.mark.slow
def test_labels_are_swing_period_and_amplitude() -> None:
    found = source(identities=12)
    for item in found.items():
        made = list(found.clips(item))
        assert [clip.labels["action"] for clip in made] == [0, 1, 2, 0, 1, 2]
        statics = {tuple(clip.labels[name] for name in ("length", "bob", "colour", "background")) for clip in made}
        assert len(statics) == 1
        for clip in made:
            length = list(LENGTHS.values())[clip.labels["length"]]  # type: ignore[index]
            assert clip.labels["period_s"] == pytest.approx(period(clip.labels["amplitude"], length))  # type: ignore[arg-type]
            assert np.abs(clip.labels["angle"]).max() <= clip.labels["amplitude"] + 1e-6  # type: ignore[operator]


@pytest.mark.slow
def test_pendulums_differ_and_are_assigned_to_splits() -> None:
    found = source(identities=360)
    names = ("length", "bob", "colour", "background")
    firsts = [next(iter(found.clips(item))) for item in found.items()[:50]]
    looks = {tuple(clip.labels[name] for name in names) for clip in firsts}
    assert len(looks) == 50
    assert sum(item.split == "test" for item in found.items()) == 72
    with pytest.raises(UserError, match="identities is 361, but there are only 360"):
        source(identities=361)


@pytest.mark.slow
def test_the_seed_determines_the_clips() -> None:
    def digest(seed: int) -> str:
        found = source(seed, identities=6, clips_per_identity=2)
        frames = [clip.frames.tobytes() for item in found.items() for clip in found.clips(item)]
        return hashlib.sha256(b"".join(frames)).hexdigest()

    assert digest(0) == digest(0) == "42fedc9f78f534a6470e095a6e301423a0152b881fb842ae923bf99a9033b08e"
    assert digest(1) != digest(0)


def test_the_true_swap_is_the_other_pendulum_at_the_angles_of_the_clip() -> None:
    pendulums = source()
    first, second = pendulums.items()[:2]
    clips = list(pendulums.clips(first))
    for clip in (clips[0], clips[-1]):
        np.testing.assert_array_equal(pendulums.true_swap(clip.key, first.key), clip.frames)
    swapped = pendulums.true_swap(clips[1].key, second.key)
    angles = clips[1].labels["angle"]
    other = next(pendulums.clips(second))
    attributes = Pendulum(*(other.labels[name] for name in ("length", "bob", "colour", "background")))  # type: ignore[arg-type]
    np.testing.assert_array_equal(swapped, render(attributes, np.array(angles), 64))
