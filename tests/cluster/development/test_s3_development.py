"""`vdsm s3`: start it, use it with the keys it wrote, stop it and restart it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.storage import api as storage
from cluster.storage.errors import StorageError

pytestmark = pytest.mark.s3


@contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a process of its own, which is killed at the end."""
    args = [sys.executable, "-m", "cluster.s3_development", "--folder", str(folder), "--bucket", "mine"]
    with (folder.parent / "errors").open("a") as errors:
        process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def printed(process: subprocess.Popen[str]) -> str:
    """Wait until the server is ready, and return the two lines that it prints."""
    assert process.stdout is not None
    return process.stdout.readline() + process.stdout.readline()


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the variables that env.sh sets in a shell, and return them."""
    args = ["sh", "-c", f". {folder}/env.sh; env"]
    lines = subprocess.run(args, capture_output=True, text=True, check=True, env={}).stdout.splitlines()
    variables = dict(line.split("=", 1) for line in lines if line.startswith("AWS_"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def test_it_serves_with_keys_of_its_own_and_has_the_same_content_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s3"
    with started(folder) as process:
        output = printed(process)
        first = use(folder, monkeypatch)
        storage.write_bytes("s3://mine/a", b"kept")
        assert f"s3://mine is served at {first['AWS_ENDPOINT_URL']}" in output
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StorageError, match="refused the credentials"):
            storage.read_bytes("s3://mine/a")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with started(folder) as process:
        output += printed(process)
        assert use(folder, monkeypatch) == first
        assert storage.read_bytes("s3://mine/a") == b"kept"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    secret = first["AWS_SECRET_ACCESS_KEY"]
    assert secret not in output + (tmp_path / "errors").read_text() + (folder / "server.log").read_text()
    holders = {path for path in folder.glob("*") if path.is_file() and secret in path.read_text()}
    assert {path.name for path in holders} == {"env.sh", "keys.json", "s3.json"}
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    args = [sys.executable, "-m", "cluster.s3_development", "--folder", str(tmp_path / "file")]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/file: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
