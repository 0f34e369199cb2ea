"""Faults of this machine under the cache of shards: named as such, neither as damage nor as a fault of S3."""

import errno
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MachineError, UnreachableError
from preprocessing.dataset.cache import ShardCache
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.reader import ClipDataset

FAULTS = {
    errno.ENOSPC: "No space left on device",
    errno.EROFS: "Read-only file system",
    errno.EACCES: "Permission denied",
    errno.EMFILE: "Too many open files",
    errno.ENOSYS: "file locks",
}


@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.get)
@pytest.mark.parametrize("where", ["lock", "download", "open"])
def test_a_fault_of_this_machine_is_neither_damage_nor_a_fault_of_s3(
    number: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def fail(*_: object, **__: object) -> Any:
        attempts.append(number)
        raise OSError(number, os.strerror(number))

    def download(url: str, path: Path) -> None:
        path.write_bytes(b"content")

    monkeypatch.setattr(storage, "size", lambda _: 7)
    monkeypatch.setattr(storage, "download", fail if where == "download" else download)
    if where == "lock":
        monkeypatch.setattr(fcntl, "flock", fail)
    if where == "open":
        opened = Path.open
        monkeypatch.setattr(Path, "open", lambda path, mode="r": fail() if mode == "rb" else opened(path, mode))
    shard: Any = {"path": "shard", "size_bytes": 7, "sha256": hashlib.sha256(b"content").hexdigest()}
    with pytest.raises(MachineError) as caught:
        ShardCache(tmp_path, 100).open("s3://bucket", shard)
    assert str(caught.value).startswith(f"{tmp_path}/shards: ")
    assert FAULTS[number] in str(caught.value)
    assert len(attempts) == 1


def test_a_reader_names_a_fault_of_this_machine_and_not_damage(
    figures_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, kind in (
        (errno.EMFILE, MachineError),
        (errno.EIO, UnreachableError),
        (errno.ENXIO, DamagedDatasetError),
    ):
        clips = ClipDataset(str(figures_dataset), "train")

        def fail(*_: object, number: int = number, **__: object) -> Any:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", fail)
            patch.setattr(os, "open", fail)
            for use in (clips.frames, clips.prepare):
                with pytest.raises(UserError) as caught:
                    use(0)
                assert type(caught.value) is kind, number
        with monkeypatch.context() as patch:
            patch.setattr(os, "preadv", fail)
            with pytest.raises(UserError) as caught:
                clips.frames(0)
            assert type(caught.value) is kind, number


def test_local_data_needs_no_home(figures_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "VDSM_CACHE", "USER", "LOGNAME"):
        monkeypatch.setenv(name, "restored at the end")
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert len(ClipDataset(str(figures_dataset), "train"))
