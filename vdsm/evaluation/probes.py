"""What can be predicted from each code: a linear probe and a small network for every factor.

Probes learn from the codes of training clips and are measured on those of test clips, whose identities they have never
seen. In a disentangled model the static code predicts the static attributes and is at chance for the action; for the
dynamics code it is the other way round.

Letters: N clips, T frames, K size of a code, V values of a factor, M numbers to predict.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.measurement import Latents
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.scores import Score, mean_score, r2_score

CODES = ("static", "dynamics")
KINDS = ("linear", "mlp")
WIDTH = 128
"""Hidden units of the small network."""
STEPS = 400
"""Minimum number of its optimiser steps."""
LEARNING_RATE = 3e-3
"""Peak learning rate of AdamW, decayed to 0 by a half cosine."""
BATCH = 256
"""Clips, or frames, in each step."""
PASSES = 20
"""Minimum number of times that it sees each clip or frame: long clips have many more frames than there are clips."""
ITERATIONS = 100
"""Maximum number of iterations of logistic regression; it ends before when it is at its optimum."""
RIDGE = 1e-3
"""Weight of the squared norm of a linear probe's weights."""

Predict = Callable[[Tensor], Tensor]


class Task(NamedTuple):
    """A factor to predict from a code."""

    name: str
    """Code and factor, such as `static.action`."""
    train: Tensor
    """Codes [N, K]."""
    train_target: Tensor
    """int64 [N] for labels, f32 [N, M] for continuous factors."""
    test: Tensor
    test_target: Tensor
    clusters: NDArray[np.int64]
    """Identity of each row of `test`."""
    values: int
    """V of a label; 0 for a continuous factor."""
    baseline: Tensor | None = None
    """Prediction of a continuous factor that has an R2 of 0; None means the mean of the test clips."""


def probe_scores(
    train: Latents, test: Latents, seed: int, *, kinds: tuple[str, ...] = KINDS, progress: Progress = NO_PROGRESS
) -> tuple[dict[str, Score], dict[str, Score]]:
    """Return `probe.<code>.<factor>.{linear,mlp}`, and the same names for a control, the probes' answers shuffled.

    The scores are accuracies for labels and R2 for continuous factors; the control has labels only. The chance of an
    accuracy is that of guessing values as often as the training clips have them, or of always guessing their most
    frequent one, whichever is higher. The chance of an R2 is 0.

    Args:
        train: codes of training clips, from which the probes learn.
        test: codes of test clips, on which they are measured.
        seed: seed of the networks' weights and batches, of the control, and of the intervals.
        kinds: `linear`, `mlp` or both.
        progress: receives the phase `fitting probes`.

    Raises:
        ValueError: `train` and `test` share an identity.
    """
    shared = set(train.identities) & set(test.identities)
    if shared:
        raise ValueError(
            f"{len(shared)} identities (such as {min(shared)}) are in both the training and the test clips"
        )
    scores, shuffled = {}, {}
    order = torch.from_numpy(np.random.default_rng([seed, 4]).permutation(len(test.identities)))
    todo = list(probe_tasks(train, test))
    progress.start("fitting probes", len(todo) * len(kinds), unit="probes")
    for task in todo:
        for kind in kinds:
            fit = fit_linear if kind == "linear" else fit_mlp
            predicted = fit(task.train, task.train_target, task.values, seed)(task.test)
            scores[f"probe.{task.name}.{kind}"] = _score(task, predicted, seed)
            if task.values:
                shuffled[f"probe.{task.name}.{kind}"] = _score(task, predicted[order], seed)
            progress.advance()
    return scores, shuffled


