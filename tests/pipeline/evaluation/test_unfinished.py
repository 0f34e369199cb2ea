"""A scoring of samples that is killed resumes, with the same metrics.json."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.storage import api as storage
from pipeline import evaluate
from pipeline.evaluation.unfinished import UnfinishedScoring
from vdsm.evaluation import frechet

KILLED = "from vdsm.evaluation import frechet; frechet.RESAMPLES = 3; from pipeline import evaluate; evaluate.main()"
"""Program of the process that is killed: `vdsm evaluate` with quick intervals."""


def without_time(out: Path) -> str:
    text, count = re.subn(r'"time": \{[^}]*\}', "", (out / "metrics.json").read_text())
    assert count == 1
    return text


@pytest.mark.slow
def test_a_killed_scoring_resumes_with_the_same_bytes_and_repeats_nothing(
    perfect: Path, small_figures: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frechet, "RESAMPLES", 3)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "killed"
    args = ["--samples", str(perfect), "--data", str(small_figures), "--judges", str(tmp_path / "judges")]
    evaluate.main([*args, "--out", str(undisturbed)])
    assert not (undisturbed / "unfinished-scoring").exists()

    process = subprocess.Popen([sys.executable, "-c", KILLED, *args, "--out", str(out)], cwd=root)
    while not any((out / "unfinished-scoring").glob("*-samples-*.bin")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "metrics.json").exists()
    kept = {path.name for path in (out / "unfinished-scoring").glob("*.bin")}

    written: list[str] = []
    put = UnfinishedScoring.put

    def recorded(self: UnfinishedScoring, name: str, data: bytes) -> None:
        written.append(name)
        put(self, name, data)

    monkeypatch.setattr(UnfinishedScoring, "put", recorded)
    evaluate.main([*args, "--out", str(out)])
    assert without_time(out) == without_time(undisturbed)
    assert "controls" in written
    assert not [name for name in written if any(file.endswith(f"-{name}.bin") for file in kept)]
    assert not (out / "unfinished-scoring").exists()


@pytest.mark.parametrize("where", ["folder", pytest.param("s3", marks=pytest.mark.s3)])
def test_results_are_kept_until_they_are_removed(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    out = str(tmp_path) if where == "folder" else request.getfixturevalue("s3_bucket")
    first, inputs = UnfinishedScoring(out, {"samples_sha256": "a"}), {"samples_sha256": "a"}
    assert first.get("scores") is None
    first.put("scores", b"some bytes")
    assert UnfinishedScoring(out, inputs).get("scores") == b"some bytes"
    assert UnfinishedScoring(out, {"samples_sha256": "b"}).get("scores") is None
    (name,) = storage.list_files(storage.join(out, "unfinished-scoring"))
    url = storage.join(out, "unfinished-scoring", name)
    storage.write_bytes(url, storage.read_bytes(url)[:-1])
    assert first.get("scores") is None  # damaged
    storage.write_bytes(storage.join(out, "metrics.json"), b"{}")
    storage.write_bytes(storage.join(out, "unfinished-scoring", "notes.txt"), b"of someone else")
    first.remove()
    assert storage.list_files(out) == ["metrics.json", "unfinished-scoring/notes.txt"]
    storage.delete(storage.join(out, "unfinished-scoring", "notes.txt"))
    first.remove()
    assert where == "s3" or [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_files_that_change_during_the_scoring_are_refused(perfect: Path, tmp_path: Path) -> None:
    from cluster.errors import UserError
    from pipeline.evaluation.samples_files import read_samples_file

    folder = tmp_path / "samples"
    shutil.copytree(perfect, folder)
    file = read_samples_file(str(folder), "part-0.npz", (8, 32, 32, 3))
    assert file.samples.frames().shape == (7, 8, 32, 32, 3)
    shutil.copy(folder / "part-7.npz", folder / "part-0.npz")
    with pytest.raises(UserError, match=r"part-0\.npz was changed while it was measured"):
        file.samples.frames()
