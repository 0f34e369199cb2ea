"""Rows and labels are found however accents and text are stored; a sidecar for other files is an error."""

import json
import logging
import os
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from cluster.errors import UserError
from preprocessing.clip import Item
from preprocessing.sources.config import LabelsConfig
from tests.preprocessing.sources.videos_source import item, source

Form = Literal["NFC", "NFD"]


def listed(folder: Path, *names: str) -> Path:
    """Make files that can be listed."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(200))
    return folder


def items(folder: Path, **labels: object) -> list[Item]:
    return source(folder, labels=LabelsConfig(**labels)).items()  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_row_is_found_whichever_form_its_accents_have(
    tmp_path: Path, written: Form, stored: Form, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    listed(tmp_path / "in", unicodedata.normalize(stored, "é/café.mp4"), "b.mp4")
    path = unicodedata.normalize(written, "é/café.mp4")
    rows = [{"path": path, "identity": unicodedata.normalize(written, "Zoë")}, {"path": "b.mp4", "identity": "bob"}]
    sidecar = tmp_path / f"rows.{kind}"
    text = json.dumps(rows) if kind == "json" else "".join(f"{row['path']},{row['identity']}\n" for row in rows)
    sidecar.write_text(text if kind == "json" else f"path,identity\n{text}", encoding="utf-8")
    found = items(tmp_path / "in", sidecar=str(sidecar))
    assert {one.group for one in found} == {"Zoë", "bob"}
    assert caplog.text == ""


def test_two_files_that_look_the_same_each_have_the_row_that_is_exactly_theirs(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD")]
    listed(tmp_path / "in", *names)
    (tmp_path / "rows.csv").write_text("path,identity\n" + "".join(f"{name},{n}\n" for n, name in enumerate(names)))
    assert {one.path: one.group for one in items(tmp_path / "in", sidecar=f"{tmp_path}/rows.csv")} == {
        names[0]: "0", names[1]: "1",
    }  # fmt: skip


@pytest.mark.parametrize("labels", [{"folders": ("identity",)}, {"pattern": "(?P<identity>[^/]+é)/"}])
def test_an_identity_is_one_whichever_form_its_folder_has(tmp_path: Path, labels: dict[str, object]) -> None:
    folders = [unicodedata.normalize(form, "André") for form in ("NFC", "NFD")]
    found = items(listed(tmp_path, f"{folders[0]}/1.mp4", f"{folders[1]}/2.mp4", "Zoé/3.mp4"), **labels)
    assert {one.group for one in found} == {folders[0], "Zoé"}


def test_folders_that_are_not_utf_8_give_labels_and_rows_can_name_them(tmp_path: Path) -> None:
    name = os.fsdecode(b"andr\xe9/caf\xe9.mp4")
    listed(tmp_path / "in", name, "b/b.mp4")
    assert {one.group for one in items(tmp_path / "in", folders=("identity",))} == {"andr\\udce9", "b"}
    (tmp_path / "rows.csv").write_text("path,identity\nandr\\udce9/caf\\udce9.mp4,anna\nb/b.mp4,bob\n")
    assert {one.group for one in items(tmp_path / "in", sidecar=f"{tmp_path}/rows.csv")} == {"anna", "bob"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_sidecar_may_have_a_byte_order_mark(tmp_path: Path, encoding: str, kind: str) -> None:
    text = '[{"path": "é.mp4", "identity": "anna"}]' if kind == "json" else "path,identity\r\né.mp4,anna\r\n"
    (tmp_path / f"rows.{kind}").write_bytes(text.encode(encoding))
    found = items(listed(tmp_path / "in", "é.mp4"), sidecar=f"{tmp_path}/rows.{kind}")
    assert [one.group for one in found] == ["anna"]


@pytest.mark.parametrize(
    ("row", "name"), [("clips/v1.mp4", "v1.mp4"), (r"clips\v1.mp4", "v1.mp4"), ("V1.AVI", "v1.mp4"), ("zz", "v0.mp4")]
)
def test_a_sidecar_that_matches_nothing_shows_a_row_and_an_input_side_by_side(
    tmp_path: Path, row: str, name: str
) -> None:
    (tmp_path / "rows.csv").write_text(f"path,identity\nother.mp4,x\n{row},anna\n" if row != "zz" else "path,a\nzz,1\n")
    with pytest.raises(UserError) as raised:
        items(listed(tmp_path / "in", "v0.mp4", "v1.mp4"), sidecar=f"{tmp_path}/rows.csv")
    assert f"rows.csv names an input: the path of a row is {row}, that of an input {name}; write" in str(raised.value)


def test_rows_without_an_input_are_shown_beside_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rows.csv").write_text("path,identity\nv0.mp4,anna\nx/v1.mp4,bob\ngone.mp4,bob\n")
    with caplog.at_level(logging.WARNING):
        found = source(listed(tmp_path / "in", "v0.mp4", "v1.mp4"), labels=LabelsConfig(sidecar=f"{tmp_path}/rows.csv"))
        assert item(found, "v1.mp4").doubt == "it has no row in labels.sidecar"
    assert "2 rows of the sidecar match no input, for example x/v1.mp4; an input is v1.mp4" in caplog.text
