"""Factors of an identity: directions in which its static code can be moved so that one trait changes and others stay.

With labels, a factor is an attribute such as the hat. Its values have effects on the codes of labelled clips, estimated
for all attributes at once (least squares), so that an attribute does not stand for another that occurs with it. The
effects span the part of a code that shows the attribute; a step towards a value replaces that part alone:

    s' = s + amount P (effect - (s - mean)),  P: projection onto the span of the attribute's effects

Without labels, a factor is the direction in which sampled codes differ most, within each group of experts or, where
there is only one, the first few directions of all; its ends are `REACH` standard deviations from the mean.

Letters: N codes of size K in G groups, each a point on a simplex; R directions of a factor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.float32]
ACTION = "action"
"""The label that is no trait of an identity; `vdsm.evaluation` takes all others for traits, too."""
RIDGE = 0.01
"""Shrinks effects that few clips show, as a share of the number of clips."""
FEWEST_CLIPS = 8
"""Clips that an attribute must be known of."""
NEGLIGIBLE = 0.02
"""Directions of an attribute's effects that are this much weaker than its strongest are noise."""
MOST_VALUES = 32
"""An attribute of more values is a name, not a trait."""
DIRECTIONS = 6
"""Factors of a model with one group of experts and no labels."""
SAMPLES = 400
"""Sampled codes from which factors are found without labels."""
REACH = 2.5
"""Distance of the ends of a factor without labels from the mean, in standard deviations."""


@dataclass(frozen=True)
class Factor:
    """A part of the static code, and the values that it can be moved to."""

    name: str
    mean: Codes
    """[K]"""
    basis: Codes
    """Orthonormal directions [R, K]."""
    ends: dict[str, Codes]
    """Name of a value -> its coordinates in `basis`, around the mean: [R]."""
    labelled: bool
    """Whether it is an attribute by which clips are labelled."""


@dataclass(frozen=True)
class Walk:
    """A step along a factor."""

    factor: Factor
    towards: str
    """One of the factor's ends."""
    amount: float
    """0 changes nothing, at 1 the part of the code is that of the end."""
    groups: int
    """Number of simplices that the code is made of."""

    def apply(self, static: Codes) -> Codes:
        """Return the static code [K] that a static code [K] becomes, on the same simplices."""
        factor = self.factor
        step = factor.ends[self.towards] - factor.basis @ (static - factor.mean)
        moved = np.clip(static + self.amount * (step @ factor.basis), 0, None).reshape(self.groups, -1)
        found: Codes = (moved / moved.sum(1, keepdims=True)).reshape(-1).astype(np.float32)
        return found


def labelled_factors(
    codes: Codes, labels: Mapping[str, NDArray[np.int64]], vocabulary: Mapping[str, Sequence[str]]
) -> list[Factor]:
    """Return the factors of the attributes that these clips show at least two values of.

    Args:
        codes: static codes [N, K].
        labels: per label, [N] indices into its vocabulary.
        vocabulary: names of the values of each label.
    """
    if len(codes) < FEWEST_CLIPS:
        return []
    columns, slices, at = [np.ones((len(codes), 1))], {}, 1
    for name, values in labels.items():
        seen = np.unique(values)
        if len(seen) < 2 or len(seen) > min(MOST_VALUES, len(codes) // 2):
            continue
        shown = (values[:, None] == seen).astype(np.float64)
        columns.append(shown - shown.mean(0))
        slices[name] = slice(at, at + len(seen)), seen
        at += len(seen)
    design = np.concatenate(columns, axis=1)
    shrink = RIDGE * len(codes) * np.eye(at)
    shrink[0, 0] = 0
    effects = np.linalg.solve(design.T @ design + shrink, design.T @ codes.astype(np.float64))
    found = []
    for name, (rows, seen) in slices.items():
        if name == ACTION:
            continue
        own = effects[rows] - effects[rows].mean(0)
        _, sizes, directions = np.linalg.svd(own, full_matrices=False)
        if not sizes[0] > 0:
            continue
        basis = directions[sizes > NEGLIGIBLE * sizes[0]].astype(np.float32)
        names = [vocabulary[name][value] for value in seen]
        ends = dict(zip(names, (own @ basis.T).astype(np.float32), strict=True))
        found.append(Factor(name, effects[0].astype(np.float32), basis, ends, labelled=True))
    return found


def principal_factors(codes: Codes, groups: int) -> list[Factor]:
    """Return factors of sampled static codes [N, K] of `groups` groups."""
    mean = codes.mean(0)
    around, found = codes - mean, []
    if groups == 1:
        _, _, directions = np.linalg.svd(around, full_matrices=False)
        bases = {f"direction {number}": one for number, one in enumerate(directions[:DIRECTIONS], start=1)}
    else:
        bases, size = {}, codes.shape[1] // groups
        for group in range(groups):
            part = np.zeros_like(around)
            own = slice(group * size, (group + 1) * size)
            part[:, own] = around[:, own]
            bases[f"part {group + 1} of {groups}"] = np.linalg.svd(part, full_matrices=False)[2][0]
    for name, direction in bases.items():
        spread = np.float32(REACH * (around @ direction).std())
        ends = {"one end": np.array([-spread]), "the other end": np.array([spread])}
        found.append(Factor(name, mean, direction[None].astype(np.float32), ends, labelled=False))
    return found
