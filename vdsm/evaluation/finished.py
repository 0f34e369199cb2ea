"""Results of a measurement that are kept until all of it is finished, so that an interrupted one resumes.

They are exact: verdicts are stored as arrays, scores as JSON, which keeps every bit of a float.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.judge import Judge, Verdicts, join, judge_frames
from vdsm.evaluation.progress import Progress
from vdsm.evaluation.scores import Score

Scores = dict[str, Score]
BATCHES_PER_BLOCK = 8
"""Batches that are judged before their verdicts are kept: seconds of work."""


class FinishedWork(Protocol):
    """Keeps bytes by name. One measurement always has the same names; another one must not see them."""

    def get(self, name: str) -> bytes | None:
        """Return what was kept, or None."""

    def put(self, name: str, data: bytes) -> None:
        """Keep a result."""


class KeepNothing:
    """A FinishedWork that forgets everything."""

    def get(self, name: str) -> bytes | None:
        """Return None."""

    def put(self, name: str, data: bytes) -> None:
        """Do nothing."""


KEEP_NOTHING = KeepNothing()
"""For callers that do not resume."""


@dataclass(frozen=True)
class Block:
    """Consecutive clips whose verdicts are kept together."""

    name: str
    start: int
    stop: int
    frames: Callable[[slice], Tensor]
    """Returns the frames of some clips: f32 [B, T, C, H, W] in [0, 1]."""


def blocks(name: str, clips: int, frames: Callable[[slice], Tensor], batch_clips: int) -> list[Block]:
    """Return blocks of a few batches each that cover `clips` clips."""
    size = BATCHES_PER_BLOCK * batch_clips
    return [Block(f"{name}-{start}", start, min(start + size, clips), frames) for start in range(0, clips, size)]


def judge_blocks(
    judge: Judge, phase: str, wanted: Sequence[Block], batch_clips: int, finished: FinishedWork, progress: Progress
) -> Verdicts:
    """Return the verdicts on all clips of the blocks, in order; those that were kept are not judged again."""
    stored = {block.name: data for block in wanted if (data := finished.get(block.name)) is not None}
    done = sum(block.stop - block.start for block in wanted if block.name in stored)
    progress.start(phase, sum(block.stop - block.start for block in wanted), unit="clips", done=done)
    found = []
    for block in wanted:
        if block.name in stored:
            found.append(_load_verdicts(stored[block.name]))
            continue
        parts = []
        for start in range(block.start, block.stop, batch_clips):
            batch = slice(start, min(start + batch_clips, block.stop))
            parts.append(judge_frames(judge, block.frames(batch)))
            progress.advance(batch.stop - batch.start)
        found.append(join(parts))
        finished.put(block.name, _dump_verdicts(found[-1]))
    return join(found)


def scores_once(
    name: str, phases: Sequence[str], compute: Callable[[], Mapping[str, Scores]], finished: FinishedWork,
    progress: Progress,
) -> dict[str, Scores]:  # fmt: skip
    """Return some groups of scores; computed, or what was kept of them.

    Args:
        name: their name among the finished work.
        phases: the phases of progress that `compute` starts, which are also started if it is not called.
        compute: returns scores by group.
        finished: keeps the scores.
        progress: receives the phases.
    """
    stored = finished.get(name)
    if stored is not None:
        for phase in phases:
            progress.start(phase, 1)
            progress.advance()
        groups = json.loads(stored)
        return {group: {name: Score(**score) for name, score in scores.items()} for group, scores in groups.items()}
    found = dict(compute())
    plain = {group: {name: asdict(score) for name, score in scores.items()} for group, scores in found.items()}
    finished.put(name, json.dumps(plain).encode())
    return found


def _dump_verdicts(verdicts: Verdicts) -> bytes:
    values: dict[str, NDArray[Any]] = {f"value {name}": value for name, value in verdicts.values.items()}
    values |= {f"entropy {name}": value for name, value in verdicts.entropies.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, action=verdicts.action, features=verdicts.features, **values)
    return buffer.getvalue()


def _load_verdicts(data: bytes) -> Verdicts:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        values, entropies = (
            {name.removeprefix(kind): arrays[name] for name in arrays.files if name.startswith(kind)}
            for kind in ("value ", "entropy ")
        )
        return Verdicts(arrays["action"], values, arrays["features"], entropies)
