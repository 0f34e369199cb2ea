"""The control `renderer`: the program that drew the data, measured like a model. It is the perfect one, so what it
misses is the judge's error, and it shows what the figures of prior samples can be at best."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.judge import Judge, Verdicts
from vdsm.evaluation.judged_scores import Outputs, output_scores
from vdsm.evaluation.outputs import judge_pairs
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.progress import Progress
from vdsm.evaluation.scores import Score


class Renderer(Protocol):
    """Draws any identity in any action."""

    @property
    def identities(self) -> Sequence[str]:
        """All whom it can draw: its prior over identities is uniform over them."""

    def draw(self, identity: str, action: int) -> NDArray[np.uint8]:
        """A clip: uint8 [T, H, W, C]."""


def renderer_scores(
    judge: Judge, clips: LabelledClips, pairs: Pairs, renderer: Renderer, real: Verdicts, length: int,
    batch_clips: int, seed: int, progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    """Scores of its swaps, and of its samples of identities and actions."""
    generator = np.random.default_rng([seed, 6])
    people = [clips.identities[index] for index in pairs.static_of]
    strangers = [
        renderer.identities[int(number)] for number in generator.integers(len(renderer.identities), size=len(pairs))
    ]
    actions = np.asarray(clips.labels[ACTION])[pairs.dynamics_of]
    others = generator.integers(len(clips.vocabulary[ACTION]), size=len(pairs))

    def drawn(who: Sequence[str], what: NDArray[np.int64]) -> Callable[[slice], Tensor]:
        def decode(batch: slice) -> Tensor:
            frames = [renderer.draw(*asked)[:length] for asked in zip(who[batch], what[batch].tolist(), strict=True)]
            return torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3).float().div_(255)

        return decode

    def judged(who: Sequence[str], what: NDArray[np.int64]) -> Verdicts:
        return judge_pairs(judge, pairs, drawn(who, what), batch_clips, "the renderer as a model", progress)

    outputs = Outputs(
        swap=judged(people, actions), prior_static=judged(strangers, actions), prior_dynamics=judged(people, others)
    )
    return output_scores(clips, pairs, outputs, real, seed)
