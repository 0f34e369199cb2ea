"""`vdsm train`: train both stages under Ray Train, from shards to a run with checkpoints and logs.

Rerun the same command to resume an interrupted run.
"""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys
from typing import ClassVar, Literal

from cluster.cli.paths import Location
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError
from pipeline.recipe import TRAINING_SETTINGS, Recipe


class TrainCommand(Recipe, Controls):
    """Train both stages of the model on a dataset. Rerun with the same --name to resume."""

    MAIN: ClassVar[tuple[str, ...]] = TRAINING_SETTINGS
    UNUSED: ClassVar[tuple[str, ...]] = ("source", "shards", "evaluation")

    data: Location
    """Dataset: the folder or s3://bucket/prefix that `vdsm shard` wrote."""
    out: Location = ""
    """Folder or s3://bucket/prefix of the runs. Optional in a dry run."""
    name: str = ""
    """Name of the run; its folder is OUT/NAME. Optional in a dry run."""
    launcher: Literal["ray", "torchrun"] = "ray"
    """What starts the workers: Ray, here or on a cluster; or torchrun, each of whose processes is this command
    (torchrun [...] -m pipeline.train)."""
    profile: bool = False
    """Save a torch profiler trace of three steps of each stage in the folder of the run."""


def train(command: TrainCommand) -> None:
    """Train or resume a run, or report what is missing for it.

    Raises:
        UserError: the data does not fit the recipe, the run was started with other settings or data, or the training
            failed because of invalid input.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was saved.
    """
    # torch and Ray take seconds to import, which --help and invalid input should not wait for.
    from pipeline.runs.begin import log_plan
    from pipeline.runs.start import new_start
    from pipeline.runs.store import absolute, run_url
    from pipeline.trackers.registry import check_installed

    recipe = Recipe.of(command)
    data = absolute(command.data)
    run = run_url(command.out, command.name) if command.out and command.name else None
    if command.dry_run:
        _print_preview(recipe, data, run)
        return
    if run is None:
        raise UserError("--out and --name are required: the folder of the runs, and a name for this run")
    check_installed(recipe.training.trackers)
    if command.launcher == "torchrun":
        from pipeline.torchrun.run import train_recipe as train_ranks

        train_ranks(recipe, data, run, profile=command.profile)
        return
    from pipeline.ray_train.run import train_recipe

    new_start(recipe, run)  # raises what is wrong with it before pairs are searched
    log_plan(recipe, data)
    train_recipe(recipe, data, run, profile=command.profile)


def _print_preview(recipe: Recipe, data: str, run: str | None) -> None:
    from pipeline.ray_train.dry_run import preview

    lines, missing = preview(recipe, data, run)
    lines += [f"missing: {line}" for line in missing] + ["nothing was started (--dry-run)"]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if missing:
        raise UserError(f"missing for this training: {'; '.join(missing)}")


main = entry(TrainCommand, train, prog="vdsm train")


if __name__ == "__main__":
    main()
