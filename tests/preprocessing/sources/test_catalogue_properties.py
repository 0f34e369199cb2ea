"""Properties of the labelled inputs of a source, for any names of files and folders, also those that are not UTF-8."""

import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocessing.clip import SPLITS
from preprocessing.dataset.reader import ClipDataset
from preprocessing.sharding.preview import write_preview
from preprocessing.sources.catalogue import Catalogue, as_text, make_catalogue, segments_of
from preprocessing.sources.config import FramesConfig, LabelsConfig, SourceConfig
from preprocessing.sources.labels import LabelReader, read_labels
from preprocessing.sources.listing import Entry
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


@examples(80)
@given(st.lists(st.tuples(file_names(), file_names(), file_names()), min_size=1, max_size=12, unique=True))
def test_every_input_has_a_plain_unique_key_and_the_labels_of_its_folders(found: list[tuple[str, str, str]]) -> None:
    catalogue = catalogued(read_labels(FOLDERS), ["/".join(parts) for parts in found])
    assert [item.path for item in catalogue.items] == ["/".join(parts) for parts in found]
    assert len({item.key for item in catalogue.items}) == len(found)
    splits: dict[str, set[str]] = defaultdict(set)
    for item, (identity, action, _) in zip(catalogue.items, found, strict=True):
        assert re.fullmatch("[A-Za-z0-9_-]+", item.key)
        assert item.group == as_text(identity)
        item.group.encode()
        splits[item.group].add(item.split)
        (segment,), crop = segments_of(item)
        index = segment.labels["action"]
        assert isinstance(index, int)
        assert catalogue.vocabulary["action"][index] == as_text(action)
        assert crop is None
    assert all(len(homes) == 1 for homes in splits.values())
    assert {split for homes in splits.values() for split in homes} == set(SPLITS[: len(splits)])


def test_names_that_are_not_utf_8_become_escapes_in_every_file_of_the_dataset(tmp_path: Path) -> None:
    inputs, out = os.fsencode(tmp_path / "in"), tmp_path / "out"
    for person in (b"anna\xff", b"bert", b"carl"):
        for action in (b"run\xe9", b"walk"):
            folder = os.path.join(inputs, person, action)  # noqa: PTH118 - pathlib has no bytes
            os.makedirs(folder)  # noqa: PTH103
            for number in range(2):
                path = Path(os.fsdecode(folder)) / f"{number}.png"
                Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(path)
    (Path(os.fsdecode(inputs)) / os.fsdecode(b"bert/walk/0.png")).write_bytes(b"no image")
    config = FramesConfig(clip_frames=2, size=16, labels=LabelsConfig(pattern="(?P<identity>[^/]*)/(?P<action>.*)"))
    source = make_source(SourceConfig(name="frames", path=str(tmp_path / "in"), frames=config), 0)
    write_preview(str(out), write_dataset(out, source), (out / "rejects.jsonl").read_bytes())
    clips = {split: ClipDataset(str(out), split) for split in SPLITS}
    assert clips["train"].vocabulary == {"action": ["run\\udce9", "walk"]}
    assert {one for found in clips.values() for one in found.identities} == {"anna\\udcff", "bert", "carl"}
    assert "anna\\udcff" in (out / "preview.html").read_text(encoding="utf-8")