def probe_tasks(train: Latents, test: Latents) -> Iterator[Task]:
    """Yield every factor of every code; for poses only the factors of single frames.

    Left out are labels with a single value, and continuous factors that do not vary over the test clips.
    """
    factors = [name for name in train.factors if _varies(test.factors[name])]
    tracks = [name for name in train.tracks if _varies(test.tracks[name])]
    clusters = identity_indices(test.identities)
    for code in CODES:
        first, second = _standardise(getattr(train.codes, code), getattr(test.codes, code))
        for name, names in train.vocabulary.items():
            if len(names) > 1:
                known, wanted = (torch.from_numpy(np.asarray(side.labels[name])) for side in (train, test))
                yield Task(f"{code}.{name}", first, known, second, wanted, clusters, len(names))
        for name in factors:
            known, wanted = _standardise(_column(train.factors[name]), _column(test.factors[name]))
            yield Task(f"{code}.{name}", first, known, second, wanted, clusters, 0)
        for name in tracks:
            known, wanted = _standardise(torch.from_numpy(train.tracks[name]), torch.from_numpy(test.tracks[name]))
            yield Task(f"{code}.{name}", first, known, second, wanted, clusters, 0)
    length = test.codes.pose.shape[1]
    for name in tracks:
        first, second = _standardise(train.codes.pose.flatten(0, 1), test.codes.pose.flatten(0, 1))
        known, wanted = _standardise(
            torch.from_numpy(train.tracks[name]).flatten()[:, None],
            torch.from_numpy(test.tracks[name]).flatten()[:, None],
        )
        # The baseline is the mean of each frame number, so that knowing only the time of a frame has an R2 of 0.
        baseline = wanted.unflatten(0, (-1, length)).mean(0).repeat(len(test.identities), 1)
        yield Task(f"pose.{name}", first, known, second, wanted, np.repeat(clusters, length), 0, baseline)


def fit_linear(codes: Tensor, target: Tensor, values: int, seed: int) -> Predict:
    """Fit multinomial logistic regression (values > 0) or ridge regression, both to their optimum: `seed` is unused."""
    inputs = _with_one(codes)
    if not values:
        outputs = target.double()
        normal = inputs.T @ inputs + RIDGE * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
        solution = torch.linalg.solve(normal, inputs.T @ outputs)
        return lambda unseen: _with_one(unseen) @ solution
    weights = torch.zeros(inputs.shape[1], values, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(inputs @ weights, target) + RIDGE / 2 * weights[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return lambda unseen: _with_one(unseen) @ weights.detach()


def fit_mlp(codes: Tensor, target: Tensor, values: int, seed: int) -> Predict:
    """Fit a network of one hidden layer, for a number of steps that depends on the number of rows alone."""
    steps = max(STEPS, PASSES * len(codes) // BATCH)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        outputs = values or target.shape[1]
        network = nn.Sequential(nn.Linear(codes.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs))
    # The same numbers as one parameter at a time, with less overhead: most of the time of a network this small.
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01, foreach=True)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * (0.5 * (1 + math.cos(math.pi * step / steps)))
        batch = torch.randint(len(codes), (min(BATCH, len(codes)),), generator=generator)
        output = network(codes[batch])
        loss = functional.cross_entropy(output, target[batch]) if values else (output - target[batch]).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    network.requires_grad_(False)
    return lambda unseen: torch.as_tensor(network(unseen))


def _score(task: Task, predicted: Tensor, seed: int) -> Score:
    if task.values:
        train, test = (torch.bincount(side, minlength=task.values) for side in (task.train_target, task.test_target))
        guessing = float((train / train.sum()).double() @ (test / test.sum()).double())
        chance = max(guessing, float(test[train.argmax()] / test.sum()))
        return mean_score((predicted.argmax(1) == task.test_target).numpy(), task.clusters, chance, seed)
    target = task.test_target.double()
    errors = (predicted.double() - target).square().sum(1)
    baseline = target.mean(0) if task.baseline is None else task.baseline.double()
    spread = (target - baseline).square().sum(1)
    return r2_score(errors.numpy(), spread.numpy(), task.clusters, seed)


def _standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale both so that `train` has mean 0 and standard deviation 1: f32 [N, K]."""
    deep = train.double()
    mean, deviation = deep.mean(0), deep.std(0)
    deviation = torch.where(deviation > 1e-9, deviation, torch.ones_like(deviation))
    first, second = (((side.double() - mean) / deviation).float() for side in (train, test))
    return first, second


def _varies(values: NDArray[np.float64]) -> bool:
    return bool((values != values[0]).any())


def _column(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None]


def _with_one(codes: Tensor) -> Tensor:
    return torch.cat((codes.double(), torch.ones(len(codes), 1, dtype=torch.float64)), dim=1)
