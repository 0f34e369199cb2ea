"""Properties of the labelled inputs of a source, for any names of files and folders, also those that are not UTF-8."""

import json
import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from preprocessing.clip import SPLITS
from preprocessing.dataset.index import read_index
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.sharding.preview import write_preview
from preprocessing.sources.catalogue import Catalogue, make_catalogue, segments_of
from preprocessing.sources.config import FramesConfig, LabelsConfig, SourceConfig
from preprocessing.sources.labels import LabelReader, read_labels
from preprocessing.sources.listing import Entry
from preprocessing.sources.names import as_text, composed
from preprocessing.sources.registry import make_source
from tests.preprocessing.dataset.memory_source import write_dataset
from tests.property_settings import examples, names

FOLDERS = LabelsConfig(folders=("identity", "action"))


def file_names() -> st.SearchStrategy[str]:
    """Return names of files or folders as Python lists them: bytes that are not UTF-8 are lone surrogates."""
    anything = names() | st.binary(min_size=1, max_size=8).map(os.fsdecode)
    return anything.map(lambda name: re.sub("[/\0]", "_", name) or "empty")


def catalogued(reader: LabelReader, paths: list[str]) -> Catalogue:
    entries = [Entry(path, 1, "") for path in paths]
    return make_catalogue(entries, reader, seed=0, test_fraction=0.3, estimate_bytes=lambda entry: entry.size)


@examples(50)
@given(st.lists(st.tuples(file_names(), file_names(), file_names()), min_size=1, max_size=12, unique=True))
def test_every_input_has_a_plain_unique_key_and_the_labels_of_its_folders(found: list[tuple[str, str, str]]) -> None:
    paths = ["/".join(parts) for parts in found]
    catalogue = catalogued(read_labels(FOLDERS), paths)
    assert [item.path for item in catalogue.items] == paths
    assert len({item.key for item in catalogue.items}) == len(found)
    splits: dict[str, set[str]] = defaultdict(set)
    for item, (identity, action, _) in zip(catalogue.items, found, strict=True):
        assert re.fullmatch("[A-Za-z0-9_-]+", item.key)
        splits[item.group].add(item.split)
        (segment,), (crop,) = segments_of(item)
        index = segment.labels["action"]
        assert isinstance(index, int)
        assert item.group == composed(as_text(identity))
        assert (catalogue.vocabulary["action"][index], crop) == (composed(as_text(action)), None)
        assert item.group.encode().decode() == item.group
    assert all(len(homes) == 1 for homes in splits.values())
    assert {split for homes in splits.values() for split in homes} == set(SPLITS[: len(splits)])


@pytest.mark.slow
@examples(300)
@given(file_names() | st.text("\\udce9\udce9", min_size=1, max_size=6))
@example("a\udce9")
@example(r"a\udce9")
@example(r"a\\udce9")
@example("\\\udce9")
def test_the_name_can_be_read_from_its_text(name: str) -> None:
    text = as_text(name)
    assert text.encode().decode() == text
    read = text
    if re.search(r"\\ud[89a-f][0-9a-f]{2}", text):
        read = re.sub(
            r"\\\\|\\u(d[89a-f][0-9a-f]{2})", lambda found: chr(int(found[1], 16)) if found[1] else "\\", text
        )
    assert read == name


def test_paths_that_are_not_utf_8_are_escaped_in_every_file_of_the_dataset(tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    for name in (b"anna\xff/run", b"anna\xff/walk", b"bert/run", b"carl/walk", b"carl/hop\xe9", b"dora\xff/short"):
        folder = inputs / os.fsdecode(name)
        folder.mkdir(parents=True)
        for number in range(1 if b"short" in name else 2):
            Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(folder / f"{number}.png")
    config = FramesConfig(clip_frames=2, size=16, labels=LabelsConfig(folders=("identity",), pattern="/(?P<action>.*)"))
    source = make_source(SourceConfig(name="frames", path=str(inputs), frames=config), 0)
    manifest = write_dataset(out, source)
    rejected = (out / "rejects.jsonl").read_bytes()
    write_preview(str(out), manifest, rejected)
    assert source.vocabulary == {"action": ["hop\\udce9", "run", "short", "walk"]}
    samples = [sample for shard in manifest["shards"] for sample in read_index(str(out), shard)["samples"]]
    origins = ["anna\\udcff/run", "anna\\udcff/walk", "bert/run", "carl/hop\\udce9", "carl/walk"]
    assert sorted(sample["source"] for sample in samples) == origins
    assert {sample["identity"] for sample in samples} == {"anna\\udcff", "bert", "carl"}
    assert json.loads(rejected)["path"] == "dora\\udcff/short"
    assert verify_dataset(str(out)) == manifest
