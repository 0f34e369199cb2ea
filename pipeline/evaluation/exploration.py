"""Latent exploration: which part of the codes is about which factor, and what a swap of that part alone changes.

The view of MSD-Benchmark (multi-factor sequential disentanglement) over the codes of this model. A code is divided into
units: each group of the static code, which is a point of one simplex and so is replaced as a whole, and each number of
the dynamics code. Random forests predict the factors from all numbers of the code (as for DCI); each unit belongs to
the factor that has the largest share of its importances in it. Then, for pairs of test clips A and B, the units of one
factor alone are taken from B, all others from A, and a judge looks at what is decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.errors import UserError
from cluster.extras import require
from pipeline.evaluation.dci import Floats, fit_forests, joined_codes
from vdsm.evaluation.clips import LabelledClips
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.measurement import Latents
from vdsm.evaluation.outputs import SwapDecoder, judge_pairs
from vdsm.evaluation.pairs import Pairs, chances
from vdsm.evaluation.progress import Progress
from vdsm.evaluation.scores import Score, mean_score


class Unit(NamedTuple):
    """A part of the code that is replaced as a whole."""

    name: str
    """Such as `static 2` or `dynamics 7`, counted from 1."""
    columns: tuple[int, ...]
    """Its numbers in static and dynamics code, joined."""


@dataclass(frozen=True)
class Exploration:
    """What was found."""

    units: list[Unit]
    importances: dict[str, Floats]
    """Factor -> share of its importances in each unit: [U], 1 in total."""
    chosen: dict[str, list[int]]
    """Factor -> units that belong to it. No unit belongs to two."""
    scores: dict[str, Score]
    """`exploration.<factor>.accuracy`, `.swapped` and `.kept`."""

    def plain(self) -> dict[str, Any]:
        """Return the map as metrics.json has it."""
        return {
            "units": [unit.name for unit in self.units],
            "importances": {name: [round(float(share), 6) for share in row] for name, row in self.importances.items()},
            "chosen": {name: [self.units[unit].name for unit in units] for name, units in self.chosen.items()},
        }


def units_of(static_numbers: int, groups: int, dynamics_numbers: int) -> list[Unit]:
    """Return the units of a code: `groups` of the static code, and each number of the dynamics code (0: none)."""
    size = static_numbers // groups
    found = [Unit(f"static {group + 1}", tuple(range(group * size, (group + 1) * size))) for group in range(groups)]
    return found + [Unit(f"dynamics {number + 1}", (static_numbers + number,)) for number in range(dynamics_numbers)]


def explore(
    train: Latents,
    test: Latents,
    *,
    clips: LabelledClips,
    pairs: Pairs,
    decoder: SwapDecoder,
    judge: Judge | None,
    groups: int,
    sequence_stage: bool,
    trees: int,
    seed: int,
    progress: Progress,
) -> Exploration:
    """Map units to the labels with several values, and measure swaps of the units of each.

    `accuracy`: forests that see the units of the factor alone, on test clips; chance is the most frequent value.
    `swapped`: in A's code with these units of B, the judge sees B's value of the factor. `kept`: it sees A's values of
    the other factors (their mean). Chance is as for swaps. The intervals draw identities, of B for `swapped`.

    Args:
        train: codes of training clips, from which the forests learn.
        test: codes of test clips.
        clips: the test split.
        pairs: A (`dynamics_of`) and B (`static_of`).
        decoder: the model with the codes of the test clips.
        judge: None for data without an action label: only `accuracy` is measured.
        groups: groups of the static code.
        sequence_stage: whether there is a dynamics code; otherwise A's poses are decoded.
        trees: trees of a forest.
        seed: seed of the forests and of the intervals.
        progress: receives all phases of `phases` but the first.

    Raises:
        UserError: the clips have fewer than two labels with several values.
    """
    names = _several(train)
    if len(names) < 2:
        raise UserError(
            f"evaluation.exploration_trees is {trees}, but the training clips have {len(names)} labels with several "
            "values, and an exploration needs 2; set it to 0"
        )
    static, dynamics = train.codes.static.shape[1], train.codes.dynamics.shape[1]
    units = units_of(static, groups, dynamics if sequence_stage else 0)
    known, unseen = (joined_codes(side)[:, : units[-1].columns[-1] + 1] for side in (train, test))
    progress.start("exploring the codes", 2 * len(names), unit="forests")
    each = fit_forests(known, unseen, train, test, names, trees, seed, progress).importances.mean(0)
    shares = np.stack([each[list(unit.columns)].sum(0) for unit in units])
    totals = shares.sum(0)
    shares = np.divide(shares, totals, out=np.zeros_like(shares), where=totals > 0)
    owner = np.where(shares.max(1) > 0, shares.argmax(1), -1)
    chosen = {name: np.flatnonzero(owner == position).tolist() for position, name in enumerate(names)}
    scores = _accuracies(known, unseen, train, test, units, chosen, trees, seed, progress)
    if judge is not None:
        judged = [name for name in names if name in judge.values]
        for name in judged:
            columns = [column for unit in chosen[name] for column in units[unit].columns]
            decode = _mixed_decoder(decoder, pairs, columns, static, sequence_stage)
            scores |= _swap_scores(name, judged, clips, pairs, judge, decode, decoder.batch_clips, seed, progress)
    return Exploration(units, {name: shares[:, position] for position, name in enumerate(names)}, chosen, scores)


def phases(judged: bool, train: LabelledClips) -> int:
    """Return how many phases of progress `explore` with or without a judge starts."""
    return 1 + (len(_several(train)) if judged else 0)


def _several(clips: LabelledClips | Latents) -> list[str]:
    """Return the labels with several values."""
    return [name for name in clips.vocabulary if len(np.unique(clips.labels[name])) > 1]


def _accuracies(
    known: Floats, unseen: Floats, train: Latents, test: Latents, units: list[Unit], chosen: dict[str, list[int]],
    trees: int, seed: int, progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    require("sklearn")
    from sklearn.ensemble import RandomForestClassifier

    clusters, scores = identity_indices(test.identities), {}
    for name, wanted in chosen.items():
        columns = [column for unit in wanted for column in units[unit].columns]
        target, answers = np.asarray(train.labels[name]), np.asarray(test.labels[name])
        predicted = np.full(len(answers), np.bincount(target).argmax())
        guessed = float(np.mean(predicted == answers))
        if columns:
            forest = RandomForestClassifier(trees, max_features=None, random_state=seed, n_jobs=1)
            predicted = forest.fit(known[:, columns], target).predict(unseen[:, columns])
        scores[f"exploration.{name}.accuracy"] = mean_score(predicted == answers, clusters, guessed, seed)
        progress.advance()
    return scores


def _mixed_decoder(
    decoder: SwapDecoder, pairs: Pairs, columns: list[int], static_numbers: int, sequence_stage: bool
) -> Callable[[slice], Tensor]:
    """Return a decoder of slices of the pairs: A's codes, with some numbers of B's."""
    of_static = [column for column in columns if column < static_numbers]
    of_dynamics = [column - static_numbers for column in columns if column >= static_numbers]
    codes = decoder.codes

    def decode(batch: slice) -> Tensor:
        a, b = pairs.dynamics_of[batch], pairs.static_of[batch]
        static = codes.static[a].clone()
        static[:, of_static] = codes.static[b][:, of_static]
        if not sequence_stage:
            return decoder.pose_with_static(a, static)
        dynamics = codes.dynamics[a].clone()
        dynamics[:, of_dynamics] = codes.dynamics[b][:, of_dynamics]
        return decoder.of_codes(dynamics, static)

    return decode


def _swap_scores(
    name: str, judged: list[str], clips: LabelledClips, pairs: Pairs, judge: Judge, decode: Callable[[slice], Tensor],
    batch_clips: int, seed: int, progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    with torch.inference_mode():
        verdicts = judge_pairs(judge, pairs, decode, batch_clips, f"swapping {name} alone", progress).values
    chance, identities = chances(clips, pairs), identity_indices(clips.identities)
    swapped = verdicts[name] == np.asarray(clips.labels[name])[pairs.static_of]
    others = [other for other in judged if other != name]
    kept: list[NDArray[np.bool_]] = [
        verdicts[other] == np.asarray(clips.labels[other])[pairs.dynamics_of] for other in others
    ]
    expected = float(np.mean([chance[other] for other in others]))
    return {
        f"exploration.{name}.swapped": mean_score(swapped, identities[pairs.static_of], chance[name], seed),
        f"exploration.{name}.kept": mean_score(np.mean(kept, axis=0), identities[pairs.dynamics_of], expected, seed),
    }
