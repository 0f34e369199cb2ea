"""Shards are plain WebDataset: other readers get the clips and labels."""

import glob
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.webdataset_loader import webdataset

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("split", ["train", "test"])
def test_plain_webdataset_gives_every_clip_once_in_order(figures_dataset: Path, split: str) -> None:
    import webdataset as plain

    clips = ClipDataset(str(figures_dataset), split)
    urls = sorted(map(str, (figures_dataset / split).glob("*.tar")))
    samples: list[dict[str, Any]] = list(plain.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == clips.keys
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["frames.npy"], clips.frames(index))
        assert sample["json"]["labels"] == {name: int(column[index]) for name, column in clips.labels.items()}
        assert sample["json"]["identity"] == clips.identities[index]
        assert sample["json"]["fps"] == clips.fps[index]


def test_the_example_in_the_docs_runs_unchanged(
    root: Path,
    figures_dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import webdataset as plain

    text = (root / "docs" / "dataset-format.md").read_text()
    (line,) = re.findall(r"```python\n(.*wds.*)\n```", text)
    (tmp_path / "DATA").symlink_to(figures_dataset)
    monkeypatch.chdir(tmp_path)
    exec(line, {"glob": glob, "wds": plain})
    lines = capsys.readouterr().out.splitlines()
    clips = ClipDataset(str(figures_dataset), "train")
    labels = [{name: int(column[index]) for name, column in clips.labels.items()} for index in range(len(clips))]
    assert lines == [f"(8, 64, 64, 3) {one}" for one in labels]


def test_the_stream_gives_every_clip_once_in_order(figures_dataset: Path) -> None:
    clips = ClipDataset(str(figures_dataset), "train")
    samples = list(webdataset(clips))
    assert [sample["__key__"] for sample in samples] == clips.keys
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["frames"], clips.frames(index))
        assert sample["labels"] == {name: int(column[index]) for name, column in clips.labels.items()}
        assert (sample["identity"], sample["fps"]) == (clips.identities[index], clips.fps[index])


def test_a_shuffled_stream_gives_every_clip_once_in_another_order_each_epoch(figures_dataset: Path) -> None:
    clips = ClipDataset(str(figures_dataset), "train")

    def epochs(seed: int) -> list[list[str]]:
        stream = webdataset(clips, shuffle=50, seed=seed)
        return [[sample["__key__"] for sample in stream] for _ in range(2)]

    first, second = epochs(0)
    assert first != second != clips.keys
    assert sorted(first) == sorted(second) == sorted(clips.keys)
    assert epochs(0) == [first, second] != epochs(1)


def test_workers_of_a_loader_share_the_shards(figures_dataset: Path) -> None:
    from torch.utils.data import DataLoader

    clips = ClipDataset(str(figures_dataset), "train")
    assert len(clips.shards) > 1
    pickle.dumps(webdataset(clips, shuffle=5))  # for workers that are not forked
    loader = DataLoader(webdataset(clips), batch_size=None, num_workers=2)
    found = [(sample["__key__"], sample["frames"].numpy().copy()) for sample in loader]
    assert sorted(key for key, _ in found) == sorted(clips.keys)
    for key, frames in found:
        np.testing.assert_array_equal(frames, clips.frames(clips.keys.index(key)))


def test_a_changed_clip_is_reported_and_not_trained_on(figures_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(figures_dataset, tmp_path / "DATA")
    clips = ClipDataset(str(tmp_path / "DATA"), "train")
    tar = tmp_path / "DATA" / clips.shards[0]["path"]
    changed = bytearray(tar.read_bytes())
    changed[changed.index(b"NUMPY") + 5000] ^= 1
    tar.write_bytes(changed)
    with pytest.raises(DamagedDatasetError, match=f"the bytes of clip {clips.keys[0]} were changed"):
        list(webdataset(clips))
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(DamagedDatasetError, match="bytes, not"):
        list(webdataset(clips))


def test_the_loader_in_the_docs_runs_unchanged(
    root: Path, figures_dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (example,) = re.findall(r"```python\n(from torch.*?)```", (root / "docs" / "dataset-format.md").read_text(), re.S)
    (tmp_path / "DATA").symlink_to(figures_dataset)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert capsys.readouterr().out == "torch.Size([16, 8, 64, 64, 3]) 16\n"
