"""How the density of a code is fitted: independent factors are found first, then a mixture for each group of them.

A model that separates the attributes of an identity adds them up: a static latent is nearly a sum of one vector per
attribute. Then the codes of people who were never seen are new combinations of known parts, which one mixture over the
complete code cannot know: it puts a component on each combination it has seen. So

1. principal components separate the directions that vary by more than the encoder's own noise from those that do not,
   which keep one Gaussian each;
2. independent component analysis (FastICA) rotates the others into factors;
3. factors are grouped by mutual information, from every factor alone to all of them in one group, and each group
   gets a mixture of Gaussians, after which the directions are fitted again. The validation likelihood chooses the
   partition, and the number of components of each group: the simplest that is within one standard error of the best.
   The first partition treats all factors as independent, the last is the plain mixture over the complete code, so the
   data decides between them.

No label is read: the validation clips are those of the run.

Letters: N training codes, V validation codes, S directions.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from vdsm.code_density import Block, CodeDensity

COMPONENTS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48)
"""Numbers of components that are tried, up to `PATIENCE` of them after the best."""
PATIENCE = 2
STARTS = 2
"""Starts of a mixture's EM, of which the one with the highest training likelihood counts."""
TOLERANCE = 3e-3
"""Gain of a step of EM in nats below which it ends."""
SIGNAL = 2.0
"""Factor of the encoder's noise above which the scale of a direction counts as signal."""
SMALLEST_SCALE = 0.03
"""Scale that is added to each component, relative to that of the factor: no code becomes a component of its own."""
STRANGERS = 0.05
"""Share of codes that validation expects anywhere, N(0, 1) in each factor: one unusual clip does not decide."""
MOST_OBLIQUE = 100.0
"""Condition number of refined directions above which they are not used."""
BINS = 8
"""Equally frequent intervals of a factor, between which the mutual information is counted."""

Floats = NDArray[np.float64]


class Fit(NamedTuple):
    """A fitted density, and what it was chosen by."""

    density: CodeDensity
    validation: float
    """Mean log likelihood of the validation codes in nats, by the rule that chose the density (see `STRANGERS`)."""
    groups: list[list[int]]
    """The factors in each group."""
    components: list[int]
    """Number of components of each group."""


class _Mixture(NamedTuple):
    block: Block
    validation: Floats
    """Log likelihood of each validation code: [V]."""
    members: NDArray[np.int64]
    """Most probable component of each training code: [N]."""


class _Partition(NamedTuple):
    mixtures: list[_Mixture]
    mixing: Floats
    """From its coordinates to the factors: [S, S]."""

    @property
    def validation(self) -> Floats:
        """Log likelihood of each validation code, up to the volume of the factors: [V]."""
        total = np.sum([mixture.validation for mixture in self.mixtures], axis=0)
        return np.asarray(total - np.linalg.slogdet(self.mixing).logabsdet)


def fit_code_density(
    train: Floats, validation: Floats, noise_scale: float, seed: int, basis: Floats | None = None
) -> Fit:
    """Fit the density of a code.

    Args:
        train: samples of the posteriors of training clips: [N, K], N >= 2.
        validation: the same of validation clips: [V, K].
        noise_scale: root mean square of the posteriors' scales.
        seed: seed of FastICA and of the starts of EM; the same codes and seed give the same density.
        basis: orthonormal directions [K, S] that matter; by default all K.
    """
    directions = np.eye(train.shape[1]) if basis is None else basis
    mean = train.mean(0)
    train, validation = (train - mean) @ directions, (validation - mean) @ directions
    with threadpool_limits(1), warnings.catch_warnings():  # so that neither cores nor their number change the result
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixing, signal = _factors(train, noise_scale, seed)
        unmixing = np.linalg.inv(mixing)
        train, validation = train @ unmixing.T, validation @ unmixing.T
        rest = [_fit_mixture(train, validation, [column], seed, (1,)) for column in range(signal, len(mixing))]
        partitions = list(_partitions(train[:, :signal], validation[:, :signal], seed))
    best = partitions[_simplest([partition.validation for partition in partitions])]
    score = (best.validation + sum(mixture.validation for mixture in rest)).mean() - np.linalg.slogdet(mixing).logabsdet
    mixing[:, :signal] = mixing[:, :signal] @ best.mixing
    blocks = tuple(mixture.block for mixture in (*best.mixtures, *rest))
    density = CodeDensity(_tensor(mean), _tensor(directions @ mixing), blocks)
    signals = blocks[: len(best.mixtures)]
    groups, components = zip(*((block.coordinates.tolist(), len(block.weights)) for block in signals), strict=True)
    return Fit(density, float(score), list(groups), list(components))


