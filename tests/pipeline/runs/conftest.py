"""A file system that lacks what locks need."""

import os
from typing import Any

import pytest


@pytest.fixture
def file_system_without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make file locks, hard links and symbolic links fail, as some file systems do."""

    def flock(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    def link(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "symlink", link)
