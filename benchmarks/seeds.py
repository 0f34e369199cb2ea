"""What recipes reach on the test identities of a dataset, over seeds: the table of docs/tuning.md.

    python benchmarks/seeds.py --data DATA --out OUT --seeds 1 2 3 \
        --recipes configs/figures-short.yaml runs/figures/best.yaml --json

Trains each recipe with each seed by `vdsm train`, unless the run is there already, and swaps the codes of test clips:
the same figures as `swap.*` and `leakage.*` of `vdsm evaluate`, whose other measurements take longer than such a
training.
One judge, which learns from the training split, judges all runs.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch

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

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="dataset that `vdsm shard` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and reports")
    parser.add_argument("--recipes", type=Path, nargs="+", required=True, help="recipes, each by its own file name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--at-once", type=int, default=1, help="trainings side by side")
    parser.add_argument("--judge-steps", type=int, default=250, help="optimiser steps of the judge")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of test clips whose codes are swapped")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    jobs = [(recipe, seed) for recipe in words.recipes for seed in words.seeds]
    with ThreadPoolExecutor(words.at_once) as pool:
        times = list(pool.map(lambda job: train(job[0], job[1], words.data, words.out / "runs"), jobs))
    train_clips, test_clips = ClipDataset(words.data, "train"), ClipDataset(words.data, "test")
    config = JudgeConfig(steps=words.judge_steps)
    judge, _ = load_or_train(str(words.out), train_clips, data_hash(train_clips.manifest), config, NO_PROGRESS)
    rows = [
        {"recipe": recipe.stem, "seed": seed}
        | figures(words.out / "runs" / run_name(recipe, seed), test_clips, judge, words.pairs)
        | {"train_s": taken}
        for (recipe, seed), taken in zip(jobs, times, strict=True)
    ]
    if words.json:
        machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
        print(json.dumps({"rows": rows, "machine": machine}))
        return
    for row in rows:
        print(
            "  ".join(f"{name} {value:.3f}" if isinstance(value, float) else str(value) for name, value in row.items())
        )
    for recipe in words.recipes:
        scores = [row["score"] for row in rows if row["recipe"] == recipe.stem]
        spread = f", standard deviation {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
        print(f"{recipe.stem}: score {statistics.mean(scores):.3f}{spread}")


def run_name(recipe: Path, seed: int) -> str:
    """Name of the run of a recipe with a seed."""
    return f"{recipe.stem}-{seed}"


def train(recipe: Path, seed: int, data: str, out: Path) -> float:
    """Train a recipe with a seed, or find it trained; the seconds that this took."""
    words = ["--config", str(recipe), "--seed", str(seed), "--data", data, "--out", str(out)]
    command = [sys.executable, str(ROOT / "pipeline" / "train.py"), *words, "--name", run_name(recipe, seed)]
    began = time.perf_counter()
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise SystemExit(f"the training of {recipe} with seed {seed} failed")
    return round(time.perf_counter() - began, 1)


@torch.inference_mode()
def figures(run: Path, clips: ClipDataset, judge: Judge, count: int) -> dict[str, float]:
    """The score of docs/tuning.md on `clips`, and what it is made of."""
    model, recipe, _ = load_run(str(run))
    length = recipe.training.stage2.clip_frames
    pairs = draw_pairs(clips, count, 0)
    decoder = SwapDecoder(model.eval(), encode_clips(model, clips, length, BATCH_CLIPS), length, BATCH_CLIPS)
    judged = judge_pairs(judge, pairs, slice_decoder(decoder.swap, pairs), BATCH_CLIPS, "judging swaps", NO_PROGRESS)
    return summary(swap_scores(clips, pairs, judged.values, 0))


def summary(scores: "dict[str, Score]") -> dict[str, float]:
    """`leak`: of all factors the most by which swaps show the wrong clip's value more often than perfect swaps do."""

    def above(score: "Score") -> float:
        return above_chance(score.value, score.chance or 0.0)

    action = above(scores["swap.action.accuracy"])
    parts = [one for name, one in scores.items() if name.startswith("swap.static.") and name.endswith(".accuracy")]
    static = statistics.mean(map(above, parts))
    leaks = [one.value - (one.chance or 0) for name, one in scores.items() if name.startswith("leakage.")]
    return {
        "score": harmonic_mean(action, static),
        "swap_action": scores["swap.action.accuracy"].value,
        "swap_static_mean": statistics.mean(one.value for one in parts),
        "swap_joint": scores["swap.static.joint"].value,
        "leak": max(leaks),
    }


if __name__ == "__main__":
    main()
