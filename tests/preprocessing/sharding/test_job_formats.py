"""A sharding job completes a dataset in the format in which it was started, and leaves an upgraded one unchanged."""

import os
import shutil
from pathlib import Path
from typing import Literal

import pytest

from preprocessing import shard, verify
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding import job
from preprocessing.sharding.output_lock import acquire_output
from preprocessing.sharding.plan import make_plan
from preprocessing.sharding.write_shard import write_shard
from preprocessing.sources.config import FiguresConfig, SourceConfig
from preprocessing.sources.registry import make_source

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
