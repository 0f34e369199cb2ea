"""Every video gives all its frames, or those before its damage and the reason."""

import csv
import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from preprocessing.clip import RejectedInputError
from preprocessing.decoding.timing import assign_times
from preprocessing.decoding.video import read_video
from tests.preprocessing.video_files import decode, decode_numbers, numbers, ramp, write_video


@pytest.mark.slow
def test_every_real_video_gives_the_documented_number_of_frames(shared_data: Path) -> None:
    folder = shared_data / "videos"
    lines = [line for line in (folder / "MEDIA.tsv").read_text().splitlines() if not line.startswith("#")]
    documented = list(csv.DictReader(lines, delimiter="\t"))
    assert len(documented) >= 43
    for row in documented:
        frames, damage = decode(folder / row["file"])
        assert len(frames) == int(row["decoded_frames"]), row["file"]
        assert {frame.scene for frame in frames} == {(int(row["width"]), int(row["height"]))}, row["file"]
        assert (damage is not None) == bool(row["error"]), row["file"]
        if damage is not None:
            assert str(damage).startswith("decoding failed (after frame 28, 2.70 s; Invalid data found")


CONTAINERS = {
    "mp4": {}, "mkv": {}, "ts": {}, "mov": {"codec": "libx265"}, "avi": {"codec": "mpeg4"},
    "webm": {"codec": "libvpx-vp9"},
    "ivf": {"codec": "libvpx"}, "mpg": {"codec": "mpeg2video"}, "gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "h264": {"format": "h264"}, "hevc": {"codec": "libx265", "format": "hevc"}, "nut": {"codec": "ffv1"},
    "flv": {}, "wmv": {"codec": "msmpeg4", "format": "asf"}, "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_container_and_codec(kind: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = CONTAINERS[kind]
    assert decode_numbers(write_video(tmp_path / f"a.{kind}", ramp(12), **settings)) == list(range(12))


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le", "yuv444p", "yuvj420p"])
def test_every_pixel_format_gives_the_same_colours(pix_fmt: str, tmp_path: Path) -> None:
    codec = "libx264" if pix_fmt != "yuv422p10le" else "libx265"
    images = [np.full((48, 64, 3), 40 + 20 * number, np.uint8) for number in range(8)]
    video = write_video(tmp_path / "a.mp4", images, codec=codec, pix_fmt=pix_fmt, options={"qp": "0"})
    frames, _ = decode(video)
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.pixels.astype(int) - image[0, 0, 0]).max() <= 3


@pytest.mark.parametrize(("codec", "kind"), [("png", "mov"), ("qtrle", "mov"), ("ffv1", "mkv")])
def test_transparency_is_composited_over_black(codec: str, kind: str, tmp_path: Path) -> None:
    image = np.full((32, 32, 4), 200, np.uint8)
    image[:, :16, 3] = 0
    image[:, 16:, 3] = 255
    pix_fmt = {"png": "rgba", "qtrle": "argb", "ffv1": "bgra"}[codec]
    frames, _ = decode(write_video(tmp_path / f"a.{kind}", [image] * 4, codec=codec, pix_fmt=pix_fmt, source="rgba"))
    assert np.all(frames[0].pixels[:, :14] == 0)
    assert np.all(frames[0].pixels[:, 18:] == 200)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_rotated_video_becomes_upright(degrees: int, tmp_path: Path) -> None:
    upright = np.zeros((64, 64, 3), np.uint8)
    upright[:32, :32, 0], upright[:32, 32:, 1], upright[32:, :32, 2] = 255, 255, 255
    stored = np.rot90(upright, -degrees // 90).copy()  # undone by rotating counter-clockwise by `degrees`
    signed = degrees if degrees <= 180 else degrees - 360
    video = write_video(tmp_path / "a.mov", [stored] * 4, pix_fmt="yuv444p", rotation=signed, options={"qp": "0"})
    frames, _ = decode(video)
    corners = [frames[0].pixels[y, x].argmax() for y, x in ((8, 8), (8, 24), (24, 8))]
    assert corners == [0, 1, 2]
    assert frames[0].pixels[24, 24].max() < 16


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "PNG", "WEBP"])
def test_an_animated_picture_gives_its_frames_or_is_refused_in_plain_words(kind: str) -> None:
    data = io.BytesIO()
    first, *others = map(Image.fromarray, ramp(12))
    first.save(data, kind, save_all=True, append_images=others, duration=40)
    if kind == "WEBP":
        with pytest.raises(
            RejectedInputError, match=r"^animated WebP is not supported; convert it, for example to GIF"
        ):
            decode(data.getvalue())
    else:
        assert decode_numbers(data.getvalue()) == list(range(12))


