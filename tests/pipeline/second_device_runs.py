"""Work on the CPU and on a second device: `python second_device_runs.py DATA RECIPE OUT`. Run by test_second_device.py.

It writes to OUT/results.pt what each kind of work gave on either of them, and how often the host waited for the device.
The exit status is UNSUPPORTED, with a line on standard error, if this version of torch allows no second device.
"""

import collections
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import vdsm.device
from pipeline import adapt as adapt_command
from pipeline import evaluate as evaluate_command
from pipeline import generate as generate_command
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore, copy_to_cpu
from pipeline.runs.store import load_run, open_run
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.position import Outcome, TrainPosition
from pipeline.training.reporter import QuietReporter, StopDecision
from pipeline.training.samples_config import AugmentationConfig
from pipeline.training.state import TrainState
from pipeline.training.step import Stepper
from preprocessing.dataset.reader import ClipDataset
from tests.resamples import fewer_resamples, rough_scores
from vdsm import checkpoint
from vdsm.disentangler import Disentangler
from vdsm.evaluation import outputs
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
        "weights": dict(last.weights), "ema": dict(last.ema or {}), "priors": last.priors,
        "kinds": sorted(reporter.kinds),
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


def evaluate(run: Path, data: str, out: Path, device: str) -> dict[str, Any]:
    """Measure the run and draw its report, with refined codes."""
    args = ["--run", str(run), "--data", data, "--out", str(out), "--device", device]
    args += ["--evaluation.judge-steps", "2", "--evaluation.judge-batch-clips", "4", "--evaluation.pairs", "8"]
    args += ["--evaluation.probe-clips", "12", "--evaluation.grid-clips", "4", "--evaluation.refinement-steps", "1"]
    with fewer_resamples(), rough_scores():
        evaluate_command.main(args)
    metrics = json.loads((out / "metrics.json").read_text())
    (judge,) = out.glob("judge-*.pt")
    return {
        "metrics": {name: value for name, value in metrics.items() if name != "provenance"},
        "judge": torch.load(judge, weights_only=True)["state"],
    }  # fmt: skip


def generate(run: Path, data: str, out: Path, device: str) -> dict[str, Any]:
    """Generate everything that there is, from the fitted and from the published priors."""
    args = ["--run", str(run), "--data", data, "--device", device, "--format", "npz", "--rows", "2", "--columns", "2"]
    found = {}
    for prior in ("fitted", "published"):
        generate_command.main([*args, "--prior", prior, "--length", "5", "--out", str(out / prior)])
        for path in sorted((out / prior).glob("*.npz")):
            with np.load(path) as arrays:
                found[f"{prior} {path.stem}"] = torch.from_numpy(arrays["frames"])
    model, generator = load_run(str(run))[0].to(vdsm.device.find_device(device)), torch.Generator().manual_seed(0)
    drawn = model.sample_dynamics(2, generator), model.sample_static(2, generator)
    return found | {"drawn codes": model.decode(model.poses(drawn[0], 3), drawn[1])}


def adapt(run: Path, data: str, out: Path, device: str) -> dict[str, Any]:
    """Adapt the run to one person."""
    args = ["--run", str(run), "--data", data, "--out", str(out), "--device", device, "--max-frames", "8"]
    identity = ClipDataset(data, "test").identities[0]
    adapt_command.main([*args, "--identity", identity, "--static-steps", "2", "--decoder-steps", "2"])
    state = checkpoint.load(out / "stage2.pt")
    kinds = sorted({type(value).__name__ for value in state["model"].values()})
    psnr = json.loads((out / "adapted.json").read_text())["psnr_db"]
    return {"weights": state["model"], "priors": state["priors"], "kinds": kinds, "psnr": psnr}


def waits_per_batch(counts: "collections.Counter[str]") -> dict[str, float]:
    """Have all later batches of decoded frames counted; the result holds the mean waits of each, by phase."""
    found: dict[str, float] = {}
    decode: Callable[..., Any] = outputs.decode_batches

    def counted(count: int, frames: Any, batch_clips: int, phase: str, *args: Any) -> None:
        before = counts.total()
        decode(count, frames, batch_clips, phase, *args)
        found[phase] = (counts.total() - before) / -(-count // batch_clips)

    outputs.decode_batches = counted
    return found


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
    devices = {"cpu": CPU, second_device.NAME: second_device.DEVICE}
    vdsm.device.find_device = devices.__getitem__
    job, folder = make_job(data, Recipe.model_validate(yaml.safe_load(Path(recipe_path).read_text()))), Path(out)
    steps, batches = waits_per_step(second_device.waits), waits_per_batch(second_device.waits)
    found: dict[str, Any] = {}
    for name, device in devices.items():
        run, place = folder / name / "run", folder / name
        recipe = Recipe(model=job.model, training=job.training)
        open_run(str(run), recipe, data, ClipDataset(data, "train").manifest)
        found["cpu" if device == CPU else "device"] = {
            "training": train(run, job, device),
            "warm start": train_from(place / "warm", job, device),
            "evaluation": evaluate(run, data, place / "report", name),
            "generation": generate(run, data, place / "generated", name),
            "adaptation": adapt(run, data, place / "adapted", name),
        }
    torch.save(copy_to_cpu(found) | {"waits per step": steps, "waits per batch": batches}, folder / "results.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
