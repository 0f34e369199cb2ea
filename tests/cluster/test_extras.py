"""A command whose library is not installed says in one line what to install, and has written nothing."""

from pathlib import Path

import pytest

from cluster import extras
from cluster.cli.run import run
from pipeline.cli import main


def failure(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2
    return capsys.readouterr().err.removeprefix("error: ")


def test_sharding_without_ray_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda module: None)
    message = failure(capsys, "shard", "--config", "quickstart", "--out", str(tmp_path / "data"))
    assert message == "this needs ray, which is not installed; pip install 'vdsm-pipeline[train]'\n"
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_missing_later_is_reported_alike(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: list[str]) -> None:
        raise ModuleNotFoundError("No module named 'optuna'", name="optuna.trial")

    with pytest.raises(SystemExit) as stopped:
        run(fail, [])
    assert stopped.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: this needs optuna, which is not installed; pip install 'vdsm-pipeline[tune]'\n"
    )


def test_a_missing_module_of_no_extra_stays_a_traceback() -> None:
    def fail(_: list[str]) -> None:
        raise ModuleNotFoundError("No module named 'pipeline.absent'", name="pipeline.absent")

    with pytest.raises(ModuleNotFoundError):
        run(fail, [])


def test_the_command_that_writes_a_recipe_points_to_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "`vdsm recipes sprites` prints one" in failure(capsys, "recipe", "sprites")
