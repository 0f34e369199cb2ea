"""Files in the folder of a foreign run, of its report or of its pairs: each is read, or refused in one line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.storage.errors import StorageError
from cluster.storage.lock import run_lock
from cluster.storage.lock_owner import find_owner, lock_content
from pipeline.evaluation.pairs_file import read_pairs
from pipeline.recipe import Recipe
from pipeline.runs.log import RunLog
from pipeline.runs.start import ORIGIN, stored_origin

ODD = {
    "nested deeply": b"[" * 60_000,
    "objects nested deeply": b'{"format":' * 60_000,
    "many digits": b"9" * 5000,
    "null": b"null",
    "a list": b"[[1, 2], 3]",
    "a list of lists": b"[[1]]",
    "a string": b'"text"',
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
    "cut short": b'{"format": 1, "key',
    "another version": b'{"format": NaN}',
}


def warm(_: Path) -> Recipe:
    return Recipe.model_validate({"training": {"start_from": "/elsewhere"}})


READERS: dict[str, Callable[[Path], Any]] = {
    "pairs.json": lambda folder: read_pairs(str(folder)),
    ORIGIN: lambda folder: stored_origin(str(folder), warm(folder)),
}


@pytest.mark.parametrize("fault", ODD)
@pytest.mark.parametrize("name", READERS)
def test_foreign_json_is_refused_in_one_line_that_names_the_file(name: str, fault: str, tmp_path: Path) -> None:
    if name == ORIGIN and fault == "another version":
        pytest.skip("it has no version")
    (tmp_path / name).write_bytes(ODD[fault])
    with pytest.raises(UserError, match=name) as error:
        READERS[name](tmp_path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("pid", ["Infinity", "-Infinity", "NaN", "1e999", "[]", '"x"', "null", "9" * 5000])
def test_a_lock_of_any_content_has_an_owner_that_can_be_named(pid: str) -> None:
    content = b'{"owner": {"host": "\\u001b[2J", "boot": [], "space": {}, "pid": %s}}' % pid.encode()
    assert find_owner(content).name == "another process"


def test_the_owner_of_a_lock_of_this_process_is_this_process() -> None:
    assert find_owner(lock_content()).pid == os.getpid()
    assert json.loads(lock_content())["owner"]["pid"] == os.getpid()


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "FIFO", "folder", "link to nothing"])
@pytest.mark.parametrize("name", [".lock", "events.jsonl"])
def test_what_is_in_the_place_of_a_file_of_the_run_is_named_and_left_alone(
    kind: str, name: str, tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.write_text("precious")
    make = {
        "symbolic link": lambda: (run / name).symlink_to(other),
        "hard link": lambda: (run / name).hardlink_to(other),
        "FIFO": lambda: os.mkfifo(run / name),
        "folder": lambda: (run / name).mkdir(),
        "link to nothing": lambda: (run / name).symlink_to(tmp_path / "nothing"),
    }
    make[kind]()
    with pytest.raises(StorageError, match=f"^{run / name}"), run_lock(str(run)):
        RunLog(str(run), Recipe().training).event("start")
    assert other.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()
