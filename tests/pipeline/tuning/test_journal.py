"""The journal of a study: what killed drivers and other file systems do to it."""

import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from cluster.errors import UserError
from cluster.storage.errors import StorageError
from pipeline.recipe import Recipe
from pipeline.tuning.space import Parameter
from pipeline.tuning.study import drive, open_study, storage_of
from pipeline.tuning.sweep import Sweep

SWEEP = Sweep(space={"training.stage1.learning_rate": Parameter(low=1e-4, high=1e-2, log=True)}, trials=6)


def opened(path: Path, name: str = "s") -> optuna.Study:
    return open_study(str(path), name, SWEEP, Recipe())


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Return the journal of a study with one complete trial."""
    path = tmp_path / "study.journal"
    study = opened(path)
    study.tell(study.ask(), 0.5)
    return path


@pytest.mark.parametrize(
    "torn", [b'{"op_code":4,"worker_id":"a', b"{", b"\0" * 4096, b'{"op_code":4,"worker_id":"\xff']
)
def test_a_torn_last_line_costs_nothing_but_itself(torn: bytes, journal: Path) -> None:
    before = journal.read_bytes()
    journal.write_bytes(before + torn)
    study = opened(journal)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]
    study.tell(study.ask(), 0.7)
    for reader in (study, opened(journal)):
        assert [trial.values for trial in reader.trials] == [[0.5], [0.7]]
    assert journal.read_bytes().startswith(before)
    assert all(line.endswith(b"}\n") for line in journal.read_bytes().splitlines(keepends=True))


def test_a_line_torn_while_another_driver_writes_to_the_journal_costs_nothing_but_itself(journal: Path) -> None:
    other = opened(journal, "other")
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"wor')  # by a driver that was killed
    other.tell(other.ask(), 0.1)
    assert [trial.values for trial in opened(journal, "other").trials] == [[0.1]]
    assert [trial.values for trial in opened(journal).trials] == [[0.5]]


def test_a_last_line_without_its_line_break_counts(journal: Path) -> None:
    journal.write_bytes(journal.read_bytes().rstrip(b"\n"))
    study = opened(journal)
    study.tell(study.ask(), 0.7)
    assert [trial.values for trial in opened(journal).trials] == [[0.5], [0.7]]


@pytest.mark.parametrize(
    "content",
    [
        b"not JSON\nnor this\n",
        b"{}\n{}\n",
        b'{"op_code":99,"worker_id":"a"}\n{}\n',
        b"[]\n",
        b"\xff\n\n",
        b"null\n" * 3,
    ],
)
def test_a_file_that_is_no_study_is_named_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path} is damaged, or is not a study .*choose another --name or --study$"):
        opened(path)
    assert path.read_bytes() == content


def test_notes_without_a_line_break_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(b"my notes")
    with pytest.raises(UserError, match="its last line is not JSON"):
        opened(path)
    assert path.read_bytes() == b"my notes"


def test_a_journal_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    (tmp_path / "study.journal").symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match="is a symbolic link"):
        storage_of(str(tmp_path / "study.journal"))
    assert (tmp_path / "precious").read_text() == ""


def test_a_journal_needs_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(os, "link", refuse)
    study = opened(tmp_path / "study.journal")
    study.tell(study.ask(), 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Not a directory|File exists"):
        storage_of(str(tmp_path / "file" / "study.journal"))


def test_a_driver_learns_that_another_one_took_over_its_study(journal: Path) -> None:
    check = drive(opened(journal))
    check()
    check_of_other = drive(opened(journal))
    with pytest.raises(StorageError, match="study s: another driver took over this study; this one stops"):
        check()
    check_of_other()
