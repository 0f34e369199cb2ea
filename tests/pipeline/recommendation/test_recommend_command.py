"""`vdsm recommend`: what it writes is a recipe that `vdsm train` takes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.storage import api as storage
from pipeline import train
from pipeline.recommend import main
from tests.pipeline.recommendation.made_videos import write_videos

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path / "cache"))


def failure(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


VIDEOS: dict[str, dict[str, Any]] = {
    "filmed": {},
    "drawn": {"noise": 0, "size": 64},
    "grey": {"noise": 0, "grey": True},
    "large": {"size": 128, "people": 3},
    "short": {"length": 2},
    "long": {"length": 70, "people": 3},
    "one clip of each": {"windows": 1},
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_the_recipe_can_be_trained(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, recipe = write_videos(tmp_path / "data", **VIDEOS[kind]), tmp_path / "mine.yaml"
    main(["--data", data, "--out", str(recipe), "--measure-s", "0"])
    assert capsys.readouterr().out == f"{recipe}\n"
    given = ["--config", str(recipe), "--data", data, "--out", str(tmp_path / "runs"), "--name", "first"]
    train.main([*given, "--dry-run"])
    output = capsys.readouterr().out
    assert "stage 2: " in output
    assert "missing" not in output
    with pytest.raises(SystemExit) as caught:
        train.main([*given, "--print-config"])
    assert caught.value.code == 0
    resolved, written = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(recipe.read_text())
    assert resolved["training"]["stage1"]["steps"] == written["training"]["stage1"]["steps"]


def test_it_prints_the_recipe_and_writes_no_file_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data, recipe = write_videos(tmp_path / "data"), tmp_path / "mine.yaml"
    main(["--data", data, "--out", str(recipe), "--dry-run"])
    printed = capsys.readouterr().out
    assert not recipe.exists()
    assert any(line.startswith("24 training clips are few") for line in caplog.messages)
    assert f"#   vdsm train --config {recipe} --data {data} " in printed
    main(["--data", data, "--measure-s", "0"])
    assert capsys.readouterr().out == printed.replace(str(recipe), "mine.yaml")
    main(["--data", data, "--out", str(recipe), "--measure-s", "0"])
    assert recipe.read_text() == printed


def test_a_file_that_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, recipe = write_videos(tmp_path / "data"), tmp_path / "mine.yaml"
    recipe.write_text("seed: 3\n")
    assert failure(capsys, ["--data", data, "--out", str(recipe)]).startswith(f"error: {recipe} exists; name another")
    assert recipe.read_text() == "seed: 3\n"


def test_a_file_that_another_process_writes_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, recipe = write_videos(tmp_path / "data"), tmp_path / "mine.yaml"

    def other_is_faster(*_: object, **__: object) -> tuple[str, list[str]]:
        recipe.write_text("seed: 3\n")
        return "seed: 4\n", []

    monkeypatch.setattr("pipeline.recommendation.recommend.recommendation", other_is_faster)
    assert failure(capsys, ["--data", data, "--out", str(recipe)]).startswith(f"error: {recipe} exists; name another")
    assert recipe.read_text() == "seed: 3\n"


def test_missing_data_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}/manifest.json is missing" in failure(capsys, ["--data", str(tmp_path)])


@pytest.mark.s3
def test_data_and_recipe_may_be_in_s3(
    s3_bucket: str, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(small_figures.rglob("*")):
        if path.is_file():
            storage.upload(path, f"{s3_bucket}/data/{path.relative_to(small_figures)}")
    main(["--data", f"{s3_bucket}/data", "--out", f"{s3_bucket}/mine.yaml", "--measure-s", "0"])
    main(["--data", str(small_figures), "--measure-s", "0"])
    local = capsys.readouterr().out.partition("\n")[2].replace(str(small_figures), f"{s3_bucket}/data")
    stored = storage.read_bytes(f"{s3_bucket}/mine.yaml").decode()
    assert yaml.safe_load(stored) == yaml.safe_load(local)
