"""A record that an earlier job stored is used only if it is one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("imagehash")
from preprocessing.preparing.hashes import VARIANTS
from preprocessing.preparing.record import parse_record

PART = {
    "start_s": 0.0, "end_s": 2.5, "frames": 25, "kept": True, "reason": "", "where": "", "kind": "face",
    "camera": "still", "box": [0, 0, 64, 64], "scores": {"motion": 3.5, "sharpness": 40.0, "side": 64.0}, "still": 0,
}  # fmt: skip
RECORD = {
    "frames": 25, "seconds": 2.5, "width": 64, "height": 64, "bits_per_pixel": 0.5, "cuts": [1.0],
    "hashes": [["0123456789abcdef"] * VARIANTS, []], "parts": [PART], "stills": [{"time": 1.0, "jpeg": "aGFsbG8="}],
    "damage": None,
}  # fmt: skip


def test_a_record_is_returned_unchanged() -> None:
    failed = {"seconds": 0.0, "damage": {"reason": "examination failed", "where": "x"}}
    for record in (RECORD, failed, RECORD | {"parts": [{name: PART[name] for name in list(PART)[:6]}]}):
        assert parse_record(json.dumps(record).encode()) == record


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"5", b"{}", b"\xff", b"[" * 100_000, b'{"seconds": NaN}'])
def test_what_is_no_record_is_none(data: bytes) -> None:
    assert parse_record(data) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(parts=3),
        lambda record: record.update(parts=[{"kept": True}]),
        lambda record: record.update(damage="broken"),
        lambda record: record.update(hashes=[["../../etc"] * VARIANTS]),
        lambda record: record.update(hashes=[["0123456789abcdef"]]),
        lambda record: record.update(seconds=1e300),
        lambda record: record.update(width=-1),
        lambda record: record.update(cuts=["1"]),
        lambda record: record["stills"][0].update(jpeg='"><script>'),
        lambda record: record["parts"][0].update(box=[1, 2]),
        lambda record: record["parts"][0].update(scores={}),
        lambda record: record.pop("damage"),
    ],
)
def test_a_field_that_no_job_wrote_makes_it_none(change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(json.dumps(RECORD))
    change(record)
    assert parse_record(json.dumps(record).encode()) is None
