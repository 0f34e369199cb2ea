"""The Sprites of the VDSM paper are the published ones, bit for bit."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cluster.errors import UserError
from preprocessing.clip import check
from preprocessing.sources.config import SourceConfig
from preprocessing.sources.lpc import LpcSource
from preprocessing.sources.lpc_universal import ACTIONS, LpcUniversalSource
from preprocessing.sources.registry import make_source


def as_published(frames: NDArray[np.uint8]) -> bytes:
    """Return the pixels of frames [8, 64, 64, 3] in a published strip: 2x - 255, with darker values lost."""
    return np.clip(2 * frames.astype(np.int16) - 255, 0, 255).astype(np.uint8).tobytes()


@pytest.mark.slow
def test_all_clips_have_the_known_hashes_and_every_published_strip_is_one_of_them(universal_sprites: Path) -> None:
    facts = json.loads((universal_sprites / "frames.json").read_text())
    found = make_source(SourceConfig(name="lpc", path=str(universal_sprites)), 0)
    assert isinstance(found, LpcUniversalSource)
    digests = [hashlib.sha256() for _ in ACTIONS]
    shown: dict[bytes, list[str]] = defaultdict(list)
    for item in found.items():
        clips = list(found.clips(item))
        assert [clip.labels["action"] for clip in clips] == list(range(9))
        for clip, digest in zip(clips, digests, strict=True):
            digest.update(clip.frames.tobytes())
            shown[hashlib.sha256(as_published(clip.frames)).digest()].append(clip.key)
        check(clips[0], found)
    for entry, digest, name in zip(facts["clips"], digests, ACTIONS, strict=True):
        assert digest.hexdigest() == entry["sha256_all_characters_uint8_rgb"]
        assert name.lower() == entry["really"].partition(" (")[0].lower()
    strips = sorted((universal_sprites / "published_strips").glob("*.png"))
    assert len(strips) == 40
    for strip in strips:
        pixels = np.asarray(Image.open(strip).convert("RGB"))
        tiles = np.stack([pixels[2:66, 2 + 66 * index : 66 + 66 * index] for index in range(8)])
        assert shown[hashlib.sha256(tiles.tobytes()).digest()], strip.name


def test_labels_are_the_sheets_of_a_character(universal_sprites: Path) -> None:
    found = LpcUniversalSource(str(universal_sprites))
    items = found.items()
    assert len(items) == 840
    assert sum(item.split == "test" for item in items) == 84
    values = {tuple(next(iter(found.clips(item))).labels.values()) for item in items[::7]}
    assert len(values) == len(items[::7])
    # the last character has the last sheet of each layer
    last = list(found.clips(items[-1]))[1]
    names = [found.vocabulary[layer][last.labels[layer]] for layer in ("body", "legs", "shirt", "hair")]  # type: ignore[index]
    assert names == ["tanned2", "robe skirt", "white", "dark blonde"]


def test_a_missing_or_invalid_sheet_is_reported(universal_sprites: Path, tmp_path: Path) -> None:
    (tmp_path / "body" / "male").mkdir(parents=True)
    (tmp_path / "body" / "male" / "light.png").write_bytes(
        (universal_sprites / "body" / "male" / "light.png").read_bytes()
    )
    found = make_source(SourceConfig(name="lpc", path=str(tmp_path)), 0)
    with pytest.raises(UserError, match=r"body/male/dark.png is missing"):
        found.fingerprint()
    Image.new("RGBA", (64, 64)).save(tmp_path / "body" / "male" / "light.png")
    with pytest.raises(UserError, match=r"body/male/light.png is 64x64 pixels"):
        found.fingerprint()


def test_the_set_is_recognised_by_its_files(sprites: Path) -> None:
    assert isinstance(make_source(SourceConfig(name="lpc", path=str(sprites)), 0), LpcSource)
