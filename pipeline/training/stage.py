"""One stage of the training, step by step.

What a step does depends on the recipe, the data and the step number alone: the clips come from the global order, the
latent noise is drawn for the global batch and sliced by rank, and dropout is seeded per step and rank. A step has its
place in an epoch and each clip its place in a batch, so noise that is keyed by step and place is keyed by the epoch and
the clip. Only the masks of dropout depend on the number of ranks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, NoReturn, cast

import torch
from torch import Tensor, nn

from pipeline.training.batches import Prefetched, ReadAhead, to_model
from pipeline.training.distributed import compile_parts, distributed
from pipeline.training.ema import WeightAverage
from pipeline.training.job import (
    BLOWN_UP,
    FORMAT,
    DivergenceError,
    Outcome,
    Reporter,
    TrainPosition,
    stage_config,
    stage_order,
)
from pipeline.training.job import Job as Job
from pipeline.training.meter import Meter
from pipeline.training.optimiser import adam, learning_rate, whole_state
from pipeline.training.order import Windows, key
from pipeline.training.precision import Precision
from pipeline.training.sample_images import pictures
from pipeline.training.validation import validate
from pipeline.training.world import DistributedContext
from vdsm.annealing import Weights, weights_at
from vdsm.disentangler import Disentangler
from vdsm.frames import draw_frames
from vdsm.loss import LossTerms


class StageRun:
    """The state of one stage on one rank.

    `slowdown` multiplies the learning rate; `bests` holds the best validation of each stage, as (step, ELBO).
    """

    def __init__(
        self,
        job: Job,
        stage: Literal[1, 2],
        disentangler: Disentangler,
        reporter: Reporter,
        world: DistributedContext,
        *,
        slowdown: float = 1.0,
        bests: Mapping[int, tuple[int, float]] | None = None,
    ) -> None:
        self.job, self.stage, self.disentangler, self.reporter, self.world = job, stage, disentangler, reporter, world
        training = job.training
        self.config, self.slowdown, self.bests = stage_config(training, stage), slowdown, dict(bests or {})
        self.order = stage_order(job, stage)
        self.module = disentangler.prepare_stage(stage)
        if training.compile:
            compile_parts(disentangler.frame_model)
        self.parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimiser = adam(self.parameters, self.config, sharded=training.shard_optimiser and world.size > 1)
        self.precision = Precision(training.precision, world.device)
        self.average = WeightAverage(disentangler, training.ema_decay)
        self.wrapped = distributed(self.module, training, world)
        self.trained_on: list[dict[str, Any]] = []
        """Which clips this rank has trained on since the last checkpoint, where an audit is asked for."""

    def load(self, state: Mapping[str, Any]) -> int:
        """Goes on from a checkpoint of this stage, whose weights the model has already. Returns the steps done."""
        self.optimiser.load_state_dict(cast(dict[str, Any], state["optimiser"]))
        self.precision.load(state.get("loss_scale", {}))
        if self.average:
            self.average.load(state["average"])
        return int(state["step"])

    def run(self, first_step: int) -> Outcome:
        """Trains on from `first_step`, the number of steps already done, to the end of the stage."""
        training, steps = self.job.training, self.config.steps
        rows = self.world.rows(self.config.batch_clips)
        parts = (self.order.at(step).part(rows) for step in range(first_step, steps))
        ahead = ReadAhead(self.job.clips, self.order, range(first_step, steps), training.block_shards)
        meter = Meter(self.config.batch_clips, self.world)
        self.module.train()
        reading = Prefetched(
            self.job.clips,
            parts,
            self.config.clip_frames,
            pin=self.world.device.type == "cuda",
            stall_s=training.stall_timeout_s,
        )
        with ahead, reading as batches, self.reporter.profile(self.stage) as step_done:
            for step, (windows, raw) in enumerate(batches, start=first_step):
                ahead.reached(step)
                weights = self.weights(step)
                if step == first_step and self.world.size > 1:
                    self._settle_buckets(step, raw, weights)
                terms, gradient_norm, stop, look = self._step(step, windows, raw, weights)
                meter.add(terms, gradient_norm)
                if training.audit:
                    keys = [self.job.clips.keys[clip] for clip in windows.clips]
                    self.trained_on.append({"stage": self.stage, "step": step, "rank": self.world.rank, "clips": keys})
                step_done()
                done = step + 1
                stop = stop and done < steps
                if done % training.log_interval == 0 or done == steps:
                    record = meter.record(waited_s=batches.waited_s, weights=weights, learning_rate=self.rate(step))
                    self._log("train", done, record | {"epoch": self.order.epoch_of(step)})
                with meter.paused():
                    best = (done % training.validation_interval == 0 or done == steps) and self._validate(done, weights)
                    if training.picture_interval and (done % training.picture_interval == 0 or done == steps):
                        self._show(done, weights)
                    leaving = look and self.reporter.notice()
                    if leaving and self.world.rank == 0:
                        self.reporter.event("preemption notice", stage=self.stage, step=done)
                    if done % training.checkpoint_interval == 0 or done == steps or stop or best or leaving:
                        self._save(done, weights)
                if stop:
                    return Outcome(self.stage, done, finished=False)
        return Outcome(self.stage, steps, finished=True)

    def weights(self, step: int) -> Weights:
        """The annealed weights of `step` (from 0); the last step has those of the end of the stage."""
        progress = step / max(1, self.config.steps - 1)
        return weights_at(self.config.annealing, progress, self.job.model.channels * self.job.model.frame_size**2)

    def rate(self, step: int) -> float:
        """The learning rate of `step`."""
        return learning_rate(self.config, step) * self.slowdown

    def gradients(self, step: int, raw: Tensor, weights: Weights) -> LossTerms:
        """Adds the gradients of this rank's clips, uint8 [B, T, H, W, C], averaged over the ranks. Returns the terms of
        the loss, so scaled that their mean over the ranks is that of the global batch."""
        generator = torch.Generator().manual_seed(key(self.job.seed, self.stage, step, "noise"))
        size = (self.config.batch_clips, raw.shape[1])
        noise = self.world.share(self.module.draw_noise(*size, generator))
        decoded = draw_frames(*size, self.config.num_decoded_frames, generator)
        decoded = decoded[self.world.rows(size[0])].to(self.world.device, non_blocking=True)
        torch.manual_seed(key(self.job.seed, self.stage, step, "dropout", self.world.rank))
        passes, clips = self.config.accumulation, len(raw)
        found = []
        for number in range(passes):
            rows = slice(clips * number // passes, clips * (number + 1) // passes)
            part = type(noise)(*(tensor[rows] for tensor in noise))
            frames = to_model(raw[rows], self.world.device)
            # The part's share of the global batch, times the ranks over which DDP takes the mean.
            share = len(frames) * self.world.size / self.config.batch_clips
            with self._reducing(number == passes - 1):
                # Through DDP's own forward: a call past it would skip the all-reduce.
                with self.precision.autocast():
                    terms: LossTerms = self.wrapped(frames, part, weights, decoded[rows])
                scaled = LossTerms(*(term * share for term in terms))
                self.precision.backward(scaled.loss)
            found.append(torch.stack([term.detach() for term in scaled]))
        return LossTerms(*torch.stack(found).sum(dim=0))

    def _reducing(self, last: bool) -> Any:
        """Gradients travel once per step, with its last backward pass."""
        no_sync = getattr(self.wrapped, "no_sync", None)
        return torch.enable_grad() if last or no_sync is None else no_sync()

    def _settle_buckets(self, step: int, raw: Tensor, weights: Weights) -> None:
        """One discarded backward. DDP regroups its gradients after the first one, and their grouping decides the order
        in which the gradients of more than two ranks are summed: a resumed run must not begin with another grouping."""
        self.gradients(step, raw, weights)
        self.optimiser.zero_grad()

    def _step(self, step: int, windows: Windows, raw: Tensor, weights: Weights) -> tuple[LossTerms, Tensor, bool, bool]:
        """One optimiser step: the terms, the norm of the gradient before clipping, and whether to stop or to look for
        notices."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(step)
        terms = self.gradients(step, raw, weights)
        self.precision.unscale(self.optimiser)
        gradient_norm = nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip or math.inf)
        blown_up = (torch.stack(list(terms.divergences.values())) > BLOWN_UP).any()
        bad_loss = bool(~torch.isfinite(terms.loss) | blown_up)
        bad_loss, bad, stop, look = self.world.any(
            bad_loss,
            bad_loss or not torch.isfinite(gradient_norm),
            self.reporter.should_stop(),
            self.reporter.time_to_look(),
        )
        if bad and (bad_loss or not self.precision.overflowed(gradient_norm)):
            self._fail(step, windows, terms)
        if bad:  # left out for an overflow of fp16; it has no norm
            gradient_norm = torch.zeros_like(gradient_norm)
        else:
            self.precision.step(self.optimiser)
            self.average.update()
        self.optimiser.zero_grad()
        return terms, gradient_norm, stop, look

    def _fail(self, step: int, windows: Windows, terms: LossTerms) -> NoReturn:
        """Raises the same DivergenceError on every rank."""
        bad = [name for name, value in terms._asdict().items() if not bool(torch.isfinite(value))]
        # The loss is the sum of the terms: name it only where each of them is sound.
        bad = [name for name in bad if name != "loss"] or bad
        large = [name for name, value in terms.divergences.items() if bool(BLOWN_UP < value < math.inf)]
        found = self.world.gather((bad, large, [self.job.clips.keys[clip] for clip in windows.clips]))
        not_finite = [(names, keys) for names, _, keys in found if names]
        blown_up = [(names, keys) for _, names, keys in found if names]
        guilty = not_finite or blown_up or [(["gradient"], keys) for *_, keys in found]
        names = sorted({name for some, _ in guilty for name in some})
        clips = [clip for _, some in guilty for clip in some]
        raise DivergenceError(
            TrainPosition(self.stage, step + 1), names, clips, finite=bool(blown_up) and not not_finite
        )

    def validate(self, weights: Weights) -> dict[str, float]:
        """The un-annealed ELBO and its terms on the held-out clips, at the temperature of `weights`."""
        with self.average.in_place(self.job.training.ema_used), self.precision.autocast():
            return validate(
                self.module,
                self.job.clips,
                self.order.validation_batches(),
                window=self.config.clip_frames,
                seed=self.job.seed,
                temperature=weights.temperature,
                world=self.world,
                stall_s=self.job.training.stall_timeout_s,
            )

    def _validate(self, done: int, weights: Weights) -> bool:
        """Whether the weights are the best of this stage so far."""
        measured = self.validate(weights)
        self._log("validation", done, measured)
        best = self.stage not in self.bests or measured["elbo"] > self.bests[self.stage][1]
        if best:
            self.bests[self.stage] = (done, measured["elbo"])
        return best

    def _show(self, done: int, weights: Weights) -> None:
        if self.world.rank == 0:
            with self.average.in_place(self.job.training.ema_used):
                shown = pictures(self.disentangler, self.stage, self.job.clips, self.order, weights.temperature)
            self._log("pictures", done, {"pictures": shown})

    def _log(self, kind: str, done: int, figures: Mapping[str, Any]) -> None:
        if self.world.rank == 0:
            overall = done + (self.job.training.stage1.steps if self.stage == 2 else 0)
            place = {"stage": self.stage, "step": done, "steps": self.config.steps, "overall_step": overall}
            self.reporter.log({"kind": kind, **place, **figures})

    def _save(self, done: int, weights: Weights) -> None:
        optimiser = whole_state(self.optimiser, self.world.rank)
        audit: Sequence[Mapping[str, Any]] = ()
        if self.job.training.audit:
            audit = [line for lines in self.world.gather(self.trained_on) for line in lines]
            self.trained_on.clear()
        state: dict[str, Any] | None = None
        if self.world.rank == 0:
            state = {
                "format": FORMAT,
                "model_config": asdict(self.job.model),
                "model": self.disentangler.state_dict(),
                "temperature": weights.temperature,
                "optimiser": optimiser,
                "stage": self.stage,
                "step": done,
                "epoch": self.order.epoch_of(done),
                "seed": self.job.seed,
                "slowdown": self.slowdown,
                "bests": {number: list(best) for number, best in self.bests.items()},
                **self.job.notes,
            }
            if self.average:
                state |= {"average": self.average.state(), "used": "average" if self.job.training.ema_used else "model"}
            if scale := self.precision.state():
                state["loss_scale"] = scale
        self.reporter.save(state, TrainPosition(self.stage, done), last=done == self.config.steps, audit=audit)
