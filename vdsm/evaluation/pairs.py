"""Fixed pairs of test clips: A gives the dynamics, B the static factors."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation.clips import ACTION, LabelledClips, static_attributes
from vdsm.evaluation.identities import identity_indices

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Indices of the clips of each pair in the test split."""

    dynamics_of: Indices
    """A, whose action the output should show: int64 [P]."""
    static_of: Indices
    """B, whose identity the output should show: int64 [P]."""

    def __len__(self) -> int:
        return len(self.dynamics_of)

    def part(self, numbers: Indices) -> "Pairs":
        """Return the pairs with some numbers."""
        return Pairs(self.dynamics_of[numbers], self.static_of[numbers])

    def sha256(self, clips: LabelledClips) -> str:
        """Return a hash of the pairs by the keys of their clips."""
        text = "\n".join(
            f"{clips.keys[a]} {clips.keys[b]}" for a, b in zip(self.dynamics_of, self.static_of, strict=True)
        )
        return hashlib.sha256(text.encode()).hexdigest()


def draw_pairs(clips: LabelledClips, count: int, seed: int) -> Pairs:
    """Draw `count` pairs of test clips of different identities, the same for the same clips and seed.

    Both sides take every clip of the split in random order before any clip repeats. No pair is chosen for its labels,
    which would change the chance levels.

    Raises:
        ValueError: the split has a single identity.
    """
    generator = np.random.default_rng([seed, 1])
    identities = identity_indices(clips.identities)
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
    """Return the chance level of each factor, and of `joint`, all static attributes at once.

    It is the share of correct values when every output shows the factors of the other clip of a randomly drawn pair:
    1 / number of values for balanced labels. The joint chance is the product over the attributes, as for independent
    guesses.
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
    """Return the index of the real test clip of B's identity in A's action, or -1 where there is none: int64 [P]."""
    index_of = {
        (identity, int(action)): index
        for index, (identity, action) in enumerate(zip(clips.identities, clips.labels[ACTION], strict=True))
    }
    wanted = [
        (clips.identities[b], int(clips.labels[ACTION][a]))
        for a, b in zip(pairs.dynamics_of, pairs.static_of, strict=True)
    ]
    return np.array([index_of.get(key, -1) for key in wanted], dtype=np.int64)
