"""Disentanglement over the course of a training: swaps between validation identities at each of its checkpoints.

    vdsm train --config configs/sprites-small.yaml --data DATA --out RUNS --name NAME \
        --training.checkpoint-interval 500 --training.keep-checkpoints 100
    python benchmarks/learning.py --run RUNS/NAME --data DATA --judges JUDGES --json

Prints one line per checkpoint: how often the judge sees the action of one clip and each attribute of the other, by the
poses in stage 1 and by the dynamics code in stage 2. The test split is not used. The judge is that of `vdsm evaluate`,
trained on all clips of the training split, which include the validation clips: its accuracy on them is optimistic, but
equally so for every checkpoint.
"""

import json
import tempfile
from pathlib import Path

import torch
from arguments import add_threads, run_parser

from pipeline.evaluation.judge_cache import load_or_train
from pipeline.runs.checkpoints import checkpoints, local_copy
from pipeline.runs.store import data_hash, read_recipe
from pipeline.tuning.validation_score import BATCH_CLIPS
from pipeline.tuning.validation_split import split_as_training
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
    command = run_parser(__doc__, pairs=500, of="validation")
    command.add_argument("--judges", required=True, help="folder in which the trained judge is cached")
    command.add_argument("--judge-steps", type=int, help="as given to `vdsm evaluate`; default: from the run's recipe")
    add_threads(command, 1)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    recipe = read_recipe(options.run)
    settings, length = recipe.evaluation, recipe.training.stage2.clip_frames
    clips = ClipDataset(options.data, "train")
    steps = options.judge_steps or settings.judge_steps
    config = JudgeConfig(steps=steps, batch_clips=settings.judge_batch_clips, clip_frames=length)
    judge, _ = load_or_train(options.judges, clips, data_hash(clips.manifest), config, NO_PROGRESS)
    held_out = split_as_training(clips, recipe, options.run).validation
    pairs = draw_pairs(held_out, options.pairs, 0)
    for position, file in sorted(checkpoints(options.run, recipe.training).items()):
        with tempfile.TemporaryDirectory() as scratch:
            model = checkpoint.load_disentangler(local_copy(file, Path(scratch))).eval()
        with torch.inference_mode():
            decoder = SwapDecoder(model, encode_clips(model, held_out, length, BATCH_CLIPS), length, BATCH_CLIPS)
            swap = decoder.pose_swap if position.stage == 1 else decoder.swap
            judged = judge_pairs(judge, pairs, slice_decoder(swap, pairs), BATCH_CLIPS, "judging swaps", NO_PROGRESS)
        scores = swap_scores(held_out, pairs, judged.values, 0)
        accuracies = {name.removesuffix(".accuracy"): round(score.value, 4) for name, score in scores.items()}
        record = {"stage": position.stage, "step": position.step, **accuracies}
        text = "  ".join(f"{name} {value}" for name, value in record.items())
        print(json.dumps(record) if options.json else text, flush=True)


if __name__ == "__main__":
    main()
