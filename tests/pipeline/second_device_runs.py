"""Work on the CPU and on a second device: `python second_device_runs.py DATA RECIPE OUT`. Run by test_second_device.py.

It writes to OUT/results.pt what each kind of work gave on either of them, and how often the host waited for the device.
The exit status is UNSUPPORTED, with a line on standard error, if this version of torch allows no second device.
"""

import collections
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore, copy_to_cpu
from pipeline.training.config import AugmentationConfig
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job, Outcome
from pipeline.training.loop import train_run
from pipeline.training.position import TrainPosition
from pipeline.training.reporter import QuietReporter, StopDecision
from pipeline.training.state import TrainState
from pipeline.training.step import Stepper
from preprocessing.dataset.reader import ClipDataset
from vdsm.disentangler import Disentangler
from vdsm.warm_start import start_weights

UNSUPPORTED = 3
CPU = torch.device("cpu")
STEPS = 4
"""Of each stage."""


class Reporter(QuietReporter):
    """Keeps checkpoints in the folder of a run, and requests a stop after `stop_after` steps."""

    def __init__(self, run: Path, job: Job, stop_after: int | None = None) -> None:
        self._store, self._stop_after, self._steps = CheckpointStore(str(run), job.training), stop_after, 0
        self.records: list[dict[str, Any]] = []
        self.kinds: set[str] = set()
        """Types of the tensors in the checkpoints."""

    def log(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def save(self, state: TrainState, *, last: bool, audit: Any = ()) -> None:
        self._store.save(state, last=last, audit=audit)
        self._store.flush()
        self.kinds |= {type(value).__name__ for value in self._store.load(state.position).weights.values()}

    def restore(
        self, position: TrainPosition | None = None, *, before: TrainPosition | None = None
    ) -> TrainState | None:
        position = position or self._store.newest(before)
        return None if position is None else self._store.load(position)

    def should_stop(self) -> StopDecision:
        self._steps += 1
        return StopDecision(self._steps == self._stop_after)


def make_job(data: str, recipe: Recipe) -> Job:
    """Return a short training with everything that has code for the device."""
    training = recipe.training
    stage1, stage2 = (replace(stage, steps=STEPS) for stage in (training.stage1, training.stage2))
    training = replace(
        training, stage1=stage1, stage2=replace(stage2, accumulation=2), num_workers=1, log_interval=2,
        validation_interval=STEPS, picture_interval=STEPS, checkpoint_interval=STEPS, prior_clips=12,
        ema_decay=0.9, augmentation=AugmentationConfig(colour=0.2, crop=0.1, flip=0.5),
    )  # fmt: skip
    return Job(model=recipe.model, training=training, seed=3, clips=ClipDataset(data, "train"))


def results_of(reporter: Reporter, outcome: Outcome, last: TrainState | None) -> dict[str, Any]:
    """Return what a training reported, and its last weights."""
    assert last is not None
    names = ("loss", "elbo", "gradient_norm", "kl_pose")
    return {
        "outcome": tuple(outcome),
        "metrics": [
            (record["kind"], record["stage"], record["step"], name, record[name])
            for record in reporter.records if record["kind"] != "event" for name in names if name in record
        ],
        "images": [
            (record["stage"], name, torch.from_numpy(image))
            for record in reporter.records if record["kind"] == "images" for name, image in record["images"].items()
        ],
        "weights": dict(last.weights), "ema": dict(last.ema or {}), "priors": last.priors, "kinds": sorted(reporter.kinds),
    }  # fmt: skip


def train(run: Path, job: Job, device: torch.device) -> dict[str, Any]:
    """Train both stages; on the second device, stop in the middle of stage 2 and resume."""
    world = DistributedContext(device=device)
    reporter = Reporter(run, job, stop_after=None if device == CPU else STEPS + 2)
    outcome = train_run(job, reporter, world)
    if device != CPU:
        assert outcome == (2, 2, False), outcome
        outcome = train_run(job, reporter, world, reporter.restore())
    return results_of(reporter, outcome, reporter.restore())


def train_from(run: Path, job: Job, device: torch.device) -> dict[str, Any]:
    """Start from given weights."""
    torch.manual_seed(1)
    given = start_weights(Disentangler(job.model), job.model, sequence_stage=True).weights
    training = replace(job.training, stages="1", stage1=replace(job.training.stage1, steps=1), ema_decay=0)
    job = replace(job, training=training, start_weights=lambda: given)
    reporter = Reporter(run, job)
    outcome = train_run(job, reporter, DistributedContext(device=device))
    return results_of(reporter, outcome, reporter.restore())


def waits_per_step(counts: "collections.Counter[str]") -> dict[int, dict[str, int]]:
    """Have every later step counted; the result holds the most waits of a step of each stage, by function."""
    found: dict[int, dict[str, int]] = {1: {}, 2: {}}
    step: Callable[..., Any] = Stepper.step

    def counted(self: Stepper, *args: Any) -> Any:
        before = collections.Counter(counts)
        result = step(self, *args)
        for name, count in (counts - before).items():
            found[self.stage][name] = max(count, found[self.stage].get(name, 0))
        return result

    Stepper.step = counted  # type: ignore[method-assign]
    return found


def main(data: str, recipe_path: str, out: str) -> int:
    """Do all work twice and write the results."""
    try:
        from tests import second_device
    except ImportError as error:
        sys.stderr.write(f"no second device: {error}\n")
        return UNSUPPORTED
    torch.set_num_threads(1)
    recipe = Recipe.model_validate(yaml.safe_load(Path(recipe_path).read_text()))
    job, folder = make_job(data, recipe), Path(out)
    steps = waits_per_step(second_device.waits)
    found: dict[str, Any] = {}
    for name, device in (("cpu", CPU), ("device", second_device.DEVICE)):
        found[name] = {
            "training": train(folder / name / "run", job, device),
            "warm start": train_from(folder / name / "warm", job, device),
        }
    torch.save(copy_to_cpu(found) | {"waits per step": steps}, folder / "results.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
