"""Scores of recipes on the test identities of a dataset, over seeds: the table of docs/tuning.md.

    python benchmarks/seeds.py --data DATA --out OUT --seeds 1 2 3 \
        --recipes configs/figures-short.yaml runs/figures/best.yaml --json

Trains each recipe with each seed by `vdsm train`, unless the run exists, and swaps the codes of test clips. The metrics
are `swap.*` and `leakage.*` of `vdsm evaluate`, whose other measurements take longer than such a training. All runs
share one judge, trained on the training split.
"""

import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from arguments import ROOT, machine, parser, show

from pipeline.evaluation.judge_cache import load_or_train
from pipeline.runs.store import data_hash, load_run
from pipeline.tuning.validation_score import BATCH_CLIPS, above_chance, harmonic_mean
from preprocessing.dataset.reader import ClipDataset
from vdsm.evaluation.judge import Judge, JudgeConfig
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder, judge_pairs, slice_decoder
from vdsm.evaluation.pairs import draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.swap_scores import swap_scores

if TYPE_CHECKING:
    from vdsm.evaluation.scores import Score


def main() -> None:
    """Train, evaluate and print."""
    command = parser(__doc__)
    command.add_argument("--data", required=True, help="dataset written by `vdsm shard`")
    command.add_argument("--out", type=Path, required=True, help="folder of the runs and the judge")
    command.add_argument("--recipes", type=Path, nargs="+", required=True, help="recipes, identified by file name")
    command.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds, one training each")
    command.add_argument("--at-once", type=int, default=1, help="trainings that run in parallel")
    command.add_argument("--judge-steps", type=int, default=250, help="optimiser steps of the judge")
    command.add_argument("--pairs", type=int, default=1000, help="pairs of test clips whose codes are swapped")
    options = command.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = [(recipe, seed) for recipe in options.recipes for seed in options.seeds]
    with ThreadPoolExecutor(options.at_once) as pool:
        times = list(pool.map(lambda job: train(job[0], job[1], options.data, options.out / "runs"), jobs))
    train_clips, test_clips = ClipDataset(options.data, "train"), ClipDataset(options.data, "test")
    config = JudgeConfig(steps=options.judge_steps)
    judge, _ = load_or_train(str(options.out), train_clips, data_hash(train_clips.manifest), config, NO_PROGRESS)
    rows = [
        {"recipe": recipe.stem, "seed": seed}
        | measure(options.out / "runs" / run_name(recipe, seed), test_clips, judge, options.pairs)
        | {"train_s": seconds}
        for (recipe, seed), seconds in zip(jobs, times, strict=True)
    ]
    if options.json:
        show({"rows": rows, "machine": machine()}, as_json=True)
        return
    for row in rows:
        print(
            "  ".join(f"{name} {value:.3f}" if isinstance(value, float) else str(value) for name, value in row.items())
        )
    for recipe in options.recipes:
        scores = [row["score"] for row in rows if row["recipe"] == recipe.stem]
        spread = f", standard deviation {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
        print(f"{recipe.stem}: score {statistics.mean(scores):.3f}{spread}")


def run_name(recipe: Path, seed: int) -> str:
    """Return the name of the run of a recipe with a seed."""
    return f"{recipe.stem}-{seed}"


def train(recipe: Path, seed: int, data: str, out: Path) -> float:
    """Train a recipe with a seed, unless it is trained already, and return the seconds taken."""
    args = ["--config", str(recipe), "--seed", str(seed), "--data", data, "--out", str(out)]
    command = [sys.executable, str(ROOT / "pipeline" / "train.py"), *args, "--name", run_name(recipe, seed)]
    began = time.perf_counter()
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise SystemExit(f"training {recipe} with seed {seed} failed; see its messages above")
    return round(time.perf_counter() - began, 1)


@torch.inference_mode()
def measure(run: Path, clips: ClipDataset, judge: Judge, count: int) -> dict[str, float]:
    """Measure the score of docs/tuning.md on `clips`, and its parts."""
    model, recipe, _ = load_run(str(run))
    length = recipe.training.stage2.clip_frames
    pairs = draw_pairs(clips, count, 0)
    decoder = SwapDecoder(model.eval(), encode_clips(model, clips, length, BATCH_CLIPS), length, BATCH_CLIPS)
    judged = judge_pairs(judge, pairs, slice_decoder(decoder.swap, pairs), BATCH_CLIPS, "judging swaps", NO_PROGRESS)
    return summary(swap_scores(clips, pairs, judged.values, 0))


def summary(scores: "dict[str, Score]") -> dict[str, float]:
    """Summarise swap scores. `leak` is the largest excess over all factors of showing the wrong clip's value."""

    def above(score: "Score") -> float:
        return above_chance(score.value, score.chance or 0.0)

    action = above(scores["swap.action.accuracy"])
    attributes = [
        score for name, score in scores.items() if name.startswith("swap.static.") and name.endswith(".accuracy")
    ]
    static = statistics.mean(map(above, attributes))
    leaks = [score.value - (score.chance or 0) for name, score in scores.items() if name.startswith("leakage.")]
    return {
        "score": harmonic_mean(action, static),
        "swap_action": scores["swap.action.accuracy"].value,
        "swap_static_mean": statistics.mean(score.value for score in attributes),
        "swap_joint": scores["swap.static.joint"].value,
        "leak": max(leaks),
    }


if __name__ == "__main__":
    main()
