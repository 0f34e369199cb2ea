"""One stage of the training, step by step.

What a step does depends on the recipe, the data and the step number alone: the clips come from the global order, the
latent noise is drawn for the global batch and sliced by rank, and dropout is seeded per step and rank.
"""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.training.batches import Clips, Prefetched, catalogue, to_model
from pipeline.training.config import StageConfig, TrainingConfig
from pipeline.training.optimiser import adam, learning_rate
from pipeline.training.order import Order, Windows, key
from pipeline.training.progress import Meter
from pipeline.training.validation import validate
from pipeline.training.world import World
from vdsm.annealing import Weights, weights_at
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.elbo import Terms

FORMAT = 1
"""Version of the content of checkpoints."""


class Reporter(Protocol):
    """Where the results of a run go."""

    def log(self, record: dict[str, Any]) -> None:
        """Takes a record of the training; called on rank 0 only."""

    def save(self, state: dict[str, Any] | None, *, stage: int, step: int, last: bool) -> None:
        """Keeps a checkpoint (`last`: the end of a stage). Called on every rank; `state` is none except on rank 0."""

    def should_stop(self) -> bool:
        """Whether to save a checkpoint and stop after this step; asked on every rank, and one yes is enough."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, on what."""

    model: ModelConfig
    training: TrainingConfig
    seed: int
    clips: Clips
    notes: Mapping[str, Any]
    """Kept with every checkpoint: the recipe as plain values, the hash of the manifest."""


class Outcome(NamedTuple):
    """How far a run came."""

    stage: int
    step: int
    finished: bool


class NonFiniteLoss(ArithmeticError):
    """The loss or its gradient is NaN or infinite; the message names the term, the step and the clips."""


def stage_config(training: TrainingConfig, stage: int) -> StageConfig:
    """Settings of stage 1 or 2."""
    return training.stage1 if stage == 1 else training.stage2


def stage_order(job: Job, stage: int) -> Order:
    """The order in which a stage sees the clips. Raises ValueError where the dataset does not allow it."""
    config = stage_config(job.training, stage)
    return Order(
        catalogue(job.clips),
        seed=job.seed,
        stage=stage,
        window=config.clip_frames,
        batch=config.batch_clips,
        validation_fraction=job.training.validation_fraction,
        pairing=config.pairing == "identity",
    )


def _distributed(module: nn.Module) -> DistributedDataParallel:
    """`module` with its gradients averaged over the ranks."""
    with warnings.catch_warnings():
        # Newer versions of torch have another name for `broadcast_buffers`, which older ones do not know.
        warnings.simplefilter("ignore", FutureWarning)
        # The buffers (blur kernels) never change, so there is nothing to broadcast.
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)


