"""`vdsm pairs`, and `vdsm evaluate --samples` on clips generated for them."""

import ast
import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import evaluate
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.evaluation.commands import refused


def test_pairs_are_those_of_an_evaluation_in_two_formats(exported: Path, small_figures: Path) -> None:
    from vdsm.evaluation.pairs import draw_pairs

    test = ClipDataset(str(small_figures), "test")
    drawn = draw_pairs(test, 20, 0)
    found = json.loads((exported / "pairs.json").read_text())
    assert found["pairs_sha256"] == drawn.sha256(test)
    listed = [(row["dynamics_of"], row["static_of"]) for row in found["wanted"]["swap"]]
    assert listed == list(
        dict.fromkeys((test.keys[a], test.keys[b]) for a, b in zip(drawn.dynamics_of, drawn.static_of, strict=True))
    )
    with (exported / "pairs.csv").open() as file:
        table = [(row["dynamics_of"], row["static_of"]) for row in csv.DictReader(file) if row["kind"] == "swap"]
    assert table == listed
    how = (exported / "HOW.txt").read_text()
    assert "uint8 [N, 8, 32, 32, 3]" in how
    assert "{" not in how


@pytest.mark.slow
def test_perfect_samples_score_exactly_as_the_control_of_real_clips(
    perfect: Path, small_figures: Path, tmp_path: Path
) -> None:
    """Only the same judge and the same pairs can give the same metrics to the last digit."""
    args = ["--samples", str(perfect), "--data", str(small_figures)]
    evaluate.main([*args, "--out", str(tmp_path)])
    found = json.loads((tmp_path / "metrics.json").read_text())
    control = found["controls"]["perfect"]
    names = {name for name in control if name.startswith(("swap.", "leakage."))}
    assert "swap.static.joint" in names
    assert {name: found["figures"][name] for name in names} == {name: control[name] for name in names}
    assert found["swap_by"] == "samples"
    assert len(found["provenance"]["samples_sha256"]) == 64
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="animation wide"') == min(12, found["wrong_swaps"])
    assert "Only samples of this system are available" in page
    evaluate.main([*args, "--out", str(tmp_path / "again"), "--judges", str(tmp_path)])
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    for tree in (found, again):
        tree["provenance"].pop("time")
    assert again == found


def test_the_program_of_an_outsider_makes_samples_from_a_foreign_folder(
    exported: Path, small_figures: Path, root: Path, tmp_path: Path
) -> None:
    """It is in the docs in full, imports numpy and the standard library only, and resumes."""
    program = (exported / "make_samples.py").read_text()
    assert f"```python\n{program}```\n" in (root / "docs" / "evaluation.md").read_text()
    imported = {
        module.partition(".")[0]
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names])
    }
    assert imported <= {"numpy", *sys.stdlib_module_names}
    folder = tmp_path / "mine"
    shutil.copytree(exported, folder)
    command = [sys.executable, "-I", folder / "make_samples.py", folder, small_figures]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout
    assert re.findall(r"(\w+): (\d+) of (\d+) clips", printed)[-1] == ("reconstruction", "18", "18")
    files = sorted(folder.glob("*.npz"))
    assert [file.name for file in files] == ["reconstruction-000000.npz", "swap-000000.npz"]
    test = ClipDataset(str(small_figures), "test")
    with np.load(files[1]) as arrays:
        for frames, key in zip(arrays["frames"], arrays["dynamics_of"].tolist(), strict=True):
            assert np.array_equal(frames, test.frames(test.keys.index(key)))  # the clip that gives the motion
    written = files[0].stat().st_mtime_ns
    files[1].unlink()
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert (files[1].exists(), files[0].stat().st_mtime_ns) == (True, written)
    args = ["--samples", str(folder), "--data", str(small_figures), "--out", str(tmp_path / "out"), "--dry-run"]
    evaluate.main(args)


def test_a_name_of_a_system_is_for_samples_only(
    perfect: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--run", str(perfect), "--data", str(small_figures), "--out", str(tmp_path), "--system", "theirs"]
    assert "--system theirs names the system that made samples" in refused(args, capsys)
