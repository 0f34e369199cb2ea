"""What an evaluation found: figures for a table, and what pictures of them are drawn from.

Letters: P pairs of clips A (dynamics) and B (static); N test clips of T frames; V values of a factor.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation.clips import LabelledClips, clip_factors, frame_factors
from vdsm.evaluation.model import CodeTable
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.scores import Score
from vdsm.evaluation.swap_scores import confusion, worst


@dataclass(frozen=True)
class Latents:
    """The codes of all test clips beside everything known of the clips: what a map of a code is coloured by."""

    codes: CodeTable
    """Posterior means: static [N, K], pose [N, T, Z], dynamics [N, D]."""
    labels: Mapping[str, NDArray[np.int64]]
    """Per label, [N] indices into its vocabulary."""
    vocabulary: Mapping[str, list[str]]
    """Per label, the names of its values; empty for data without labels."""
    factors: Mapping[str, NDArray[np.float64]]
    """Continuous factors of a clip: [N]."""
    tracks: Mapping[str, NDArray[np.float64]]
    """Continuous factors of each frame: [N, T]."""
    identities: list[str]
    """Who is seen in each clip: N names."""


def latents_of(clips: LabelledClips, codes: CodeTable, indices: NDArray[np.int64] | None = None) -> Latents:
    """The codes of the clips at `indices`, or of all, beside what is known of these clips."""
    chosen = np.arange(len(clips)) if indices is None else indices
    return Latents(
        codes,
        {name: np.asarray(values)[chosen] for name, values in clips.labels.items()},
        clips.vocabulary,
        {name: values[chosen] for name, values in clip_factors(clips).items()},
        frame_factors(clips, codes.pose.shape[1], chosen),
        [clips.identities[int(index)] for index in chosen],
    )


@dataclass(frozen=True)
class Swapped:
    """One output per pair, as the judge sees it; without a judge (data without an action label) only the pairs."""

    pairs: Pairs
    judged: Mapping[str, NDArray[np.int64]]
    """Judged value of each factor: [P]."""
    confusion: Mapping[str, list[list[int]]]
    """Per factor, how often each value asked for (row) was judged as each value (column): V x V."""
    wrong: NDArray[np.int64]
    """Positions of the pairs with a wrong factor, the most wrong first."""


def swapped_of(clips: LabelledClips, pairs: Pairs, judged: Mapping[str, NDArray[np.int64]]) -> Swapped:
    """What the judge's values say of the pairs, ready to be shown."""
    matrices = {name: confusion(clips, pairs, name, values) for name, values in judged.items()}
    return Swapped(pairs, judged, matrices, worst(clips, pairs, judged))


@dataclass(frozen=True)
class Measurement:
    """What the protocol found of a model."""

    scores: dict[str, Score]
    """By dotted name, such as `swap.static.hat.accuracy` or `probe.static.action.mlp`."""
    controls: dict[str, dict[str, Score]]
    """Per control, some of the same figures by the same names."""
    swapped: Swapped
    """The swaps: through the dynamics code, or through the poses where there is no sequence stage."""
    latents: Latents
    decoder: SwapDecoder
    """The model with the codes of the test clips: decodes any combination of them."""
    expert_use: list[float]
    """Mean weight of each expert in the static codes of the test clips, 1 in all; empty where codes are no weights."""
