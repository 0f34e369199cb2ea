"""Moving MNIST: digits move as their labels state."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.errors import UserError
from preprocessing.clip import Clip, check
from preprocessing.sources import moving_mnist
from preprocessing.sources.config import MovingMnistConfig, SourceConfig
from preprocessing.sources.moving_mnist import ACTIONS, FILES, SIDE, MovingMnistSource, bounce, read_idx, render
from preprocessing.sources.registry import make_source

FEW = {"train_identities": 20, "test_identities": 5}


def source(path: Path, seed: int = 0, **settings: Any) -> MovingMnistSource:
    config = MovingMnistConfig(**(FEW | settings))
    made = make_source(SourceConfig(name="moving_mnist", path=str(path), moving_mnist=config), seed)
    assert isinstance(made, MovingMnistSource)
    return made


def every(found: MovingMnistSource) -> list[Clip]:
    return [clip for item in found.items() for clip in found.clips(item)]


def test_clips_show_digits_of_the_right_set_and_class(mnist: Path) -> None:
    found = source(mnist)
    for split, (image_file, label_file) in FILES.items():
        digits = gzip.decompress((mnist / f"{label_file}.gz").read_bytes())[8:]
        raw = gzip.decompress((mnist / f"{image_file}.gz").read_bytes())[16:]
        brightness = np.frombuffer(raw, np.uint8).reshape(-1, SIDE * SIDE).sum(axis=1, dtype=int)
        for number, item in enumerate(item for item in found.items() if item.split == split):
            made = list(found.clips(item))
            assert len(made) == item.clips == 2
            index = found._chosen(split, number, len(digits))[0]
            for clip in made:
                check(clip, found)
                assert (clip.frames.shape, clip.identity) == ((16, 64, 64, 1), item.key)
                assert clip.labels["digit"] == digits[index]
                assert np.abs(clip.frames.sum((1, 2, 3)) - brightness[index]).max() < 500
    assert {item.split for item in found.items()} == {"train", "test"}
    assert sum(item.split == "train" for item in found.items()) == 20


def test_position_and_direction_labels_match_the_frames(mnist: Path) -> None:
    for clip in every(source(mnist, speed=2.5)):
        brightness = clip.frames[..., 0].astype(float)
        rows, columns = np.mgrid[:64, :64]
        centre = np.stack(
            [(brightness * grid).sum((1, 2)) / brightness.sum((1, 2)) for grid in (columns, rows)], axis=-1
        )
        corners = np.stack([clip.labels["x"], clip.labels["y"]], axis=-1)
        shift = centre - corners
        assert np.abs(shift - shift[0]).max() < 0.1  # the offset of the digit's centre is constant
        assert corners.min() >= 0
        assert corners.max() <= 64 - SIDE
        steps = np.hypot(*np.diff(corners, axis=0).T)
        assert steps.max() < 2.5 + 1e-9
        assert np.median(steps) == pytest.approx(2.5)  # a bounce shortens a step
        if np.all(np.diff(corners[:3], n=2, axis=0) < 1e-9):  # no bounce at the start
            right, down = corners[1] > corners[0]
            assert ACTIONS[clip.labels["action"]] == f"{'right' if right else 'left'} {'down' if down else 'up'}"  # type: ignore[index]


def reference_path(
    start: NDArray[np.float64], velocity: NDArray[np.float64], length: int, room: float
) -> NDArray[np.float64]:
    """Simulate the path step by step, reversing at the walls."""
    position, speed, path = start.copy(), velocity.copy(), []
    for _ in range(length):
        path.append(position.copy())
        position = position + speed
        for axis in (0, 1):
            while not 0 <= position[axis] <= room:
                position[axis] = -position[axis] if position[axis] < 0 else 2 * room - position[axis]
                speed[axis] = -speed[axis]
    return np.array(path)


@pytest.mark.parametrize("seed", range(10))
def test_digits_bounce(seed: int) -> None:
    path, velocity = bounce(np.random.default_rng(seed), 200, 36, 7.3)
    np.testing.assert_allclose(path, reference_path(path[0], velocity, 200, 36.0), atol=1e-9)


def test_a_digit_at_integer_pixels_is_unchanged_and_between_pixels_keeps_its_brightness() -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    frames = render([image], [np.array([[3.0, 5.0], [36.0, 36.0], [3.25, 5.5]])], 64)
    assert np.array_equal(frames[0, 5:33, 3:31], image)
    assert frames[0].sum() == frames[1].sum() == image.sum()
    assert abs(int(frames[2].sum()) - int(image.sum())) < 500


def test_where_digits_overlap_the_brighter_one_is_visible() -> None:
    images = [np.full((SIDE, SIDE), value, np.uint8) for value in (200, 100)]
    frame = render(images, [np.array([[0.0, 0.0]]), np.array([[14.0, 14.0]])], 64)[0]
    assert (frame[20, 20], frame[5, 5], frame[35, 35]) == (200, 200, 100)


def test_two_digits_have_separate_labels_and_positions(mnist: Path) -> None:
    found = source(mnist, digits=2, channels=3)
    assert list(found.vocabulary) == ["action", "digit 1", "digit 2"]
    assert found.factors == dict.fromkeys(["x1", "y1", "x2", "y2"], "frame")
    for clip in every(found)[:8]:
        check(clip, found)
        assert clip.frames.shape == (16, 64, 64, 3)


def test_every_digit_image_is_used_before_any_is_repeated(mnist: Path) -> None:
    found = source(mnist, digits=3)
    chosen = [index for number in range(20_000) for index in found._chosen("train", number, 60_000)]
    assert sorted(chosen) == list(range(60_000))
    again = found._chosen("train", 20_000, 60_000)
    assert len(again) == 3


def test_the_seed_determines_the_clips(mnist: Path) -> None:
    def digest(seed: int) -> str:
        return hashlib.sha256(b"".join(clip.frames.tobytes() for clip in every(source(mnist, seed)))).hexdigest()

    assert digest(0) == digest(0) == "118c90a90e79b4e3648f004eac77938f2fd8dcdfe8f0fe9c965efdd1e9654cc4"
    assert digest(1) != digest(0)


def test_files_may_be_uncompressed_and_a_bad_one_is_reported(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for names in FILES.values():
        for name in names:
            (tmp_path / name).write_bytes(gzip.decompress((mnist / f"{name}.gz").read_bytes()))
    assert source(tmp_path).fingerprint() == source(mnist).fingerprint()
    label_file = tmp_path / "t10k-labels-idx1-ubyte"
    good = label_file.read_bytes()
    for bad, message in (
        (good[:-5], "holds 9995 values"),
        (b"\0\0\x0d\1" + good[4:], "is not an IDX file"),
        (gzip.compress(good)[:-9], "is damaged"),
        (good[:4] + (5).to_bytes(4, "big") + good[8:13], "holds 5 labels"),
    ):
        label_file.write_bytes(bad)
        with pytest.raises(UserError, match=f"t10k-labels-idx1-ubyte {message}"):
            source(tmp_path).fingerprint()
    monkeypatch.setattr(moving_mnist, "MAX_BYTES", len(good) - 1)  # of the other packed files, none is so long
    label_file.write_bytes(gzip.compress(good))
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte unpacks to more than"):
        read_idx(str(label_file), label_file.read_bytes(), 1)
    label_file.unlink()
    with pytest.raises(UserError, match="found neither t10k-labels-idx1-ubyte nor"):
        source(tmp_path).fingerprint()
