"""The interface that receives the results of a run and may interrupt it."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from pipeline.training.position import TrainPosition
from pipeline.training.state import TrainState


class StopDecision(NamedTuple):
    """What the reporter requests of the training loop after a step; the same on every rank."""

    stop: bool = False
    """Save a checkpoint and stop."""
    preempted: bool = False
    """Save a checkpoint now, because a machine of the run will soon be preempted; then continue."""
    due: bool = False
    """Save a checkpoint now, because the last one is older than `training.checkpoint_interval_s`; then continue."""


class Reporter(Protocol):
    """Takes the results of a run and keeps its checkpoints."""

    def log(self, record: dict[str, Any]) -> None:
        """Take a record, whose `kind` is `train`, `validation`, `images` or `event`. Called on rank 0 only."""

    def save(self, state: TrainState, *, last: bool, audit: Sequence[Mapping[str, Any]] = ()) -> None:
        """Keep a checkpoint, perhaps while the training continues. Called on rank 0 only.

        Args:
            state: the checkpoint; later steps change its tensors, so copy them.
            last: whether this is the end of a stage.
            audit: which clips the steps since the last checkpoint were trained on.
        """

    def restore(
        self, position: TrainPosition | None = None, *, before: TrainPosition | None = None
    ) -> TrainState | None:
        """Return the newest checkpoint, or None if there is none. Called on every rank, with the same result.

        Args:
            position: return the checkpoint of this position instead, which is known to be kept.
            before: return the newest one before this position instead, and delete the others.
        """

    def should_stop(self) -> StopDecision:
        """Return whether to stop after this step or to save because of a preemption.

        Called on every rank during every step, with the same result.
        """

    def profile(self, stage: int) -> AbstractContextManager[Callable[[], None]]:
        """Return a context around the steps of a stage, which gives a function to call after each step."""


class QuietReporter:
    """A Reporter that keeps nothing and never interrupts."""

    def log(self, record: dict[str, Any]) -> None:
        """Discard the record."""

    def save(self, state: TrainState, *, last: bool, audit: Sequence[Mapping[str, Any]] = ()) -> None:
        """Discard the checkpoint."""

    def restore(
        self, position: TrainPosition | None = None, *, before: TrainPosition | None = None
    ) -> TrainState | None:
        """Return None: nothing was kept."""
        return None

    def should_stop(self) -> StopDecision:
        """Return the decision to continue."""
        return StopDecision()

    def profile(self, stage: int) -> AbstractContextManager[Callable[[], None]]:
        """Return a context that profiles nothing."""
        return contextlib.nullcontext(lambda: None)
