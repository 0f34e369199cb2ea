"""Samples that cannot be scored are one line, before a judge is trained; nothing in them is unpickled."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pipeline.evaluation.commands import refused

pytestmark = pytest.mark.usefixtures("no_work")

FRAMES = np.zeros((7, 8, 32, 32, 3), dtype=np.uint8)


def rewrite(path: Path, **changed: Any) -> None:
    """Rewrite a file of samples with some arrays changed, or left out where they are None."""
    with np.load(path) as arrays:
        found = {**arrays, **changed}
    np.savez(path, **{name: array for name, array in found.items() if array is not None})


def change(**changed: Any) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / "part-0.npz", **changed)


def cut(folder: Path) -> None:
    path = folder / "part-7.npz"
    path.write_bytes(path.read_bytes()[:-1000])


def flip(folder: Path, compressed: bool) -> None:
    path = folder / "part-7.npz"
    if not compressed:
        rewrite(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def pickled(folder: Path) -> None:
    with zipfile.ZipFile(folder / "part-0.npz", "w") as archive:
        for name in ("frames", "dynamics_of", "static_of"):
            archive.writestr(f"{name}.npy", b"cposix\nsystem\n(S'exit 1'\ntR.")


def one_array(folder: Path) -> None:
    with (folder / "part-0.npz").open("wb") as file:
        np.save(file, FRAMES)


def huge(folder: Path) -> None:
    """Write a header that claims a terabyte."""
    path, header = (
        folder / "part-0.npz",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 8, 32, 32, 3)}",
    )
    rewrite(path)
    with np.load(path) as arrays:
        keys = {name: arrays[name] for name in ("dynamics_of", "static_of")}
    np.savez(path, **keys)
    with zipfile.ZipFile(path, "a") as archive:
        text = header.ljust(117).encode() + b"\n"
        archive.writestr("frames.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(1000))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no list": (lambda folder: (folder / "pairs.json").unlink(), "pairs.json is missing"),
    "list of another kind": (lambda folder: (folder / "pairs.json").write_text("[]"), "not a list of pairs"),
    "no samples": (lambda folder: [path.unlink() for path in folder.glob("*.npz")], "holds no .npz file"),
    "half the samples": (lambda folder: (folder / "part-7.npz").unlink(), "samples of the kind swap are missing"),
    "too few in a file": (change(frames=FRAMES[:6]), "part-0.npz: dynamics_of is"),
    "empty file": (lambda folder: (folder / "part-0.npz").write_bytes(b""), "part-0.npz: is not an intact .npz file"),
    "no archive": (lambda folder: (folder / "part-0.npz").write_bytes(b"PK\3\4 and so on"), "part-0.npz"),
    "cut short": (cut, "part-7.npz: is not an intact .npz file"),
    "changed byte, compressed": (lambda folder: flip(folder, True), "part-7.npz: is not an intact .npz file"),
    "changed byte": (lambda folder: flip(folder, False), "part-7.npz: is not an intact .npz file"),
    "one array": (one_array, "part-0.npz: has no array frames"),
    "a terabyte": (huge, "part-0.npz: "),
    "no keys": (change(static_of=None), "part-0.npz: has no array static_of (found: frames, dynamics_of)"),
    "no frames": (change(frames=None), "part-0.npz: has no array frames (found: dynamics_of, static_of)"),
    "keys that are objects": (change(static_of=np.array([{}] * 7, dtype=object)), "plain arrays"),
    "frames that are objects": (change(frames=np.array([FRAMES[0], None], dtype=object)), "Python objects"),
    "a pickle": (pickled, "plain arrays"),
    "keys that are numbers": (change(static_of=np.arange(7)), "one string"),
    "keys that are bytes": (change(static_of=np.array([b"x"] * 7)), "one string"),
    "keys that are no text": (
        change(static_of=np.full(7, 0x7FFFFFFF, dtype=np.uint32).view("<U1")),
        "static_of has a string that is not Unicode",
    ),
    "floats": (change(frames=FRAMES.astype(np.float32)), "frames are float32 [7, 8, 32, 32, 3], not uint8 [N, 8, 32"),
    "not a number": (change(frames=np.full(FRAMES.shape, np.nan)), "convert floats from 0 to 1 with"),
    "signed": (change(frames=FRAMES.astype(np.int8)), "not uint8"),
    "too short": (change(frames=FRAMES[:, :4]), "frames are uint8 [7, 4, 32, 32, 3], not uint8 [N, 8, 32, 32, 3]"),
    "another size": (change(frames=FRAMES[..., :16, :]), "not uint8 [N, 8, 32, 32, 3]"),
    "channels first": (change(frames=FRAMES.transpose(0, 1, 4, 2, 3)), "not uint8 [N, 8, 32, 32, 3]"),
    "no clips at all": (change(frames=np.uint8(0)), "not uint8 [N, 8, 32, 32, 3]"),
    "other clips": (change(static_of=np.array(["x"] * 7)), "part-0.npz: the sample of dynamics"),
    "twice": (
        lambda folder: shutil.copy(folder / "part-0.npz", folder / "part-1.npz"),
        "is duplicated; it is in part-0.npz already",
    ),
}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_samples_that_cannot_be_scored_are_one_clear_line(
    damage: str, dry_run: bool, perfect: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "samples", tmp_path / "out"
    shutil.copytree(perfect, folder)
    spoil, message = DAMAGES[damage]
    spoil(folder)
    args = ["--samples", str(folder), "--data", str(small_figures), "--out", str(out)]
    line = refused([*args, "--dry-run"] if dry_run else args, capsys)
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
