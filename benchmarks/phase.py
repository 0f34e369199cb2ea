"""The phase of an action under swap, and what a rollout shows after the clip's end, in Sprites and other data in which
every identity does every action once.

    python benchmarks/phase.py --run RUNS/NAME --data DATA

What a swap should show is then a real test clip: B doing the action of A. Looked at are decoded frames. `poses` decodes
the poses of clip A with the static code of clip B, `dynamics` the dynamics code of A with it. A rollout goes on with
A's own dynamics and static code, and should repeat the action; `rollout.k` are its frames from frame k on, as many as
a clip has. Figures are means over frames, with 95% intervals by bootstrap over identities.

    `<system>.phase`     share of frames t that are no nearer to any other frame of the right clip than to its frame t
    `<system>.psnr`      likeness to that frame t, in dB
    `rollout.k.phase`    share of frames to which no frame of A's character, in any action, is nearer than the right one
    `rollout.k.nearest`  likeness to the nearest of them, in dB: does it still look like the character in some pose?
    `rollout.k.change`   mean absolute change from frame to frame, as a share of that of the real clips
"""

import argparse
import json

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cluster.errors import UserError
from pipeline.evaluation.inputs import load
from vdsm.evaluation.clips import ACTION, LabelledClips, clips_per_batch
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import BatchObserver, SwapDecoder, decode_batches, slice_decoder
from vdsm.evaluation.pairs import Pairs, draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.reconstruction import HIGHEST_PSNR
from vdsm.evaluation.scores import Score, mean_score

Array = NDArray[np.float64]
SAME = 1e-9
"""Squared errors per value that differ by less are the same: an action may show one picture twice."""


class Characters:
    """The real frames of every identity of a split: that of clip i, action c, frame t is `frames(i)[c, t]`."""

    def __init__(self, clips: LabelledClips, length: int) -> None:
        self._clips, self._length = clips, length
        self.actions = clips.labels[ACTION]
        self._who = identity_indices(clips.identities)
        self._clip_of = np.full((self._who.max() + 1, len(clips.vocabulary[ACTION])), -1)
        self._clip_of[self._who, self.actions] = np.arange(len(clips))
        if (self._clip_of < 0).any() or self._clip_of.size != len(clips):
            raise UserError("phases are measured where every identity does every action once, as in Sprites")

    def frames(self, index: int, actions: slice | NDArray[np.int64] = slice(None)) -> Array:
        """What the character of clip `index` does in some actions, or in all; values from 0 to 1: [A, T, values]."""
        shown = [self._clips.frames(int(clip))[: self._length] for clip in self._clip_of[self._who[index], actions]]
        return (np.stack(shown) / 255).reshape(len(shown), self._length, -1)


def errors(made: Array, real: Array) -> Array:
    """Mean squared error of every made frame [M, values] against every real one [R, values]: [M, R]."""
    squares = np.square(made).sum(1)[:, None] + np.square(real).sum(1) - 2 * made @ real.T
    return np.maximum(squares, 0) / made.shape[1]


def decibels(error: Array) -> Array:
    """PSNR of mean squared errors of values from 0 to 1, up to the most that the evaluation states."""
    return -10 * np.log10(np.maximum(error, 10 ** (-HIGHEST_PSNR / 10)))


def measure(run: str, data: str, count: int, frames: int, seed: int) -> dict[str, Score]:
    """All figures of a run; rollouts of `frames` frames."""
    inputs = load(run, data)
    clips, length = inputs.test, inputs.clip_frames
    characters = Characters(clips, length)
    pairs = draw_pairs(clips, count, seed)
    size = clips_per_batch(length)
    decoder = SwapDecoder(inputs.model, encode_clips(inputs.model, clips, length, size), length, size)
    who = identity_indices(clips.identities)[pairs.dynamics_of]
    found: dict[str, list[Array]] = {}

    def add(name: str, values: Array) -> None:
        found.setdefault(name, []).append(values.mean(keepdims=True))

    def swapped(system: str) -> BatchObserver:
        seen = iter(range(len(pairs)))

        def watch(batch: Tensor) -> None:
            for clip in batch.permute(0, 1, 3, 4, 2).double().numpy():
                pair = next(seen)
                action = characters.actions[pairs.dynamics_of[[pair]]]
                (real,) = characters.frames(pairs.static_of[pair], action)
                error = errors(clip.reshape(length, -1), real)
                right = error.diagonal()
                add(f"{system}.phase", right <= error.min(1) + SAME)
                add(f"{system}.psnr", decibels(right))

        return watch

    windows = sorted({start for start in (0, length, 2 * length, frames - length) if 0 <= start <= frames - length})
    seen = iter(pairs.dynamics_of)

    def rolled(batch: Tensor) -> None:
        for clip in batch.permute(0, 1, 3, 4, 2).double().numpy():
            index = next(seen)
            real = characters.frames(index)
            own = real[characters.actions[index]]
            made = clip.reshape(frames, -1)
            error = errors(made, real.reshape(-1, made.shape[1]))
            place = characters.actions[index] * length + np.arange(frames) % length
            right = error[np.arange(frames), place] <= error.min(1) + SAME
            moves = np.abs(np.diff(own, axis=0, append=own[:1])).mean()
            change = np.abs(np.diff(made, axis=0)).mean(1) / moves
            for start in windows:
                part = slice(start, start + length)
                add(f"rollout.{start}.phase", right[part])
                add(f"rollout.{start}.nearest", decibels(error[part].min(1)))
                add(f"rollout.{start}.change", change[part])

    decode_batches(count, slice_decoder(decoder.pose_swap, pairs), size, "decoding", NO_PROGRESS, swapped("poses"))
    if inputs.sequence_stage:
        decode_batches(count, slice_decoder(decoder.swap, pairs), size, "decoding", NO_PROGRESS, swapped("dynamics"))
        longer = SwapDecoder(inputs.model, decoder.codes, frames, clips_per_batch(frames))
        itself = Pairs(pairs.dynamics_of, pairs.dynamics_of)
        decode_batches(count, slice_decoder(longer.swap, itself), longer.batch_clips, "decoding", NO_PROGRESS, rolled)
    return {name: mean_score(np.concatenate(values), who, None, seed) for name, values in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of the run")
    parser.add_argument("--data", required=True, help="dataset that it was trained on")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of test clips")
    parser.add_argument("--frames", type=int, default=60, help="length of the rollouts, in frames")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs and the intervals")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    words = parser.parse_args()
    try:
        scores = measure(words.run, words.data, words.pairs, words.frames, words.seed)
    except UserError as error:
        parser.error(str(error))
    if words.json:
        print(json.dumps({name: score.rounded() for name, score in scores.items()}))
    else:
        for name, score in scores.items():
            print(f"{name:22} {score.value:.4g} ({score.low:.4g} to {score.high:.4g}), n {score.n}")


if __name__ == "__main__":
    main()
