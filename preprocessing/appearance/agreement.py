"""What labels say about pairs that were found without them; for people to read, never for training."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from preprocessing.appearance.pairs import MinedPairs


def agreement(
    pairs: MinedPairs, identities: Sequence[str], labels: Mapping[str, NDArray[np.int64]]
) -> dict[str, float]:
    """Return the share of pairs whose clips have the same identity, and the same value of each label."""
    if not len(pairs.partners):
        return {}
    first, second = pairs.firsts, pairs.partners
    # As objects: NumPy's own strings lose NULs at their end, which makes two names one.
    columns = {"identity": np.unique(np.asarray(identities, dtype=object), return_inverse=True)[1], **labels}
    return {name: float((values[first] == values[second]).mean()) for name, values in columns.items()}


def describe(pairs: MinedPairs, shares: Mapping[str, float]) -> list[str]:
    """Return lines about the pairs: how many, how close, and how far the labels agree."""
    lone = float((np.diff(pairs.offsets) == 0).mean()) if len(pairs) else 1.0
    lines = [
        f"{len(pairs.partners) / max(len(pairs), 1):.1f} partners per clip; {lone:.1%} of clips have none, and are "
        f"paired with another window of themselves; {pairs.mutual_share:.1%} of neighbours are mutual"
    ]
    if len(pairs.partners):
        lines.append(
            f"cosine distance of a pair: median {np.median(pairs.distances):.3f}, largest {pairs.distances.max():.3f}; "
            f"of two clips at random: median {pairs.random_distance:.3f}"
        )
    if pairs.one_motion.any():
        lines.append(
            f"{pairs.one_motion.mean():.1%} of clips are of a look that is seen doing a single thing, and join the "
            "training of stage 1 late"
        )
    if shares:
        found = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        lines.append(f"pairs that agree, by labels that no training reads here: {found}")
    return lines
