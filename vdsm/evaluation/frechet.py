"""The Frechet distance between the features of generated and of real clips, modelled as two Gaussians.

|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)): 0 for equal means and covariances. With few clips it is biased upwards,
more so the more features there are. Compare it with that of as many real clips (the control `perfect`), not with 0.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.scores import Floats, Score

RESAMPLES = 200
"""Bootstrap resamples behind an interval; `frechet_score` advances progress by one for each."""
KEPT = 0.97
"""Share of the variance kept for the resamples; the distance itself uses all of it."""


class Gaussian(NamedTuple):
    """Mean and covariance of features."""

    mean: Floats
    """[F]"""
    covariance: Floats
    """[F, F]"""


def frechet_score(
    generated: NDArray[np.generic],
    real: NDArray[np.generic],
    clusters: NDArray[np.int64],
    seed: int,
    progress: Progress = NO_PROGRESS,
) -> Score:
    """Return the distance of generated features [N, F] from real ones [M, F].

    The interval draws whole `clusters` (int64 [N]) of the generated clips with replacement and keeps all real ones. A
    resample holds clips twice, which alone makes it more distant, so the resamples are shifted to have the distance as
    their mean.
    """
    ours, theirs = np.asarray(generated, dtype=np.float64), np.asarray(real, dtype=np.float64)
    value = distance(gaussian(ours), gaussian(theirs))
    basis = _main_directions(np.concatenate((ours, theirs)))
    ours, theirs = ours @ basis, theirs @ basis
    reference = gaussian(theirs)
    root = _square_root(reference.covariance)
    _, group = np.unique(clusters, return_inverse=True)
    groups = int(group.max()) + 1
    generator = np.random.default_rng([seed, groups])
    drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)[:, group].astype(np.float64)
    distances = np.empty(RESAMPLES)
    for number, weights in enumerate(drawn):
        distances[number] = distance(gaussian(ours, weights), reference, root)
        progress.advance()
    low, high = np.quantile(distances - distances.mean() + value, (0.025, 0.975))
    return Score(value, len(ours), None, float(max(low, 0.0)), float(max(high, 0.0)))


def gaussian(features: Floats, weights: Floats | None = None) -> Gaussian:
    """Return mean and covariance of features [N, F], each clip counted `weights` [N] times."""
    counts = np.ones(len(features)) if weights is None else weights
    total = counts.sum()
    mean = counts @ features / total
    centred = features - mean
    return Gaussian(mean, (centred * counts[:, None]).T @ centred / max(total - 1, 1))


def distance(first: Gaussian, second: Gaussian, root: Floats | None = None) -> float:
    """Return the Frechet distance; `root` is the square root of the second covariance, where it is known."""
    middle = _square_root(second.covariance) if root is None else root
    # The trace of (S1 S2)^(1/2) is that of (S2^(1/2) S1 S2^(1/2))^(1/2), which is symmetric.
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(middle @ first.covariance @ middle), 0, None)).sum()
    between_means = float(np.square(first.mean - second.mean).sum())
    return max(0.0, between_means + float(np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared))


def _square_root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root


def _main_directions(features: Floats) -> Floats:
    """Return orthonormal directions [F, D] that hold the share KEPT of the variance of features [N, F]."""
    values, vectors = np.linalg.eigh(gaussian(features).covariance)
    shares = np.cumsum(values[::-1]) / max(values.sum(), np.finfo(np.float64).tiny)
    count = min(int(np.searchsorted(shares, KEPT)) + 1, len(values))
    main: Floats = vectors[:, ::-1][:, :count]
    return main
