"""One optimiser step: gradients of a global batch, averaged over the ranks, then the update of the weights.

What a step does depends on the recipe, the data and the step number alone: the clips come from the global order, the
latent noise of a sample is drawn by its position in the global batch, and dropout is seeded per step and rank. Only the
dropout masks depend on the number of ranks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.training.augmentation import Augmentation, augment, draw_augmentation
from pipeline.training.batches import Batch, to_model
from pipeline.training.distributed import DistributedContext, part_of, wrap_ddp
from pipeline.training.divergence import divergence_flags, raise_divergence
from pipeline.training.draws import Draw, draw
from pipeline.training.draws_of_keys import derive_seed
from pipeline.training.ema import ExponentialMovingAverage
from pipeline.training.job import Job
from pipeline.training.latents import LatentStore
from pipeline.training.optimiser import adam, learning_rate
from pipeline.training.position import TrainPosition
from pipeline.training.precision import Precision, resolve_precision
from pipeline.training.reporter import Reporter, StopDecision
from vdsm.annealing import Weights, weights_at
from vdsm.device import Readout, upload
from vdsm.disentangler import Disentangler
from vdsm.dropout import SeededDropout
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


class _Unread(NamedTuple):
    """A step whose flags of divergence are on their way to the host."""

    position: TrainPosition
    terms: LossTerms
    clips: Sequence[str]
    flags: Readout


class Stepper:
    """Model, optimiser and averages of one stage on one rank.

    `lr_scale` is a factor of the learning rate; `latents`, if there are any, spare stage 2 the image encoder.
    """

    def __init__(
        self,
        job: Job,
        stage: int,
        module: FrameModel | SequenceModel,
        disentangler: Disentangler,
        world: DistributedContext,
        *,
        lr_scale: float = 1.0,
        latents: LatentStore | None = None,
    ) -> None:
        training = job.training
        self.job, self.stage, self.module, self.world, self.lr_scale = job, stage, module, world, lr_scale
        self.latents = latents
        self.config = training.stage(stage)
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimiser = adam(self.parameters, self.config, sharded=training.shard_optimiser and world.size > 1)
        self.precision = Precision(resolve_precision(training, world), world.device)
        self.ema = ExponentialMovingAverage(disentangler, training.ema_decay)
        self.ddp = wrap_ddp(module, training, stage, world)
        self._dropouts = [part for part in module.modules() if isinstance(part, SeededDropout)]
        # Of networks of torchvision. It draws from the global generator, which is slow to seed; see vdsm/dropout.py.
        self._has_global_dropout = any(isinstance(part, nn.Dropout) for part in module.modules())
        self._unread: _Unread | None = None

    def loss_weights(self, step: int) -> Weights:
        """Return the annealed weights of `step` (from 0); the last step has those of the end of the stage."""
        progress = step / max(1, self.config.steps - 1)
        return weights_at(self.config.annealing, progress, self.job.model.channels * self.job.model.frame_size**2)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step` (from 0)."""
        return learning_rate(self.config, step) * self.lr_scale

    def step(self, step: int, batch: Batch, reporter: Reporter) -> StepResult:
        """Take optimiser step `step` (from 0).

        On an accelerator, the step is only queued when this returns. Whether it has diverged is read during the next
        call, or by `settle`, so that the host does not wait for it. The weights after a step that has are never used.

        Raises:
            DivergenceError: in the step before, the loss or the gradient was not finite, or a KL divergence had blown
                up, on some rank.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(step)
        terms = self.gradients(step, batch)
        self.precision.unscale(self.optimiser)
        gradient_norm = self._clip_gradient()
        flags = self.world.sum_on_device(divergence_flags(terms, gradient_norm))
        clips = [self.job.clips.keys[clip] for clip in batch.windows.clips]
        before, self._unread = self._unread, _Unread(TrainPosition(self.stage, step + 1), terms, clips, Readout(flags))
        # Checked here, where the ranks synchronise anyway.
        decision = reporter.should_stop()
        if self.precision.scales_loss and self._overflowed(self._unread, gradient_norm):
            gradient_norm, self._unread = torch.zeros_like(gradient_norm), None
        else:
            self.precision.step(self.optimiser)
            self.ema.update()
        self.optimiser.zero_grad()
        self._check(before)
        return StepResult(terms, gradient_norm, decision)

    def settle(self) -> None:
        """Wait for the last step. Raise DivergenceError if it has diverged; its weights may be used otherwise."""
        before, self._unread = self._unread, None
        self._check(before)

    def _check(self, step: _Unread | None) -> None:
        if step is not None and bool(step.flags.read()[1]):
            raise_divergence(step.position, step.terms, step.clips, self.world)

    def _overflowed(self, step: _Unread, gradient_norm: Tensor) -> bool:
        """Return whether the gradient is not finite only because the loss scale of fp16 is too high."""
        is_bad_loss, is_bad = step.flags.read().tolist()
        return bool(is_bad) and not is_bad_loss and self.precision.overflowed(gradient_norm)

    def _clip_gradient(self) -> Tensor:
        """Clip the gradient if the recipe says so, and return its global norm before."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.config.gradient_clip:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.gradient_clip, norm)
        return norm

    def gradients(self, step: int, batch: Batch) -> LossTerms:
        """Accumulate the gradients of this rank's clips, averaged over the ranks.

        Args:
            step: number of the step, from 0, which seeds the noise.
            batch: this rank's clips of the global batch.

        Returns:
            The terms of the loss, scaled so that their mean over the ranks is that of the global batch.
        """
        weights, length = self.loss_weights(step), self._length(step, batch.frames.shape[1])
        frames, drawn = batch.frames[:, :length], self._draw(step, "noise")
        noise = self.module.draw_noise(drawn.rows, length, drawn.generator)
        noise = type(noise)(*map(drawn.local, noise))
        chosen = draw_frames(drawn.rows, length, self.config.num_decoded_frames, drawn.generator)[drawn.own]
        decoded = upload(chosen, self.world.device)
        seen = None if self.config.rollout_frames is None else self.config.clip_frames
        stored = self.latents and self.latents.of(batch.windows, length, self.world.device)
        if stored:
            frames = frames[torch.arange(len(frames))[:, None], chosen]
        changes = self._augmentation(step)
        self._seed_dropout(step)
        passes, clips = self.config.accumulation, len(frames)
        found = []
        for number in range(passes):
            rows = part_of(clips, number, passes, self.config.samples_together)
            part = to_model(frames[rows], self.world.device)
            if changes is not None:
                part = augment(part, Augmentation(*(tensor[rows] for tensor in changes)))
            # The part's share of the global batch, times the ranks over which DDP takes the mean.
            share = len(part) * self.world.size / self.config.batch_clips
            with self._reducing(number == passes - 1):
                # Call DDP's own forward: bypassing it would skip the all-reduce.
                with self.precision.autocast():
                    part_noise = type(noise)(*(tensor[rows] for tensor in noise))
                    extra = () if self.stage == 1 else (seen, stored and stored.rows(rows))
                    terms: LossTerms = self.ddp(part, part_noise, weights, decoded[rows], *extra)
                scaled = terms if share == 1 else LossTerms(*(term * share for term in terms))
                self.precision.backward(scaled.loss)
            found.append(torch.stack([term.detach() for term in scaled]))
        return LossTerms(*torch.stack(found).sum(dim=0))

    def _length(self, step: int, longest: int) -> int:
        """Return how many of the `longest` frames that were read a step uses: the same on all ranks.

        The longest grows over the first half of the stage: what cannot do a few frames yet learns nothing from many.
        """
        if self.config.rollout_frames is None:
            return longest
        shortest = self.config.clip_frames
        longest = shortest + round((longest - shortest) * min(1.0, 2 * step / self.config.steps))
        return shortest + derive_seed(self.job.seed, self.stage, step, "length") % (longest - shortest + 1)

    def _seed_dropout(self, step: int) -> None:
        seed = derive_seed(self.job.seed, self.stage, step, "dropout", self.world.rank)
        if self._has_global_dropout:
            torch.manual_seed(seed)
        for dropout in self._dropouts:
            dropout.reseed(seed, self.world.device)

    def _augmentation(self, step: int) -> Augmentation | None:
        """Return the changes of this rank's samples of a step; None if there are none."""
        config = self.job.training.augmentation
        if not config.is_active:
            return None
        # A generator of its own, so that augmentation does not change the noise of the latents.
        drawn = self._draw(step, "augmentation")
        changes = draw_augmentation(config, drawn.rows, drawn.generator)
        return Augmentation(*map(drawn.local, changes))

    def _draw(self, step: int, purpose: str) -> Draw:
        seed = derive_seed(self.job.seed, self.stage, step, purpose)
        return draw(self.job.training.noise, seed, self.config.batch_clips, self.world, self.config.samples_together)

    def warm_up_ddp_buckets(self, step: int, batch: Batch) -> None:
        """Run one backward pass and discard it.

        DDP regroups its gradients into buckets after the first backward pass, and the grouping decides the order in
        which the gradients of more than two ranks are summed. A resumed run must not start with another grouping.
        """
        if self.world.size > 1:
            self.gradients(step, batch)
            self.optimiser.zero_grad()

    def _reducing(self, is_last_pass: bool) -> Any:
        """Return a context in which the ranks exchange gradients in the last backward pass of a step only."""
        no_sync = getattr(self.ddp, "no_sync", None)
        return torch.enable_grad() if is_last_pass or no_sync is None else no_sync()
