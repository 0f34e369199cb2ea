"""What is said about identities holds: files without an identity label are not called separate people."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing import verify
from preprocessing.dataset.format import PREVIEW
from preprocessing.dataset.inputs import describe_identities
from preprocessing.sharding.preview import write_preview
from preprocessing.sharding.report import print_report
from preprocessing.sources.config import ArraysConfig, LabelsConfig, SourceConfig
from preprocessing.sources.registry import make_source
from tests.preprocessing.dataset.memory_source import write_dataset

SEPARATE = "no identity is in two splits"
EACH = "each file is its own identity, so that files which show the same person or come from the same recording may be"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, f"no input has an identity label: {EACH}"),
        ({"folders": ("action",)}, f"no input has an identity label: {EACH}"),
        ({"pattern": "(?P<identity>[abc])?[0-9].npy"}, f"2 of 5 inputs have no identity label: {EACH}"),
        ({"pattern": "(?P<identity>[abcx])[0-9].npy"}, SEPARATE),
        ({"pattern": "(?P<identity>[abc])[0-9].npy"}, SEPARATE),  # others are rejected, and give no clips
    ],
)
def test_files_without_an_identity_label_are_said_to_be_their_own_identities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: dict[str, Any], expected: str
) -> None:
    for name in ("a0", "b0", "c0", "x0", "x1"):
        (tmp_path / "in" / "wave").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "in" / "wave" / f"{name}.npy", np.zeros((2, 8, 8, 1), np.uint8))
    config = ArraysConfig(clip_frames=2, size=8, channels=1, labels=LabelsConfig(**labels))
    source = make_source(SourceConfig(name="arrays", path=str(tmp_path / "in"), arrays=config), 0)
    manifest = write_dataset(tmp_path / "out", source)
    write_preview(str(tmp_path / "out"), manifest, (tmp_path / "out" / "rejects.jsonl").read_bytes())
    print_report(str(tmp_path / "out"))
    verify.main([str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert printed.count(expected) == 2
    page = (tmp_path / "out" / PREVIEW).read_text()
    assert expected in page
    if expected != SEPARATE:
        assert SEPARATE not in printed + page
        manifest["configuration"]["source"]["name"] = "frames"
        assert "each folder is its own identity" in describe_identities(str(tmp_path / "out"), manifest)


def test_drawn_figures_are_different_people(figures_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify.main([str(figures_dataset), "--decode", "0"])
    assert SEPARATE in capsys.readouterr().out
