"""A sharding job completes a dataset in the format in which it was started, chooses that of a new one by its size, and
leaves an upgraded one unchanged."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from preprocessing import shard, verify
from preprocessing.clip import Clip, Item
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding import job
from preprocessing.sharding.output_lock import acquire_output
from preprocessing.sharding.plan import make_plan
from preprocessing.sharding.write_shard import write_shard
from preprocessing.sources.config import FiguresConfig, SourceConfig
from preprocessing.sources.registry import make_source
from tests.preprocessing.sharding.listed_source import ListedSource

SETTINGS = ("--source.figures.identities", "4", "--source.figures.clip-frames", "2", "--shards.target-mb", "0.5")


def write_shards(out: Path, version: Literal[2, 3]) -> None:
    """Write the shards of a dataset as the job that is interrupted then leaves it."""
    figures = FiguresConfig(identities=4, clip_frames=2)
    shards = ShardsConfig(target_mb=0.5, format=version)
    recipe = DataRecipe(source=SourceConfig(name="figures", figures=figures), shards=shards)
    source = make_source(recipe.source, recipe.seed)
    plan = make_plan(recipe, source)
    acquire_output(str(out), plan)
    for planned in plan.shards:
        write_shard(str(out), plan.identity, planned, source)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_dataset_keeps_its_format_and_an_upgraded_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "write_shards", None)  # nothing is missing
    two, three, upgraded = (tmp_path / name for name in ("two", "three", "upgraded"))
    write_shards(two, 2)
    write_shards(three, 3)
    shard.main([*SETTINGS, "--shards.format", "3", "--out", str(two)])
    shard.main([*SETTINGS, "--shards.format", "2", "--out", str(three)])
    assert not (two / "shards.arrow").exists()
    for folder in (two, three):
        verify_dataset(str(folder))
    shutil.copytree(two, upgraded)
    verify.main([str(upgraded), "--upgrade"])
    same = {name: data for name, data in tree(three).items() if name.endswith((".tar", ".npy", ".jsonl"))}
    same |= {name: data for name, data in tree(three).items() if name.endswith(".arrow") and "/" in name}
    assert same.items() <= tree(upgraded).items()
    before = tree(upgraded)
    shard.main([*SETTINGS, "--out", str(upgraded)])
    assert tree(upgraded) == before
    (upgraded / "preview.html").unlink()
    shard.main([*SETTINGS, "--out", str(upgraded)])
    assert tree(upgraded) == before
    complete = tree(three)
    os.truncate(three / "shards.arrow", 1000)
    shard.main([*SETTINGS, "--out", str(three)])
    assert tree(three) == complete


class Listed(ListedSource):
    """Lists 20 inputs of as many clips as one likes, of which none is read."""

    def __init__(self, clips: int | None) -> None:
        parts = ("train", "train", "train", "test") * 5
        super().__init__([Item(f"v{n}", split, 1000, clips) for n, split in enumerate(parts)])

    def clips(self, item: Item) -> Iterator[Clip]:
        return iter([])


def dry_run(monkeypatch: pytest.MonkeyPatch, out: Path, clips: int | None, *options: str) -> None:
    monkeypatch.setattr(job, "make_source", lambda *_: Listed(clips))
    shard.main([*options, "--dry-run", "--out", str(out)])


@pytest.mark.parametrize(
    ("clips", "options", "expected"),
    [
        (5000, (), "format 2: the plan has 100,000 clips or inputs, at most 100,000 (shards.format: auto)"),
        (5001, (), "format 3: the plan has 100,020 clips or inputs, more than 100,000 (shards.format: auto)"),
        (None, (), "format 2: the plan has 20 clips or inputs, at most 100,000 (shards.format: auto)"),
        (5001, ("--shards.format", "2"), "format 2: shards.format is 2"),
        (1, ("--shards.format", "3"), "format 3: shards.format is 3"),
    ],
)
def test_a_dry_run_prints_the_format_and_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    clips: int | None,
    options: tuple[str, ...],
    expected: str,
) -> None:
    dry_run(monkeypatch, tmp_path / "data", clips, *options)
    assert f"\ndataset {expected}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "clips", "expected"),
    [(2, 5001, "{}; `vdsm verify --upgrade` makes format 3 of 2"), (3, 5, "{}"), (3, 5001, "{}")],
)
def test_a_dataset_that_was_started_keeps_its_format_whatever_is_chosen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    version: Literal[2, 3],
    clips: int,
    expected: str,
) -> None:
    out = str(tmp_path / "data")
    recipe = DataRecipe(shards=ShardsConfig(format=version))
    acquire_output(out, make_plan(recipe, Listed(clips)))
    before = tree(tmp_path)
    dry_run(monkeypatch, tmp_path / "data", clips)
    reason = expected.format(f"as {out} was started")
    assert f"\ndataset format {version}: {reason}\n" in capsys.readouterr().out
    assert tree(tmp_path) == before


def test_format_3_without_pyarrow_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pyarrow" else find(name, *rest)
    )
    monkeypatch.setattr(job, "make_source", lambda *_: Listed(5001))
    with pytest.raises(SystemExit):
        shard.main(["--out", str(tmp_path / "data")])
    assert "needs pyarrow, which is not installed; pip install 'vdsm-pipeline[data]'; or set shards.format: 2" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "data").exists()
    dry_run(monkeypatch, tmp_path / "data", 5001, "--shards.format", "2")