class StageRun:
    """The state of one stage on one rank."""

    def __init__(
        self, job: Job, stage: Literal[1, 2], disentangler: Disentangler, reporter: Reporter, world: World
    ) -> None:
        self.job, self.stage, self.disentangler, self.reporter, self.world = job, stage, disentangler, reporter, world
        self.config = stage_config(job.training, stage)
        self.order = stage_order(job, stage)
        self.module = disentangler.stage(stage)
        self.parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimiser = adam(self.parameters, self.config)
        self.wrapped: nn.Module = _distributed(self.module) if world.size > 1 else self.module

    def run(self, first_step: int) -> Outcome:
        """Trains on from `first_step`, the number of steps already done, to the end of the stage."""
        training, steps = self.job.training, self.config.steps
        rows = self.world.rows(self.config.batch_clips)
        parts = (self.order.at(step).part(rows) for step in range(first_step, steps))
        meter = Meter(self.config.batch_clips, self.world)
        self.module.train()
        pin = self.world.device.type == "cuda"
        with Prefetched(self.job.clips, parts, self.config.clip_frames, pin=pin) as batches:
            for step, (windows, raw) in enumerate(batches, start=first_step):
                frames = to_model(raw, self.world.device)
                weights = self.weights(step)
                if step == first_step and self.world.size > 1:
                    self._settle_buckets(step, frames, weights)
                terms, gradient_norm, stop = self._step(step, windows, frames, weights)
                meter.add(terms, gradient_norm)
                done = step + 1
                stop = stop and done < steps
                if done % training.log_interval == 0 or done == steps:
                    rate = learning_rate(self.config, step)
                    record = meter.record(waited_s=batches.waited_s, weights=weights, learning_rate=rate)
                    self._log("train", done, record | {"epoch": self.order.epoch_of(step)})
                if done % training.validation_interval == 0 or done == steps:
                    with meter.paused():
                        self._log("validation", done, self.validate(weights))
                if done % training.checkpoint_interval == 0 or done == steps or stop:
                    with meter.paused():
                        self._save(done, weights)
                if stop:
                    return Outcome(self.stage, done, finished=False)
        return Outcome(self.stage, steps, finished=True)

    def weights(self, step: int) -> Weights:
        """The annealed weights of `step` (from 0); the last step has those of the end of the stage."""
        progress = step / max(1, self.config.steps - 1)
        return weights_at(self.config.annealing, progress, self.job.model.channels * self.job.model.frame_size**2)

    def forward(self, step: int, frames: Tensor, weights: Weights) -> Terms:
        """The terms of this rank's clips, through DDP's own forward: a call past it would skip the all-reduce."""
        generator = torch.Generator().manual_seed(key(self.job.seed, self.stage, step, "noise"))
        noise = self.world.share(self.module.draw_noise(self.config.batch_clips, frames.shape[1], generator))
        torch.manual_seed(key(self.job.seed, self.stage, step, "dropout", self.world.rank))
        terms: Terms = self.wrapped(frames, noise, weights)
        return terms

    def _settle_buckets(self, step: int, frames: Tensor, weights: Weights) -> None:
        """One discarded backward. DDP regroups its gradients after the first one, and their grouping decides the order
        in which the gradients of more than two ranks are summed: a resumed run must not begin with another grouping."""
        self.forward(step, frames, weights).loss.backward()
        self.optimiser.zero_grad()

    def _step(self, step: int, windows: Windows, frames: Tensor, weights: Weights) -> tuple[Terms, Tensor, bool]:
        """One optimiser step: the terms, the norm of the gradient before clipping, and whether to stop."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, step)
        terms = self.forward(step, frames, weights)
        terms.loss.backward()
        gradient_norm = nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip or float("inf"))
        sound = bool(torch.isfinite(terms.loss) & torch.isfinite(gradient_norm))
        bad, stop = self.world.any(not sound, self.reporter.should_stop())
        if bad:
            self._fail(step, windows, terms)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return terms, gradient_norm, stop

    def _fail(self, step: int, windows: Windows, terms: Terms) -> NoReturn:
        """Raises the same NonFiniteLoss on every rank."""
        bad = [name for name, value in terms._asdict().items() if not bool(torch.isfinite(value))]
        # The loss is the sum of the terms: name it only where each of them is sound.
        bad = [name for name in bad if name != "loss"] or bad
        found = self.world.gather((bad, [self.job.clips.keys[clip] for clip in windows.clips]))
        guilty = [(names, keys) for names, keys in found if names] or [(["gradient"], keys) for _, keys in found]
        names = sorted({name for some, _ in guilty for name in some})
        keys = [clip for _, some in guilty for clip in some]
        raise NonFiniteLoss(
            f"stage {self.stage}, step {step + 1}: {' and '.join(names)} is not finite on clips {', '.join(keys)}; "
            f"look at these clips, or start a new run with a lower stage{self.stage}.learning_rate or a gradient_clip"
        )

    def validate(self, weights: Weights) -> dict[str, float]:
        """The un-annealed ELBO and its terms on the held-out clips, at the temperature of `weights`."""
        return validate(
            self.module,
            self.job.clips,
            self.order.validation_batches(),
            window=self.config.clip_frames,
            seed=self.job.seed,
            temperature=weights.temperature,
            world=self.world,
        )

    def _log(self, kind: str, done: int, figures: Mapping[str, Any]) -> None:
        if self.world.rank == 0:
            overall = done + (self.job.training.stage1.steps if self.stage == 2 else 0)
            place = {"stage": self.stage, "step": done, "steps": self.config.steps, "overall_step": overall}
            self.reporter.log({"kind": kind, **place, **figures})

    def _save(self, done: int, weights: Weights) -> None:
        state = None
        if self.world.rank == 0:
            state = {
                "format": FORMAT,
                "model_config": asdict(self.job.model),
                "model": self.disentangler.state_dict(),
                "temperature": weights.temperature,
                "optimiser": self.optimiser.state_dict(),
                "stage": self.stage,
                "step": done,
                "seed": self.job.seed,
                **self.job.notes,
            }
        self.reporter.save(state, stage=self.stage, step=done, last=done == self.config.steps)
