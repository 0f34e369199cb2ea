"""A score that needs no labels: encode a swapped clip again and see whose codes it has."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.model import CodeTable, SwapModel
from vdsm.evaluation.pairs import Indices, Pairs
from vdsm.evaluation.scores import Score, mean_score

CANDIDATES = 32
"""Other clips that the right donor is compared with."""


class EncodedAgain:
    """Watches swapped clips being decoded, and encodes them again."""

    def __init__(self, model: SwapModel) -> None:
        self._model = model
        self._static: list[Tensor] = []
        self._dynamics: list[Tensor] = []

    def __call__(self, frames: Tensor) -> None:
        """Encode a batch f32 [B, T, C, H, W]."""
        codes = self._model.encode(frames)
        self._static.append(codes.static)
        self._dynamics.append(codes.dynamics)

    def scores(self, pairs: Pairs, table: CodeTable, who: NDArray[np.int64], seed: int) -> dict[str, Score]:
        """`cycle.static` and `cycle.dynamics` of all swaps that were watched, which must be those of the pairs."""
        static = donor_rank(torch.cat(self._static), table.static, pairs.static_of, who, seed)
        dynamics = donor_rank(torch.cat(self._dynamics), table.dynamics, pairs.dynamics_of, who, seed)
        return {
            "cycle.static": mean_score(static, who[pairs.static_of], 0.5, seed),
            "cycle.dynamics": mean_score(dynamics, who[pairs.dynamics_of], 0.5, seed),
        }


def donor_rank(codes: Tensor, table: Tensor, donors: Indices, who: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """How near the code of a swapped clip is to that of its donor, compared with clips of other identities: [P].

    Args:
        codes: codes of the swapped clips, encoded again: [P, K].
        table: codes of all clips: [N, K].
        donors: the right donor of each: int64 [P].
        who: identity of each clip: int64 [N].
        seed: draws the candidates.

    Returns:
        Share of the candidates that are farther away than the donor; ties count half, so that a code that is the same
        for all clips has 0.5, which is chance. 1 is perfect.
    """
    generator = np.random.default_rng([seed, 3])
    result = np.empty(len(donors))
    for position, donor in enumerate(donors):
        others = np.flatnonzero(who != who[donor])
        chosen = generator.choice(others, size=min(CANDIDATES, len(others)), replace=False)
        right = torch.dist(codes[position].double(), table[donor].double())
        far = torch.linalg.vector_norm(table[chosen].double() - codes[position].double(), dim=1)
        result[position] = float(((far > right).double() + 0.5 * (far == right).double()).mean())
    return result
