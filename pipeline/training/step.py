"""One optimiser step: gradients of a global batch, averaged over the ranks, then the update of the weights.

What a step does depends on the recipe, the data and the step number alone: the clips come from the global order, the
latent noise is drawn for the global batch and sliced by rank, and dropout is seeded per step and rank. Only the dropout
masks depend on the number of ranks.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.training.augmentation import Augmentation, augment, draw_augmentation
from pipeline.training.batches import Batch, to_model
from pipeline.training.distributed import DistributedContext, wrap_ddp
from pipeline.training.divergence import has_diverged, raise_divergence
from pipeline.training.ema import ExponentialMovingAverage
from pipeline.training.job import Job
from pipeline.training.optimiser import adam, learning_rate
from pipeline.training.order import derive_seed
from pipeline.training.position import TrainPosition
from pipeline.training.precision import Precision
from pipeline.training.reporter import Reporter, StopDecision
from vdsm.annealing import Weights, weights_at
from vdsm.disentangler import Disentangler
from vdsm.frames import FrameModel, draw_frames
from vdsm.loss import LossTerms
from vdsm.sequence import SequenceModel


class StepResult(NamedTuple):
    """The result of one step on this rank."""

    terms: LossTerms
    """Terms of the loss, scaled so that their mean over the ranks is that of the global batch."""
    gradient_norm: Tensor
    """Global norm of the gradient before clipping; 0 where an fp16 overflow skipped the update."""
    decision: StopDecision


class Stepper:
    """Model, optimiser and averages of one stage on one rank. `lr_scale` is a factor of the learning rate."""

    def __init__(
        self,
        job: Job,
        stage: int,
        module: FrameModel | SequenceModel,
        disentangler: Disentangler,
        world: DistributedContext,
        *,
        lr_scale: float = 1.0,
    ) -> None:
        training = job.training
        self.job, self.stage, self.module, self.world, self.lr_scale = job, stage, module, world, lr_scale
        self.config = training.stage(stage)
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimiser = adam(self.parameters, self.config, sharded=training.shard_optimiser and world.size > 1)
        self.precision = Precision(training.precision, world.device)
        self.ema = ExponentialMovingAverage(disentangler, training.ema_decay)
        self.ddp = wrap_ddp(module, training, world)

    def loss_weights(self, step: int) -> Weights:
        """Return the annealed weights of `step` (from 0); the last step has those of the end of the stage."""
        progress = step / max(1, self.config.steps - 1)
        return weights_at(self.config.annealing, progress, self.job.model.channels * self.job.model.frame_size**2)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step` (from 0)."""
        return learning_rate(self.config, step) * self.lr_scale

    def step(self, step: int, batch: Batch, reporter: Reporter) -> StepResult:
        """Take optimiser step `step` (from 0).

        Raises:
            DivergenceError: the loss or the gradient is not finite, or a KL divergence has blown up, on some rank.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(step)
        terms = self.gradients(step, batch.frames)
        self.precision.unscale(self.optimiser)
        gradient_norm = nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip or math.inf)
        is_bad_loss = has_diverged(terms)
        is_bad_loss, is_bad = self.world.any_rank(is_bad_loss, is_bad_loss or not torch.isfinite(gradient_norm))
        # Checked here, where the ranks synchronise anyway.
        decision = reporter.should_stop()
        if is_bad and (is_bad_loss or not self.precision.overflowed(gradient_norm)):
            clips = [self.job.clips.keys[clip] for clip in batch.windows.clips]
            raise_divergence(TrainPosition(self.stage, step + 1), terms, clips, self.world)
        if is_bad:  # an fp16 overflow: the norm is not finite
            gradient_norm = torch.zeros_like(gradient_norm)
        else:
            self.precision.step(self.optimiser)
            self.ema.update()
        self.optimiser.zero_grad()
        return StepResult(terms, gradient_norm, decision)

    def gradients(self, step: int, frames: Tensor) -> LossTerms:
        """Accumulate the gradients of this rank's clips, averaged over the ranks.

        Args:
            step: number of the step, from 0, which seeds the noise.
            frames: this rank's clips of the global batch, uint8 [B, T, H, W, C].

        Returns:
            The terms of the loss, scaled so that their mean over the ranks is that of the global batch.
        """
        weights = self.loss_weights(step)
        generator = torch.Generator().manual_seed(derive_seed(self.job.seed, self.stage, step, "noise"))
        size = (self.config.batch_clips, frames.shape[1])
        noise = self.module.draw_noise(*size, generator)
        noise = type(noise)(*map(self.world.local_rows, noise))
        decoded = self.world.local_rows(draw_frames(*size, self.config.num_decoded_frames, generator))
        changes = self._augmentation(step)
        torch.manual_seed(derive_seed(self.job.seed, self.stage, step, "dropout", self.world.rank))
        passes, clips = self.config.accumulation, len(frames)
        found = []
        for number in range(passes):
            rows = slice(clips * number // passes, clips * (number + 1) // passes)
            part = to_model(frames[rows], self.world.device)
            if changes is not None:
                part = augment(part, Augmentation(*(tensor[rows] for tensor in changes)))
            # The part's share of the global batch, times the ranks over which DDP takes the mean.
            share = len(part) * self.world.size / self.config.batch_clips
            with self._reducing(number == passes - 1):
                # Call DDP's own forward: bypassing it would skip the all-reduce.
                with self.precision.autocast():
                    part_noise = type(noise)(*(tensor[rows] for tensor in noise))
                    terms: LossTerms = self.ddp(part, part_noise, weights, decoded[rows])
                scaled = LossTerms(*(term * share for term in terms))
                self.precision.backward(scaled.loss)
            found.append(torch.stack([term.detach() for term in scaled]))
        return LossTerms(*torch.stack(found).sum(dim=0))

    def _augmentation(self, step: int) -> Augmentation | None:
        """Return the changes of this rank's samples of a step; None if there are none."""
        config = self.job.training.augmentation
        if not config.is_active:
            return None
        # A generator of its own, so that augmentation does not change the noise of the latents.
        generator = torch.Generator().manual_seed(derive_seed(self.job.seed, self.stage, step, "augmentation"))
        changes = draw_augmentation(config, self.config.batch_clips, generator)
        return Augmentation(*map(self.world.local_rows, changes))

    def warm_up_ddp_buckets(self, step: int, batch: Batch) -> None:
        """Run one backward pass and discard it.

        DDP regroups its gradients into buckets after the first backward pass, and the grouping decides the order in
        which the gradients of more than two ranks are summed. A resumed run must not start with another grouping.
        """
        if self.world.size > 1:
            self.gradients(step, batch.frames)
            self.optimiser.zero_grad()

    def _reducing(self, is_last_pass: bool) -> Any:
        """Return a context in which the ranks exchange gradients in the last backward pass of a step only."""
        no_sync = getattr(self.ddp, "no_sync", None)
        return torch.enable_grad() if is_last_pass or no_sync is None else no_sync()
