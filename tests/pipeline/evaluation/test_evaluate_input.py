"""`vdsm evaluate` refuses invalid input in one line, before any work, and --dry-run does none."""

import json
import pathlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import evaluate
from tests.pipeline.evaluation.commands import refused
from vdsm import checkpoint

pytestmark = pytest.mark.usefixtures("no_work")


def truncate(run: Path) -> None:
    file = run / "stage2.pt"
    file.write_bytes(file.read_bytes()[:-100])


def flip(run: Path) -> None:
    file = run / "stage2.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (self.marker,)


def test_code_in_a_checkpoint_is_one_clear_line_and_is_not_run(
    run: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its hash is right, as whoever sends a checkpoint can compute it."""
    copy, marker = tmp_path / "copy", tmp_path / "ran"
    shutil.copytree(run, copy)
    checkpoint.save({**checkpoint.load(run / "stage2.pt"), "model": Touch(marker)}, copy / "stage2.pt")
    line = refused(["--run", str(copy), "--data", str(small_figures), "--out", str(tmp_path / "out")], capsys)
    assert "other than tensors and plain values" in line
    assert str(copy / "stage2.pt") in line
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"), [(truncate, "truncated"), (flip, "damaged"), (lambda run: shutil.rmtree(run), "no run here")]
)
def test_damaged_run_is_one_clear_line(
    damage: Callable[[Path], None],
    message: str,
    run: Path,
    small_figures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    damage(copy)
    line = refused(["--run", str(copy), "--data", str(small_figures), "--out", str(tmp_path / "out")], capsys)
    assert message in line
    assert str(copy) in line
    assert not (tmp_path / "out").exists()


def test_other_data_is_one_clear_line(
    run: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(small_figures, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["vocabulary"]["skin"][0] = "another"
    (other / "manifest.json").write_text(json.dumps(manifest))
    args = ["--run", str(run), "--data", str(other), "--out", str(tmp_path / "out")]
    line = refused(args, capsys)
    assert "is not the data that" in line
    assert "--other-data" in line
    manifest["clip_shape"] = [8, 64, 64, 3]
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert "frames of 64x64x3, but the model" in refused([*args, "--other-data"], capsys)
    missing = ["--run", str(run), "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    assert "manifest.json is missing" in refused(missing, capsys)


def test_dry_run_says_what_would_be_done(
    run: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--out", str(tmp_path / "out"), "--dry-run"]
    evaluate.main(args)
    assert "stage 2, step 16" in capsys.readouterr().out
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_what_is_measured_is_named_exactly_once(
    run: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--data", str(small_figures), "--out", str(tmp_path / "out")]
    assert "give --run" in refused(args, capsys)
    assert "not both" in refused([*args, "--run", str(run), "--samples", str(tmp_path)], capsys)


def test_sheets_and_weights_that_do_not_fit_are_one_clear_line(
    run: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--out", str(tmp_path / "out")]
    assert "was not drawn from Sprites sheets" in refused([*args, "--sheets", str(tmp_path)], capsys)
    assert "no such file" in refused([*args, "--inception", str(tmp_path / "absent.pth")], capsys)
    torch.save(Touch(tmp_path / "ran"), tmp_path / "code.pth")
    assert "tensors alone" in refused([*args, "--inception", str(tmp_path / "code.pth")], capsys)
    assert not (tmp_path / "ran").exists()
