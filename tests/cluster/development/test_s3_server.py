"""The development S3 server."""

import json
import urllib.request
from pathlib import Path

import pytest

from cluster.development import s3_server

pytestmark = pytest.mark.s3


def test_the_number_of_buckets_does_not_depend_on_free_disk_space(tmp_path: Path) -> None:
    with s3_server.serve(tmp_path, access_key="key", secret_key="secret-Zq81"):
        _, master, *_ = json.loads((tmp_path / "ports.json").read_text())
        with urllib.request.urlopen(f"http://127.0.0.1:{master}/dir/status", timeout=10) as answer:
            topology = json.load(answer)["Topology"]
    assert topology["Max"] == s3_server.MAX_VOLUMES
