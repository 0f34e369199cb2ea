"""The preview of a dataset: one self-contained file that shows clips, labels and rejected inputs."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preprocessing.dataset.format import encode_json
from preprocessing.sharding import preview
from preprocessing.sharding.manifest import make_manifest
from preprocessing.sharding.plan import Plan, ShardPlan
from preprocessing.sharding.rejects import Reject
from preprocessing.sharding.write_shard import write_shard
from tests.pipeline.chromium import Chromium
from tests.preprocessing.dataset.test_statistics import Waves


@pytest.fixture(scope="module")
def page(figures_dataset: Path) -> str:
    return (figures_dataset / "preview.html").read_text()


def images(page: str) -> list[Image.Image]:
    found = re.findall(r'<img src="data:image/webp;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_it_needs_no_network_and_no_script(page: str) -> None:
    assert "<script" not in page
    assert not re.search(r"https?://|url\(|@import|<link", page)
    assert set(re.findall(r'(?:src|srcset|href)="([a-z]+:)', page)) == {"data:"}
    assert "default-src 'none'; img-src data:" in page


def test_it_fits_narrow_screens_and_dark_mode(page: str) -> None:
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "@media (prefers-color-scheme: dark)" in page
    assert "(prefers-reduced-motion: reduce)" in page


def test_it_shows_animated_clips_of_both_splits(page: str, figures_dataset: Path) -> None:
    train, test = page.split("<h2>test</h2>")
    for part in (train, test):
        shown = images(part.split("<h2>Clips that look alike</h2>")[0])
        assert 12 <= len(shown) <= preview.CLIPS
        assert {image.size for image in shown} == {(64, 64)}
        assert {getattr(image, "n_frames", 1) for image in shown} <= {7, 8}  # equal frames are merged
    first = np.asarray(images(train)[0].convert("RGB")).astype(float)
    assert first.std() > 10  # not a blank image


def test_it_lists_labels_lengths_and_sizes(page: str, figures_dataset: Path) -> None:
    manifest = json.loads((figures_dataset / "manifest.json").read_text())
    for name, values in manifest["vocabulary"].items():
        assert f"<h3>{name}</h3>" in page
        assert all(f">{value}</span>" in page for value in values)
    assert "8 frames of 64×64 pixels, 3 channels" in page
    assert "None: every input was read in full." in page


def write_page(folder: Path, rejected: list[dict[str, Any]], **changes: Any) -> str:
    """Write a dataset of `Waves`, whose clips are grey, tiny and of several lengths, and return its page."""
    source = Waves()
    shards = tuple(ShardPlan(f"train/{item.key}.tar", "train", (item,)) for item in source.items())
    planned = Plan({}, "", shards)
    summaries = [write_shard(str(folder), planned.identity, shard, source) for shard in shards]
    manifest = make_manifest(str(folder), planned, source, summaries, b"") | changes
    preview.write_preview(str(folder), manifest, b"".join(map(encode_json, rejected)))
    return (folder / "preview.html").read_text()


def test_rejects_are_counted_by_reason(tmp_path: Path) -> None:
    records = [Reject(f"v{n}.mp4", "cut off", f"{n} s", n, "train").record() for n in range(5)]
    records.append(Reject("x.mp4", "no frames", "", 0, "test").record())
    page = write_page(tmp_path, records)
    rows = re.findall(r"<tr><td[^>]*>(\d+)<td>([^<]*)<td[^>]*>(\d+)<td>([^<]*)</tr>", page)
    assert rows == [
        ("5", "cut off", "10", "v0.mp4 (0 s), v1.mp4 (1 s), v2.mp4 (2 s)"),
        ("1", "no frames", "0", "x.mp4"),
    ]


def test_an_empty_split_grey_clips_and_continuous_labels_are_shown(tmp_path: Path) -> None:
    page = write_page(tmp_path, [])
    assert "There is no clip in this split: all of its inputs were rejected." in page
    assert "varying frames of 5×6 pixels, 1 channels" in page
    assert "<h3>weight</h3>" in page
    assert len(images(page)) == 8  # from the first, the third and the fourth shard


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    page = write_page(tmp_path, [Reject(evil, evil, evil, 0, "train").record()], vocabulary={"action": [evil, "two"]})
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_same_dataset_gives_the_same_page(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert write_page(tmp_path / "a", []) == write_page(tmp_path / "b", [])


def test_its_tables_fit_a_phone(chromium: str, figures_dataset: Path, tmp_path: Path) -> None:
    name = "recordings-of-people/a-folder-with-a-long-name/take-000000017.mp4"
    records = [Reject(name, "not a video that can be opened", "", n, "train").record() for n in range(9)]
    write_page(tmp_path, records)
    with Chromium(chromium) as browser:
        for page in (figures_dataset / "preview.html", tmp_path / "preview.html"):
            browser.open(page, width=390)
            assert browser.run("document.documentElement.scrollWidth") == 390
            wide = "[...document.querySelectorAll('.wide')].map(table => table.scrollWidth - table.clientWidth)"
            assert set(browser.run(wide)) == {0}
