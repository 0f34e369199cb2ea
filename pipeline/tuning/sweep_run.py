"""A sweep from its plan to its results: the judge, one or two rounds of trials, best.yaml and sweep.html."""

import contextlib
import importlib.util
import logging
import os
from typing import TYPE_CHECKING

from cluster import ray_runtime
from cluster.cli.progress import ProgressDisplay
from cluster.storage.fence import Fence, active_fences, fenced
from cluster.storage.lock import run_lock
from pipeline.evaluation.judge_cache import StoredJudge, load_or_train
from pipeline.ray_train.run import local_cpus
from pipeline.recipe import Recipe
from pipeline.runs.store import data_hash
from pipeline.tuning.results import write_results
from pipeline.tuning.rounds import run_round
from pipeline.tuning.searcher import check_lock
from pipeline.tuning.space import Space
from pipeline.tuning.study import drive, finished_trials, open_study, promote, ranked_trials, requeue_interrupted
from pipeline.tuning.sweep import Sweep
from pipeline.tuning.trial import SweepContext
from pipeline.tuning.validation_split import can_judge_swaps, split_as_training
from preprocessing.dataset.reader import ClipDataset

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)


def run_sweep(recipe: Recipe, sweep: Sweep, space: Space, *, data: str, url: str, name: str, study_url: str) -> None:
    """Run the trials that the sweep at `url` still lacks, then write its results.

    Args:
        recipe: supplies every setting that is not searched.
        sweep: settings of the search.
        space: the searched settings of `recipe`.
        data: the dataset, an absolute path or URL.
        url: folder of the sweep, an absolute path or URL.
        name: name of the study.
        study_url: an absolute path of a journal file, or the URL of a database.

    Raises:
        UserError: the study was started with other settings, or storage is unusable.
        KeyboardInterrupt: Ctrl-C; rerun the sweep to resume.
    """
    # Ray Tune often asks for the working directory. That of a submitted job is replaced under its driver when another
    # node of the same machine unpacks the job's files. All paths are absolute by now.
    os.chdir("/")
    with run_lock(url), contextlib.ExitStack() as stack:
        fences = active_fences()
        first = open_study(study_url, name, sweep, recipe)
        stack.enter_context(fenced(Fence(f"study {name}", drive(first))))
        clips = ClipDataset(data, "train")
        judged, two_rounds = can_judge_swaps(clips), bool(sweep.promoted) and sweep.steps_fraction < 1
        phases = judged + 1 + two_rounds
        if judged:
            judge = prepare_judge(recipe, sweep, clips, url, phases)
        else:
            judge = None
            log.info("the data has no labels to judge swaps by; trials are ranked by the cycle score")
        context = SweepContext(sweep=sweep, data=data, url=url, judge=judge, fences=fences)
        second = None
        with ray_runtime.connect(num_cpus=local_cpus(recipe.training), dashboard=_has_dashboard()):
            title = f"phase {judged + 1} of {phases}: trials" if phases > 1 else "trials"
            _finish_round(first, space, context, sweep.trials, sweep.steps_fraction, title)
            count = min(sweep.promoted, len(ranked_trials(first)))
            if two_rounds and count:
                all_steps = sweep.model_copy(update={"steps_fraction": 1.0})
                second = open_study(study_url, f"{name}/second-round", all_steps, recipe)
                check_lock()
                promote(first, second, count)
                _finish_round(second, space, context, count, 1.0, f"phase {phases} of {phases}: second round")
        write_results(first, second, space, context)


def prepare_judge(recipe: Recipe, sweep: Sweep, clips: ClipDataset, url: str, phases: int = 1) -> StoredJudge:
    """Return the judge of a sweep, stored in its folder and trained if necessary.

    It learns from the clips that every trial trains on, never from the validation clips that it will judge.

    Args:
        recipe: its seed and validation fraction divide the clips.
        sweep: the judge's number of steps.
        clips: the training split.
        url: folder of the sweep.
        phases: number of phases of the sweep, of which this is the first.
    """
    from vdsm.evaluation.judge import JudgeConfig

    config = JudgeConfig(steps=sweep.judge_steps, clip_frames=recipe.training.stage2.clip_frames, seed=recipe.seed)
    rule = f"{recipe.training.validation_fraction} {recipe.seed}"
    if recipe.training.stage1.pairing in ("video", "appearance"):
        rule += f" by {recipe.training.stage1.pairing} {recipe.training.appearance}"
    if recipe.training.validation_unit == "clip":
        rule += " by clip"
    data_id = f"{data_hash(clips.manifest)} without {rule}"
    with ProgressDisplay(phases=phases) as progress:
        _, stored = load_or_train(url, split_as_training(clips, recipe).train, data_id, config, progress)
    return stored


def _finish_round(
    study: "Study", space: Space, context: SweepContext, trials: int, steps_fraction: float, title: str
) -> None:
    """Run trials until `trials` of the study are finished. Requires a connection to Ray."""
    interrupted = requeue_interrupted(study)
    if interrupted:
        log.info("%s: resuming %d interrupted trials", study.study_name, interrupted)
    if len(finished_trials(study)) >= trials:
        log.info("%s: all %d trials are finished", study.study_name, trials)
        return
    run_round(study, space, context, trials, steps_fraction, title)
    remaining = trials - len(finished_trials(study))
    if remaining > 0:
        log.info("%s: %d trials remain", study.study_name, remaining)
        raise KeyboardInterrupt


def _has_dashboard() -> bool:
    """Return whether the packages of Ray's dashboard are installed (the extra `dashboards`)."""
    return importlib.util.find_spec("aiohttp_cors") is not None
