"""Whether the scores that need no label follow the judged ones: rank correlation over models of varying quality.

    vdsm shard --config configs/figures-short.yaml --out DATA
    python benchmarks/label_free.py --data DATA --out OUT --seeds 0 1 --json

Trains every variant of `small_trainings.py` with every seed, measures its snapshots on the same pairs of test
figures by the judge and without labels, and prints Spearman's rank correlation of each pair of scores. The 95%
interval draws whole trainings with replacement, because the snapshots of one training are alike. Snapshots of stage 1
are swapped by their poses, those of stage 2 by their dynamics codes; `stage 2` are the latter alone. `--only` limits
the seeds that are correlated. If interrupted, rerun it to resume.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import small_trainings
import torch
from arguments import add_threads, machine, parser
from numpy.typing import NDArray
from torch import Tensor

from preprocessing.dataset.reader import ClipDataset
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.evaluation.clips import LabelledClips
from vdsm.evaluation.cycle import ReencodedSwaps
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.judge import Judge, JudgeConfig, dump_judge, parse_judge, train_judge
from vdsm.evaluation.likeness import transfer_scores
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.moving_pixels import moving_scores
from vdsm.evaluation.outputs import SwapDecoder, judge_pairs, slice_decoder
from vdsm.evaluation.pairs import Indices, draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.reconstruction import subsample
from vdsm.evaluation.scores import Score
from vdsm.evaluation.swap_scores import swap_scores
from vdsm.evaluation.traits import TraitCollector, Traits, traits_of_clips
from vdsm.memory import keep_freed_memory

LENGTH, AT_ONCE = 8, 32
RESAMPLES = 1000
JUDGE = JudgeConfig(steps=250, batch_clips=64, clip_frames=LENGTH, shift=1)
JUDGED = ("static", "action", "static leakage", "action leakage")
"""Judged scores: share of the attributes and of the actions that are right, excess of the replaced ones over chance."""

Row = dict[str, Any]


def main() -> None:
    """Train, measure and print."""
    command = parser(__doc__)
    command.add_argument("--data", required=True, help="dataset of built-in figures")
    command.add_argument("--out", type=Path, required=True, help="folder of the snapshots, the judge and the scores")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds, one training each")
    command.add_argument("--only", type=int, nargs="+", help="seeds that are correlated; default: all")
    command.add_argument("--variants", nargs="+", default=list(small_trainings.VARIANTS), help="variants to train")
    command.add_argument("--pairs", type=int, default=300, help="pairs of test clips")
    add_threads(command, 1)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    training = small_trainings.HalfSize(ClipDataset(options.data, "train"))
    for seed in options.seeds:
        for name in options.variants:
            small_trainings.save_snapshots(name, training, seed, options.out)
    rows = _measured(options.out, options.data, training, options.seeds, options.variants, options.pairs)
    rows = [row for row in rows if options.only is None or row["seed"] in options.only]
    found = {"all": correlations(rows), "stage 2": correlations([row for row in rows if row["stage"] == 2])}
    if options.json:
        print(json.dumps({"rows": rows, "correlations": found, "machine": machine()}))
        return
    for name, table in found.items():
        print(f"{name}: {' '.join(f'{judged:>24}' for judged in JUDGED)}")
        for score, values in table.items():
            print(f"{score:30}", " ".join(f"{low:6.2f} <{value:6.2f} <{high:6.2f} " for value, low, high in values))


def _measured(
    out: Path, data: str, training: small_trainings.HalfSize, seeds: Sequence[int], variants: Sequence[str], count: int
) -> list[Row]:
    """Return a row of scores for each snapshot; those that an earlier call measured are read."""
    clips = small_trainings.HalfSize(ClipDataset(data, "test"))
    stored = out / "judge.pt"
    if not stored.exists():
        stored.write_bytes(dump_judge(train_judge(training, JUDGE), "half size"))
    judge = parse_judge(stored.read_bytes(), "half size")
    real = traits_of_clips(clips, LENGTH, AT_ONCE, NO_PROGRESS)
    rows = []
    for seed in seeds:
        for variant in variants:
            for stage, step in small_trainings.own_snapshots(variant):
                file = small_trainings.snapshot_file(out, variant, seed, stage, step)
                scores = file.with_suffix(".json")
                if not scores.exists():
                    measured = measure_snapshot(file, stage, judge, clips, real, count)
                    scores.write_text(json.dumps(measured))
                row = {"variant": variant, "seed": seed, "stage": stage, "step": step}
                rows.append(row | json.loads(scores.read_text()))
    return rows


def load(file: Path) -> Disentangler:
    """Return the model of a snapshot."""
    content = torch.load(file, weights_only=True)
    model = Disentangler(ModelConfig(**content["config"]))
    model.load_state_dict(content["state"])
    model.temperature = content["temperature"]
    return model.eval()


@torch.inference_mode()
def measure_snapshot(
    file: Path, stage: int, judge: Judge, clips: LabelledClips, real: Traits, count: int
) -> dict[str, float]:
    """Return the scores of a snapshot."""
    model = load(file)
    decoder = SwapDecoder(model, encode_clips(model, clips, LENGTH, AT_ONCE), LENGTH, AT_ONCE)
    return measure(decoder, decoder.swap if stage == 2 else decoder.pose_swap, stage, judge, clips, real, count)


def measure(
    decoder: SwapDecoder, swap: Callable[[Indices, Indices], Tensor], stage: int, judge: Judge, clips: LabelledClips,
    real: Traits, count: int,
) -> dict[str, float]:  # fmt: skip
    """Return the judged scores of a way to swap the codes of clips, and those that need no label."""
    pairs = draw_pairs(clips, count, 0)
    traits, reencoded = TraitCollector(), ReencodedSwaps(decoder.model)
    verdicts = judge_pairs(judge, pairs, slice_decoder(swap, pairs), AT_ONCE, "", NO_PROGRESS, traits, reencoded)
    judged = swap_scores(clips, pairs, verdicts.values, 0)
    people = identity_indices(clips.identities)
    found = transfer_scores(traits.traits, pairs, real, clips.identities, 0)
    cycle = reencoded.scores(pairs, decoder.codes, people, 0)
    found |= {name: score for name, score in cycle.items() if stage == 2 or name == "cycle.static"}
    own = {"self_swap": lambda batch: swap(batch, batch)}
    compared = subsample(np.unique(pairs.dynamics_of))
    moving = moving_scores(clips, compared, LENGTH, own, AT_ONCE, 0, NO_PROGRESS)
    found |= {name: score for name, score in moving.items() if name.startswith("moving.self_swap")}
    plain = {name: round(score.value, 5) for name, score in found.items()}
    return _judged(judged) | plain | {f"{name}.off": _off(plain[name]) for name in plain if name.startswith("smooth")}


def _judged(scores: Mapping[str, Score]) -> dict[str, float]:
    """Return JUDGED."""
    leaks = {name.removeprefix("leakage."): score for name, score in scores.items() if name.startswith("leakage.")}
    above = {name: score.value - (score.chance or 0.0) for name, score in leaks.items()}
    action = above.pop("action")
    static = [
        score.value for name, score in scores.items() if name.startswith("swap.static.") and name.endswith("accuracy")
    ]
    values = (np.mean(static), scores["swap.action.accuracy"].value, np.mean(list(above.values())), action)
    return {name: round(float(value), 5) for name, value in zip(JUDGED, values, strict=True)}


def _off(ratio: float) -> float:
    """Return how far a ratio is from 1, in either direction; higher is nearer."""
    return round(-abs(float(np.log(max(ratio, 1e-9)))), 5)


def correlations(rows: Sequence[Row]) -> dict[str, list[tuple[float, float, float]]]:
    """Return Spearman's correlation of each score with each of JUDGED, and its interval."""
    names = [name for name in rows[0] if name not in (*JUDGED, "variant", "seed", "stage", "step")]
    names = list(dict.fromkeys([*names, *(name for row in rows for name in row if name.startswith("cycle"))]))
    return {name: [_correlation(rows, name, judged) for judged in JUDGED] for name in names}


def _correlation(rows: Sequence[Row], name: str, judged: str) -> tuple[float, float, float]:
    having = [row for row in rows if name in row]
    values, wanted = (np.array([row[key] for row in having]) for key in (name, judged))
    runs = identity_indices([f"{row['variant']} {row['seed']}" for row in having])
    members = [np.flatnonzero(runs == run) for run in range(runs.max() + 1)]
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([members[run] for run in generator.integers(len(members), size=len(members))])
        drawn.append(spearman(values[chosen], wanted[chosen]))
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return round(spearman(values, wanted), 3), round(float(low), 3), round(float(high), 3)


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the correlation of the ranks; equal values share the mean of their ranks."""
    ranks = [_ranks(first), _ranks(second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts - 1) / 2
    ranks: NDArray[np.float64] = means[group]
    return ranks


if __name__ == "__main__":
    main()
