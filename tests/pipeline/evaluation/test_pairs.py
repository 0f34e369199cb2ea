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

from pipeline import evaluate, pairs
from pipeline.evaluation import inputs
from pipeline.evaluation.pairs_file import read_pairs
from pipeline.evaluation.renderer import load_true_swap
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.evaluation.commands import SMALL, refused, write_samples


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


def test_the_number_of_test_clips_is_capped_and_the_cap_printed(
    small_figures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    manifest = json.loads((small_figures / "manifest.json").read_text())
    for split in ("train", "test"):
        (tmp_path / split).symlink_to(small_figures / split)
    manifest["shards"] = [{**shard, "split": "test"} for shard in manifest["shards"]]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    everything = ClipDataset(str(tmp_path), "test")
    for enough in (None, len(everything)):
        assert inputs.test_split(str(tmp_path), enough).keys == everything.keys
    assert caplog.messages == []
    first = everything.shards[0]["clips"]
    assert first < len(everything)
    assert inputs.test_split(str(tmp_path), first).keys == everything.keys[:first]
    assert caplog.messages == [f"measuring {first} of {len(everything)} test clips; evaluation.test_clips is {first}"]


def test_pairs_of_an_earlier_version_are_of_all_test_clips(exported: Path, tmp_path: Path) -> None:
    content = json.loads((exported / "pairs.json").read_text())
    assert content["evaluation"].pop("test_clips") == read_pairs(str(exported)).evaluation.test_clips == 20_000
    (tmp_path / "pairs.json").write_text(json.dumps(content))
    assert read_pairs(str(tmp_path)).evaluation.test_clips is None


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
    assert not any(name.startswith("moving.swap") for name in found["figures"]), "its clips are not as they were drawn"
    assert len(found["provenance"]["samples_sha256"]) == 64
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="animation wide"') == min(12, found["wrong_swaps"])
    assert "Only samples of this system are available" in page
    evaluate.main([*args, "--out", str(tmp_path / "again"), "--judges", str(tmp_path)])
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    for tree in (found, again):
        tree["provenance"].pop("time")
    assert again == found


@pytest.mark.slow
def test_true_swaps_are_perfect_on_the_pixels_that_move_and_real_clips_of_the_same_kind_are_not(
    figures_dataset: Path, tmp_path: Path
) -> None:
    test = ClipDataset(str(figures_dataset), "test")
    true_swap = load_true_swap(test)
    assert true_swap is not None
    index_of = {key: index for index, key in enumerate(test.keys)}
    of_person = {(test.identities[n], int(test.labels["action"][n])): n for n in range(len(test))}
    scores = {}
    for kind in ("true", "real"):
        folder = tmp_path / kind
        pairs.main(["--data", str(figures_dataset), "--out", str(folder), *SMALL])
        rows = json.loads((folder / "pairs.json").read_text())["wanted"]["swap"]
        wanted = [(index_of[row["dynamics_of"]], index_of[row["static_of"]]) for row in rows]
        frames = [
            true_swap(*pair) if kind == "true"
            # It has another phase and speed.
            else test.frames(of_person[test.identities[pair[1]], int(test.labels["action"][pair[0]])])
            for pair in wanted
        ]  # fmt: skip
        write_samples(folder / "samples.npz", np.stack([clip[:8] for clip in frames]), rows)
        args = ["--samples", str(folder), "--data", str(figures_dataset), "--judges", str(tmp_path / "judges")]
        evaluate.main([*args, "--out", str(tmp_path / "report" / kind)])
        found = json.loads((tmp_path / "report" / kind / "metrics.json").read_text())["figures"]
        scores[kind] = {name: found[f"moving.swap.{name}"] for name in ("psnr", "mse", "ssim", "gradient")}
        assert scores[kind]["psnr"]["n"] > 5
    assert scores["true"]["mse"]["value"] == scores["true"]["gradient"]["value"] == 0
    assert scores["true"]["ssim"]["value"] == pytest.approx(1, abs=1e-6)
    assert scores["real"]["gradient"]["value"] > 0.3
    assert scores["real"]["psnr"]["value"] < 25


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
