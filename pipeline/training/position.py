"""The position of a run within the two stages, and how far it got."""

from typing import NamedTuple

from pipeline.training.config import TrainingConfig


class TrainPosition(NamedTuple):
    """A point in a run: `step` steps of `stage` are done. Positions compare in training order."""

    stage: int
    step: int

    def __str__(self) -> str:
        return f"stage {self.stage}, step {self.step}"

    def after_next_step(self, training: TrainingConfig) -> "TrainPosition":
        """Return the position one step later; the end of stage 1 is followed by the first step of stage 2."""
        if self.stage == 1 and self.step == training.stage1.steps:
            return TrainPosition(2, 1)
        return TrainPosition(self.stage, self.step + 1)

    def overall_step(self, training: TrainingConfig) -> int:
        """Return the number of steps done in both stages."""
        return self.step + (training.stage1.steps if self.stage == 2 else 0)


START = TrainPosition(1, 0)
"""The position of a run without a checkpoint."""


class Outcome(NamedTuple):
    """How far a run got."""

    stage: int
    step: int
    finished: bool
