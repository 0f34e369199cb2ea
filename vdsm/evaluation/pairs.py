"""Fixed pairs of test clips: A gives the dynamics, B the static factors."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation.clips import ACTION, LabelledClips, static_attributes

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Positions of the clips of each pair in the test split."""

    dynamics_of: Indices
    """A: whose action the output should show: int64 [P]."""
    static_of: Indices
    """B: whose identity the output should show: int64 [P]."""

    def __len__(self) -> int:
        return len(self.dynamics_of)

    def sha256(self, clips: LabelledClips) -> str:
        """Hash of the pairs by the names of their clips."""
        text = "\n".join(
            f"{clips.keys[a]} {clips.keys[b]}" for a, b in zip(self.dynamics_of, self.static_of, strict=True)
        )
        return hashlib.sha256(text.encode()).hexdigest()


def draw_pairs(clips: LabelledClips, count: int, seed: int) -> Pairs:
    """`count` pairs of test clips of different identities, the same for the same clips and seed.

    Both sides go through the whole split in random order before any clip comes again, whatever the labels are: no pair
    is chosen for its labels, for that would change the chance levels.
    """
    generator = np.random.default_rng([seed, 1])
    identities = np.unique(np.asarray(clips.identities), return_inverse=True)[1]
    if identities.max(initial=0) < 1:
        raise ValueError("the test split has a single identity; a swap needs at least two")
    rounds = -(-count // len(clips))
    first = np.concatenate([generator.permutation(len(clips)) for _ in range(rounds)])[:count]
    second = np.concatenate([generator.permutation(len(clips)) for _ in range(rounds)])[:count]
    for position in np.flatnonzero(identities[first] == identities[second]):
        allowed = np.flatnonzero(identities != identities[first[position]])
        second[position] = generator.choice(allowed)
    return Pairs(first.astype(np.int64), second.astype(np.int64))


def chances(clips: LabelledClips, pairs: Pairs) -> dict[str, float]:
    """Chance of each factor, and of `joint` (all static attributes at once): the share of correct values when every
    output shows the factors of a randomly drawn pair's other clip. With balanced labels it is 1 / number of values.

    The joint chance is the product over the attributes, as for guesses that are drawn one by one.
    """
    result = {}
    for name, names in clips.vocabulary.items():
        labels = np.asarray(clips.labels[name])
        frequencies = [
            np.bincount(labels[side], minlength=len(names)) / len(pairs)
            for side in (pairs.dynamics_of, pairs.static_of)
        ]
        result[name] = float(frequencies[0] @ frequencies[1])
    result["joint"] = float(np.prod([result[name] for name in static_attributes(clips)]))
    return result


def oracle(clips: LabelledClips, pairs: Pairs) -> Indices:
    """The real test clip that shows B's identity in A's action, or -1 where none does: int64 [P]."""
    place = {
        (identity, int(action)): index
        for index, (identity, action) in enumerate(zip(clips.identities, clips.labels[ACTION], strict=True))
    }
    wanted = [
        (clips.identities[b], int(clips.labels[ACTION][a]))
        for a, b in zip(pairs.dynamics_of, pairs.static_of, strict=True)
    ]
    return np.array([place.get(key, -1) for key in wanted], dtype=np.int64)
