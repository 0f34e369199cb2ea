"""DCI: disentanglement, completeness and informativeness of codes (Eastwood and Williams, ICLR 2018).

A random forest predicts each factor from the static and the dynamics code, joined to one vector of K + D numbers. From
its importances R [K + D, F], whose columns sum to 1,

    disentanglement  sum_i w_i (1 - H_F(R_i / sum_j R_ij)), w_i the share of code number i in all importances: 1 if each
                     number of the code matters for one factor only
    completeness     mean_j (1 - H_{K+D}(R_j)): 1 if each factor is in one number of the code only
    informativeness  accuracy of the forests on test clips, whose identities they have never seen

with entropies to the base that is their index. A code in which a factor is spread over many numbers, as weights of
experts are, can separate factors and yet have a low completeness.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.extras import require
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.measurement import Latents
from vdsm.evaluation.progress import Progress
from vdsm.evaluation.scores import Score, mean_score

Floats = NDArray[np.float64]
RESAMPLES = 1000
"""Resamples of the trees behind the intervals of disentanglement and completeness."""


class Forests(NamedTuple):
    """Forests of some factors."""

    importances: Floats
    """Per tree: [trees, K + D, F]."""
    correct: Floats
    """Share of the factors that are predicted correctly, per test clip: [N]."""
    guessed: float
    """The same for always guessing the most frequent value of the training clips, as a mean."""


def dci_scores(train: Latents, test: Latents, trees: int, seed: int, progress: Progress) -> dict[str, Score]:
    """Return `dci.disentanglement`, `dci.completeness` and `dci.informativeness` of the labels with several values.

    Chance is what codes of other clips have: the labels are shuffled over the training clips. For informativeness it is
    to guess the most frequent value. The intervals of the first two draw trees with replacement, that of the third
    test identities.

    Args:
        train: codes of training clips, from which the forests learn.
        test: codes of test clips.
        trees: trees of a forest.
        seed: seed of the forests and of the intervals.
        progress: receives the phase `measuring DCI`.

    Raises:
        UserError: the clips have fewer than two labels with several values.
    """
    names = [name for name in train.vocabulary if len(np.unique(train.labels[name])) > 1]
    if len(names) < 2:
        raise UserError(
            f"evaluation.dci_trees is {trees}, but the training clips have {len(names)} labels with several values, "
            "and DCI needs 2; set it to 0"
        )
    progress.start("measuring DCI", 2 * len(names), unit="forests")
    codes = joined_codes(train), joined_codes(test)
    found = fit_forests(*codes, train, test, names, trees, seed, progress)
    shuffled = fit_forests(*codes, train, test, names, trees, seed, progress, shuffle=True)
    clusters = identity_indices(test.identities)
    scores = {}
    for name, measure in (("disentanglement", disentanglement), ("completeness", completeness)):
        value, chance = (measure(forests.importances.mean(0)) for forests in (found, shuffled))
        draws = np.random.default_rng([seed, 11]).integers(trees, size=(RESAMPLES, trees))
        resampled = [measure(found.importances[drawn].mean(0)) for drawn in draws]
        low, high = np.quantile(resampled, (0.025, 0.975))
        scores[f"dci.{name}"] = Score(value, len(test.identities), chance, float(low), float(high))
    scores["dci.informativeness"] = mean_score(found.correct, clusters, found.guessed, seed)
    return scores


def disentanglement(importances: Floats) -> float:
    """Return the disentanglement of importances [C, F]: of each number of the code, weighted by its importance."""
    totals = importances.sum(1)
    used = totals > 0
    if not used.any():
        return 0.0
    each = 1 - _entropy(importances[used] / totals[used, None])
    return float(each @ totals[used] / totals.sum())


def completeness(importances: Floats) -> float:
    """Return the mean completeness of the factors of importances [C, F]; 0 for a factor that nothing predicts."""
    totals = importances.sum(0)
    each = [1 - float(_entropy(column / total)) if total > 0 else 0.0 for column, total in zip(importances.T, totals)]
    return float(np.mean(each))


def _entropy(shares: Floats) -> Floats:
    """Return the entropy over the last axis, to the base of its length, which is at least 2."""
    safe = np.where(shares > 0, shares, 1.0)
    result: Floats = -(shares * np.log(safe)).sum(-1) / np.log(shares.shape[-1])
    return result


def fit_forests(
    known: Floats,
    unseen: Floats,
    train: Latents,
    test: Latents,
    names: list[str],
    trees: int,
    seed: int,
    progress: Progress,
    *,
    shuffle: bool = False,
) -> Forests:
    """Fit a forest for each label, and advance `progress` by one for each.

    Args:
        known: numbers of the codes of the training clips: [N, C].
        unseen: the same of the test clips.
        train: the labels of the training clips.
        test: those of the test clips.
        names: the labels.
        trees: trees of a forest.
        seed: seed of the forests.
        progress: advanced.
        shuffle: shuffle each label over the training clips.
    """
    require("sklearn")
    from sklearn.ensemble import RandomForestClassifier

    importances, correct, guessed = [], [], []
    for position, name in enumerate(names):
        target = np.asarray(train.labels[name])
        if shuffle:
            target = np.random.default_rng([seed, 12, position]).permutation(target)
        # All numbers compete for each split: otherwise splits that see none that matters go to those that do not.
        forest = RandomForestClassifier(trees, max_features=None, random_state=seed, n_jobs=1).fit(known, target)
        importances.append([tree.feature_importances_ for tree in forest.estimators_])
        answers = np.asarray(test.labels[name])
        correct.append(forest.predict(unseen) == answers)
        guessed.append(float(np.mean(answers == np.bincount(target).argmax())))
        progress.advance()
    by_tree = np.asarray(importances, dtype=np.float64).transpose(1, 2, 0)
    return Forests(by_tree, np.mean(correct, axis=0), float(np.mean(guessed)))


def joined_codes(latents: Latents) -> Floats:
    """Return static and dynamics codes, joined: [N, K + D]."""
    codes = latents.codes
    return np.concatenate([codes.static.double().numpy(), codes.dynamics.double().numpy()], axis=1)
