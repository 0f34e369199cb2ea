"""Scores of transfers that read no label: whom they look like, whose motion they show, and how smooth they are.

Who is another person is decided by `identities` alone, which in unlabelled data is the file that a clip is from.

Letters: P pairs of clips A (dynamics) and B (static); N test clips.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.pairs import Indices, Pairs
from vdsm.evaluation.scores import Score, mean_score, ratio_score
from vdsm.evaluation.traits import Traits

CANDIDATES = 32
"""Other clips that the donor is compared with."""
CHANCE = 0.5
_PAIRS_AT_ONCE = 256


def transfer_scores(
    outputs: Traits, pairs: Pairs, real: Traits, identities: Sequence[str], seed: int
) -> dict[str, Score]:
    """Return `likeness.*` and `smoothness.*` of one output per pair.

    `likeness.identity`: the share of clips of other people that look less like the output than B does.
    `likeness.action`: the share of them that move less like the output than A does. 1 is perfect, 0.5 chance.
    `likeness.leakage.{identity,action}`: the same for the clip that should *not* give it, A's appearance and B's
    motion, among clips of neither identity: 0.5 without leakage, 1 for a copy.
    `smoothness.{change,acceleration}`: mean change and second difference over time, relative to those of the clips A:
    1 is as real; below it the output stands still or is blurred, above it it flickers.

    Args:
        outputs: traits of the outputs, in the order of the pairs.
        pairs: the pairs.
        real: traits of all test clips.
        identities: identity of each test clip.
        seed: seed of the candidates and of the intervals.
    """
    people = identity_indices(identities)
    of_a, of_b = people[pairs.dynamics_of], people[pairs.static_of]
    both = np.stack([of_a, of_b], axis=1)
    ranked = {
        "likeness.identity": (outputs.appearance, real.appearance, pairs.static_of, of_b[:, None], of_b),
        "likeness.action": (outputs.motion, real.motion, pairs.dynamics_of, of_a[:, None], of_a),
        "likeness.leakage.identity": (outputs.appearance, real.appearance, pairs.dynamics_of, both, of_a),
        "likeness.leakage.action": (outputs.motion, real.motion, pairs.static_of, both, of_b),
    }
    scores = {}
    for name, (codes, table, donors, excluded, clusters) in ranked.items():
        scores[name] = _rank_score(nearer_than_others(codes, table, donors, people, excluded, seed), clusters, seed)
    for name in ("change", "acceleration"):
        ours, theirs = getattr(outputs, name), getattr(real, name)[pairs.dynamics_of]
        if theirs.any():
            scores[f"smoothness.{name}"] = ratio_score(ours, theirs, of_a, None, seed)
    return scores


def real_scores(real: Traits, identities: Sequence[str], seed: int) -> dict[str, Score]:
    """Return `likeness.real`, the ceiling of `likeness.identity`.

    It is the same score with another real clip of B's identity in place of an output, for every clip B that has one. A
    ceiling near chance means that appearance does not tell the people of this data apart.
    """
    people = identity_indices(identities)
    generator = np.random.default_rng([seed, 8])
    donors, others = [], []
    for clip, person in enumerate(people):
        same = np.flatnonzero(people == person)
        if len(same) > 1:
            donors.append(clip)
            others.append(generator.choice(same[same != clip]))
    if not donors:
        return {}
    shown, own = np.array(others), np.array(donors)
    ranks = nearer_than_others(real.appearance[shown], real.appearance, own, people, people[own][:, None], seed)
    return {"likeness.real": _rank_score(ranks, people[own], seed)}


def nearer_than_others(
    codes: NDArray[np.float32], table: NDArray[np.float32], donors: Indices, people: NDArray[np.int64],
    excluded: NDArray[np.int64], seed: int,
) -> NDArray[np.float64]:  # fmt: skip
    """Return the share of CANDIDATES random clips that are farther from each output than its donor is: [P].

    Args:
        codes: of the outputs: [P, F].
        table: of all clips: [N, F].
        donors: the donor of each output: int64 [P].
        people: identity of each clip: int64 [N].
        excluded: identities that are no candidates, for each output: int64 [P, E].
        seed: seed of the candidates.

    Returns:
        Ties count half, so that outputs that are all the same score 0.5. NaN where there is no candidate.
    """
    generator = np.random.default_rng([seed, 9])
    ours, every = torch.from_numpy(codes).double(), torch.from_numpy(table).double()
    result = np.full(len(donors), np.nan)
    candidates = np.full((len(donors), CANDIDATES), -1)
    for position, never in enumerate(excluded):
        allowed = np.flatnonzero(~np.isin(people, never))
        chosen = generator.choice(allowed, size=min(CANDIDATES, len(allowed)), replace=False)
        candidates[position, : len(chosen)] = chosen
    for start in range(0, len(donors), _PAIRS_AT_ONCE):
        batch = slice(start, start + _PAIRS_AT_ONCE)
        drawn = torch.from_numpy(candidates[batch])
        own = torch.linalg.vector_norm(ours[batch] - every[torch.from_numpy(donors[batch])], dim=1, keepdim=True)
        others = torch.linalg.vector_norm(ours[batch, None] - every[drawn], dim=2)
        better = (others > own).double() + 0.5 * (others == own).double()
        counts = drawn >= 0
        result[batch] = ((better * counts).sum(1) / counts.sum(1)).numpy()
    return result


def _rank_score(ranks: NDArray[np.float64], clusters: NDArray[np.int64], seed: int) -> Score:
    exists = ~np.isnan(ranks)
    return mean_score(ranks[exists], clusters[exists], CHANCE, seed)
