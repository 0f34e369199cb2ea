"""An upload counts only once the server states that it has every byte."""

from pathlib import Path
from typing import Any

import pytest

from cluster.storage import s3
from cluster.storage.errors import UnreachableError


class Server:
    """A client of S3 whose server keeps some of the bytes, and reports success."""

    def __init__(self, kept: int) -> None:
        self._kept = kept

    def upload_file(self, *_: object, **__: object) -> None:
        """Report success."""

    def head_object(self, **_: object) -> dict[str, Any]:
        return {"ContentLength": self._kept, "ETag": "x"}


@pytest.mark.parametrize("kept", [0, 999, 1001])
def test_an_upload_of_which_the_server_keeps_another_length_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    monkeypatch.setattr(s3, "client", lambda: Server(kept))
    with pytest.raises(UnreachableError, match=f"s3://bucket/key: {kept} of 1000 bytes were stored"):
        s3.upload(tmp_path / "file", "s3://bucket/key")
    monkeypatch.setattr(s3, "client", lambda: Server(1000))
    s3.upload(tmp_path / "file", "s3://bucket/key")
