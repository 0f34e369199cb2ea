"""`vdsm quickstart`: from nothing to an action-transfer report, on figures that this package draws itself.

Three jobs, one after the other, on one Ray: shard, train, evaluate. Each one goes on where it was, so the whole does:
what is finished is found finished, and nothing is kept here beside what the jobs keep.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import os
import sys
import time
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError
from pipeline.recipe import Recipe

log = logging.getLogger(__name__)
C = TypeVar("C", bound=BaseModel)

RECIPE = "quickstart.yaml"
RUN = "figures"
NEXT = """The same on your own videos, in three commands. The recipe says how to label them and what else can be set;
docs/preprocessing.md lists the other sources of clips.

  vdsm shard --config configs/videos.yaml --source.path FOLDER --out DATA
  vdsm train --config configs/videos.yaml --data DATA --out RUNS --name first
  vdsm evaluate --run RUNS/first --data DATA --out REPORT
"""


class QuickstartCommand(Recipe, Controls):
    """Shard built-in figures, train both stages, evaluate, and write a report. Start it again and it goes on."""

    out: str = "quickstart"
    """Folder for the data, the run and the report; may be s3://bucket/prefix."""


def _with_recipe(words: list[str]) -> list[str]:
    if any(word.partition("=")[0] == "--config" for word in words):
        return words
    return ["--config", str(recipe_path()), *words]


def recipe_path() -> Path:
    """The recipe of the quickstart: in the repository, or where an installation puts it.

    Raises:
        UserError: it is in neither place.
    """
    folders = (Path(__file__).resolve().parents[1] / "configs", Path(sys.prefix) / "share" / "vdsm" / "configs")
    for folder in folders:
        if (folder / RECIPE).is_file():
            return folder / RECIPE
    raise UserError(f"no {RECIPE} in {folders[0]} or {folders[1]}; give a recipe with --config")


def quickstart(command: QuickstartCommand) -> None:
    """Run the three jobs; the last one prints the table of results and where the report is.

    Raises:
        UserError: a folder that cannot be used, or one that holds the results of another recipe.
    """
    # Ray, torch and webdataset take seconds to import, which --help and mistakes should not wait for.
    from cluster.ray_runtime import connect
    from cluster.storage import api as storage
    from pipeline.evaluate import EvaluateCommand, evaluate
    from pipeline.ray_train.run import log_plan, train_recipe
    from pipeline.runs.store import absolute, run_url
    from preprocessing.shard import ShardCommand, shard

    data, runs, report = (storage.join(command.out, name) for name in ("data", "runs", "report"))
    sharding = derived(ShardCommand, command, out=data, dry_run=command.dry_run)
    recipe = Recipe.of(command)
    evaluation = derived(EvaluateCommand, command, run=storage.join(runs, RUN), data=data, out=report)
    workers = command.training.num_workers * command.training.threads_per_worker
    began = time.monotonic()
    if command.dry_run:
        shard(sharding)
        sys.stdout.write(f"then train into {storage.join(runs, RUN)} and evaluate into {report}\n")
        return
    storage.check_writable(command.out)
    with connect(num_cpus=max(workers, len(os.sched_getaffinity(0)))):
        log.info("1 of 3: figures into %s", data)
        shard(sharding)
        log.info("2 of 3: training into %s", storage.join(runs, RUN))
        log_plan(recipe, absolute(data))
        train_recipe(recipe, absolute(data), run_url(runs, RUN))
        log.info("3 of 3: evaluation into %s", report)
        evaluate(evaluation)
    sys.stdout.write(f"done in {(time.monotonic() - began) / 60:.1f} minutes\n\n{NEXT}")


def derived(command: type[C], recipe: Recipe, **fields: object) -> C:
    """The command of one job, with those settings of the recipe that it reads."""
    shared = {name: getattr(recipe, name) for name in Recipe.model_fields if name in command.model_fields}
    return command.model_validate({**shared, **fields})


main = entry(QuickstartCommand, quickstart, prog="vdsm quickstart", prepare=_with_recipe)


if __name__ == "__main__":
    main()
