"""Two commands that write into one folder: the second one is refused in one line, and has written nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.storage import api as storage
from cluster.storage import lock
from cluster.storage.lock import output_lock
from pipeline import adapt, compare, evaluate, export, generate, pairs, pull, studio
from pipeline.recipe import Recipe
from preprocessing import prepare
from preprocessing.preparing import job
from tests.pipeline.untrained_report import untrained_run

HOLD = (
    "import sys; from cluster.storage.lock import output_lock\n"
    "with output_lock(sys.argv[1]): print('held', flush=True); input()"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, small_figures: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    untrained_run(folder, tiny_recipe, small_figures, seed=0)
    return folder


COMMANDS: dict[str, tuple[Callable[[list[str]], None], list[str]]] = {
    "evaluate": (evaluate.main, ["--run", "RUN", "--data", "DATA", "--evaluation.pairs", "4"]),
    "pairs": (pairs.main, ["--data", "DATA", "--evaluation.pairs", "4"]),
    "compare": (compare.main, ["REPORT", "REPORT"]),
    "export": (export.main, ["--run", "RUN", "--license", "mit", "--data", "DATA"]),
    "generate": (generate.main, ["--run", "RUN", "--what", "samples"]),
    "adapt": (adapt.main, ["--run", "RUN", "--data", "DATA", "--static-steps", "1", "--decoder-steps", "1"]),
    "pull": (pull.main, ["hf://org/name"]),
    "prepare": (prepare.main, ["--source.path", "VIDEOS"]),
    "studio": (studio.main, []),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_command_into_a_folder_is_refused(
    name: str, run: Path, small_figures: Path, first_report: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # These libraries may be absent, and are not needed: the command ends before.
    monkeypatch.setattr(job, "LIBRARIES", ())
    monkeypatch.setattr("preprocessing.preparing.detectors.FaceFinder", lambda _: None)
    monkeypatch.setattr("cluster.extras.require", lambda _: None)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    values = {
        "RUN": str(run), "DATA": str(small_figures), "REPORT": str(first_report), "VIDEOS": str(tmp_path / "videos"),
    }  # fmt: skip
    main, args = COMMANDS[name]
    option, out = "--static" if name == "studio" else "--out", tmp_path / "out"
    with output_lock(str(out)):
        before = {path: path.read_bytes() for path in out.rglob("*")}
        with pytest.raises(SystemExit) as caught:
            main([*(values.get(arg, arg) for arg in args), option, str(out)])
        assert {path: path.read_bytes() for path in out.rglob("*")} == before
    assert caught.value.code == 2
    expected = f"error: {out}: process {os.getpid()} on {os.uname().nodename} is writing this folder; wait, or choose "
    assert capsys.readouterr().err.splitlines()[-1] == f"{expected}another {option}"


@pytest.mark.parametrize("place", ["folder", pytest.param("s3", marks=pytest.mark.s3)])
def test_a_command_that_was_killed_does_not_block_the_next_one_and_no_lock_is_left(
    place: str, root: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = str(tmp_path / "out") if place == "folder" else f"{request.getfixturevalue('s3_bucket')}/out"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, out], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert storage.list_files(out) == [".lock"]
    process.kill()
    process.communicate()
    generate.main(["--model", "figures", "--what", "samples", "--out", f"{out}/"])
    assert storage.list_files(out) == ["samples.gif"]


@pytest.mark.s3
def test_a_second_command_into_a_prefix_of_s3_is_refused(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "RENEWAL_S", 0.1)
    with output_lock(f"{s3_bucket}/out/"), pytest.raises(SystemExit):
        generate.main(["--model", "figures", "--what", "samples", "--out", f"{s3_bucket}/out"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {s3_bucket}/out: process {os.getpid()} on ")
    assert line.endswith(" is writing this folder; wait, or choose another --out")


def test_single_files_of_one_folder_are_written_at_the_same_time(tmp_path: Path) -> None:
    with output_lock(str(tmp_path)):
        generate.main(["--model", "figures", "--what", "samples", "--out", str(tmp_path / "a.gif")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_an_export_into_a_folder_whose_writer_was_killed_is_complete(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").write_bytes(b"")
    export.main(["--run", str(run), "--license", "mit", "--out", str(out)])
    assert "config.json" in {path.name for path in out.iterdir()}
    assert not (out / ".lock").exists()
