"""A transport stream that was joined, or lacks a part, gives its frames again from the next keyframe on."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from preprocessing.decoding.timing import DecodedFrame, WindowMaker, assign_times
from tests.preprocessing.video_files import decode, numbers, ramp, write_video

PACKET = 188
"""Length of a packet of a transport stream, in bytes."""
CODECS = {
    "libx264": {"g": "10"},
    "libx265": {"x265-params": "keyint=10:min-keyint=10:log-level=none"},
    "mpeg2video": {"g": "10"},
}


@pytest.fixture(scope="module", params=CODECS)
def stream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a stream of 20 frames with keyframes 0 and 10."""
    path = tmp_path_factory.mktemp("streams") / "a.ts"
    return write_video(path, ramp(20), codec=request.param, options=CODECS[request.param]).read_bytes()


def parts(frames: list[DecodedFrame]) -> list[list[int]]:
    """Return the numbers of the frames in each part."""
    found: dict[int, list[int]] = {}
    for frame in frames:
        found.setdefault(frame.part, []).extend(numbers(frame.pixels[None]))
    return list(found.values())


def middle(stream: bytes) -> int:
    return len(stream) // PACKET // 2 * PACKET


def test_two_whole_recordings_are_two_parts_with_times_that_continue(stream: bytes) -> None:
    frames, damage = decode(stream + stream)
    assert damage is None
    first, second = parts(frames)
    assert first == list(range(len(first)))
    assert len(first) >= 15
    assert second == list(range(20))
    times = [frame.time for frame in assign_times(frames, Fraction(25))]
    assert times == sorted(set(times))


@pytest.mark.parametrize("bytes_more", [0, 57])
def test_a_recording_that_was_cut_before_the_next_was_appended(stream: bytes, bytes_more: int) -> None:
    frames, damage = decode(stream[: middle(stream) + bytes_more] + stream)
    assert damage is None
    first, second = parts(frames)
    assert first == list(range(len(first)))
    assert 1 <= len(first) < 20
    assert second == list(range(20))


def test_no_clip_spans_a_join(stream: bytes) -> None:
    frames, _ = decode(stream[: middle(stream)] + stream)
    maker = WindowMaker(length=3, stride=1)
    windows = [window for frame in assign_times(frames, Fraction(25)) if (window := maker.add(frame))]
    for window in windows:
        shown = numbers(np.stack([frame.pixels for frame in window.frames]))
        assert shown == list(range(shown[0], shown[0] + 3))


@pytest.mark.parametrize("replacement", [b"", bytes(5 * PACKET)])
def test_a_stream_without_a_part_resumes_at_the_next_keyframe(stream: bytes, replacement: bytes) -> None:
    half = middle(stream)
    frames, damage = decode(stream[: half - 5 * PACKET] + replacement + stream[half:])
    assert damage is None
    last = parts(frames)[-1]
    assert last == list(range(last[0], 20))
    assert last[0] <= 10


def test_without_a_keyframe_after_the_join_the_video_ends_there(tmp_path: Path) -> None:
    stream = write_video(tmp_path / "a.ts", ramp(20), options={"g": "10"}).read_bytes()
    frames, damage = decode(stream + stream[len(stream) // PACKET * 9 // 10 * PACKET :])
    assert damage is not None
    assert damage.reason == "data is missing or damaged"
    assert damage.where.startswith(f"after frame {len(frames)}, ")
    assert parts(frames) == [list(range(len(frames)))]


def test_recordings_of_different_sizes_may_be_joined(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.ts", ramp(20)).read_bytes()
    frames, damage = decode(first + write_video(tmp_path / "b.ts", ramp(10, 96, 32)).read_bytes())
    assert damage is None
    assert {frame.scene for frame in frames} == {(64, 48), (32, 96)}
