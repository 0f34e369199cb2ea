"""Writes to local folders: synced before they are visible, complete or absent, and errors that name the file."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.storage import api as storage
from cluster.storage.errors import MachineError, MissingFileError, StorageError, UnreachableError

WRITERS = {
    "write_bytes": lambda path, source: storage.write_bytes(str(path), b"new"),
    "upload": lambda path, source: storage.upload(source, str(path)),
    "download": lambda path, source: storage.download(str(source), path),
    "create": lambda path, source: storage.create(str(path), b"new"),
}
Writer = Callable[[Path, Path], object]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=list(WRITERS))
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], object]:
    """Return a function that writes `new` to a path, by each function that writes files."""
    source = tmp_path / "source"
    source.write_bytes(b"new")
    writer: Writer = WRITERS[request.param]
    return lambda path: writer(path, source)


def test_content_is_synced_before_its_name_appears_and_the_folder_afterwards(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "folder" / "file"
    events: list[str] = []
    sync = os.fsync

    def noted(handle: int) -> None:
        synced = Path(f"/proc/self/fd/{handle}").readlink()
        content = synced.read_bytes().decode() if synced.is_file() else "folder"
        assert synced.parent == path.parent or synced == path.parent
        events.append(f"{content}, visible: {path.exists()}")
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    open_files = names(Path("/proc/self/fd"))
    write(path)
    assert events == ["new, visible: False", "folder, visible: True"]
    assert names(path.parent) == ["file"]
    assert names(Path("/proc/self/fd")) == open_files


@pytest.mark.parametrize("name", ["write_bytes", "upload", "download"])
def test_a_disk_that_is_full_leaves_the_old_content_and_no_other_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, source = tmp_path / "folder", tmp_path / "source"
    source.write_bytes(b"new")
    (folder / "file").parent.mkdir()
    (folder / "file").write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match=f"^{folder}/file: No space left on device; free space"):
        WRITERS[name](folder / "file", source)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"file": b"old"}


def test_create_on_a_full_disk_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match=f"^{tmp_path}/file: No space left on device; free space"):
        storage.create(f"{tmp_path}/file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_create_keeps_what_exists(tmp_path: Path) -> None:
    url = f"{tmp_path}/folder/lock"
    assert storage.create(url, b"first") is True
    assert storage.create(url, b"second") is False
    assert Path(url).read_bytes() == b"first"
    assert names(tmp_path / "folder") == ["lock"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_create_needs_no_links(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    test_create_keeps_what_exists(tmp_path)


def test_a_program_killed_by_its_own_error_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"ha")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", stop)
    with pytest.raises(KeyboardInterrupt):
        storage.upload(tmp_path / "source", f"{tmp_path}/file")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_source_is_named_and_not_its_target(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=f"^{tmp_path}/nothing: there is no such file$"):
        storage.download(f"{tmp_path}/nothing", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_url_and_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    inside, folder = f"{tmp_path}/file/inside", f"{tmp_path}"
    for use in (storage.read_bytes, storage.size, lambda url: storage.read_range(url, 0, 1), storage.delete):
        with pytest.raises(StorageError, match=f"^{inside}: Not a directory$"):
            use(inside)
    for use in (storage.read_bytes, lambda url: storage.read_range(url, 0, 1), storage.delete):
        with pytest.raises(StorageError, match=f"^{folder}: Is a directory$"):
            use(folder)
    for use in (lambda url: storage.write_bytes(url, b""), lambda url: storage.create(url, b"")):
        with pytest.raises(StorageError, match=f"^{inside}: "):
            use(inside)
    with pytest.raises(MissingFileError, match=f"^{tmp_path}/absent: there is no such file$"):
        storage.read_range(f"{tmp_path}/absent", 0, 1)


def test_a_range_is_cut_at_the_end_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert storage.read_range(f"{tmp_path}/file", 3, 4) == b"3456"
    assert storage.read_range(f"{tmp_path}/file", 8, 4) == b"89"


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert not storage.exists(str(tmp_path))
    (tmp_path / "file").write_bytes(b"")
    assert storage.exists(f"{tmp_path}/file")


def test_partial_files_are_neither_listed_nor_kept(tmp_path: Path) -> None:
    for name in (".a.0.partial", "deep/.b.1.partial", ".hidden", "b.partial", "deep/c"):
        storage.write_bytes(f"{tmp_path}/{name}", b"")
    assert storage.list_files(str(tmp_path)) == [".hidden", "b.partial", "deep/c"]
    storage.remove_partial_files(f"{tmp_path}/absent")
    storage.remove_partial_files(str(tmp_path))
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".hidden", "b.partial", "deep/c"]


@pytest.mark.parametrize("name", list(WRITERS))
def test_the_partial_file_of_a_living_writer_is_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, source, sync = tmp_path / "folder", tmp_path / "source", os.fsync
    source.write_bytes(b"new")
    storage.write_bytes(f"{folder}/.old.0.partial", b"of a killed writer")

    def tidied(handle: int) -> None:
        storage.remove_partial_files(str(folder))  # by another job, before the content is complete
        sync(handle)

    monkeypatch.setattr(os, "fsync", tidied)
    WRITERS[name](folder / "file", source)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"file": b"new"}


def test_a_folder_is_tested_for_writing_without_a_trace(tmp_path: Path) -> None:
    storage.check_writable(f"{tmp_path}/new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=f"^{tmp_path}/file/.write-test-[0-9a-f]{{32}}: "):
        storage.check_writable(f"{tmp_path}/file")


class Clock:
    """A clock that `sleep` advances, with a record of the pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.pauses = 100.0, list[float]()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_storage_that_does_not_respond_is_retried_with_longer_pauses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, failures = Clock(monkeypatch), iter([UnreachableError("it is down")] * 6)

    def action() -> str:
        for failure in failures:
            raise failure
        return "done"

    assert storage.retry_while_unreachable(action, 60) == "done"
    assert clock.pauses == [0.5, 1, 2, 4, 5, 5]
    assert [record.message for record in caplog.records[:2]] == [
        "it is down (retrying for another 60 s)",
        "it is down (retrying for another 60 s)",
    ]
    assert caplog.records[-1].message == "it is down (retrying for another 48 s)"


def test_retries_end_with_the_error_once_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def action() -> None:
        raise UnreachableError("it is down")

    for seconds, pauses in ((0, []), (0.4, []), (0.5, [0.5]), (3.5, [0.5, 1, 2])):
        clock.pauses = []
        with pytest.raises(UnreachableError, match="it is down"):
            storage.retry_while_unreachable(action, seconds)
        assert clock.pauses == pauses


def test_other_errors_are_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def action() -> None:
        raise StorageError("refused")

    with pytest.raises(StorageError, match="refused"):
        storage.retry_while_unreachable(action, 60)
    assert clock.pauses == []
