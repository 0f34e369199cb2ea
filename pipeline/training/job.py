"""What a training is given, and where its results go."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pipeline.training.batches import Clips, catalogue
from pipeline.training.config import StageConfig, TrainingConfig
from pipeline.training.order import GlobalOrder
from vdsm.config import ModelConfig

FORMAT = 2
"""Version of the content of checkpoints."""


class TrainPosition(NamedTuple):
    """A point of the training: `step` steps of `stage` are done."""

    stage: int
    step: int

    def __str__(self) -> str:
        return f"stage {self.stage}, step {self.step}"


class Reporter(Protocol):
    """Where the results of a run go."""

    def log(self, record: dict[str, Any]) -> None:
        """Takes a record of the training; called on rank 0 only."""

    def event(self, event: str, **details: Any) -> None:
        """Takes something that happened; called on rank 0 only."""

    def save(
        self, state: dict[str, Any] | None, place: TrainPosition, *, last: bool, audit: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Keeps a checkpoint (`last`: the end of a stage), perhaps while the training goes on. Called on every rank;
        `state` is none except on rank 0. `audit` is what the steps since the last checkpoint were trained on."""

    def latest(self, before: TrainPosition | None = None) -> Mapping[str, Any] | None:
        """The newest checkpoint, after all that were saved are kept, or the newest before a place: then that one and
        all after it are dropped. None where there is none. Called on every rank, with the same answer."""

    def at(self, place: TrainPosition) -> Mapping[str, Any]:
        """The checkpoint of a place that is known to be kept. Called on every rank."""

    def should_stop(self) -> bool:
        """Whether to save a checkpoint and stop after this step; asked on every rank, and one yes is enough."""

    def time_to_look(self) -> bool:
        """Whether it is time to ask `notice`; asked on every rank, and one yes is enough."""

    def notice(self) -> bool:
        """Whether this machine or one of the others will soon be taken away, said once. Called on every rank."""

    def profile(self, stage: int) -> AbstractContextManager[Callable[[], None]]:
        """A context around a stage that gives what to call after each step."""


class QuietReporter:
    """A Reporter that keeps nothing and is never told to stop."""

    def log(self, record: dict[str, Any]) -> None:
        """Forgets it."""

    def event(self, event: str, **details: Any) -> None:
        """Forgets it."""

    def save(
        self, state: dict[str, Any] | None, place: TrainPosition, *, last: bool, audit: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Forgets it."""

    def latest(self, before: TrainPosition | None = None) -> Mapping[str, Any] | None:
        """None."""
        return None

    def at(self, place: TrainPosition) -> Mapping[str, Any]:
        """Nothing was kept."""
        raise ValueError(f"no checkpoint of {place} was kept")

    def should_stop(self) -> bool:
        """No."""
        return False

    def time_to_look(self) -> bool:
        """No."""
        return False

    def notice(self) -> bool:
        """No."""
        return False

    def profile(self, stage: int) -> AbstractContextManager[Callable[[], None]]:
        """Nothing to call."""
        return contextlib.nullcontext(lambda: None)


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


BLOWN_UP = 1e4
"""Nats per pixel value beyond which a divergence between distributions is none that a training comes back from. With
its first weights, each of the eight recipes measured is below 0.01; one that blew up on Moving MNIST passed a million
within 30 steps.
"""


class DivergenceError(ArithmeticError):
    """The loss or its gradient is NaN or infinite, or one of its terms has blown up; the message names the term, the
    step and the clips."""

    def __init__(
        self, place: TrainPosition, terms: Sequence[str], clips: Sequence[str], *, finite: bool = False
    ) -> None:
        self.place, self.terms, self.clips = place, list(terms), list(clips)
        fault = f"is above {BLOWN_UP:,.0f} nats per value" if finite else "is not finite"
        super().__init__(
            f"{place}: {', '.join(terms)} {fault} on clips {', '.join(clips)}; look at these clips, or start "
            f"a new run with a lower stage{place.stage}.learning_rate or a gradient_clip"
        )


def stage_config(training: TrainingConfig, stage: int) -> StageConfig:
    """Settings of stage 1 or 2."""
    return training.stage1 if stage == 1 else training.stage2


def stage_order(job: Job, stage: int) -> GlobalOrder:
    """The order in which a stage sees the clips. Raises ValueError where the dataset does not allow it."""
    config = stage_config(job.training, stage)
    return GlobalOrder(
        catalogue(job.clips),
        seed=job.seed,
        stage=stage,
        window=config.clip_frames,
        batch=config.batch_clips,
        validation_fraction=job.training.validation_fraction,
        pairing=config.pairing == "identity",
        block_shards=job.training.block_shards,
    )
