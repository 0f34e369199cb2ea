"""The control `renderer`: the program that drew the data, measured like a model.

It is the perfect model, so what it misses is the judge's error. Its samples show the best possible metrics of prior
samples.
"""

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

RENDERER_PHASES = ("renderer: swaps", "renderer: new identities", "renderer: new actions", "scoring the renderer")
"""Phases of progress that `renderer_scores` starts."""


class Renderer(Protocol):
    """Draws any identity in any action."""

    @property
    def identities(self) -> Sequence[str]:
        """All identities that it can draw; its prior is uniform over them."""

    def draw(self, identity: str, action: int) -> NDArray[np.uint8]:
        """Return a clip: uint8 [T, H, W, C]."""


def renderer_scores(
    judge: Judge, clips: LabelledClips, pairs: Pairs, renderer: Renderer, real: Verdicts, length: int,
    batch_clips: int, seed: int, progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    """Return the scores of a renderer's swaps, and of its samples of identities and actions.

    Args:
        judge: trained on the training split.
        clips: the test split.
        pairs: the pairs to swap.
        renderer: the program that drew the data.
        real: verdicts on all real test clips.
        length: frames of each clip.
        batch_clips: clips judged at once.
        seed: seed of the samples and the intervals.
        progress: receives RENDERER_PHASES.
    """
    generator = np.random.default_rng([seed, 6])
    identities = [clips.identities[index] for index in pairs.static_of]
    new_identities = [
        renderer.identities[int(number)] for number in generator.integers(len(renderer.identities), size=len(pairs))
    ]
    actions = np.asarray(clips.labels[ACTION])[pairs.dynamics_of]
    new_actions = generator.integers(len(clips.vocabulary[ACTION]), size=len(pairs))

    def decoder(identities: Sequence[str], actions: NDArray[np.int64]) -> Callable[[slice], Tensor]:
        def decode(batch: slice) -> Tensor:
            wanted = zip(identities[batch], actions[batch].tolist(), strict=True)
            frames = [renderer.draw(identity, action)[:length] for identity, action in wanted]
            return torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3).float().div_(255)

        return decode

    def judged(identities: Sequence[str], actions: NDArray[np.int64], phase: str) -> Verdicts:
        return judge_pairs(judge, pairs, decoder(identities, actions), batch_clips, phase, progress)

    outputs = Outputs(
        swap=judged(identities, actions, RENDERER_PHASES[0]),
        prior_static=judged(new_identities, actions, RENDERER_PHASES[1]),
        prior_dynamics=judged(identities, new_actions, RENDERER_PHASES[2]),
    )
    progress.start(RENDERER_PHASES[3], outputs.frechet_resamples, unit="resamples")
    return output_scores(clips, pairs, outputs, real, seed, progress)
