"""A score that needs no labels: re-encode a swapped clip and compare its codes with those of the donors."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.model import CodeTable, SwapModel
from vdsm.evaluation.pairs import Indices, Pairs
from vdsm.evaluation.scores import Score, mean_score

CANDIDATES = 32
"""Other clips that the donor is compared with."""


class ReencodedSwaps:
    """Observes swapped clips as they are decoded, and re-encodes them."""

    def __init__(self, model: SwapModel) -> None:
        self._model = model
        self._static: list[Tensor] = []
        self._dynamics: list[Tensor] = []

    def __call__(self, frames: Tensor) -> None:
        """Encode a batch f32 [B, T, C, H, W]."""
        codes = self._model.encode(frames)
        self._static.append(codes.static)
        self._dynamics.append(codes.dynamics)

    def scores(self, pairs: Pairs, table: CodeTable, clusters: NDArray[np.int64], seed: int) -> dict[str, Score]:
        """Return `cycle.static` and `cycle.dynamics` of all observed swaps.

        Args:
            pairs: the pairs of the observed swaps, in their order.
            table: codes of all clips.
            clusters: identity of each clip: int64 [N].
            seed: seed of the candidates and of the intervals.
        """
        static = donor_rank(torch.cat(self._static).cpu(), table.static, pairs.static_of, clusters, seed)
        dynamics = donor_rank(torch.cat(self._dynamics).cpu(), table.dynamics, pairs.dynamics_of, clusters, seed)
        return {
            "cycle.static": mean_score(static, clusters[pairs.static_of], 0.5, seed),
            "cycle.dynamics": mean_score(dynamics, clusters[pairs.dynamics_of], 0.5, seed),
        }


def donor_rank(
    codes: Tensor, table: Tensor, donors: Indices, clusters: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Return how close the code of each swapped clip is to its donor's, relative to clips of other identities: [P].

    Args:
        codes: codes of the re-encoded swapped clips: [P, K].
        table: codes of all clips: [N, K].
        donors: the donor of each: int64 [P].
        clusters: identity of each clip: int64 [N].
        seed: seed of the candidates.

    Returns:
        Share of the candidates that are farther away than the donor. 1 is perfect. Ties count half, so that a collapsed
        code, the same for all clips, scores 0.5, which is chance.
    """
    generator = np.random.default_rng([seed, 3])
    result = np.empty(len(donors))
    for position, donor in enumerate(donors):
        others = np.flatnonzero(clusters != clusters[donor])
        chosen = generator.choice(others, size=min(CANDIDATES, len(others)), replace=False)
        own = torch.dist(codes[position].double(), table[donor].double())
        far = torch.linalg.vector_norm(table[chosen].double() - codes[position].double(), dim=1)
        result[position] = float(((far > own).double() + 0.5 * (far == own).double()).mean())
    return result
