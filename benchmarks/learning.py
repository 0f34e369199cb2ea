"""How a training learnt to separate: swaps at each of its checkpoints, between identities held out for validation.

    vdsm train --config configs/sprites-small.yaml --data DATA --out RUNS --name NAME \
        --training.checkpoint-interval 500 --training.keep-checkpoints 100
    python benchmarks/learning.py --run RUNS/NAME --data DATA --judges JUDGES --json

Prints a line per checkpoint: how often the judge sees the action of the one clip and each attribute of the other, by
the poses in stage 1 and by the dynamics code in stage 2. No clip of the test split is looked at. The judge is that of
`vdsm evaluate`, which learnt from all clips of the training split: its verdict on validation clips is as sure as on
those, but it is the same for every checkpoint.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from pipeline.evaluation.judge_cache import load_or_train
from pipeline.runs.checkpoints import checkpoints, local_copy
from pipeline.runs.store import data_hash, read_recipe
from pipeline.tuning.validation_score import BATCH_CLIPS
from pipeline.tuning.validation_split import split_by_identity
from preprocessing.dataset.reader import ClipDataset
from vdsm import checkpoint
from vdsm.evaluation.judge import JudgeConfig
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder, judge_pairs, slice_decoder
from vdsm.evaluation.pairs import draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.swap_scores import swap_scores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", required=True, help="folder of the run, with the checkpoints to be measured")
    parser.add_argument("--data", required=True, help="dataset that it was trained on")
    parser.add_argument("--judges", required=True, help="folder where the trained judge is kept")
    parser.add_argument("--judge-steps", type=int, help="as `vdsm evaluate` was given; else what the run's recipe says")
    parser.add_argument("--pairs", type=int, default=500, help="pairs of validation clips whose codes are swapped")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object per checkpoint")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    recipe = read_recipe(words.run)
    settings, length = recipe.evaluation, recipe.training.stage2.clip_frames
    clips = ClipDataset(words.data, "train")
    steps = words.judge_steps or settings.judge_steps
    config = JudgeConfig(steps=steps, batch_clips=settings.judge_batch_clips, clip_frames=length)
    judge, _ = load_or_train(words.judges, clips, data_hash(clips.manifest), config, NO_PROGRESS)
    held_out = split_by_identity(clips, recipe).validation
    pairs = draw_pairs(held_out, words.pairs, 0)
    for place, file in sorted(checkpoints(words.run, recipe.training).items()):
        with tempfile.TemporaryDirectory() as scratch:
            model = checkpoint.load_disentangler(local_copy(file, Path(scratch))).eval()
        with torch.inference_mode():
            decoder = SwapDecoder(model, encode_clips(model, held_out, length, BATCH_CLIPS), length, BATCH_CLIPS)
            swap = decoder.pose_swap if place.stage == 1 else decoder.swap
            judged = judge_pairs(judge, pairs, slice_decoder(swap, pairs), BATCH_CLIPS, "judging swaps", NO_PROGRESS)
        scores = swap_scores(held_out, pairs, judged.values, 0)
        figures = {name.removesuffix(".accuracy"): round(score.value, 4) for name, score in scores.items()}
        record = {"stage": place.stage, "step": place.step, **figures}
        text = "  ".join(f"{name} {value}" for name, value in record.items())
        print(json.dumps(record) if words.json else text, flush=True)


if __name__ == "__main__":
    main()
