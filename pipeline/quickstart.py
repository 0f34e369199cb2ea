"""`vdsm quickstart`: from nothing to an action-transfer report, on figures that this package draws itself.

Three jobs run one after the other on one Ray: shard, train, evaluate. Each resumes by itself and skips what is
finished, so the quickstart keeps no state of its own.
"""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import logging
import sys
import time
from typing import ClassVar

from cluster.cli.paths import Location
from cluster.cli.progress import format_duration
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from pipeline.recipe import TRAINING_SETTINGS, Recipe
from preprocessing.recipe import DataRecipe

log = logging.getLogger(__name__)

RECIPE = "quickstart"
RUN = "figures"
NEXT_STEPS = """The same for your own videos takes three commands. `vdsm recipes videos` prints the recipe, which
explains how to label them and what else can be set; docs/preprocessing.md lists the other sources of clips.

  vdsm shard --config videos --source.path FOLDER --out DATA
  vdsm train --config videos --data DATA --out RUNS --name first
  vdsm evaluate --run RUNS/first --data DATA --out REPORT
"""


class QuickstartCommand(Recipe, Controls):
    """Shard built-in figures, train both stages, evaluate, and write a report. If interrupted, rerun it to resume."""

    MAIN: ClassVar[tuple[str, ...]] = ("source.figures", *TRAINING_SETTINGS)

    out: Location = "quickstart"
    """Folder for the data, the run and the report; may be s3://bucket/prefix."""


def _with_recipe(args: list[str]) -> list[str]:
    if any(arg.partition("=")[0] == "--config" for arg in args):
        return args
    return ["--config", RECIPE, *args]


def quickstart(command: QuickstartCommand) -> None:
    """Run the three jobs, then print the table of results and the path of the report.

    Raises:
        UserError: a folder is unusable, or holds the results of another recipe.
    """
    # Ray, torch and webdataset take seconds to import, which --help and invalid input should not wait for.
    from cluster.ray_runtime import connect
    from cluster.storage import api as storage
    from pipeline.evaluation.execute import execute, prepare, result_text
    from pipeline.evaluation.request import EvaluationRequest
    from pipeline.ray_train.run import local_cpus, train_recipe
    from pipeline.runs.begin import log_plan
    from pipeline.runs.store import absolute, run_url
    from preprocessing.sharding.job import shard_source

    recipe = Recipe.of(command)
    data_recipe = DataRecipe(seed=recipe.seed, source=recipe.source, shards=recipe.shards)
    data, runs, report = (storage.join(command.out, name) for name in ("data", "runs", "report"))
    run = storage.join(runs, RUN)
    started = time.monotonic()
    if command.dry_run:
        shard_source(data_recipe, data, dry_run=True)
        sys.stdout.write(f"then train into {run} and evaluate into {report}\n")
        return
    storage.check_writable(command.out)
    with connect(num_cpus=local_cpus(recipe.training)):
        log.info("quickstart, phase 1 of 3: sharding into %s", data)
        shard_source(data_recipe, data)
        log.info("quickstart, phase 2 of 3: training into %s", run)
        log_plan(recipe, data)
        train_recipe(recipe, absolute(data), run_url(runs, RUN))
        log.info("quickstart, phase 3 of 3: evaluation into %s", report)
        request = EvaluationRequest(data=data, out=report, run=run, seed=recipe.seed, evaluation=recipe.evaluation)
        sys.stdout.write(result_text(execute(prepare(request)), report))
    sys.stdout.write(f"done in {format_duration(time.monotonic() - started)}\n\n{NEXT_STEPS}")


main = entry(QuickstartCommand, quickstart, prog="vdsm quickstart", prepare=_with_recipe)


if __name__ == "__main__":
    main()
