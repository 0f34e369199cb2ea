"""Properties of the clips cut out of an input, with any labelled segments."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.decoding.timing import Frame
from preprocessing.sources.catalogue import Segment
from preprocessing.sources.clipping import Clipper
from preprocessing.sources.config import ClipsConfig
from tests.property_settings import examples, names

RATE = Fraction(25)


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    """Draw segments that start and end at, just before or just after frames."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        start, length = draw(st.integers(0, 24)), draw(st.none() | st.integers(1, 40))
        end = None if length is None else Fraction(start + length, 2) / RATE
        found.append(Segment({"action": number}, Fraction(start, 2) / RATE, end))
    return found


@st.composite
def runs(draw: st.DrawFn) -> list[int]:
    return [run for run in range(draw(st.integers(1, 3))) for _ in range(draw(st.integers(1, 25) | st.just(25)))]


def steady(runs: list[int]) -> list[Frame]:
    """Return frames at the nominal rate, numbered by their pixel; every run follows the one before it."""
    return [Frame(np.full((1, 1, 1), number, np.uint8), number / RATE, run) for number, run in enumerate(runs)]


def expected(runs: list[int], listed: list[Segment], length: int, stride: int) -> list[tuple[int, list[int]]]:
    """Return (segment, numbers of the frames) of every clip, by slicing what lies in a segment and in one run."""
    clips = []
    for number, segment in enumerate(listed):
        for run in sorted(set(runs)):
            own = [
                at
                for at, one in enumerate(runs)
                if one == run and segment.start_s <= at / RATE and (segment.end_s is None or at / RATE < segment.end_s)
            ]
            clips += [(number, own[start : start + length]) for start in range(0, len(own) - length + 1, stride)]
    return sorted(clips, key=lambda clip: (clip[1][-1], clip[0]))  # a clip comes with its last frame


def pixels(clip: Clip) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in clip.frames]


@examples(60)
@given(runs(), segments(), st.integers(2, 4), st.none() | st.integers(1, 12), names(), names())
def test_clips_are_all_windows_of_each_segment_and_nothing_else(
    runs: list[int], listed: list[Segment], length: int, stride: int | None, group: str, path: str
) -> None:
    item = Item(key="video-0", split="train", estimated_bytes=1, group=group, path=path)
    clipper = Clipper(item, listed, ClipsConfig(clip_frames=length, stride=stride), RATE)
    clips = [clip for frame in steady(runs) for clip in clipper.add(frame)]
    wanted = expected(runs, listed, length, stride or length)
    assert [(clip.labels["action"], pixels(clip)) for clip in clips] == wanted
    assert len({clip.key for clip in clips}) == len(clips)
    for clip in clips:
        assert clip.frames.shape == (length, 1, 1, 1)
        assert clip.start_s == float(pixels(clip)[0] / RATE)
        assert clip.fps == float(RATE)
        assert clip.identity == (group or "video-0")
        assert clip.source == path
    if wanted:
        clipper.check()
    else:
        with pytest.raises(RejectedInputError, match=f"{len(runs)} frames; a clip needs {length} without a gap"):
            clipper.check()
