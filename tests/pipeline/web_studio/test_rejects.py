"""rejects.jsonl of a foreign dataset: its records, or one line."""

import json
from pathlib import Path

import pytest

from cluster.errors import UserError
from pipeline.web_studio.api_data import read_rejects

RECORD = {"path": "a.mp4", "reason": "damaged", "where": "", "clips": 0, "split": "train"}


def test_records_are_read_and_a_dataset_without_the_file_has_none(tmp_path: Path) -> None:
    assert read_rejects(str(tmp_path)) == []
    (tmp_path / "rejects.jsonl").write_text(f"{json.dumps(RECORD)}\n\n{json.dumps(RECORD)}\n")
    assert [entry.path for entry in read_rejects(str(tmp_path))] == ["a.mp4", "a.mp4"]


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000, '{"path":' * 100_000, "{}", "null", "\udcff", '{"path": NaN}', "9" * 5000,
        *(json.dumps(RECORD | change) for change in (
            {"clips": 2**70}, {"clips": "1"}, {"clips": -1}, {"path": ["a"]}, {"reason": None}, {"path": "\udc80"},
        )),
    ],
)  # fmt: skip
def test_what_is_no_record_is_one_line(line: str, tmp_path: Path) -> None:
    text = f"{json.dumps(RECORD)}\n{line}\n"
    (tmp_path / "rejects.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"^rejects.jsonl of the dataset is damaged; run `vdsm verify` on it$"):
        read_rejects(str(tmp_path))
