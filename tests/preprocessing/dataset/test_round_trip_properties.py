"""What a source yields is what every reader of its dataset gets, for any labels, texts, shapes and times."""

import io
import json
import math
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocessing.clip import SPLITS
from preprocessing.dataset.format import Manifest, encode_json
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.verify_dataset import verify_dataset
from tests.preprocessing.dataset.memory_source import MemorySource, sources, write_dataset
from tests.property_settings import examples, names


@contextmanager
def dataset(source: MemorySource) -> Iterator[tuple[Path, Manifest]]:
    """Write the dataset of a source into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder), write_dataset(Path(folder), source)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@examples(20)
@given(sources())
def test_the_reader_returns_every_clip_as_the_source_made_it(source: MemorySource) -> None:
    with dataset(source) as (folder, manifest):
        for split in SPLITS:
            found, clips = ClipDataset(str(folder), split), source.planned_clips(split)
            assert found.manifest == manifest
            assert (found.vocabulary, found.manifest["factors"]) == (source.vocabulary, source.factors)
            assert found.keys == [clip.key for clip in clips]
            assert found.identities == [clip.identity for clip in clips]
            assert found.clip_frames == [len(clip.frames) for clip in clips]
            assert found.fps.tolist() == [clip.fps for clip in clips]
            assert found.labels.keys() == source.vocabulary.keys()
            for index, clip in enumerate(clips):
                frames = found.frames(index)
                assert (frames.dtype.name, frames.shape) == ("uint8", clip.frames.shape)
                assert np.array_equal(frames, clip.frames)
                labels: dict[str, Any] = {name: column.tolist()[index] for name, column in found.labels.items()}
                labels |= {name: column.tolist()[index] for name, column in found.factors.items()}
                labels |= {name: track.tolist() for name, track in found.tracks(index).items()}
                assert labels == clip.labels


def members(tar: Path) -> list[tuple[str, bytes]]:
    """Return the files of a tar, as Python's own reader finds them."""
    with tarfile.open(tar) as opened:
        return [(member.name, opened.extractfile(member).read()) for member in opened]  # type: ignore[union-attr]


@pytest.mark.slow
@examples(15)
@given(sources())
def test_a_plain_tar_holds_the_same_and_verification_finds_no_fault(source: MemorySource) -> None:
    with dataset(source) as (folder, manifest):
        assert verify_dataset(str(folder)) == manifest
        for split in SPLITS:
            tars = [folder / shard["path"] for shard in manifest["shards"] if shard["split"] == split]
            found = [member for tar in tars for member in members(tar)]
            clips = source.planned_clips(split)
            assert [name for name, _ in found] == [
                f"{clip.key}{suffix}" for clip in clips for suffix in (".frames.npy", ".json")
            ]
            for clip, (_, array), (_, text) in zip(clips, found[::2], found[1::2], strict=True):
                assert np.array_equal(np.load(io.BytesIO(array), allow_pickle=False), clip.frames)
                assert json.loads(text) == {
                    "labels": clip.labels,
                    "identity": clip.identity,
                    "source": clip.source,
                    "start_s": clip.start_s,
                    "fps": clip.fps,
                }


@examples(10)
@given(sources())
def test_the_bytes_of_a_dataset_depend_on_the_clips_alone(source: MemorySource) -> None:
    with dataset(source) as (here, _), dataset(source) as (there, _):
        assert files(here) == files(there)
        for name, data in files(here).items():
            if name.endswith(".json"):
                assert encode_json(json.loads(data)) == data


def moments(frames: list[NDArray[np.uint8]], channel: int) -> tuple[float, float]:
    """Return mean and standard deviation of a channel, from all its values at once, in exact arithmetic."""
    values = [int(value) for clip in frames for value in clip[..., channel].ravel()]
    mean = Fraction(sum(values), len(values))
    return float(mean), math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


@pytest.mark.slow
@examples(15)
@given(sources())
def test_the_totals_of_the_manifest_are_those_of_all_clips(source: MemorySource) -> None:
    with dataset(source) as (_, manifest):
        for split in SPLITS:
            totals, clips = manifest["splits"][split], source.planned_clips(split)
            assert totals["clips"] == len(clips)
            assert totals["frames"] == sum(len(clip.frames) for clip in clips)
            lengths = Counter(len(clip.frames) for clip in clips)
            assert totals["clip_lengths"] == {str(length): lengths[length] for length in sorted(lengths)}
            for name, known in source.vocabulary.items():
                counts = Counter(clip.labels[name] for clip in clips)
                assert totals["label_counts"][name] == [counts[value] for value in range(len(known))]
            for name, kind in source.factors.items():
                stored: list[Any] = [clip.labels[name] for clip in clips]
                numbers = [value for track in stored for value in track] if kind == "frame" else stored
                assert (totals["factors"][name]["min"], totals["factors"][name]["max"]) == (min(numbers), max(numbers))
            for channel, found in enumerate(zip(totals["pixel_mean"], totals["pixel_std"], strict=True)):
                assert found == pytest.approx(moments([clip.frames for clip in clips], channel), abs=1e-4)


def values() -> st.SearchStrategy[Any]:
    """Return anything that JSON can hold."""
    plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names()
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names(), inner, max_size=4))


@examples(60)
@given(values())
def test_json_reads_back_as_written_in_one_line_of_ascii_in_the_order_of_its_keys(value: Any) -> None:
    data = encode_json(value)
    again = json.loads(data)
    assert again == value
    assert repr(again) == repr(value)  # the order of keys, and 1.0 is not 1
    assert encode_json(again) == data
    assert data.isascii()
    assert data.index(b"\n") == len(data) - 1


@examples(30)
@given(values(), st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
def test_numbers_that_json_does_not_have_are_refused_at_any_depth(value: Any, number: float, nested: bool) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json({"a": [value, {"b": number}]} if nested else number)
