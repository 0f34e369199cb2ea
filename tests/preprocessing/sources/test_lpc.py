"""The Sprites in the shards are those of the published benchmark, bit for bit."""

import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preprocessing import shard, verify
from preprocessing.dataset.reader import ClipDataset
from preprocessing.sources import lpc
from preprocessing.sources.config import SourceConfig
from preprocessing.sources.registry import make_source


@pytest.fixture(scope="module")
def sprites_dataset(sprites: Path, local_ray: None) -> Iterator[str]:
    """All 11,664 clips, made by the command. More than a gigabyte, so it is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "sprites")
        shard.main(["--source.name", "lpc", "--source.path", str(sprites), "--out", out])
        yield out


@pytest.fixture(scope="module")
def facts(sprites: Path) -> dict[str, Any]:
    """Frame table, split and hashes of the published set."""
    content: dict[str, Any] = json.loads((sprites / "frames.json").read_text())
    return content


@pytest.mark.long
def test_plain_webdataset_reads_the_published_clips_from_the_shards(
    sprites_dataset: str, facts: dict[str, Any]
) -> None:
    import webdataset

    found: dict[int, dict[int, Any]] = {entry["label"]: {} for entry in facts["labels"]}
    urls = sorted(str(path) for path in Path(sprites_dataset).glob("*/*.tar"))
    for sample in webdataset.WebDataset(urls, shardshuffle=False).decode():
        labels = sample["json"]["labels"]
        character = ((labels["body"] * 6 + labels["bottomwear"]) * 6 + labels["topwear"]) * 6 + labels["hair"]
        assert character not in found[labels["action"]]
        found[labels["action"]][character] = sample["frames.npy"]
    for entry in facts["labels"]:
        digest = hashlib.sha256()
        clips = found[entry["label"]]
        assert sorted(clips) == list(range(1296))
        for character in range(1296):
            digest.update(clips[character].tobytes())
        assert digest.hexdigest() == entry["sha256_all_characters_uint8_rgb"], entry["label"]


@pytest.mark.long
def test_our_reader_gives_the_same_clips_and_the_published_split(sprites_dataset: str, facts: dict[str, Any]) -> None:
    order = np.random.RandomState(423).permutation(1296)
    wanted = {"train": set(order[:1000].tolist()), "test": set(order[1000:].tolist())}
    digests = {entry["label"]: {} for entry in facts["labels"]}  # type: ignore[var-annotated]
    for split, characters in wanted.items():
        clips = ClipDataset(sprites_dataset, split)
        numbers = np.polyval([clips.labels[name] for name in ("body", "bottomwear", "topwear", "hair")], 6)
        assert set(numbers.tolist()) == characters
        assert len(clips) == 9 * len(characters)
        assert set(clips.clip_frames) == {8}
        for index, (action, number) in enumerate(zip(clips.labels["action"].tolist(), numbers.tolist(), strict=True)):
            digests[action][number] = (clips, index)
    for entry in facts["labels"]:
        digest = hashlib.sha256()
        for character in range(1296):
            clips, index = digests[entry["label"]][character]
            assert clips.vocabulary["action"][entry["label"]] == f"{entry['action']} {entry['direction']}"
            digest.update(clips.frames(index))
        assert digest.hexdigest() == entry["sha256_all_characters_uint8_rgb"], entry["label"]


@pytest.mark.long
def test_the_complete_set_verifies(sprites_dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    verify.main([sprites_dataset])
    assert "all 11,664 clips" in capsys.readouterr().out


def blank_sheets(folder: Path) -> Path:
    """Write sheets of the right size, for machines without the real ones."""
    blank = io.BytesIO()
    Image.new("RGBA", (832, 1344), (200, 100, 50, 128)).save(blank, "PNG")
    for name in [f"{layer}/{value}.png" for layer in lpc.ATTRIBUTES for value in range(6)] + [lpc.SHOES]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(blank.getvalue())
    return folder


@pytest.mark.slow
def test_layers_are_composited_over_black_with_exact_rounding_at_every_opacity(tmp_path: Path) -> None:
    names = ["body/5.png", "bottomwear/4.png", "topwear/1.png", "hair/4.png", "shoes/1.png"]
    blank_sheets(tmp_path)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (1344, 832, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name, compress_level=0)
    source = lpc.LpcSource(str(tmp_path))
    clip = list(source.clips(source.items()[1234]))[4]
    assert clip.labels == {"action": 4, "body": 5, "bottomwear": 4, "topwear": 1, "hair": 4}
    # Composited by hand: `spellcard left` is row 1, and its fourth frame is column 3.
    tiles = [np.asarray(Image.open(tmp_path / name))[64:128, 192:256].tolist() for name in names]
    for row, column in np.random.default_rng(2).integers(0, 64, (300, 2)).tolist():
        for channel in range(3):
            value = 0
            for tile in tiles:
                pixel = tile[row][column]
                exact = Fraction(pixel[channel] * pixel[3] + value * (255 - pixel[3]), 255)
                value = int(exact + Fraction(1, 2))
            assert clip.frames[3, row, column, channel] == value


def run(*args: str) -> None:
    shard.main(["--source.name", "lpc", *args])


def refusal(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Return the one line that the command prints before it exits with code 2, without having started any work."""
    with pytest.raises(SystemExit) as end:
        run(*args)
    assert end.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.slow
def test_missing_sheets_are_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert "pass the folder of the Sprites sheets with --source.path" in refusal(capsys, *out)
    folder = tmp_path / "sheets"
    path = ("--source.path", str(folder), *out)
    assert "sheets: there is no such folder" in refusal(capsys, *path)
    folder.mkdir()
    assert "sheets: the folder is empty" in refusal(capsys, *path)
    blank_sheets(folder)
    (folder / "hair" / "3.png").rename(tmp_path / "3.png")
    assert "hair/3.png is missing" in refusal(capsys, *path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["size", "text", "cut"])
def test_an_invalid_sheet_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    folder = blank_sheets(tmp_path / "sheets")
    bad = folder / "topwear" / "2.png"
    if kind == "size":
        Image.new("RGBA", (64, 64)).save(bad)
    elif kind == "text":
        bad.write_text("not an image")
    else:
        bad.write_bytes(bad.read_bytes()[:-2000])
    message = refusal(capsys, "--source.path", str(folder), "--out", str(tmp_path / "out"))
    assert "topwear/2.png" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sheets", ["sprites", "universal_sprites"])
def test_a_repeated_clip_shows_its_cycle_again(sheets: str, request: pytest.FixtureRequest) -> None:
    folder = str(request.getfixturevalue(sheets))
    once, thrice = (make_source(SourceConfig(name="lpc", path=folder, repeat=repeat), seed=0) for repeat in (1, 3))
    first, again = once.items()[0], thrice.items()[0]
    assert again.estimated_bytes == 3 * first.estimated_bytes
    for short, long in zip(once.clips(first), thrice.clips(again), strict=True):
        np.testing.assert_array_equal(long.frames, np.concatenate(3 * [short.frames]))
        assert {**vars(long), "frames": None} == {**vars(short), "frames": None}


def test_repetition_is_refused_where_nothing_loops() -> None:
    with pytest.raises(ValueError, match="the actions of source videos do not loop; leave it at 1"):
        SourceConfig(name="videos", repeat=2)
