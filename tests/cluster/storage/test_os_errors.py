"""Errors of the operating system: sorted by cause, and explained in one line with the path and the remedy."""

import errno
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.cli.run import run
from cluster.storage import api as storage
from cluster.storage import os_errors, s3
from cluster.storage.errors import MachineError, MissingFileError, StorageError, UnreachableError
from cluster.storage.s3_errors import explain as explain_s3
from cluster.storage.s3_errors import is_final
from cluster.storage.scratch import home, scratch_file, scratch_folder
from vdsm import checkpoint

MACHINE = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "delete files",
    errno.EFBIG: "ulimit -f",
    errno.EROFS: "mount it for writing",
    errno.EACCES: "grant this user (uid ",
    errno.EPERM: "grant this user (uid ",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "fs.file-max",
    errno.ENOMEM: "more memory",
    errno.ENOLCK: "file locks",
    errno.ENOSYS: "file locks",
    errno.EOPNOTSUPP: "file locks",
    errno.ENAMETOOLONG: "shorter path",
    errno.ELOOP: "not a link",
    errno.EEXIST: "remove it",
}
"""Faults of this machine, and a part of the remedy."""


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def fail(number: int) -> Callable[..., Any]:
    def failing(*_args: object, **_options: object) -> Any:
        raise error(number)

    return failing


@pytest.mark.parametrize("number", MACHINE, ids=errno.errorcode.get)
def test_a_fault_of_this_machine_is_one_line_with_path_and_remedy_and_not_retried(number: int) -> None:
    attempts = []

    def use() -> None:
        attempts.append(number)
        os_errors.explain("/data/x", error(number))

    with pytest.raises(MachineError) as caught:
        storage.retry_while_unreachable(use, 60)
    assert attempts == [number]
    assert str(caught.value).startswith(f"/data/x: {os.strerror(number)}; ")
    assert MACHINE[number] in str(caught.value)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN])
def test_storage_that_fails_for_a_moment_is_retried(number: int) -> None:
    with pytest.raises(UnreachableError, match="/data/x: "):
        os_errors.explain("/data/x", error(number))


def test_what_is_neither_keeps_its_kind() -> None:
    with pytest.raises(MissingFileError):
        os_errors.explain("/data/x", FileNotFoundError(errno.ENOENT, "No such file"))
    with pytest.raises(StorageError) as caught:
        os_errors.explain("/data/x", error(errno.EISDIR))
    assert type(caught.value) is StorageError
    for other in (error(errno.EISDIR), ValueError("a bug"), StorageError("explained")):
        with pytest.raises(type(other)) as passed, os_errors.explained("/data/x"):
            raise other
        assert passed.value is other


def test_a_fault_behind_the_error_of_a_library_is_found() -> None:
    class TaskError(Exception):
        """As Ray's, which has its cause in an attribute."""

        cause = error(errno.ENOSPC)

    def wrapped() -> None:
        try:
            raise error(errno.ENOSPC)
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 - as torch.save does

    assert os_errors.fault_in(TaskError()) is TaskError.cause
    with pytest.raises(MachineError, match=r"^/data/x: No space left"), os_errors.explained("/data/x"):
        wrapped()


def test_numbers_that_are_not_those_of_the_system_are_no_faults() -> None:
    assert os_errors.fault_in(ssl.SSLError(errno.EPERM, "certificate verify failed")) is None
    loop = ValueError("a")
    loop.__cause__ = loop
    assert os_errors.fault_in(loop) is None


