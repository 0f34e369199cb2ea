"""The input files that a path selects: names with special characters, and lists as editors and systems write them."""

import unicodedata
from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.sources.listing import find_inputs
from preprocessing.sources.patterns import select
from tests.preprocessing.sources.videos_source import source

FILES = [
    "set [2024]/a.mp4",
    "set [2024]/b.avi",
    "set [b-a]/c.mp4",
    "set 2/d.mp4",
    "what?/e[1].mp4",
    "whatX/e1.mp4",
    "f*g/h.mp4",
]
"""Files whose folders have names that are patterns too."""


def selected(path: str) -> tuple[str, list[str]]:
    """Return the last part of the folder that names are relative to, and the names."""
    found = find_inputs(path)
    return found.base.rpartition("/")[2], [entry.name for entry in found.entries()]


CASES = [
    ("set [2024]", "set [2024]", ["a.mp4", "b.avi"]),
    ("set [2024]/", "", ["a.mp4", "b.avi"]),
    ("set [2024]/*.mp4", "set [2024]", ["a.mp4"]),
    ("set [b-a]/*.mp4", "set [b-a]", ["c.mp4"]),
    ("set [2024]/[ab].*", "set [2024]", ["a.mp4", "b.avi"]),
    ("set [1-3]/*.mp4", "ROOT", ["set 2/d.mp4"]),
    ("what?/e[1].mp4", "what?", ["e[1].mp4"]),
    ("what?/*", "what?", ["e[1].mp4"]),
    ("what[X]/*", "ROOT", ["whatX/e1.mp4"]),
    ("*/e[1].mp4", "ROOT", ["what?/e[1].mp4", "whatX/e1.mp4"]),
    ("**/set [2024]/*", "ROOT", ["set [2024]/a.mp4", "set [2024]/b.avi"]),
    ("f*g/*", "f*g", ["h.mp4"]),
    ("**/*.avi", "ROOT", ["set [2024]/b.avi"]),
    ("se[!x] [[]*/*.mp4", "ROOT", ["set [2024]/a.mp4", "set [b-a]/c.mp4"]),
]  # fmt: skip
"""A path, the folder that its files are relative to, and their names."""


@pytest.mark.parametrize(("path", "base", "names"), CASES)
def test_a_name_with_special_characters_is_first_of_all_a_name(
    tmp_path: Path, path: str, base: str, names: list[str]
) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert selected(f"{tmp_path}/{path}") == (base.replace("ROOT", tmp_path.name), names)


def test_a_name_with_special_characters_in_s3_too(s3_bucket: str) -> None:
    for name in FILES:
        storage.write_bytes(f"{s3_bucket}/in/{name}", b"x")
    storage.write_bytes(f"{s3_bucket}/list [1].txt", b"in/what?/e[1].mp4\n")
    for path, base, names in CASES:
        assert selected(f"{s3_bucket}/in/{path}") == (base.replace("ROOT", "in"), names), path
    assert selected(f"{s3_bucket}/list [1].txt")[1] == ["in/what?/e[1].mp4"]
    assert selected(f"{s3_bucket}/in/what?/e[1].mp4") == ("what?", ["e[1].mp4"])


def test_a_relative_pattern_and_one_that_matches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a [1]").mkdir()
    Path("a [1]/x.mp4").touch()
    assert selected("a [1]/*.mp4") == ("a [1]", ["x.mp4"])
    assert selected("*/x.mp4") == (".", ["a [1]/x.mp4"])
    for path in ("a [z-a]/*.mp4", "[", "[]", "a [1]/[z-a]*"):
        with pytest.raises(UserError, match="no videos found"):
            source(path).items()


def test_any_folders_match_in_time_that_does_not_explode() -> None:
    names = ["a/" * 60 + "x.mp4", "x.mp4", "b/x.mp4"]
    assert select(names, "**/" * 30 + "x.mp4") == set(names)
    assert select(names, "b/**/x.mp4") == {"b/x.mp4"}


CONTENT = "# videos\r\nv 1.mp4\r\n\r\n  é.mp4\r\n"


@pytest.mark.parametrize(
    "data",
    [
        CONTENT.encode(),
        CONTENT.encode("utf-8-sig"),
        CONTENT.replace("\r\n", "\r").encode(),
        "v 1.mp4\n".encode("utf-8-sig") + "é.mp4".encode("utf-8-sig"),
        "\ufeff# videos\nv 1.mp4\né.mp4\n".encode(),
        CONTENT.encode("utf-16"),
        ("\ufeff" + CONTENT).encode("utf-16-be"),
    ],
    ids=["plain", "mark", "old Mac", "two lists joined", "mark and comment", "UTF-16", "UTF-16, big-endian"],
)
def test_a_list_from_any_editor_is_read(tmp_path: Path, data: bytes) -> None:
    for name in ("v 1.mp4", "é.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_bytes(data)
    assert selected(f"{tmp_path}/list.txt")[1] == ["v 1.mp4", "é.mp4"]


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_accents_in_a_list_may_be_composed_or_not(tmp_path: Path, s3_bucket: str, listed: str, stored: str) -> None:
    name = unicodedata.normalize(stored, "café/ü.mp4")  # type: ignore[arg-type]
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).touch()
    storage.write_bytes(f"{s3_bucket}/{name}", b"")
    line = unicodedata.normalize(listed, "café/ü.mp4")  # type: ignore[arg-type]
    for folder in (str(tmp_path), s3_bucket):
        storage.write_bytes(f"{folder}/list.txt", line.encode())
        assert selected(f"{folder}/list.txt")[1] == [name]


def test_a_line_of_a_list_may_start_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "v.mp4").touch()
    (tmp_path / "list.txt").write_text("~/v.mp4\n")
    assert selected(f"{tmp_path}/list.txt")[1] == [f"{tmp_path}/v.mp4"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("gone.mp4", ", which does not exist or is not a file"),
        ("folder", ", which does not exist or is not a file"),
        ("v.mp4/x", ", which does not exist or is not a file"),
        ("a\0b.mp4", ": holds a character that no name of a file can have"),
        ("~nobody-of-this-name/a.mp4", ": the home folder of ~nobody-of-this-name is not known"),
        ("s3://key:secret@bucket/a.mp4", ": holds credentials"),
    ],
)
def test_a_line_without_a_file_is_named(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "v.mp4").touch()
    (tmp_path / "list.txt").write_text(f"v.mp4\n{line}\n")
    with pytest.raises(UserError, match=f"list.txt lists .*{problem}") as raised:
        selected(f"{tmp_path}/list.txt")
    assert str(raised.value).isprintable()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "other", ["./a.mp4", ".//a.mp4", "b/../a.mp4", "./b/.././a.mp4", "BASE/a.mp4", "BASE//b/../a.mp4"]
)
def test_a_file_that_a_list_names_in_two_ways_is_one_input(tmp_path: Path, other: str) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a.mp4", "b/c.mp4"):
        (tmp_path / name).touch()
    for lines in ([other, "a.mp4"], [other]):
        text = "\n".join(["b/c.mp4", *lines]).replace("BASE", str(tmp_path))
        (tmp_path / "list.txt").write_text(text)
        names = selected(f"{tmp_path}/list.txt")[1]
        assert sorted((tmp_path / name).resolve().name for name in names) == ["a.mp4", "c.mp4"]
