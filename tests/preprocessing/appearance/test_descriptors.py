"""Descriptors against slow counts in plain Python, and the bytes that earlier versions stored."""

import hashlib
import io
import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from preprocessing.appearance import descriptors
from preprocessing.appearance.descriptors import (
    NAMES,
    SCALE,
    SIZE,
    Name,
    colour_counts,
    describe,
    from_npy,
    texture_counts,
    to_npy,
    usual,
)

CHANNELS = [1, 2, 3, 4]
Frames = Any


def noise(*shape: int, seed: int = 0) -> Frames:
    """Return frames that are a coarse pattern with a little noise, so that some patches are flat and others are not."""
    generator = np.random.default_rng(seed)
    frames, height, width, channels = shape
    blocks = generator.integers(0, 4, (frames, -(-height // 6), -(-width // 6), channels)) * 70
    image = blocks.repeat(6, axis=1).repeat(6, axis=2)[:, :height, :width]
    return (image + generator.integers(0, 12, image.shape)).astype(np.uint8)


def slow_colours(frames: Frames) -> Counter[tuple[int, ...]]:
    """Count the colours of 4 bits per channel; the most frequent ones count as much as the next."""
    counts = Counter(
        tuple(int(value) // 16 for value in pixel[:3]) for frame in frames for row in frame for pixel in row
    )
    most = max(counts.values())
    ranked = sorted(counts.values(), reverse=True)
    second = ranked[1] if len(ranked) > 1 else 0
    return Counter({colour: second if count == most else count for colour, count in counts.items()})


def slow_textures(frames: Frames) -> Counter[int]:
    """Count the patterns of patches of 5x5 pixels, each nine comparisons; a patch is flat up to a difference of 32."""
    length = len(frames)
    chosen = sorted({round(part * (length - 1) / max(min(16, length) - 1, 1)) for part in range(min(16, length))})
    step = math.ceil(max(len(frames[0]), len(frames[0][0])) / 96)
    counts: Counter[int] = Counter()
    for frame in chosen:
        grey = [[slow_grey(pixel) for pixel in row[::step]] for row in frames[frame][::step]]
        for top in range(len(grey) - 4):
            for left in range(len(grey[0]) - 4):
                word, is_flat = 0, True
                for bit, ((y1, x1), (y2, x2)) in enumerate(descriptors._comparisons()):
                    difference = grey[top + y1][left + x1] - grey[top + y2][left + x2]
                    word += (difference > 0) * 2**bit
                    is_flat &= abs(difference) <= 32
                counts[word] += not is_flat
    return +counts


def slow_grey(pixel: Frames) -> int:
    if len(pixel) < 3:
        return int(pixel[0])
    return (77 * int(pixel[0]) + 150 * int(pixel[1]) + 29 * int(pixel[2])) // 256


def cosine(a: Frames, b: Frames) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 1, 1), (2, 4, 30)])
def test_colours_are_counted_as_in_plain_python(channels: int, shape: tuple[int, int, int]) -> None:
    frames = noise(*shape, channels)
    counts = colour_counts(frames)
    assert len(counts) == 16 ** min(channels, 3)
    found = {code: int(counts[code]) for code in np.flatnonzero(counts).tolist()}
    expected = {
        sum(level * 16**place for place, level in enumerate(reversed(colour))): count
        for colour, count in slow_colours(frames).items()
        if count
    }
    assert found == expected


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("shape", [(3, 12, 17), (20, 9, 7), (1, 5, 5), (2, 100, 14), (1, 16, 200)])
def test_textures_are_counted_as_in_plain_python(channels: int, shape: tuple[int, int, int]) -> None:
    frames = noise(*shape, channels)
    counts = texture_counts(frames)
    assert len(counts) == 512
    assert {code: int(counts[code]) for code in np.flatnonzero(counts).tolist()} == slow_textures(frames)
    assert counts.any() or shape == (1, 5, 5)


def test_the_compared_pixels_are_nine_pairs_within_a_patch() -> None:
    pairs = descriptors._comparisons()
    assert len(pairs) == 9
    assert all(first != second for first, second in pairs)
    assert {side for pair in pairs for pixel in pair for side in pixel} == set(range(5))


@pytest.mark.parametrize(
    ("name", "channels", "sha256"),
    [
        ("colour", 3, "8e49dfb169695c8bdd0858135f990d8a202d3bd6f8ab45fc0f08ee2ae1d7320f"),
        ("colour", 1, "8dfa99696cb20b53ce7b3f7861106dc7098d098a9265def01c568c585a4cc7e6"),
        ("texture", 3, "72c4e3b800651ecdf81d298c98d32c36febf1d08db6ab893e901a22097f1014b"),
        ("texture", 1, "33816d28ec8e3132248b28f8edfa14700d4126c5cda420e7171166b0aa2990ae"),
    ],
)
def test_descriptors_are_those_of_earlier_versions(name: Name, channels: int, sha256: str) -> None:
    # Known values: if they change, raise `descriptors.VERSION`, or stored descriptors are compared with others.
    assert descriptors.VERSION == 1
    frames = noise(6, 40, 30, channels)
    assert hashlib.sha256(describe(name, frames).astype("<i2").tobytes()).hexdigest() == sha256


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_frames_makes_no_difference(name: Name, channels: int) -> None:
    frames = noise(7, 20, 14, channels)
    moved = frames[np.random.default_rng(1).permutation(7)]
    assert np.array_equal(describe(name, frames), describe(name, moved))


@pytest.mark.parametrize("channels", CHANNELS)
def test_the_position_of_pixels_makes_no_difference_to_colours_but_to_textures(channels: int) -> None:
    frames = noise(5, 20, 14, channels)
    moved = np.random.default_rng(2).permutation(frames.reshape(-1, channels)).reshape(7, 10, 20, channels)
    assert np.array_equal(describe("colour", frames), describe("colour", moved))
    assert not np.array_equal(describe("texture", frames), describe("texture", moved))


@pytest.mark.parametrize("name", NAMES)
def test_the_fourth_channel_is_not_seen(name: Name) -> None:
    frames = noise(4, 20, 14, 4)
    assert np.array_equal(describe(name, frames), describe(name, frames[..., :3]))


@pytest.mark.parametrize("name", NAMES)
def test_frames_need_not_be_contiguous(name: Name) -> None:
    frames = noise(4, 20, 14, 3)
    assert np.array_equal(describe(name, frames), describe(name, np.asfortranarray(frames)))


def test_the_background_counts_as_much_as_the_second_colour() -> None:
    frames = np.zeros((2, 10, 10, 3), dtype=np.uint8)
    frames[0, :5, :5], frames[1, 0, :7] = (255, 0, 0), (0, 0, 255)
    counts = colour_counts(frames)
    assert {code: int(counts[code]) for code in np.flatnonzero(counts)} == {0: 25, 0xF00: 25, 0x00F: 7}


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("colour", np.zeros((2, 8, 8, 3), dtype=np.uint8)),
        ("colour", np.full((2, 8, 8, 1), 255, dtype=np.uint8)),
        ("texture", np.zeros((2, 8, 8, 1), dtype=np.uint8)),
        ("texture", np.full((3, 8, 8, 3), 77, dtype=np.uint8)),
        ("texture", noise(3, 4, 9, 1)),
        ("texture", noise(3, 9, 4, 3)),
        ("texture", noise(1, 1, 1, 1)),
    ],
)
def test_frames_with_nothing_to_count_have_a_descriptor_of_zeros(name: Name, frames: Frames) -> None:
    described = describe(name, frames)
    assert described.dtype == np.int16
    assert described.tolist() == [0] * SIZE


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", NAMES)
def test_a_descriptor_is_a_unit_vector_times_the_scale(name: Name, channels: int) -> None:
    described = describe(name, noise(5, 20, 14, channels)).astype(np.float64)
    assert described.shape == (SIZE,)
    assert math.sqrt(described @ described) == pytest.approx(SCALE, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_angles_are_close_to_those_between_square_roots_of_counts(name: Name) -> None:
    count = colour_counts if name == "colour" else texture_counts
    clips = [noise(2, 12 + 3 * seed, 24, 3, seed=seed) for seed in range(12)]
    clips += [np.concatenate([one, other[:, : one.shape[1]]]) for one, other in itertools.pairwise(clips)]
    errors = [
        cosine(describe(name, one), describe(name, other)) - cosine(np.sqrt(count(one)), np.sqrt(count(other)))
        for number, one in enumerate(clips)
        for other in clips[:number]
    ]
    # The error of a random projection to 128 values has a standard deviation of at most 1 / sqrt(128) = 0.088.
    assert math.sqrt(np.mean(np.square(errors))) < 0.09
    assert max(map(abs, errors)) < 0.3


def test_grey_frames_are_told_apart_by_textures_and_others_by_colours() -> None:
    assert [usual(channels) for channels in CHANNELS] == ["texture", "colour", "colour", "colour"]


def described(clips: int) -> Frames:
    return np.random.default_rng(3).integers(-(2**15), 2**15, (clips, SIZE)).astype(np.int16)


@pytest.mark.parametrize("clips", [0, 1, 5])
def test_stored_descriptors_come_back(clips: int) -> None:
    data = to_npy(described(clips))
    assert np.array_equal(from_npy(data, clips), described(clips))
    assert np.array_equal(np.load(io.BytesIO(data), allow_pickle=False), described(clips))


def npy(array: Frames) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        to_npy(described(4)),
        to_npy(described(6)),
        to_npy(described(5))[:-1],
        to_npy(described(5))[:40],
        to_npy(described(5)) + b"\0",
        npy(described(5).astype(">i2")),
        npy(described(5).astype(np.uint16)),
        npy(described(5).astype(np.float32)),
        npy(np.asfortranarray(described(5))),
        npy(described(5)[:, :-1]),
        npy(described(5).ravel()),
        npy(np.array([{"a": 1}], dtype=object)),
    ],
    ids=[
        "empty", "magic", "too few", "too many", "cut short", "header cut short", "trailing byte", "big-endian",
        "unsigned", "floats", "column order", "narrow", "flat", "pickle",
    ],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_npy(data, 5)