def test_a_full_disk_during_a_download_from_s3_is_not_taken_for_s3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []

    def stream(*_args: object) -> list[bytes]:
        requests.append(1)
        return [b"content"]

    monkeypatch.setattr(s3, "head", lambda url: (7, "etag"))
    monkeypatch.setattr(s3, "_stream", stream)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    full = Path("/dev/full")
    with pytest.raises(OSError, match="No space left"), full.open("wb", buffering=0) as target:
        s3._copy("s3://bucket/x", target, 0, 7, "etag")
    assert len(requests) == 1
    monkeypatch.setattr(s3, "_copy", fail(errno.ENOSPC))
    with pytest.raises(MachineError, match=f"^{tmp_path}/x: No space left on device; free space"):
        storage.download("s3://bucket/x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_too_many_open_files_for_another_connection_are_not_a_fault_of_s3() -> None:
    from botocore.exceptions import EndpointConnectionError

    broken = EndpointConnectionError(endpoint_url="https://s3", error=error(errno.EMFILE))
    assert is_final(broken)
    with pytest.raises(MachineError, match="ulimit -n"):
        explain_s3("s3://bucket/x", broken)
    with pytest.raises(UnreachableError):
        explain_s3("s3://bucket/x", EndpointConnectionError(endpoint_url="https://s3", error=error(errno.ECONNREFUSED)))


def test_a_file_system_without_hard_links_still_lets_one_writer_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fail(errno.EPERM))
    assert storage.create(f"{tmp_path}/once", b"first")
    assert not storage.create(f"{tmp_path}/once", b"second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"once": b"first"}


def test_temporary_folders_and_files_are_private_new_and_removed() -> None:
    with scratch_folder() as first, scratch_folder() as second, scratch_file() as file:
        assert first != second
        assert first.stat().st_mode & 0o777 == 0o700
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
        assert os.fstat(file.fileno()).st_nlink == 0
        (first / "x").write_bytes(b"")
    assert not first.exists()


def test_a_full_temporary_folder_names_the_variable() -> None:
    for scratch in (scratch_folder, scratch_file):
        with pytest.raises(MachineError, match=r"No space left on device; .*set TMPDIR"), scratch():
            raise error(errno.ENOSPC)


def test_without_any_usable_temporary_folder_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", fail(errno.ENOENT))
    with pytest.raises(MachineError, match="set TMPDIR"), scratch_folder():
        pass


def test_a_user_without_a_name_and_without_home_has_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setenv("HOME", "restored at the end")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert not home().exists()
    assert Path("~/ray_results").expanduser() == Path("/nonexistent/ray_results")  # as Ray does when it is imported


def test_every_temporary_file_is_made_in_one_place(root: Path) -> None:
    allowed = {
        "cluster/storage/scratch.py",
        "cluster/ray_folder.py",  # in a folder for Ray
        "preprocessing/sources/array_file.py",  # lives as long as an object
        "vdsm/evaluation/inception.py",  # may not import the others
    }
    users = {
        path.relative_to(root).as_posix()
        for package in ("cluster", "preprocessing", "pipeline", "vdsm")
        for path in (root / package).rglob("*.py")
        if any(name in path.read_text() for name in ("import tempfile", "getpass", "mkdtemp"))
    }
    assert users <= allowed


def test_a_checkpoint_on_a_full_disk_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    checkpoint.save({"a": torch.zeros(1)}, path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
    with pytest.raises(MachineError, match=f"^{path}: No space left"), os_errors.explained(path):
        checkpoint.save({"a": torch.ones(1)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_may_not_be_listed_does_not_seem_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    listed = os.scandir

    def refusing(folder: str, number: int = errno.EACCES) -> Any:
        if Path(folder).name == "checkpoints":
            raise OSError(number, os.strerror(number), str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(MachineError, match=f"^{tmp_path}/checkpoints: Permission denied; grant"):
        storage.list_files(str(tmp_path))
    monkeypatch.setattr(os, "scandir", lambda folder: refusing(folder, errno.ENOENT))  # deleted meanwhile
    assert storage.list_files(str(tmp_path)) == []


def allocate_array() -> None:
    import numpy as np

    np.zeros(1 << 60, np.uint8)


def allocate_tensor() -> None:
    import torch

    torch.zeros(1 << 60, dtype=torch.uint8)


def allocate_bytes() -> None:
    bytearray(1 << 60)


@pytest.mark.parametrize("allocate", [allocate_array, allocate_tensor, allocate_bytes])
def test_memory_that_cannot_be_allocated_ends_a_command_in_one_line(
    allocate: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(lambda _: allocate(), [])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: memory: ")
    assert line.endswith("; lower the sizes that were set, end other programs, or use a machine with more memory")
