"""`vdsm tune`: search for settings with Ray Tune and Optuna; every trial is a complete run of both stages.

If interrupted, rerun the same command to resume: the study records what is left, and interrupted trials resume from
their own checkpoints.
"""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cluster.cli.paths import Location
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.cli.shipped_recipes import sweep_path
from cluster.errors import UserError
from cluster.extras import require
from cluster.storage import api as storage
from pipeline.recipe import TRAINING_SETTINGS, Recipe

if TYPE_CHECKING:
    from pipeline.tuning.space import Space


class TuneCommand(Recipe, Controls):
    """Search for better settings of a recipe. If interrupted, rerun with the same name to resume."""

    MAIN: ClassVar[tuple[str, ...]] = TRAINING_SETTINGS
    UNUSED: ClassVar[tuple[str, ...]] = ("source", "shards")

    sweep: Location
    """The searched settings and ranges: a name that `vdsm recipes` lists, or a YAML file."""
    data: Location
    """Dataset: the folder or s3://bucket/prefix that `vdsm shard` wrote. Its test split is not read."""
    out: Location
    """Folder or s3://bucket/prefix of the runs."""
    name: str
    """Name of the sweep; its folder is OUT/NAME."""
    study: Location | None = None
    """Where the study is stored: a file on a disk that outlives the driver, or a database such as
    postgresql://user@host/optuna (password in PGPASSWORD). none means OUT/NAME/study.journal, for a local OUT."""


def tune(command: TuneCommand) -> None:
    """Run the remaining trials of the sweep, then write best.yaml and sweep.html.

    Raises:
        UserError: the space, the data or the storage is unusable, or the sweep was started with other settings.
        KeyboardInterrupt: Ctrl-C; rerun the command to resume.
    """
    from pipeline.tuning.space import Space
    from pipeline.tuning.sweep import read_sweep

    sweep = read_sweep(sweep_path(command.sweep))
    recipe = Recipe.of(command)
    try:
        space = Space(sweep.space, recipe)
    except UserError as error:
        raise UserError(f"{command.sweep}: {error}") from None
    # Optuna, torch and Ray take seconds to import, which --help and invalid input should not wait for.
    from pipeline.runs.begin import plan_stages
    from pipeline.runs.store import absolute, run_url

    url, data = run_url(command.out, command.name), absolute(command.data)
    study_url = _study_url(command, url)
    stages = plan_stages(space.recipe({}, sweep.steps_fraction), data)
    _check_scorable(space, data)
    if command.dry_run:
        lines = [*sweep.describe(map(str, stages)), f"output: {url}; nothing was started (--dry-run)"]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        return
    require("ray")
    require("optuna")
    storage.check_writable(url)
    from pipeline.tuning.sweep_run import run_sweep

    run_sweep(recipe, sweep, space, data=data, url=url, name=command.name, study_url=study_url)


def _check_scorable(space: "Space", data: str) -> None:
    """Check that trials can be scored, before the first one is trained; `run_trial` checks those that search it."""
    from pipeline.tuning.validation_split import check_scorable
    from preprocessing.dataset.reader import ClipDataset

    if not {"seed", "training.validation_fraction"} & space.parameters.keys():
        check_scorable(ClipDataset(data, "train"), space.recipe({}))


def _study_url(command: TuneCommand, url: str) -> str:
    from pipeline.runs.store import absolute

    if command.study is not None:
        return command.study if "://" in command.study else absolute(command.study)
    if storage.is_remote(url):
        raise UserError(
            f"--out {command.out} is in S3, where a study cannot be stored; give --study a file on a disk that "
            "outlives the driver, or the URL of a database"
        )
    return str(Path(url) / "study.journal")


main = entry(TuneCommand, tune, prog="vdsm tune")


if __name__ == "__main__":
    main()
