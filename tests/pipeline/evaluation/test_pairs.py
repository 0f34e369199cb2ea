"""`vdsm pairs`, and `vdsm evaluate --samples` on clips generated for them."""

import csv
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import evaluate, pairs
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.evaluation.commands import SMALL, refused


@pytest.fixture(scope="module")
def exported(small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    pairs.main(["--data", str(small_figures), "--out", str(folder), *SMALL])
    return folder


@pytest.fixture(scope="module")
def perfect(exported: Path, small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write, as HOW.txt says, the real clip of B's identity in A's action for each pair, in files of seven."""
    folder = tmp_path_factory.mktemp("perfect")
    shutil.copytree(exported, folder, dirs_exist_ok=True)
    test = ClipDataset(str(small_figures), "test")
    index_of = {key: index for index, key in enumerate(test.keys)}
    known = {(test.identities[n], int(test.labels["action"][n])): n for n in range(len(test))}
    rows = json.loads((folder / "pairs.json").read_text())["wanted"]["swap"]
    for start in range(0, len(rows), 7):
        part = rows[start : start + 7]
        wanted = [
            (test.identities[index_of[row["static_of"]]], int(test.labels["action"][index_of[row["dynamics_of"]]]))
            for row in part
        ]
        write(folder / f"part-{start}.npz", np.stack([test.frames(known[pair]) for pair in wanted]), part)
    return folder


def write(path: Path, frames: Any, rows: list[dict[str, str]]) -> None:
    donors = {name: np.array([row[name] for row in rows]) for name in ("dynamics_of", "static_of")}
    np.savez_compressed(path, frames=frames, **donors)


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


def rewrite(path: Path, **changed: Any) -> None:
    """Rewrite a file of samples with some arrays changed, or left out where they are None."""
    with np.load(path) as arrays:
        found = {**arrays, **changed}
    np.savez(path, **{name: array for name, array in found.items() if array is not None})


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no list": (lambda folder: (folder / "pairs.json").unlink(), "pairs.json is missing"),
    "list of another kind": (lambda folder: (folder / "pairs.json").write_text("[]"), "not a list of pairs"),
    "no samples": (lambda folder: [path.unlink() for path in folder.glob("*.npz")] and None, "holds no .npz file"),
    "half the samples": (lambda folder: (folder / "part-7.npz").unlink(), "samples of the kind swap are missing"),
    "cut short": (lambda folder: (folder / "part-0.npz").write_bytes(b"PK\3\4 and so on"), "part-0.npz"),
    "no keys": (lambda folder: rewrite(folder / "part-0.npz", static_of=None), "static_of"),
    "keys that are objects": (
        lambda folder: rewrite(folder / "part-0.npz", static_of=np.array([{}] * 7, dtype=object)),
        "plain arrays",
    ),
    "keys that are numbers": (lambda folder: rewrite(folder / "part-0.npz", static_of=np.arange(7)), "one string"),
    "floats": (
        lambda folder: rewrite(folder / "part-0.npz", frames=np.zeros((7, 8, 32, 32, 3))),
        "not uint8 [N, 8, 32",
    ),
    "other clips": (
        lambda folder: rewrite(folder / "part-0.npz", static_of=np.array(["x"] * 7)),
        "is not in the pairs",
    ),
    "twice": (lambda folder: shutil.copy(folder / "part-0.npz", folder / "part-1.npz") and None, "is duplicated"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_samples_that_cannot_be_scored_are_one_clear_line(
    damage: str, perfect: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "samples"
    shutil.copytree(perfect, folder)
    spoil, message = DAMAGES[damage]
    spoil(folder)
    out = tmp_path / "out"
    line = refused(["--samples", str(folder), "--data", str(small_figures), "--out", str(out)], capsys)
    assert message in line
    assert str(folder) in line
    assert not (out / "metrics.json").exists()


@pytest.mark.parametrize(("name", "message"), [("data_sha256", "data other than"), ("pairs_sha256", "was changed")])
def test_pairs_of_other_data_or_chosen_by_hand_are_refused(
    name: str, message: str, perfect: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "samples"
    shutil.copytree(perfect, folder)
    description = json.loads((folder / "pairs.json").read_text())
    (folder / "pairs.json").write_text(json.dumps({**description, name: "0" * 64}))
    args = ["--samples", str(folder), "--data", str(small_figures), "--out", str(tmp_path / "out")]
    assert message in refused(args, capsys)


def test_an_archive_in_which_python_objects_hide_is_not_unpickled(
    perfect: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "samples"
    shutil.copytree(perfect, folder)
    with zipfile.ZipFile(folder / "part-0.npz", "w") as archive:
        for name in ("frames", "dynamics_of", "static_of"):
            archive.writestr(f"{name}.npy", b"cposix\nsystem\n(S'exit 1'\ntR.")
    args = ["--samples", str(folder), "--data", str(small_figures), "--out", str(tmp_path / "out")]
    assert "plain arrays" in refused(args, capsys)
