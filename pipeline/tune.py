"""`vdsm tune`: a search for settings by Ray Tune and Optuna, every trial a complete run of both stages.

The same command goes on with a sweep that was interrupted: the study says what is left, and interrupted trials go on
from their own checkpoints.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import ray_runtime
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from optuna import Study

    from pipeline.tuning.space import Space
    from pipeline.tuning.sweep import Sweep
    from pipeline.tuning.trial import SweepContext

log = logging.getLogger(__name__)


class TuneCommand(Recipe, Controls):
    """Search for better settings of a recipe. Started again under the same name, it goes on where it was."""

    sweep: Path
    """YAML file that says what is searched: see configs/sweeps."""
    data: str
    """Dataset: the folder or s3://bucket/prefix that `vdsm shard` wrote. Its test split is not touched."""
    out: str
    """Folder or s3://bucket/prefix of the runs."""
    name: str
    """Name of the sweep; its folder is OUT/NAME."""
    study: str | None = None
    """Where the study is kept: a file on a disk that outlives the driver, or a database such as
    postgresql://user@host/optuna (password by PGPASSWORD). None means OUT/NAME/study.journal, for a local OUT."""


def tune(command: TuneCommand) -> None:
    """Run what is left of the sweep, then write best.yaml and sweep.html.

    Raises:
        UserError: the space, the data or the storage cannot be used, or the sweep was begun with other settings.
        KeyboardInterrupt: ctrl-C; the same command goes on.
    """
    from pipeline.tuning.space import Space
    from pipeline.tuning.sweep import read_sweep

    sweep = read_sweep(command.sweep)
    recipe = Recipe.model_validate({name: getattr(command, name) for name in Recipe.model_fields})
    try:
        space = Space(sweep.space, recipe)
    except UserError as error:
        raise UserError(f"{command.sweep}: {error}") from None
    # Optuna and torch take seconds to import, which --help and mistakes should not wait for.
    from pipeline.runs.store import absolute, run_url
    from pipeline.training.plan import make_plan
    from pipeline.training.stage import Job
    from preprocessing.dataset.reader import ClipDataset

    url, data = run_url(command.out, command.name), absolute(command.data)
    study_place = _study_place(command, url)
    shortest = space.recipe({}, sweep.steps_fraction)
    clips = ClipDataset(data, "train")
    job = Job(model=shortest.model, training=shortest.training, seed=shortest.seed, clips=clips, notes={})
    try:
        plans = make_plan(job)
    except ValueError as error:
        raise UserError(f"{data}: {error}") from error
    if command.dry_run:
        _report_plan(sweep, url, [str(plan) for plan in plans])
        return
    storage.check_writable(url)
    from pipeline.runs.lock import run_lock
    from pipeline.tuning.results import write_results
    from pipeline.tuning.study import open_study
    from pipeline.tuning.trial import SweepContext, prepare_judge

    # All paths are absolute now. Ray Tune asks for the working folder again and again, and that of a submitted job is
    # replaced under its driver where another node of the same machine unpacks the job's files, too.
    os.chdir("/")
    with run_lock(url):
        first = open_study(study_place, command.name, sweep, recipe)
        needed = recipe.training.num_workers * recipe.training.threads_per_worker
        setting = SweepContext(sweep=sweep, data=data, url=url, judge=prepare_judge(recipe, sweep, data, url))
        with ray_runtime.connect(num_cpus=max(needed, len(os.sched_getaffinity(0))), dashboard=_has_dashboard()):
            _run_round(first, space, setting, sweep.trials, sweep.steps_fraction)
            second = _second_round(first, study_place, f"{command.name}/second-round", recipe, space, setting)
        write_results(first, second, space, setting)


def _has_dashboard() -> bool:
    """Whether what Ray's dashboard needs is installed: the extra `dashboards` brings it."""
    return importlib.util.find_spec("aiohttp_cors") is not None


def _study_place(command: TuneCommand, url: str) -> str:
    from pipeline.runs.store import absolute

    if command.study is not None:
        return command.study if "://" in command.study else absolute(command.study)
    if storage.is_s3(url):
        raise UserError(
            f"--out {command.out} is in S3, where a study cannot live; give --study a file on a disk that outlives the "
            "driver, or the URL of a database"
        )
    return str(Path(url) / "study.journal")


def _second_round(
    first: "Study", place: str, name: str, recipe: Recipe, space: "Space", setting: "SweepContext"
) -> "Study | None":
    """The best trials once more with all steps, where the sweep asks for it."""
    from pipeline.tuning.study import complete, open_study, promote

    sweep = setting.sweep
    count = min(sweep.promoted, len(complete(first)))
    if not count or sweep.steps_fraction == 1:
        return None
    second = open_study(place, name, sweep.model_copy(update={"steps_fraction": 1.0}), recipe)
    promote(first, second, count)
    _run_round(second, space, setting, count, 1.0)
    return second


def _run_round(study: "Study", space: "Space", setting: "SweepContext", trials: int, steps_fraction: float) -> None:
    """Run trials until `trials` of the study are settled. Needs a connection to Ray."""
    from pipeline.tuning.study import settle, settled

    interrupted = settle(study)
    done = len(settled(study))
    if interrupted:
        log.info("%s: going on with %d interrupted trials", study.study_name, interrupted)
    if done >= trials:
        log.info("%s: all %d trials are done", study.study_name, trials)
        return
    from pipeline.tuning.rounds import run_round

    run_round(study, space, setting, trials, steps_fraction)
    left = trials - len(settled(study))
    if left > 0:
        log.info("%s: %d trials are left", study.study_name, left)
        raise KeyboardInterrupt


def _report_plan(sweep: "Sweep", url: str, plans: list[str]) -> None:
    lines = [f"searched: {path} {parameter.describe()}" for path, parameter in sweep.space.items()]
    lines.append(f"{sweep.trials} trials, ranked by {' and '.join(sweep.names)}, each of:")
    lines += plans
    if sweep.promoted:
        lines.append(f"then the best {sweep.promoted} with all steps")
    lines.append(f"into {url}; nothing was started (--dry-run)")
    sys.stdout.write("".join(f"{line}\n" for line in lines))


main = entry(TuneCommand, tune, prog="vdsm tune")


if __name__ == "__main__":
    main()
