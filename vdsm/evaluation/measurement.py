"""Results of an evaluation: metrics for a table, and the data behind the images of a report.

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
from vdsm.evaluation.swap_scores import confusion, worst_pairs


@dataclass(frozen=True)
class Latents:
    """The codes of clips with their labels and factors, by which a map of a code is coloured."""

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
    """Identity in each clip: N names."""


def collect_latents(clips: LabelledClips, codes: CodeTable, indices: NDArray[np.int64] | None = None) -> Latents:
    """Return the codes of the clips at `indices`, by default of all, with the labels and factors of these clips."""
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
    """The judged outputs of the pairs; without a judge (data without an action label) only the pairs."""

    pairs: Pairs
    judged: Mapping[str, NDArray[np.int64]]
    """Judged value of each factor: [P]."""
    confusion: Mapping[str, list[list[int]]]
    """Per factor, how often each correct value (row) was judged as each value (column): V x V."""
    wrong: NDArray[np.int64]
    """Positions of the pairs with a wrong factor, most wrong factors first."""


def summarise_swaps(clips: LabelledClips, pairs: Pairs, judged: Mapping[str, NDArray[np.int64]]) -> Swapped:
    """Return the pairs with the judged values of their outputs, compared with the correct ones."""
    matrices = {name: confusion(clips, pairs, name, values) for name, values in judged.items()}
    return Swapped(pairs, judged, matrices, worst_pairs(clips, pairs, judged))


@dataclass(frozen=True)
class Measurement:
    """What the protocol measured on a model."""

    scores: dict[str, Score]
    """By dotted name, such as `swap.static.hat.accuracy` or `probe.static.action.mlp`."""
    controls: dict[str, dict[str, Score]]
    """Per control, some of the same scores by the same names."""
    swapped: Swapped
    """The swaps: through the dynamics code, or through the poses where there is no sequence stage."""
    latents: Latents
    decoder: SwapDecoder
    """The model with the codes of the test clips: decodes any combination of them."""
    expert_use: list[float]
    """Mean weight of each expert in the test clips' static codes, 1 in total; empty if the codes are not weights."""
    learned_from: Latents | None = None
    """Codes of the training clips that probes learned from, if there were probes."""