@pytest.mark.parametrize("kind", ["AVIF", "WEBP"])
def test_a_still_picture_is_a_video_of_one_frame(kind: str) -> None:
    data = io.BytesIO()
    Image.fromarray(ramp(4)[3]).save(data, kind)
    assert decode_numbers(data.getvalue()) == [3]


def test_metadata_that_is_not_utf8_is_ignored(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", ramp(8), metadata={"title": "PLACEHOLDER"})
    data = video.read_bytes()
    assert b"PLACEHOLDER" in data
    data = data.replace(b"PLACEHOLDER", b"\xff\xfe caf\xe9 \xff\xff"[:11].ljust(11, b"\xfe"))
    with pytest.raises(UnicodeDecodeError), av.open(io.BytesIO(data)):
        pass
    assert decode_numbers(data) == list(range(8))


def test_only_the_first_video_stream_is_read(tmp_path: Path) -> None:
    def add_streams(out: Any) -> None:
        audio = out.add_stream("aac", rate=8000, layout="mono")
        second = out.add_stream("mpeg4", rate=25)
        second.width, second.height, second.pix_fmt = 32, 32, "yuv420p"
        for packet in second.encode(video_frame(32)):
            out.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in audio.encode(frame):
            out.mux(packet)

    video = write_video(tmp_path / "a.mkv", ramp(10), set_up=add_streams)
    frames, damage = decode(video)
    assert damage is None
    assert [frame.scene for frame in frames] == [(64, 48)] * 10


def video_frame(size: int) -> Any:
    return av.VideoFrame.from_ndarray(np.zeros((size, size, 3), np.uint8), format="rgb24")


def test_a_raw_bitstream_has_no_timestamps_and_gets_the_nominal_rate(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.h264", ramp(12), format="h264")
    frames, _ = decode(video)
    assert {frame.time for frame in frames} == {None}
    timed = list(assign_times(frames, Fraction(25)))
    assert [frame.time for frame in timed] == [Fraction(number, 25) for number in range(12)]


# read_video: one clip of the user's


def test_read_video_gives_a_clip_at_the_requested_rate(tmp_path: Path) -> None:
    video = str(write_video(tmp_path / "a.mp4", ramp(20)))
    clip, fps = read_video(video, size=32)
    assert (clip.shape, clip.dtype, fps) == ((20, 32, 32, 3), np.uint8, 25)
    clip, fps = read_video(video, size=32, channels=1, frames=5, fps=12.5)
    assert (clip.shape, fps) == ((5, 32, 32, 1), 12.5)
    assert numbers(clip) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: write_video(path, ramp(4)), "too short \\(4 frames, 8 are needed\\)"),
        (lambda path: path.write_text("no video"), "not a video that can be opened"),
    ],
)
def test_read_video_rejects_a_file_without_a_clip(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make(tmp_path / "a.mp4")
    with pytest.raises(RejectedInputError, match=message):
        read_video(str(tmp_path / "a.mp4"), size=32, frames=8)


@pytest.mark.parametrize(("declared", "round_"), [(Fraction(2), True), (Fraction(1, 500), False)])
def test_pixels_that_are_not_square_are_corrected_unless_the_ratio_is_implausible(
    declared: Fraction, round_: bool, tmp_path: Path
) -> None:
    rows, columns = np.mgrid[:64, :32]
    ellipse = np.repeat((np.hypot((rows - 32) / 24, (columns - 16) / 12) < 1)[..., None] * np.uint8(255), 3, axis=-1)

    def declare(out: Any) -> None:
        out.streams.video[0].codec_context.sample_aspect_ratio = declared

    frames, damage = decode(write_video(tmp_path / "a.mp4", [ellipse] * 4, set_up=declare))
    assert damage is None
    inside = frames[0].pixels[..., 0] > 127
    width, height = int(inside.any(axis=0).sum()), int(inside.any(axis=1).sum())
    assert (abs(width - height) <= 1) == round_
