"""One stage of a run on one rank: its data, its steps, and what it measures, logs and saves."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, cast

from torch import Tensor

from pipeline.training import code_priors, latents
from pipeline.training.batches import Batch
from pipeline.training.code_priors import CodePosteriors
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job, stage_order
from pipeline.training.latents import LatentStore
from pipeline.training.meter import Meter
from pipeline.training.optimiser import full_state_dict
from pipeline.training.order import Indices, Windows
from pipeline.training.position import TrainPosition
from pipeline.training.prefetch import PrefetchedBatches, ShardReadAhead
from pipeline.training.reporter import Reporter
from pipeline.training.sample_images import sample_images
from pipeline.training.state import BestValidation, TrainState
from pipeline.training.step import Stepper
from pipeline.training.validation import validate
from vdsm.annealing import Weights
from vdsm.disentangler import Disentangler
from vdsm.frames import FrameModel
from vdsm.sequence import SequenceModel


class StageRun:
    """One stage on one rank.

    Args:
        job: what is trained, on which clips.
        stage: 1 or 2.
        disentangler: the model, whose parameters of the other stage are frozen.
        reporter: takes the results.
        world: this rank and the number of ranks.
        lr_scale: factor of the learning rate.
        rollbacks: number of rollbacks before this stage.
        best_validation: best validation of each stage so far.
    """

    def __init__(
        self,
        job: Job,
        stage: Literal[1, 2],
        disentangler: Disentangler,
        reporter: Reporter,
        world: DistributedContext,
        *,
        lr_scale: float = 1.0,
        rollbacks: int = 0,
        best_validation: Mapping[int, BestValidation] | None = None,
    ) -> None:
        self.job, self.stage, self.disentangler, self.reporter, self.world = job, stage, disentangler, reporter, world
        self.config, self.rollbacks = job.training.stage(stage), rollbacks
        self.best_validation = dict(best_validation or {})
        self.order = stage_order(job, stage)
        self.module = disentangler.prepare_stage(stage)
        if job.training.compile:
            _compile(disentangler.frame_model)
        self.stepper = Stepper(
            job, stage, self.module, disentangler, world, lr_scale=lr_scale, latents=self._infer_latents()
        )
        self._audit: list[dict[str, Any]] = []

    def _infer_latents(self) -> LatentStore | None:
        """Infer what the image encoder reads in all training clips, if the recipe says so and there is room."""
        room = self.job.training.latent_memory_gb
        if self.stage == 1 or not room:
            return None
        assert isinstance(self.module, SequenceModel)
        needed = latents.bytes_needed(self.job, self.order.train)
        is_stored = latents.have_room(self.job, needed)
        event = "inferring latents" if is_stored else "latents not stored"
        self.log_event(event, 0, needed_gb=float(f"{needed / 1e9:.3g}"), latent_memory_gb=room)
        if not is_stored:
            return None
        return latents.infer_latents(self.module, self.job, self.order.train, self.world)

    def resume(self, state: TrainState) -> int:
        """Restore all but the model's weights from a checkpoint of this stage, and return the number of steps done."""
        self.stepper.optimiser.load_state_dict(cast(dict[str, Any], state.optimiser))
        if state.loss_scale is not None:
            self.stepper.precision.load_state_dict(state.loss_scale)
        if self.stepper.ema and state.ema is not None:
            self.stepper.ema.load_state_dict(state.ema)
        return state.position.step

    @contextlib.contextmanager
    def batches(self, first_step: int) -> Iterator[PrefetchedBatches]:
        """Read this rank's batches ahead of their steps, from `first_step` to the end of the stage."""
        training = self.job.training
        steps = range(first_step, self.config.steps)
        rows = self.world.rows(self.config.batch_clips, self.config.samples_together)

        def own_part(step: int) -> Windows:
            return self.order.at(step, rows)

        read_ahead = ShardReadAhead(self.job.clips, own_part, steps, 2 * self.order.shards_in_use(rows))
        reached = iter(steps)
        batches = PrefetchedBatches(
            self.job.clips,
            map(own_part, steps),
            self.config.window_frames,
            pin=self.world.device.type == "cuda",
            stall_s=training.stall_timeout_s,
            on_batch=lambda: read_ahead.reached(next(reached)),
        )
        with read_ahead, batches:
            yield batches

    def validate(self, weights: Weights) -> dict[str, float]:
        """Return the un-annealed ELBO and its terms on the held-out clips, at the temperature of `weights`."""
        with self.stepper.ema.swapped_in(self.job.training.ema_used), self.stepper.precision.autocast():
            return validate(
                self.module,
                self.job.clips,
                self.order.validation_batches(),
                window=self.config.clip_frames,
                seed=self.job.seed,
                temperature=weights.temperature,
                world=self.world,
                noise=self.job.training.noise,
                stall_s=self.job.training.stall_timeout_s,
                shards_ahead=self.job.training.block_shards if self.job.is_remote else 0,
            )

    def validate_and_log(self, done: int) -> bool:
        """Validate after `done` steps, and return whether the weights are the best of this stage so far."""
        metrics = self.validate(self._last_weights(done))
        self._log("validation", done, metrics)
        is_best = self.stage not in self.best_validation or metrics["elbo"] > self.best_validation[self.stage].elbo
        if is_best:
            self.best_validation[self.stage] = BestValidation(done, metrics["elbo"])
        return is_best

    def log_train(self, done: int, meter: Meter, *, waited_s: float) -> None:
        """Log the metrics of the steps since the last log; `waited_s` is the total wait for data in seconds."""
        step = done - 1
        metrics = meter.record(
            waited_s=waited_s, weights=self._last_weights(done), learning_rate=self.stepper.learning_rate(step)
        )
        self._log("train", done, metrics | {"epoch": self.order.epoch_of(step)})

    def log_images(self, done: int) -> None:
        """Log sample images of validation clips."""
        if self.world.is_first:
            with self.stepper.ema.swapped_in(self.job.training.ema_used):
                images = sample_images(
                    self.disentangler, self.stage, self.job.clips, self.order, self._last_weights(done).temperature
                )
            self._log("images", done, {"images": images})

    def log_event(self, event: str, done: int, **details: Any) -> None:
        """Log an event that happened after `done` steps."""
        if self.world.is_first:
            self.reporter.log({"kind": "event", "event": event, "stage": self.stage, "step": done, **details})

    def record_audit(self, step: int, batch: Batch) -> None:
        """Remember, if `training.audit` is set, which clips this rank trained on."""
        if self.job.training.audit:
            keys = [self.job.clips.keys[clip] for clip in batch.windows.clips]
            self._audit.append({"stage": self.stage, "step": step, "rank": self.world.rank, "clips": keys})

    def save(self, done: int) -> None:
        """Save a checkpoint after `done` steps. All ranks must call together."""
        optimiser = full_state_dict(self.stepper.optimiser, self.world)
        audit: Sequence[Mapping[str, Any]] = ()
        if self.job.training.audit:
            audit = [line for lines in self.world.gather(self._audit) for line in lines]
            self._audit.clear()
        priors = self._fit_priors(done) if done == self.config.steps else None
        if not self.world.is_first:
            return
        training, stepper = self.job.training, self.stepper
        state = TrainState(
            position=TrainPosition(self.stage, done),
            model_config=asdict(self.job.model),
            weights=self.disentangler.state_dict(),
            temperature=self._last_weights(done).temperature,
            optimiser=optimiser or {},
            ema=stepper.ema.state_dict() if stepper.ema else None,
            uses_ema=bool(stepper.ema) and training.ema_used,
            loss_scale=stepper.precision.state_dict() or None,
            priors=priors,
            lr_scale=stepper.lr_scale,
            rollbacks=self.rollbacks,
            best_validation=dict(self.best_validation),
            epoch=self.order.epoch_of(done),
            seed=self.job.seed,
            provenance=self.job.provenance,
        )
        self.reporter.save(state, last=done == self.config.steps, audit=audit)

    def _fit_priors(self, done: int) -> dict[str, Any] | None:
        """Fit the priors that codes are sampled from, for the weights that will be used. Rank 0 returns them.

        The weights change in stage 2: dimensions of the dynamics code that say nothing are silenced first.
        """
        clips = self.job.training.prior_clips
        if not clips:
            return None
        if min(self.order.train_count, clips) < 2:
            self.log_event("priors not fitted", done, reason="it takes two training clips")
            return None
        self.log_event("fitting priors", done)
        chosen = code_priors.prior_clips(self.order, clips)
        train, validation = map(self._encode_posteriors, chosen)
        if self.stage == 2:
            silent = code_priors.silent_dimensions(train)
            later = self.order.window_starts(chosen[0])
            if later.any():  # at their start, clips may be alike in what tells other windows apart
                silent &= code_priors.silent_dimensions(self._encode_posteriors(chosen[0], later))
            constant = self._silence(silent, train.dynamics[0].mean(0))
            train, validation = train.with_constant(silent, constant), validation.with_constant(silent, constant)
            self.log_event("silent dimensions", done, silent=int(silent.sum()), dimensions=len(silent))
        if not self.world.is_first:
            return None
        if not code_priors.is_installed("sklearn"):  # a bare GPU machine, which trains without Ray, may lack it
            self.log_event("priors not fitted", done, reason="scikit-learn is not installed")
            return None
        priors, summary = code_priors.fit_priors(self.disentangler, self.stage, train, validation, self.job.seed)
        self.log_event("priors fitted", done, **summary)
        return priors.to_dict()

    def _encode_posteriors(self, clips: Indices, starts: Indices | None = None) -> CodePosteriors:
        with self.stepper.ema.swapped_in(self.job.training.ema_used):
            return code_priors.encode_posteriors(self.disentangler, self.job, clips, self.world, starts)

    def _silence(self, silent: Tensor, mean: Tensor) -> Tensor:
        """Make dimensions of the dynamics code the same for all clips, in trained and averaged weights of all ranks."""
        encoder, ema = self.disentangler.sequence_model.dynamics_encoder, self.stepper.ema
        constant = encoder.silence(silent, mean)
        with ema.swapped_in(True):
            encoder.silence(silent, mean)
            ema.load_state_dict(self.disentangler.state_dict())
        return constant

    def _last_weights(self, done: int) -> Weights:
        return self.stepper.loss_weights(done - 1)

    def _log(self, kind: str, done: int, metrics: Mapping[str, Any]) -> None:
        if self.world.is_first:
            position = TrainPosition(self.stage, done)
            overall = position.overall_step(self.job.training)
            where = {**position._asdict(), "steps": self.config.steps, "overall_step": overall}
            self.reporter.log({"kind": kind, **where, **metrics})


def _compile(frames: FrameModel) -> None:
    """Have the image encoder and decoder compiled at their first call.

    The loss as a whole is not compiled: Pyro's tracing would break its graph at every site.
    """
    for part in (frames.encoder, frames.decoder):
        part.compile(dynamic=False)
