"""The same command gives the same bytes, whatever was interrupted, and refuses to mix two datasets."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cluster.development.s3_server import S3Server
from cluster.storage import api as storage
from preprocessing import shard
from preprocessing.dataset.format import appearance_path, index_path
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.sharding import job
from tests.e2e.training_runs import descendants, wait

SMALL = ("--source.figures.identities", "10", "--shards.target-mb", "1.2")


def tree(url: str) -> dict[str, str]:
    """Return path -> SHA-256 of every file of a dataset, unfinished and hidden ones included."""
    if storage.is_remote(url):
        return {
            name: hashlib.sha256(storage.read_bytes(f"{url}/{name}")).hexdigest() for name in storage.list_files(url)
        }
    files = (path for path in Path(url).rglob("*") if path.is_file())
    return {path.relative_to(url).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refusal(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Return the only error line of the command, which exits with code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        shard.main(list(args))
    assert end.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """Return the dataset that `SMALL` describes."""
    folder = tmp_path_factory.mktemp("undisturbed") / "data"
    shard.main([*SMALL, "--out", str(folder)])
    return folder


def test_it_consists_of_shards_with_indexes_a_plan_and_a_manifest(undisturbed: Path) -> None:
    names = sorted(tree(str(undisturbed)))
    shards = [name for name in names if name.endswith(".tar")]
    assert len(shards) >= 4
    others = {"manifest.json", "plan.json", "inputs.jsonl", "rejects.jsonl", "preview.html"}
    beside = {path for name in shards for path in (index_path(name), appearance_path(name))}
    assert set(names) == {*others, *shards, *beside}


@pytest.mark.parametrize("concurrency", ["1", "2", "4"])
def test_concurrency_does_not_change_a_byte(
    undisturbed: Path, tmp_path: Path, local_ray: None, concurrency: str
) -> None:
    shard.main([*SMALL, "--shards.concurrency", concurrency, "--out", str(tmp_path / "data")])
    assert tree(str(tmp_path / "data")) == tree(str(undisturbed))


def test_a_bucket_gets_the_same_bytes_as_a_folder(
    undisturbed: Path, s3_bucket: str, s3_server: S3Server, capfd: pytest.CaptureFixture[str]
) -> None:
    out = f"{s3_bucket}/some/data"
    shard.main([*SMALL, "--out", out])
    assert tree(out) == tree(str(undisturbed))
    verify_dataset(out)
    secret = s3_server.secret_key
    assert secret not in "".join(capfd.readouterr())
    assert not any(secret.encode() in storage.read_bytes(f"{out}/{name}") for name in storage.list_files(out))


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_refused_before_any_work(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "wrong-Pk37")
    monkeypatch.setattr(job, "write_shards", None)
    message = refusal(capsys, *SMALL, "--out", f"{s3_bucket}/data")
    assert "refused the credentials" in message
    assert "wrong-Pk37" not in message


def test_a_rerun_leaves_a_complete_dataset_unchanged(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    monkeypatch.setattr(job, "write_shards", None)
    shard.main([*SMALL, "--out", str(undisturbed)])
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before
    assert "8 identities" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["manifest.json", "rejects.jsonl", "preview.html"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_dataset_with_a_truncated_file_is_not_complete(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kept: float
) -> None:
    out = tmp_path / "data"
    shutil.copytree(undisturbed, out)
    size = (out / name).stat().st_size
    if size:
        os.truncate(out / name, int(kept * size))
    else:  # no input was rejected
        (out / name).write_text("more than there should be")
    monkeypatch.setattr(job, "write_shards", None)
    shard.main([*SMALL, "--out", str(out)])
    assert tree(str(out)) == tree(str(undisturbed))


@pytest.mark.slow
def test_killed_midway_and_rerun_it_ends_with_the_same_bytes(
    undisturbed: Path, tmp_path: Path, local_ray: None
) -> None:
    out = tmp_path / "data"
    command = [sys.executable, "-m", "preprocessing.shard", *SMALL, "--shards.concurrency", "1", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list(out.glob("*/*.json")):
        assert process.poll() is None
        time.sleep(0.005)
    family = descendants(process.pid).items()
    working = [pid for pid, name in family if "raylet/" in name or (name.startswith("ray::") and "Agent" not in name)]
    process.kill()  # its tasks may continue to write for a moment
    process.wait()
    assert not (out / "manifest.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/*.json")}
    # What remains of a writer that was killed before the rename, or between tar and index.
    (out / "train" / ".shard-000002.tar.0123.partial").write_bytes(b"half")
    (out / "test").mkdir(exist_ok=True)
    (out / "test" / "shard-000000.tar").write_bytes(b"without its index")
    (out / "test" / "shard-000000.json").unlink(missing_ok=True)
    shard.main([*SMALL, "--out", str(out)])
    assert len(working) > 1
    wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in working), "its Ray has ended")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # Ray's agents would survive for a minute
    assert tree(str(out)) == tree(str(undisturbed))
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items() if path.parent.name == "train")


def test_incomplete_shards_are_written_again(undisturbed: Path, tmp_path: Path, local_ray: None) -> None:
    out = tmp_path / "data"
    shutil.copytree(undisturbed, out)
    (out / "manifest.json").unlink()
    cut, removed, broken, foreign = (out / "train" / f"shard-{number:06d}.tar" for number in range(4))
    os.truncate(cut, cut.stat().st_size - 512)
    removed.unlink()
    broken.with_suffix(".json").write_text("{")
    foreign.with_suffix(".json").write_bytes(cut.with_suffix(".json").read_bytes())
    shard.main([*SMALL, "--out", str(out)])
    assert tree(str(out)) == tree(str(undisturbed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--seed", "7"), "seed was 0, is now 7"),
        (("--source.figures.identities", "12"), "source.figures.identities was 10, is now 12"),
        (("--shards.target-mb", "3"), "shards.target_mb was 1.2, is now 3.0"),
    ],
)
def test_other_settings_under_the_same_output_are_refused_and_named(
    undisturbed: Path, capsys: pytest.CaptureFixture[str], changed: tuple[str, ...], message: str
) -> None:
    before = tree(str(undisturbed))
    assert message in refusal(capsys, *SMALL, *changed, "--out", str(undisturbed))
    assert tree(str(undisturbed)) == before


def test_changed_input_under_the_same_output_is_refused(
    undisturbed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from preprocessing.sources import figures

    monkeypatch.setattr(figures, "VERSION", "changed")
    message = refusal(capsys, *SMALL, "--out", str(undisturbed))
    assert "the contents of the source's files changed" in message


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert f"error: {tmp_path}/file/data" in refusal(capsys, *SMALL, "--out", str(tmp_path / "file" / "data"))


def test_a_failure_inside_a_task_is_one_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], local_ray: None
) -> None:
    (tmp_path / "data" / "test" / "shard-000000.tar" / "a folder in its place").mkdir(parents=True)
    assert f"{tmp_path}/data/test/shard-000000.tar: " in refusal(capsys, *SMALL, "--out", str(tmp_path / "data"))


def test_dry_run_prints_what_would_be_written_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard.main([*SMALL, "--dry-run", "--out", str(tmp_path / "data")])
    printed = capsys.readouterr().out
    assert "train: 48 clips, shards: 4, about 4.7 MB\ntest: 12 clips, shards: 1, about 1.2 MB\n" in printed
    assert re.search(r"time: about \d+ s with \d concurrent tasks, extrapolated from \d+ inputs .* 60 clips", printed)
    assert list(tmp_path.iterdir()) == []


def test_print_config_prints_a_recipe_that_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        shard.main([*SMALL, "--seed", "5", "--print-config", "--out", str(tmp_path / "data")])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    recipe = yaml.safe_load(printed)
    assert (recipe["seed"], recipe["source"]["figures"]["identities"]) == (5, 10)
    (tmp_path / "again.yaml").write_text(printed)
    shard.main(["--config", str(tmp_path / "again.yaml"), "--dry-run", "--out", str(tmp_path / "data")])
