"""An HDF5 file of MSD-Benchmark's layout gives the clips and labels that were written; hostile files give one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.dataset.hdf5 import write_hdf5
from preprocessing.dataset.reader import ClipDataset
from preprocessing.hdf5_file import Hdf5File
from preprocessing.recipe import ShardsConfig
from preprocessing.sharding.tasks import make_decoder
from preprocessing.sources import hdf5_listing, sandboxed_listing
from preprocessing.sources.config import Hdf5Config, SourceConfig
from preprocessing.sources.registry import make_source, serialize_source

h5py = pytest.importorskip("h5py", reason="pip install 'vdsm-pipeline[h5]'")

FACTORS = {"walk": ("dynamic", ["left", "right"]), "turn": ("dynamic", ["no", "yes"]), "hair": ("static", ["red", "b"])}
LABELS = np.array([[0, 0, 0], [0, 1, 0], [1, 1, 1], [1, 0, 1]])


def config(path: object, **settings: Any) -> SourceConfig:
    return SourceConfig(name="hdf5", path=str(path), hdf5=Hdf5Config(**settings))


def made(path: object, **settings: Any) -> tuple[dict[str, list[str]], dict[str, tuple[Item, Clip]]]:
    """Return the vocabulary, and item and clip by key, decoded as a sharding task does."""
    chosen = config(path, **settings)
    source = make_source(chosen, 0)
    items = source.items()
    decoder = make_decoder(source, serialize_source(chosen, 0, source), ShardsConfig())
    try:
        return source.vocabulary, {item.key: (item, clip) for item in items for clip in decoder.clips(item)}
    finally:
        decoder.close()


def pixels(count: int = 4, side: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 3, side, side), dtype=np.uint8)


def write(path: Path, change: Callable[[Any], None] = lambda file: None, **data: Any) -> Path:
    classes = {
        name: {"index": index, "type": kind, "n_classes": 2, "ignore": False, "values": {value: n for n, value in
               enumerate(values)}}
        for index, (name, (kind, values)) in enumerate(FACTORS.items())
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        file.attrs["classes"] = json.dumps(classes)
        parts = {"data": pixels(), "labels": LABELS, "train_indices": [0], "val_indices": [1], "test_indices": [3, 2]}
        for name, values in (parts | data).items():
            file[name] = np.asarray(values, None if len(values) else np.int64)
        change(file)
    return path


def test_what_was_exported_is_imported_as_the_same_clips_labels_and_splits(small_figures: Path, tmp_path: Path) -> None:
    write_hdf5(str(small_figures), tmp_path / "figures.h5", frames=4)
    vocabulary, clips = made(tmp_path / "figures.h5")
    row, names = 0, {}
    for split in ("train", "test"):
        stored = ClipDataset(str(small_figures), split)
        assert vocabulary == stored.vocabulary
        for index in range(len(stored)):
            item, clip = clips.pop(f"clip-{row:08d}")
            row += 1
            assert item.split == split
            assert np.array_equal(clip.frames, stored.frames(index)[:4])
            assert clip.labels == {name: int(values[index]) for name, values in stored.labels.items()}
            assert names.setdefault(clip.identity, stored.identities[index]) == stored.identities[index]
    assert not clips
    assert len(set(names.values())) == len(names)


def test_several_dynamic_factors_are_one_action_and_val_is_for_training(tmp_path: Path) -> None:
    vocabulary, clips = made(write(tmp_path / "two.h5"), fps=10)
    assert vocabulary == {"action": ["left no", "left yes", "right no", "right yes"], "hair": ["red", "b"]}
    found = {number: clips[f"clip-{number:08d}"] for number in range(4)}
    assert [item.split for item, _ in found.values()] == ["train", "train", "test", "test"]
    assert [clip.labels["action"] for _, clip in found.values()] == [0, 1, 3, 2]
    assert {clip.identity for _, clip in found.values()} == {"0", "1"}
    assert {clip.fps for _, clip in found.values()} == {10.0}


def test_frames_are_cropped_and_resized_only_where_asked(tmp_path: Path) -> None:
    frames = np.zeros((4, 3, 1, 16, 32), np.uint8)
    frames[..., 8:24] = 200
    path = write(tmp_path / "wide.h5", data=frames)
    with pytest.raises(UserError, match=r"32x16 pixels, but must be square; set --source.hdf5.size"):
        make_source(config(path), 0).items()
    _, clips = made(path, size=8)
    assert {clip.frames.shape for _, clip in clips.values()} == {(3, 8, 8, 1)}
    assert all((clip.frames[:, :, 2:-2] == 200).all() and clip.frames.min() > 150 for _, clip in clips.values())


def test_a_combination_in_both_splits_is_refused_and_can_be_drawn_instead(tmp_path: Path) -> None:
    path = write(tmp_path / "mixed.h5", train_indices=[0, 2], val_indices=[], test_indices=[1, 3])
    with pytest.raises(UserError, match=r"clip 1 is in test.*set --source.hdf5.splits identities"):
        make_source(config(path), 0).items()
    items = make_source(config(path, splits="identities"), 0).items()
    splits = {(item.group, item.split) for item in items}
    assert len(items) == 4
    assert len(splits) == 2
    assert {split for _, split in splits} == {"train", "test"}


def test_a_file_in_s3_gives_the_clips_of_a_local_one(tmp_path: Path, s3_bucket: str) -> None:
    path = write(tmp_path / "two.h5")
    storage.upload(path, f"{s3_bucket}/two.h5")
    here, there = made(path)[1], made(f"{s3_bucket}/two.h5")[1]
    assert here.keys() == there.keys()
    assert all(np.array_equal(here[key][1].frames, there[key][1].frames) for key in here)


def link(name: str, target: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        file[name] = target

    return change


def replaced(name: str, *args: Any, **options: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        file.create_dataset(name, *args, **options)

    return change


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4, 3, 3, 8, 8), np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "data", (4, 3, 3, 8, 8))
    del file["data"]
    file.create_virtual_dataset("data", layout)


def references(file: Any) -> None:
    target = file["labels"].ref
    del file["test_indices"]
    file.create_dataset("test_indices", data=[target], dtype=h5py.ref_dtype)


def plugin(file: Any) -> None:
    del file["data"]
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((1, 3, 3, 8, 8))
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # Zstandard, which h5py does not bring
    space = h5py.h5s.create_simple((4, 3, 3, 8, 8))
    h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, space, settings)


def classes(text: Any) -> Callable[[Any], None]:
    return lambda file: file.attrs.__setitem__("classes", text)


def read(path: Path) -> None:
    file = Hdf5File(path)
    file.labels()
    for split in ("train", "val", "test"):
        file.indices(split)


HOSTILE: list[tuple[Callable[[Any], None], str]] = [
    (lambda file: file.__delitem__("data"), "has no dataset data"),
    (lambda file: file.__delitem__("labels"), "has no dataset labels"),
    (link("data", h5py.ExternalLink("/etc/passwd", "data")), "data is a link to another place"),
    (link("labels", h5py.SoftLink("/data")), "labels is a link to another place"),
    (virtual, "values of data lie in other files"),
    (replaced("data", (4, 3, 3, 8, 8), np.uint8, external=[("/etc/passwd", 0, 2304)]), "data lie in other files"),
    (references, "test_indices is object"),
    (plugin, "data is packed by filter 32015"),
    (replaced("data", data=np.zeros((4, 3, 3, 8, 8), np.float32)), "data is float32"),
    (replaced("data", data=np.zeros((4, 3, 8, 8), np.uint8)), r"data is uint8 \(4, 3, 8, 8\)"),
    (replaced("data", data=h5py.Empty("u1")), "has no dataset data"),
    (replaced("data", (4, 3, 3, 0, 8), np.uint8), "a clip may have from 1"),
    (replaced("data", (4, 2**20, 3, 64, 64), np.uint8, chunks=(1, 1, 3, 64, 64)), "a clip may have from 1"),
    (replaced("data", (2**62, 3, 3, 8, 8), np.uint8, chunks=(1, 3, 3, 8, 8)), "clips in [0-9]+ bytes are too many"),
    (replaced("data", (4, 3, 3, 8, 8), np.uint8, chunks=(2**20, 3, 3, 8, 8), maxshape=(None, 3, 3, 8, 8)), "chunks of"),
    (replaced("labels", data=LABELS[:3]), r"labels is int64 \(3, 3\)"),
    (replaced("labels", data=LABELS.astype(float)), "labels is float64"),
    (replaced("labels", data=LABELS - 1), "labels of walk are not all from 0 to 1"),
    (replaced("train_indices", data=[-1]), "train_indices names clips that are not in data"),
    (replaced("val_indices", (2**60,), np.int64, chunks=(8,)), "val_indices is int64"),
    (replaced("test_indices", data=np.array([2**64 - 1], np.uint64)), "test_indices names clips"),
    (classes("[" * 100_000), "classes is missing or damaged"),
    (classes(json.dumps({"a": {"index": 0, "type": "static", "values": {"\ud800": 0}}})), "classes is missing or dam"),
    (classes(json.dumps({"a": {"index": 0, "type": "static", "values": {"x" * 1001: 0}}})), "more than 1000 char"),
    (classes(json.dumps({"a": {"index": 0, "type": "odd", "values": {"x": 0}}})), "neither static nor dynamic"),
    (classes(h5py.Empty("f")), "classes is missing or damaged"),
    (classes(np.zeros(4)), "classes is missing or damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    path = write(tmp_path / "hostile.h5", change)
    with pytest.raises(UserError, match=message) as refused:
        read(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_truncated_file_is_refused_and_a_damaged_clip_is_rejected(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.h5", lambda file: replaced("data", data=pixels(), chunks=(1, 3, 3, 8, 8),
                                                               fletcher32=True)(file))  # fmt: skip
    content = whole.read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut.h5: cannot be read as HDF5 \(") as refused:
        make_source(config(tmp_path / "cut.h5"), 0).items()
    assert "\n" not in str(refused.value)
    position = content.index(pixels()[1].tobytes())
    (tmp_path / "bad.h5").write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    source = make_source(config(tmp_path / "bad.h5"), 0)
    for item, damaged in zip(source.items(), (False, True, False, False), strict=True):
        if damaged:
            with pytest.raises(RejectedInputError, match="its frames cannot be read"):
                list(source.clips(item))
        else:
            assert len(list(source.clips(item))) == 1


def test_the_listing_is_read_in_the_sandbox_whose_words_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "two.h5")
    with monkeypatch.context() as patched:
        patched.setattr(hdf5_listing, "Hdf5File", None)  # here, not in the sandbox
        assert hdf5_listing.list_hdf5(str(path)).clips == 4

    class Liar:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def clips(self, _: Item) -> Any:
            text = json.dumps(listing | {"clips": 3}).encode()
            yield Clip("x", np.frombuffer(text, np.uint8).reshape(-1, 1, 1, 1), {}, "", "", 0.0, 1.0)

        def close(self) -> None: ...

    listing = hdf5_listing.list_hdf5(str(path)).model_dump()
    monkeypatch.setattr(sandboxed_listing, "DecodeProcess", Liar)
    with pytest.raises(UserError, match="the labels of walk are not those of its clips"):
        hdf5_listing.list_hdf5(str(path))


@pytest.mark.parametrize("name", ["identity", "split", "a/b"])
def test_a_factor_that_cannot_be_a_label_is_named(tmp_path: Path, name: str) -> None:
    def rename(file: Any) -> None:
        stored = json.loads(file.attrs["classes"])
        stored[name] = stored.pop("hair")
        file.attrs["classes"] = json.dumps(stored)

    with pytest.raises(UserError, match=f"static factor '{name}' cannot be a label"):
        make_source(config(write(tmp_path / "odd.h5", rename)), 0).items()
