"""Datasets of made-up videos, of which everything that a recipe depends on is known."""

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import Clip, Item
from tests.preprocessing.dataset.memory_source import MemorySource, write_dataset

FPS = 10.0


def person(number: int, windows: int, length: int, size: int, *, noise: int, moves: bool, grey: bool) -> list[Clip]:
    """Return the windows of a video of somebody: a square in a colour of its own that crosses the picture."""
    dice = np.random.default_rng(number)
    colours = dice.integers(0, 256, (2, 3))
    clips = []
    for window in range(windows):
        frames = np.empty((length, size, size, 3), dtype=np.int64)
        frames[:] = colours[0]
        for time in range(length):
            left = (window * 3 + time * 2) % (size // 2) if moves else size // 4
            frames[time, size // 4 : 3 * size // 4, left : left + size // 3] = colours[1]
        frames += dice.integers(-noise, noise + 1, frames.shape)
        shown: NDArray[np.uint8] = np.clip(frames, 0, 255).astype(np.uint8)
        if grey:
            shown = np.repeat(shown[..., :1], 3, axis=-1)
        key, start = f"p{number:03d}-{window}", window * length / FPS
        action = {"action": zlib.crc32(key.encode()) % 2}
        clips.append(Clip(key, shown, action, f"person{number}", f"p{number:03d}.mp4", start, FPS))
    return clips


def write_videos(
    folder: Path,
    people: int = 6,
    windows: int = 4,
    length: int = 8,
    size: int = 32,
    *,
    noise: int = 6,
    moves: bool = True,
    grey: bool = False,
    looks: int | None = None,
    stripes: tuple[int, ...] = (0,),
    test_people: int = 1,
) -> str:
    """Write a dataset with a video of each of `people`, and return its URL.

    Args:
        folder: where to write it.
        people: number of people in the training split, each in a video of its own.
        windows: clips of each video.
        length: frames of a clip.
        size: height and width of a frame.
        noise: largest change of a pixel value by noise: with 0, frames look drawn.
        moves: whether anything moves but the noise.
        grey: whether the three channels are the same.
        looks: number of different looks; by default each person has its own.
        stripes: width in pixels of a white stripe at the edge of the first, second, ... video of each look.
        test_people: number of people in the test split.
    """
    items, clips = [], {}
    for number in range(people + test_people):
        key, split = f"p{number:03d}", "train" if number < people else "test"
        items.append(Item(key=key, split=split, estimated_bytes=1, group=f"person{number}", path=f"{key}.mp4"))
        look = number % (looks or people) if number < people else number
        made = person(look, windows, length, size, noise=noise, moves=moves, grey=grey)
        for clip in made:
            clip.frames[:, :, : stripes[number // (looks or people) % len(stripes)]] = 255
        clips[key] = [
            Clip(
                f"{key}-{n}", clip.frames, clip.labels, f"person{number}", f"{key}.mp4", clip.start_s, clip.fps
            )
            for n, clip in enumerate(made)
        ]  # fmt: skip
    write_dataset(folder, MemorySource({"action": ["a", "b"]}, {}, items, clips))
    return str(folder)
