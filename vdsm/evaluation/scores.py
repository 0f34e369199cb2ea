"""Metrics with an interval: every number of the evaluation has its n, its chance level and its uncertainty."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""


@dataclass(frozen=True)
class Score:
    """One metric of the evaluation."""

    value: float
    n: int
    """Clips, pairs or frames that it is the mean of."""
    chance: float | None
    """Score of an output that is unrelated to the input; None where there is no such level."""
    low: float
    """Lower end of the 95% bootstrap interval."""
    high: float
    """Upper end of the 95% bootstrap interval."""

    def exponential(self) -> "Score":
        """Return exp of an entropy: the effective number of values."""
        ends = [float(np.exp(end)) for end in (self.value, self.low, self.high)]
        return Score(ends[0], self.n, None, *ends[1:])

    def rounded(self) -> dict[str, float | int | None]:
        """Return plain values for a JSON file, rounded to 6 decimals."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def mean_score(values: NDArray[np.generic], clusters: NDArray[np.int64], chance: float | None, seed: int) -> Score:
    """Return the mean of `values` [N] with a bootstrap interval that draws whole `clusters` (int64 [N]).

    The clusters are identities: clips of one identity are correlated, so drawing single clips would make the interval
    too narrow.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        return Score(float("nan"), 0, chance, float("nan"), float("nan"))
    sums, counts = _by_cluster(numbers, clusters)
    drawn = _draws(len(counts), seed)
    low, high = _interval((drawn @ sums) / (drawn @ counts))
    return Score(float(numbers.mean()), len(numbers), chance, low, high)


def ratio_score(
    numerators: Floats, denominators: Floats, clusters: NDArray[np.int64], chance: float | None, seed: int
) -> Score:
    """Return sum(numerators) / sum(denominators), both [N] and not negative, with an interval as in `mean_score`.

    Unlike the mean of ratios, it is finite if some denominators are 0; not all of them may be.
    """
    above, _ = _by_cluster(numerators, clusters)
    below, _ = _by_cluster(denominators, clusters)
    drawn = _draws(len(below), seed)
    sizes = drawn @ below
    positive = sizes > 0
    low, high = _interval((drawn[positive] @ above) / sizes[positive])
    return Score(float(numerators.sum() / denominators.sum()), len(numerators), chance, low, high)


def r2_score(errors: Floats, spread: Floats, clusters: NDArray[np.int64], seed: int) -> Score:
    """Return R2 = 1 - sum(errors) / sum(spread).

    1 is perfect. 0, the stated chance, is no better than always predicting the baseline, and below 0 is worse.

    Args:
        errors: squared error of the prediction, per clip: [N].
        spread: squared error of the baseline, such as the mean, per clip: [N]; not all 0.
        clusters: identity of each clip: int64 [N].
        seed: seed of the interval.
    """
    error_sums, _ = _by_cluster(errors, clusters)
    spread_sums, _ = _by_cluster(spread, clusters)
    drawn = _draws(len(error_sums), seed)
    spreads = drawn @ spread_sums
    varying = spreads > 1e-12 * spreads.max()  # a resample of equal clips has no R2
    resampled = 1 - (drawn[varying] @ error_sums) / spreads[varying]
    return Score(float(1 - errors.sum() / spread.sum()), len(errors), 0.0, *_interval(resampled))


def entropy_scores(probabilities: Floats, clusters: NDArray[np.int64], seed: int) -> dict[str, Score]:
    """Return inception score and entropies of judged actions p(y|x), [N, V] with rows that sum to 1.

    `h_y_given_x` = mean of H(p(y|x)), lower is more certain; `h_y` = H(mean of p(y|x)), higher is more diverse;
    `is` = exp(h_y - h_y_given_x). In nats. The stated chance is that of a judge with the same verdict on every clip.
    """
    each = entropy(probabilities)
    sums, counts = _by_cluster(probabilities, clusters)
    entropies, _ = _by_cluster(each, clusters)
    drawn = _draws(len(counts), seed)
    sizes = drawn @ counts
    resampled_marginal = entropy((drawn @ sums) / sizes[:, None])
    resampled_conditional = (drawn @ entropies) / sizes
    marginal, conditional, n = float(entropy(probabilities.mean(0))), float(each.mean()), len(each)
    uniform = float(np.log(probabilities.shape[1]))
    return {
        "is": Score(
            float(np.exp(marginal - conditional)),
            n,
            1.0,
            *_interval(np.exp(resampled_marginal - resampled_conditional)),
        ),
        "h_y_given_x": Score(conditional, n, uniform, *_interval(resampled_conditional)),
        "h_y": Score(marginal, n, None, *_interval(resampled_marginal)),
    }


def entropy(probabilities: Floats) -> Floats:
    """Return the entropy over the last axis, in nats."""
    safe = np.where(probabilities > 0, probabilities, 1.0)
    result: Floats = -(probabilities * np.log(safe)).sum(-1)
    return result


def _by_cluster(values: Floats, clusters: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return sum and number of the values of each cluster: [G, ...] and [G]."""
    names, group = np.unique(clusters, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, group, values)
    return sums, np.bincount(group, minlength=len(names)).astype(np.float64)


def _draws(groups: int, seed: int) -> Floats:
    """Return how often each cluster is drawn in each resample: [RESAMPLES, G]."""
    generator = np.random.default_rng([seed, groups])
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(np.float64)


def _interval(resampled: Floats) -> tuple[float, float]:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)
