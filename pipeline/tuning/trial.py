"""One trial: a complete run of both stages by its own Ray Train workers, then its score."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.recipe import Recipe
from pipeline.tuning.sweep import Sweep

if TYPE_CHECKING:
    from vdsm.evaluation.judge import Judge

log = logging.getLogger(__name__)

SCORE = "score.json"
"""In the folder of a run: what the sweep measured of it."""


@dataclass(frozen=True, kw_only=True)
class SweepContext:
    """What all trials of a sweep share."""

    sweep: Sweep
    data: str
    """The dataset, absolute."""
    url: str
    """Folder of the sweep, absolute."""
    judge: str | None
    """File of the judge; none where the data has no labels to judge by."""

    def run_url(self, run: str) -> str:
        """Folder of the run of a trial."""
        return storage.join(self.url, "runs", run)


def run_trial(config: dict[str, Any], setting: SweepContext) -> dict[str, Any]:
    """Train and score the trial that the search suggests; started again, it goes on from its own checkpoints.

    Returns the scores, or `error` with why the trial failed: one failed trial does not end a sweep. Raises what Ray
    raises where a process or a machine is lost, for another attempt may help then.
    """
    import ray

    from pipeline.ray_train.run import train_recipe

    run = setting.run_url(config["run"])
    try:
        recipe = Recipe.model_validate(config["recipe"])
        train_recipe(recipe, setting.data, run)
        return scored(recipe, run, setting)
    except UserError as error:
        return {"error": _shortened(str(error))}
    except Exception as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        if isinstance(cause, ray.exceptions.RayError):
            raise
        log.exception("trial %s", config["number"])
        return {"error": _shortened(f"{type(cause).__name__}: {cause}")}


def _shortened(text: str) -> str:
    return " ".join(text.split())[:500]


def scored(recipe: Recipe, run: str, setting: SweepContext) -> dict[str, Any]:
    """The scores of a finished run, measured once. It runs as a task of its own, that CPUs are counted for."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    place = storage.join(run, SCORE)
    if storage.exists(place):
        found: dict[str, Any] = json.loads(storage.read_bytes(place))
        return found
    threads = recipe.training.num_workers * recipe.training.threads_per_worker
    # Not inside what Ray Tune holds for the trial itself, which has no CPU.
    anywhere = PlacementGroupSchedulingStrategy(placement_group=None)  # type: ignore[arg-type]
    measure = ray.remote(num_cpus=threads, max_retries=3, scheduling_strategy=anywhere)(score)
    found = ray.get(measure.remote(run, setting, threads))
    storage.write_bytes(place, (json.dumps(found, allow_nan=False) + "\n").encode())
    return found


def score(run: str, setting: SweepContext, threads: int) -> dict[str, float]:
    """Measure a finished run on its validation clips."""
    import torch

    from pipeline.runs.store import load_run
    from pipeline.tuning.objective import disentanglement, divide, final_elbo
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    model, recipe, info = load_run(run)
    validation = divide(ClipDataset(setting.data, "train"), recipe).validation
    records = [json.loads(line) for line in storage.read_bytes(storage.join(run, "metrics.jsonl")).splitlines()]
    found = disentanglement(
        model.eval(), validation, stored_judge(setting.judge),
        length=recipe.training.stage2.clip_frames, pairs=setting.sweep.pairs, seed=setting.sweep.seed,
        sequence=info["stage"] >= 2,
    )  # fmt: skip
    return found | {"elbo": final_elbo(records)}


def stored_judge(place: str | None) -> "Judge | None":
    """The judge that the sweep trained, or none."""
    from vdsm.evaluation.judge import parse_judge

    if place is None:
        return None
    return parse_judge(storage.read_bytes(place), Path(place).stem.removeprefix("judge-"))


def prepare_judge(recipe: Recipe, sweep: Sweep, data: str, url: str) -> str | None:
    """The file of the judge for a sweep, trained now if it is not there; none where there are no labels.

    It learns from the clips that every trial trains on, never from the validation clips that it will judge.
    """
    from cluster.cli.progress import ProgressDisplay
    from pipeline.runs.store import data_hash
    from pipeline.tuning.objective import divide, is_labelled
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.evaluation.judge import JudgeConfig, dump_judge, judge_key, train_judge

    clips = ClipDataset(data, "train")
    if not is_labelled(clips):
        log.info("the data has no labels to judge swaps by: trials are ranked by the cycle score")
        return None
    config = JudgeConfig(steps=sweep.judge_steps, clip_frames=recipe.training.stage2.clip_frames, seed=recipe.seed)
    key = judge_key(f"{data_hash(clips.manifest)} without {recipe.training.validation_fraction} {recipe.seed}", config)
    place = storage.join(url, f"judge-{key}.pt")
    if not storage.exists(place):
        with ProgressDisplay() as progress:
            judge = train_judge(divide(clips, recipe).train, config, progress)
        storage.write_bytes(place, dump_judge(judge, key))
    return place
