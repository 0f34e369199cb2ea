"""What can be read from each code: a linear probe and a small network for every factor.

Probes learn from the codes of training clips and are measured on those of test clips, whose identities they have never
seen. In a separated model the static code says the static attributes and is at chance for the action, and the dynamics
code the other way round.

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

from vdsm.evaluation.measurement import Latents
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.scores import Score, mean_score, r2_score

CODES = ("static", "dynamics")
KINDS = ("linear", "mlp")
WIDTH = 128
"""Hidden units of the small network."""
STEPS = 400
"""Its optimiser steps, at least."""
BATCH = 256
"""Clips, or frames, in each of them."""
PASSES = 20
"""Times that it sees each clip or frame, at least: long clips have many more frames than there are clips."""
RIDGE = 1e-3
"""Weight of the squared norm of a linear probe's weights."""

Predict = Callable[[Tensor], Tensor]


class Task(NamedTuple):
    """A factor to be read from a code."""

    name: str
    """Such as `static.action`."""
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
    usual: Tensor | None = None
    """Of a continuous factor, what is right on average; none means the mean of the test clips."""


def probe_scores(
    train: Latents, test: Latents, seed: int, *, kinds: tuple[str, ...] = KINDS, progress: Progress = NO_PROGRESS
) -> tuple[dict[str, Score], dict[str, Score]]:
    """`probe.<code>.<factor>.{linear,mlp}`: accuracy for labels, R2 for continuous factors. And as a control, by the
    same names, the accuracy of the same answers given for other clips, drawn at random.

    Args:
        train: codes of training clips, what the probes learn from.
        test: codes of test clips, what they are measured on.
        seed: of the networks' weights and batches, of the control, and of the intervals.
        kinds: `linear`, `mlp` or both.
        progress: told of every probe.

    Chance is the accuracy of saying values as often as the training clips have them, or of always saying the most
    frequent one, whichever is higher; and an R2 of 0.

    Raises:
        ValueError: an identity is in both.
    """
    shared = set(train.identities) & set(test.identities)
    if shared:
        raise ValueError(f"{len(shared)} identities (such as {min(shared)}) are in the probes' training and test clips")
    found, shuffled = {}, {}
    order = torch.from_numpy(np.random.default_rng([seed, 4]).permutation(len(test.identities)))
    every = list(tasks(train, test))
    progress.start("probing codes", len(every), unit="probes")
    for number, task in enumerate(every):
        for kind in kinds:
            fit = fit_linear if kind == "linear" else fit_mlp
            said = fit(task.train, task.train_target, task.values, seed)(task.test)
            found[f"probe.{task.name}.{kind}"] = _score(task, said, seed)
            if task.values:
                shuffled[f"probe.{task.name}.{kind}"] = _score(task, said[order], seed)
        progress.advance()
    return found, shuffled


def tasks(train: Latents, test: Latents) -> Iterator[Task]:
    """Every factor of every code; of the poses only the factors of single frames."""
    who = np.unique(np.asarray(test.identities), return_inverse=True)[1].astype(np.int64)
    for code in CODES:
        first, second = _standard(getattr(train.codes, code), getattr(test.codes, code))
        for name, names in train.vocabulary.items():
            if len(names) > 1:
                known, asked = (torch.from_numpy(np.asarray(side.labels[name])) for side in (train, test))
                yield Task(f"{code}.{name}", first, known, second, asked, who, len(names))
        for name in train.factors:
            known, asked = _standard(_column(train.factors[name]), _column(test.factors[name]))
            yield Task(f"{code}.{name}", first, known, second, asked, who, 0)
        for name in train.tracks:
            known, asked = _standard(torch.from_numpy(train.tracks[name]), torch.from_numpy(test.tracks[name]))
            yield Task(f"{code}.{name}", first, known, second, asked, who, 0)
    length = test.codes.pose.shape[1]
    for name in train.tracks:
        first, second = _standard(train.codes.pose.flatten(0, 1), test.codes.pose.flatten(0, 1))
        known, asked = _standard(
            torch.from_numpy(train.tracks[name]).flatten()[:, None],
            torch.from_numpy(test.tracks[name]).flatten()[:, None],
        )
        # To know no more than the time of a frame has an R2 of 0: it is compared with the mean of that frame.
        usual = asked.unflatten(0, (-1, length)).mean(0).repeat(len(test.identities), 1)
        yield Task(f"pose.{name}", first, known, second, asked, np.repeat(who, length), 0, usual)


def fit_linear(codes: Tensor, target: Tensor, values: int, seed: int) -> Predict:
    """Multinomial logistic regression (values > 0) or ridge regression, both to their optimum: no seed matters."""
    inputs = _with_one(codes)
    if not values:
        outputs = target.double()
        normal = inputs.T @ inputs + RIDGE * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
        solution = torch.linalg.solve(normal, inputs.T @ outputs)
        return lambda unseen: _with_one(unseen) @ solution
    weights = torch.zeros(inputs.shape[1], values, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = functional.cross_entropy(inputs @ weights, target) + RIDGE / 2 * weights[:-1].square().sum()
        found.backward()
        return found

    optimiser.step(loss)
    return lambda unseen: _with_one(unseen) @ weights.detach()


def fit_mlp(codes: Tensor, target: Tensor, values: int, seed: int) -> Predict:
    """One hidden layer, trained for a number of steps that only the number of rows decides: no test clip does."""
    steps = max(STEPS, PASSES * len(codes) // BATCH)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        outputs = values or target.shape[1]
        network = nn.Sequential(nn.Linear(codes.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for _ in range(steps):
        batch = torch.randint(len(codes), (min(BATCH, len(codes)),), generator=generator)
        said = network(codes[batch])
        loss = functional.cross_entropy(said, target[batch]) if values else (said - target[batch]).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    network.requires_grad_(False)
    return lambda unseen: torch.as_tensor(network(unseen))


def _score(task: Task, said: Tensor, seed: int) -> Score:
    if task.values:
        known, asked = (torch.bincount(side, minlength=task.values) for side in (task.train_target, task.test_target))
        guessed = float((known / known.sum()).double() @ (asked / asked.sum()).double())
        chance = max(guessed, float(asked[known.argmax()] / asked.sum()))
        return mean_score((said.argmax(1) == task.test_target).numpy(), task.clusters, chance, seed)
    wanted = task.test_target.double()
    lost = (said.double() - wanted).square().sum(1)
    usual = wanted.mean(0) if task.usual is None else task.usual.double()
    spread = (wanted - usual).square().sum(1)
    return r2_score(lost.numpy(), spread.numpy(), task.clusters, seed)


def _standard(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the mean 0 and the deviation 1 that the training clips then have: f32 [N, K]."""
    deep = train.double()
    mean, deviation = deep.mean(0), deep.std(0)
    deviation = torch.where(deviation > 1e-9, deviation, torch.ones_like(deviation))
    first, second = (((side.double() - mean) / deviation).float() for side in (train, test))
    return first, second


def _column(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None]


def _with_one(codes: Tensor) -> Tensor:
    return torch.cat((codes.double(), torch.ones(len(codes), 1, dtype=torch.float64)), dim=1)