def _factors(codes: Floats, noise_scale: float, seed: int) -> tuple[Floats, int]:
    """Return the matrix [S, S] that mixes factors of variance 1 into codes [N, S], and how many of them are signal."""
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(codes.T)))
    scales = np.sqrt(np.maximum(values[::-1], np.finfo(np.float32).tiny))
    scales = np.maximum(scales, 1e-6 * scales[0])
    mixing = vectors[:, ::-1] * scales
    signal = max(1, int((scales > SIGNAL * noise_scale).sum()))
    signal = min(signal, max(1, len(codes) // 4))  # fewer codes than that determine no rotation
    if signal > 1:
        white = codes @ np.linalg.inv(mixing).T[:, :signal]
        rotation = FastICA(whiten=False, random_state=seed, max_iter=1000).fit(white).components_
        mixing[:, :signal] = mixing[:, :signal] @ rotation.T
    return mixing, signal


def _partitions(train: Floats, validation: Floats, seed: int) -> Iterator[_Partition]:
    """Fit the mixtures of ever larger groups of factors [N, S]: first of each alone, at last of all together."""
    count = train.shape[1]
    mixtures = {factor: _fit_mixture(train, validation, [factor], seed) for factor in range(count)}
    yield _Partition(list(mixtures.values()), np.eye(count))
    if count == 1:
        return
    information = mutual_information(train)
    tree = AgglomerativeClustering(
        n_clusters=1, metric="precomputed", linkage="average", compute_full_tree=True
    ).fit(information.max() - information)  # fmt: skip
    for number, (first, second) in enumerate(tree.children_.tolist()):
        pair = [mixtures.pop(first), mixtures.pop(second)]
        group = sorted(torch.cat([mixture.block.coordinates for mixture in pair]).tolist())
        mixtures[count + number] = _fit_mixture(train, validation, group, seed)
        partition = _Partition(list(mixtures.values()), np.eye(count))
        refined = _refine(partition, train, validation, seed)
        yield max(partition, refined, key=lambda one: float(one.validation.mean()))


def _refine(partition: _Partition, train: Floats, validation: Floats, seed: int) -> _Partition:
    """Fit a partition again, along directions that are fitted to its components by least squares.

    Independent component analysis takes factors for dependent that are so by chance among few people. Given which
    component of each group a code belongs to, the vectors that add up to the codes follow without that error.
    """
    members = [np.eye(len(mixture.block.weights))[mixture.members] for mixture in partition.mixtures]
    vectors, *_ = np.linalg.lstsq(np.concatenate(members, 1), train, rcond=None)
    mixing, start = np.eye(train.shape[1]), 0
    for mixture, own in zip(partition.mixtures, members, strict=True):
        part = own @ vectors[start : start + own.shape[1]]
        start += own.shape[1]
        group = mixture.block.coordinates.tolist()
        if own.shape[1] > len(group):
            _, scales, directions = np.linalg.svd(part - part.mean(0), full_matrices=False)
            mixing[:, group] = directions[: len(group)].T * scales[: len(group)] / np.sqrt(len(train))
    if np.linalg.cond(mixing) > MOST_OBLIQUE:
        return partition
    unmixing = np.linalg.inv(mixing).T
    refined = [
        _fit_mixture(train @ unmixing, validation @ unmixing, mixture.block.coordinates.tolist(), seed,
                     (len(mixture.block.weights),))
        for mixture in partition.mixtures
    ]  # fmt: skip
    return _Partition(refined, mixing)


def mutual_information(factors: Floats) -> Floats:
    """Return the mutual information of each two factors [N, S], counted in `BINS` intervals, in nats: [S, S]."""
    ranks = factors.argsort(0).argsort(0)
    bins = ranks * BINS // len(factors)
    members = np.eye(BINS)[bins].transpose(1, 0, 2)  # [S, N, BINS]
    joint = np.einsum("ink,jnl->ijkl", members, members, optimize=True) / len(factors)
    apart = joint.sum(3, keepdims=True) * joint.sum(2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(joint > 0, joint * np.log(joint / apart), 0)
    return np.asarray(terms.sum((2, 3)))


def _fit_mixture(
    train: Floats, validation: Floats, group: list[int], seed: int, components: tuple[int, ...] = COMPONENTS
) -> _Mixture:
    """Fit a mixture over some columns of codes [N, S] and [V, S], with the best number of components."""
    own, held = train[:, group], validation[:, group]
    background = -0.5 * (held**2 + np.log(2 * np.pi)).sum(1) + np.log(STRANGERS)
    models: list[GaussianMixture] = []
    scores: list[Floats] = []
    for number in components:
        if number > 1 and number * (len(group) + 2) > len(own):
            break
        model = GaussianMixture(
            number, reg_covar=SMALLEST_SCALE**2, n_init=STARTS if number > 1 else 1, random_state=seed, tol=TOLERANCE
        ).fit(own)  # fmt: skip
        models.append(model)
        scores.append(np.logaddexp(model.score_samples(held) + np.log(1 - STRANGERS), background))
        if len(scores) - 1 - int(np.argmax(np.mean(scores, 1))) == PATIENCE:
            break
    chosen = _simplest(scores)
    model = models[chosen]
    cholesky = np.linalg.cholesky(model.covariances_)
    block = Block(torch.tensor(group), _tensor(model.weights_), _tensor(model.means_), _tensor(cholesky))
    return _Mixture(block, scores[chosen], model.predict(own))


def _simplest(scores: list[Floats]) -> int:
    """Return the first of some models, ordered from simple to complex, that is not clearly worse than the best.

    Their log likelihoods of the validation codes are given, [V] each. Clearly worse: by more than one standard error.
    """
    best = scores[int(np.argmax(np.mean(scores, 1)))]
    differences = [best - one for one in scores]
    return next(n for n, by in enumerate(differences) if by.mean() <= by.std() / np.sqrt(len(by)))


def _tensor(values: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
