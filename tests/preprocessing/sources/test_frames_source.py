"""Folders of images are videos."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.errors import UserError
from preprocessing.clip import Clip, RejectedInputError
from preprocessing.clip import Source as AnySource
from preprocessing.sources.config import FramesConfig, LabelsConfig, SourceConfig
from preprocessing.sources.registry import make_source
from tests.preprocessing.video_files import numbers, ramp


def source(path: Path, **settings: Any) -> AnySource:
    config = FramesConfig(**({"clip_frames": 4, "size": 32} | settings))
    return make_source(SourceConfig(name="frames", path=str(path), frames=config), 0)


def write_images(folder: Path, count: int, name: str = "{}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(ramp(count)):
        Image.fromarray(pixels).save(folder / name.format(number + 1))
    return folder


def clips(found: AnySource, path: str) -> list[Clip]:
    return list(found.clips(next(one for one in found.items() if one.path == path)))


def test_each_folder_is_a_video_in_numerical_order(tmp_path: Path) -> None:
    write_images(tmp_path / "anna" / "wave", 12)  # 1.png, ..., 12.png: 10 comes after 9
    write_images(tmp_path / "bert" / "walk", 8, "img_{}.jpg")
    (tmp_path / "anna" / "notes.txt").write_text("no image")
    found = source(tmp_path, labels=LabelsConfig(folders=("identity",)), fps=10)
    assert [one.path for one in found.items()] == ["anna/wave", "bert/walk"]
    made = clips(found, "anna/wave")
    assert [numbers(clip.frames) for clip in made] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [(clip.start_s, clip.fps, clip.identity) for clip in made] == [
        (0, 10, "anna"),
        (0.4, 10, "anna"),
        (0.8, 10, "anna"),
    ]


def test_labels_come_from_the_folders_above_a_video_and_from_its_own_name(tmp_path: Path) -> None:
    for person in ("anna", "bert"):
        for action in ("wave", "walk"):
            write_images(tmp_path / person / action, 4)
    found = source(tmp_path, labels=LabelsConfig(pattern="(?P<identity>[a-z]+)/(?P<action>[a-z]+)$"))
    assert found.vocabulary == {"action": ["walk", "wave"]}
    assert clips(found, "bert/walk")[0].labels == {"action": 0}
    assert {one.group for one in found.items()} == {"anna", "bert"}


def test_an_additional_image_changes_the_version(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 4)
    before = source(tmp_path).items()[0].version
    Image.fromarray(ramp(5)[4]).save(tmp_path / "a" / "5.png")
    assert source(tmp_path).items()[0].version != before


def encode(image: Image.Image, kind: str, **settings: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **settings)
    return data.getvalue()


@pytest.mark.parametrize(
    ("kind", "data", "grey"),
    [
        ("png", encode(Image.new("L", (40, 40), 77), "PNG"), 77),
        ("png", encode(Image.fromarray(np.full((40, 40), 77 * 257, np.uint16)), "PNG"), 77),
        ("png", encode(Image.new("RGBA", (40, 40), (154, 154, 154, 128)), "PNG"), 77),
        ("png", encode(Image.new("RGB", (40, 40), (77, 77, 77)).quantize(4), "PNG"), 77),
        ("jpg", encode(Image.new("CMYK", (40, 40), (178, 178, 178, 0)), "JPEG"), 77),
        ("webp", encode(Image.new("RGB", (40, 40), (77, 77, 77)), "WEBP", lossless=True), 77),
        ("tif", encode(Image.fromarray(np.full((40, 40), 77.0, np.float32)), "TIFF"), 77),
        ("bmp", encode(Image.new("1", (40, 40), 1), "BMP"), 255),
    ],
    ids=["grey", "16 bits", "transparent", "palette", "cmyk", "webp", "float", "1 bit"],
)
def test_images_of_every_mode_look_right(tmp_path: Path, kind: str, data: bytes, grey: int) -> None:
    (tmp_path / "a").mkdir()
    for number in range(4):
        (tmp_path / "a" / f"{number}.{kind}").write_bytes(data)
    frames = clips(source(tmp_path), "a")[0].frames
    assert frames.shape == (4, 32, 32, 3)
    assert np.abs(frames.astype(int) - grey).max() <= 2


def test_a_photograph_is_rotated_by_its_exif_orientation(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 40))
    image.paste((255, 255, 255), (0, 0, 40, 20))  # bright at the top
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90 degrees to display
    (tmp_path / "a").mkdir()
    for number in range(4):
        image.save(tmp_path / "a" / f"{number}.png", exif=exif)
    frame = clips(source(tmp_path), "a")[0].frames[0, ..., 0]
    assert frame[:, 20:].min() > 200
    assert frame[:, :12].max() < 50


def bomb() -> bytes:
    """Return a PNG of a few bytes that claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IEND"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an image cannot be decoded"),
        (b"no image", "an image cannot be decoded"),
        (encode(Image.effect_noise((64, 64), 50), "PNG")[:-900], "an image cannot be decoded"),
        (encode(Image.new("RGB", (1, 1)), "PNG"), "images are too small"),
        (bomb(), "images are too large"),
    ],
    ids=["empty", "text", "cut", "1x1", "bomb"],
)
def test_a_bad_image_ends_its_video_after_the_clips_before_it(tmp_path: Path, data: bytes, reason: str) -> None:
    write_images(tmp_path / "a", 12)
    (tmp_path / "a" / "7.png").write_bytes(data)
    found = source(tmp_path)
    made: list[Clip] = []
    with pytest.raises(RejectedInputError) as rejected:
        made.extend(found.clips(found.items()[0]))
    assert [numbers(clip.frames) for clip in made] == [[0, 1, 2, 3]]
    assert rejected.value.reason == reason
    assert rejected.value.where.startswith("7.png")


def test_too_few_images_are_rejected_and_no_images_are_an_error(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 3)
    with pytest.raises(RejectedInputError, match="too short \\(3 frames"):
        clips(source(tmp_path), "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no folder with images found"):
        source(tmp_path / "empty").items()
    with pytest.raises(UserError, match="needs a folder of image folders"):
        source(tmp_path / "a" / "1.png").items()
