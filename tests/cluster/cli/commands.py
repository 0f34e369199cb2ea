"""Commands for the tests of the command line, and how to call them."""

from pathlib import Path

import pytest

from cluster.cli.run import parse, run
from cluster.cli.settings import Controls
from pipeline.recipe import Recipe
from preprocessing.recipe import DataRecipe


class TrainLike(Recipe, Controls):
    """Train a small model."""

    data: str
    """Dataset: a folder or s3://bucket/prefix."""
    out: Path = Path("runs")
    """Folder for runs."""


class ShardLike(DataRecipe, Controls):
    """Shard a small source."""

    out: str
    """Folder for shards."""


def read(*args: str) -> TrainLike:
    return parse(TrainLike, ["--data", "here", *args], prog="vdsm train")


def recipe(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def user_error(capsys: pytest.CaptureFixture[str], command: type[TrainLike | ShardLike], *args: str) -> str:
    """Return the one line of stderr with which a command line is rejected."""
    with pytest.raises(SystemExit) as stopped:
        run(lambda rest: print(parse(command, rest, prog="vdsm x")), args)
    output = capsys.readouterr()
    assert stopped.value.code == 2
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 1, output.err
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")
