"""Shards are plain WebDataset: other readers get the clips and labels."""

import glob
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing.dataset.reader import ClipDataset

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("split", ["train", "test"])
def test_plain_webdataset_gives_every_clip_once_in_order(figures_dataset: Path, split: str) -> None:
    import webdataset

    clips = ClipDataset(str(figures_dataset), split)
    urls = sorted(map(str, (figures_dataset / split).glob("*.tar")))
    samples: list[dict[str, Any]] = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
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
    import webdataset

    text = (root / "docs" / "dataset-format.md").read_text()
    (line,) = re.findall(r"```python\n(.*wds.*)\n```", text)
    (tmp_path / "DATA").symlink_to(figures_dataset)
    monkeypatch.chdir(tmp_path)
    exec(line, {"glob": glob, "wds": webdataset})
    lines = capsys.readouterr().out.splitlines()
    clips = ClipDataset(str(figures_dataset), "train")
    labels = [{name: int(column[index]) for name, column in clips.labels.items()} for index in range(len(clips))]
    assert lines == [f"(8, 64, 64, 3) {one}" for one in labels]
