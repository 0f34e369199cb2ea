"""How far a run got."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """How far a run got."""

    stage: int
    step: int
    finished: bool
