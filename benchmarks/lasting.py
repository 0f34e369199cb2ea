"""Whether an action lasts: rollouts of many cycles, judged in some of them.

    python benchmarks/lasting.py --run RUNS/NAME --data DATA --judges FOLDER --cycles 10

A rollout generates the action of clip A for many times its length, with the static code of clip B. A cycle is as many
frames as the codes were inferred from. The judge, trained on real clips of that length, sees one cycle at a time.
Values are means over pairs of test clips, with 95% intervals by bootstrap over identities.

    `cycle.k.action`     share of rollouts in whose cycle k the judge sees the action of A
    `cycle.k.identity`   share in which it sees all attributes of B
    `cycle.k.change`     change from frame to frame, relative to that of the real clips A; 0 has come to rest
    `cycle.k.psnr`       PSNR in dB where the true swap moves, if that is known for so long: the phase is kept as well
    `still.action`       share of first frames, repeated, in which the judge sees the action of A: what it says of rest
"""

import numpy as np
import torch
from arguments import run_parser, show_scores
from torch import Tensor

from cluster.errors import UserError
from pipeline.evaluation.inputs import load
from pipeline.evaluation.judge_cache import load_or_train
from pipeline.evaluation.renderer import load_true_swap
from preprocessing.dataset.reader import ClipDataset
from vdsm.evaluation.clips import ACTION, stack
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.judge import JudgeConfig, judge_frames
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.moving_pixels import fidelity_on, moving_pixels
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.pairs import Indices, draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.scores import Score, mean_score, ratio_score
from vdsm.pixels import to_float

BATCH = 16


def measure(run: str, data: str, judges: str, steps: int, pairs: int, cycles: int, seed: int) -> dict[str, Score]:
    """Return all scores of a run."""
    inputs = load(run, data)
    if not inputs.sequence_stage:
        raise UserError(f"{run} has no sequence stage yet, and so no rollouts; train it further")
    clips, length, model = inputs.test, inputs.clip_frames, inputs.model
    config = JudgeConfig(steps=steps, clip_frames=length)
    judge, _ = load_or_train(judges, ClipDataset(data, "train"), inputs.data_sha256, config, NO_PROGRESS)
    drawn = draw_pairs(clips, pairs, seed)
    first, other = drawn.dynamics_of, drawn.static_of
    people = identity_indices(clips.identities)[first]
    decoder = SwapDecoder(model, encode_clips(model, clips, length), cycles * length)
    true_swap = load_true_swap(clips)
    known = 0 if true_swap is None else int(min(clips.clip_frames)) // length
    chosen = sorted({1, 2, 3, 5, min(10, cycles), cycles} & set(range(1, cycles + 1)))
    found: dict[str, list[Tensor]] = {}

    def add(name: str, values: Tensor) -> None:
        found.setdefault(name, []).append(values.double())

    def right(frames: Tensor, actions_of: Indices, identity_of: Indices) -> tuple[Tensor, Tensor]:
        judged = {name: torch.from_numpy(values) for name, values in judge_frames(judge, frames).values.items()}
        wanted = {
            name: torch.from_numpy(np.asarray(clips.labels[name])[actions_of if name == ACTION else identity_of])
            for name in judged
        }
        same = {name: judged[name] == wanted[name] for name in judged}
        attributes = [values for name, values in same.items() if name != ACTION]
        return same[ACTION], torch.stack(attributes).all(0)

    with torch.inference_mode():
        for start in range(0, pairs, BATCH):
            a, b = first[start : start + BATCH], other[start : start + BATCH]
            real = stack(clips, a, length)
            add("real", change(real))
            add("still.action", right(real[:, :1].expand_as(real), a, b)[0])
            poses = model.poses(decoder.codes.dynamics[a], decoder.length)
            for cycle in chosen:
                part = slice((cycle - 1) * length, cycle * length)
                frames = model.decode(poses[:, part], decoder.codes.static[b])
                action, identity = right(frames, a, b)
                add(f"cycle.{cycle}.action", action)
                add(f"cycle.{cycle}.identity", identity)
                add(f"cycle.{cycle}.change", change(frames))
                if true_swap is not None and cycle <= known:
                    truth = np.stack([true_swap(*pair)[part] for pair in zip(a.tolist(), b.tolist(), strict=True)])
                    wanted = to_float(torch.from_numpy(truth))
                    psnr = fidelity_on(moving_pixels(wanted), frames, wanted).psnr
                    add(f"cycle.{cycle}.psnr", torch.from_numpy(psnr))
    values = {name: torch.cat(parts).numpy() for name, parts in found.items()}
    real_change, scores = values.pop("real"), {}
    for name, column in values.items():
        if name.endswith("change"):
            scores[name] = ratio_score(column, real_change, people, None, seed)
        else:
            measured = ~np.isnan(column)
            scores[name] = mean_score(column[measured], people[measured], None, seed)
    return scores


def change(frames: Tensor) -> Tensor:
    """Return the mean absolute change from frame to frame of clips [B, T, C, H, W]: [B]."""
    return frames.diff(dim=1).abs().mean((1, 2, 3, 4))


def main() -> None:
    """Measure and print."""
    command = run_parser(__doc__, pairs=480, of="test")
    command.add_argument("--judges", required=True, help="folder of the judge, which is trained if it is not there")
    command.add_argument("--judge-steps", type=int, default=250, help="optimiser steps of the judge")
    command.add_argument("--cycles", type=int, default=10, help="length of the rollouts, in cycles")
    command.add_argument("--seed", type=int, default=0, help="seed of the pairs and the intervals")
    options = command.parse_args()
    try:
        scores = measure(
            options.run, options.data, options.judges, options.judge_steps, options.pairs, options.cycles, options.seed
        )
    except UserError as error:
        command.error(str(error))
    show_scores(scores, as_json=options.json)


if __name__ == "__main__":
    main()
