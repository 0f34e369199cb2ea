"""What wrong pairs cost: stage 1 trained with a share of the mined pairs replaced by random ones.

    vdsm shard --config configs/quickstart.yaml --out DATA
    python benchmarks/wrong_pairs.py --data DATA --recipe configs/quickstart.yaml --out FOLDER --shares 0 0.05 0.1 0.3

Trains stage 1 as the recipe says, in one process, once for each share of pairs whose second clip is another, drawn at
random. A judge that has learned the labels of the training clips then judges swaps between test clips, by the poses of
their frames: `action` and `attributes` are the shares of swaps whose action, and whose static attributes all together,
are judged right; `leak` is the excess over chance of swaps that show an action of the clip that gave the static code.
With `--tolerance`, static codes of a pair may differ by so much (`pair_tolerance`). If interrupted, rerun it to resume.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import add_threads, machine, parser
from one_process import Printer, recipe_of

from pipeline.recipe import Recipe
from pipeline.runs.pairs import run_pairs
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from preprocessing.appearance.pairs import MinedPairs
from preprocessing.dataset.reader import ClipDataset
from vdsm.disentangler import Disentangler
from vdsm.evaluation.judge import Judge, JudgeConfig, dump_judge, parse_judge, train_judge
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder, judge_pairs, slice_decoder
from vdsm.evaluation.pairs import draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.swap_scores import swap_scores
from vdsm.memory import keep_freed_memory

AT_ONCE = 32


def with_wrong_pairs(pairs: MinedPairs, share: float, seed: int) -> MinedPairs:
    """Replace the second clip of a share of the pairs by another one, drawn at random."""
    generator = np.random.default_rng(seed)
    partners, firsts = pairs.partners.copy(), pairs.firsts
    chosen = generator.permutation(len(partners))[: round(share * len(partners))]
    # Never the first clip itself.
    partners[chosen] = (firsts[chosen] + generator.integers(1, len(pairs), len(chosen))) % len(pairs)
    order = np.lexsort((partners, firsts))  # ascending for each clip
    return dataclasses.replace(pairs, partners=partners[order], distances=pairs.distances[order])


def trained(recipe: Recipe, clips: ClipDataset, pairs: MinedPairs, title: str, path: Path) -> Disentangler:
    """Train stage 1, unless an earlier call did, and return the model."""
    if not path.exists():
        training = dataclasses.replace(recipe.training, stages="1", prior_clips=0)
        reporter = Printer(f"{title}: ")
        train_run(Job(model=recipe.model, training=training, seed=recipe.seed, clips=clips, pairs=pairs), reporter)
        torch.save(reporter.weights, path)
    model = Disentangler(recipe.model)
    model.load_state_dict(torch.load(path, weights_only=True), strict=False)  # stage 1 has no sequence model
    model.temperature = recipe.training.stage1.annealing.temperature.end
    return model.eval()


@torch.inference_mode()
def scores(model: Disentangler, judge: Judge, clips: ClipDataset, length: int, count: int) -> dict[str, float]:
    """Return the judged scores of swaps by poses."""
    decoder = SwapDecoder(model, encode_clips(model, clips, length, AT_ONCE), length, AT_ONCE)
    pairs = draw_pairs(clips, count, 0)
    verdicts = judge_pairs(judge, pairs, slice_decoder(decoder.pose_swap, pairs), AT_ONCE, "", NO_PROGRESS)
    found = swap_scores(clips, pairs, verdicts.values, 0)
    leak = found["leakage.action"]
    return {
        "action": found["swap.action.accuracy"].value,
        "attributes": found["swap.static.joint"].value,
        "leak": leak.value - (leak.chance or 0.0),
    }


def main() -> None:
    """Train, judge and print."""
    command = parser(__doc__)
    command.add_argument("--data", required=True, help="dataset with labels")
    command.add_argument("--recipe", type=Path, required=True, help="recipe with pairing by appearance")
    command.add_argument("--out", type=Path, required=True, help="folder of the models and the judge")
    command.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.05, 0.1, 0.3], help="shares of wrong pairs")
    command.add_argument("--tolerance", type=float, help="pair_tolerance in nats; as in the recipe if left out")
    command.add_argument("--pairs", type=int, default=500, help="pairs of test clips")
    add_threads(command, 1)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    changes = {} if options.tolerance is None else {"pair_tolerance": options.tolerance}
    recipe = recipe_of(options.recipe, {"training": {"stage1": {"annealing": changes}}})
    clips, test = ClipDataset(options.data, "train"), ClipDataset(options.data, "test")
    mined = run_pairs(recipe.training, clips)
    if mined is None:
        raise SystemExit(f"{options.recipe}: training.stage1.pairing is not appearance")
    length, stored = recipe.training.stage2.clip_frames, options.out / "judge.pt"
    if not stored.exists():
        config = JudgeConfig(steps=recipe.evaluation.judge_steps, clip_frames=length)
        stored.write_bytes(dump_judge(train_judge(clips, config), options.data))
    judge = parse_judge(stored.read_bytes(), options.data)
    tolerance = recipe.training.stage1.annealing.pair_tolerance
    suffix = "" if tolerance is None else f"-{tolerance:g}-nats"
    results: dict[str, Any] = {}
    for share in options.shares:
        pairs = with_wrong_pairs(mined, share, recipe.seed)
        model = trained(recipe, clips, pairs, f"{share:.0%} wrong", options.out / f"wrong-{share:g}{suffix}.pt")
        results[f"{share:g}"] = scores(model, judge, test, length, options.pairs)
        if not options.json:
            print(f"{share:.0%} wrong: {results[f'{share:g}']}", flush=True)
    if options.json:
        print(json.dumps({"shares": results, "machine": machine()}))


if __name__ == "__main__":
    main()
