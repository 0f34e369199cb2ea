"""Figures with an interval: every number of the evaluation comes with its n, its chance level and how sure it is."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""


@dataclass(frozen=True)
class Score:
    """One figure of the evaluation."""

    value: float
    n: int
    """Clips, pairs or frames that it is the mean of."""
    chance: float | None
    """What an output that has nothing to do with the input would get; none where there is no such level."""
    low: float
    """Lower end of the 95% bootstrap interval."""
    high: float
    """Upper end of the 95% bootstrap interval."""

    def exponential(self) -> "Score":
        """The exp of an entropy, as a number of equally likely values."""
        ends = [float(np.exp(end)) for end in (self.value, self.low, self.high)]
        return Score(ends[0], self.n, None, *ends[1:])

    def rounded(self) -> dict[str, float | int | None]:
        """As plain values for a JSON file, to 6 decimals."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def mean_score(values: NDArray[np.generic], clusters: NDArray[np.int64], chance: float | None, seed: int) -> Score:
    """Mean of `values` [N] with a bootstrap interval that draws whole `clusters` (int64 [N]) with replacement.

    Clips of one identity are alike, so that single clips drawn with replacement would make the interval too narrow:
    the clusters are identities.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        return Score(float("nan"), 0, chance, float("nan"), float("nan"))
    sums, counts = _by_cluster(numbers, clusters)
    drawn = _draws(len(counts), seed)
    low, high = _interval((drawn @ sums) / (drawn @ counts))
    return Score(float(numbers.mean()), len(numbers), chance, low, high)


def r2_score(lost: Floats, spread: Floats, clusters: NDArray[np.int64], seed: int) -> Score:
    """1 - sum(lost) / sum(spread), by clip: squared error of a prediction [N], and of the mean as the prediction [N].

    1 is perfect; 0, the stated chance, is no better than always saying the mean; below 0 is worse than that.
    """
    lost_sums, _ = _by_cluster(lost, clusters)
    spread_sums, _ = _by_cluster(spread, clusters)
    drawn = _draws(len(lost_sums), seed)
    tiny = np.finfo(np.float64).tiny
    resampled = 1 - (drawn @ lost_sums) / np.maximum(drawn @ spread_sums, tiny)
    return Score(float(1 - lost.sum() / max(spread.sum(), tiny)), len(lost), 0.0, *_interval(resampled))


def entropy_scores(probabilities: Floats, clusters: NDArray[np.int64], seed: int) -> dict[str, Score]:
    """Inception score and entropies of judged actions p(y|x), [N, V] with rows that sum to 1.

    `h_y_given_x` = mean of H(p(y|x)), lower is surer; `h_y` = H(mean of p(y|x)), higher is more varied;
    `is` = exp(h_y - h_y_given_x). In nats. The stated chance is that of a judge that says the same of everything.
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
    """Entropy over the last axis, in nats."""
    safe = np.where(probabilities > 0, probabilities, 1.0)
    result: Floats = -(probabilities * np.log(safe)).sum(-1)
    return result


def _by_cluster(values: Floats, clusters: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Sum of the values and their number per cluster: [G, ...] and [G]."""
    names, place = np.unique(clusters, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, place, values)
    return sums, np.bincount(place, minlength=len(names)).astype(np.float64)


def _draws(groups: int, seed: int) -> Floats:
    """How often each cluster is drawn in each resample: [RESAMPLES, G]."""
    generator = np.random.default_rng([seed, groups])
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(np.float64)


def _interval(resampled: Floats) -> tuple[float, float]:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)
