"""Phase of an action under swap, and frames of a rollout past the clip's end.

    python benchmarks/phase.py --run RUNS/NAME --data DATA

For Sprites and other data in which every identity performs every action once. The target of a swap is then a real test
clip: B performing the action of A. Decoded frames are compared. `poses` decodes the poses of clip A with the static
code of clip B, `dynamics` the dynamics code of A with it. A rollout continues A with its own dynamics and static code,
and should repeat the action; `rollout.k` are its frames from frame k on, as many as a clip has. Values are means over
frames, with 95% intervals by bootstrap over identities.

    `<system>.phase`     share of frames t that are nearer to frame t of the target clip than to its other frames
    `<system>.psnr`      PSNR against that frame t, in dB
    `rollout.k.phase`    share of frames for which the target is the nearest of all frames of A's character, any action
    `rollout.k.nearest`  PSNR against the nearest of them, in dB: whether it still looks like the character in some pose
    `rollout.k.change`   mean absolute change from frame to frame, relative to that of the real clips
"""

import numpy as np
from arguments import run_parser, show_scores
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
"""Squared errors per value that differ by less count as equal: an action may contain the same frame twice."""


class Characters:
    """The real frames of every identity of a split: `frames(i)[c, t]` is frame t of action c by the one of clip i."""

    def __init__(self, clips: LabelledClips, length: int) -> None:
        self._clips, self._length = clips, length
        self.actions = clips.labels[ACTION]
        self._who = identity_indices(clips.identities)
        self._clip_of = np.full((self._who.max() + 1, len(clips.vocabulary[ACTION])), -1)
        self._clip_of[self._who, self.actions] = np.arange(len(clips))
        if (self._clip_of < 0).any() or self._clip_of.size != len(clips):
            raise UserError("phases need data in which every identity performs every action once, such as Sprites")

    def frames(self, index: int, actions: slice | NDArray[np.int64] = slice(None)) -> Array:
        """Return the clips of the character of clip `index` in some actions, or in all: [A, T, values] in [0, 1]."""
        clips = [self._clips.frames(int(clip))[: self._length] for clip in self._clip_of[self._who[index], actions]]
        return (np.stack(clips) / 255).reshape(len(clips), self._length, -1)


def errors(decoded: Array, real: Array) -> Array:
    """Return the mean squared error of every decoded frame [M, values] against every real one [R, values]: [M, R]."""
    squares = np.square(decoded).sum(1)[:, None] + np.square(real).sum(1) - 2 * decoded @ real.T
    return np.maximum(squares, 0) / decoded.shape[1]


def decibels(error: Array) -> Array:
    """Return the PSNR of mean squared errors of values from 0 to 1, capped as in the evaluation."""
    return -10 * np.log10(np.maximum(error, 10 ** (-HIGHEST_PSNR / 10)))


def measure(run: str, data: str, count: int, frames: int, seed: int) -> dict[str, Score]:
    """Measure all scores of a run, with rollouts of `frames` frames."""
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
        indices = iter(range(len(pairs)))

        def observe(batch: Tensor) -> None:
            for clip in batch.permute(0, 1, 3, 4, 2).double().numpy():
                pair = next(indices)
                action = characters.actions[pairs.dynamics_of[[pair]]]
                (real,) = characters.frames(pairs.static_of[pair], action)
                error = errors(clip.reshape(length, -1), real)
                target = error.diagonal()
                add(f"{system}.phase", target <= error.min(1) + SAME)
                add(f"{system}.psnr", decibels(target))

        return observe

    windows = sorted({start for start in (0, length, 2 * length, frames - length) if 0 <= start <= frames - length})
    rolled_clips = iter(pairs.dynamics_of)

    def rolled(batch: Tensor) -> None:
        for clip in batch.permute(0, 1, 3, 4, 2).double().numpy():
            index = next(rolled_clips)
            real = characters.frames(index)
            own = real[characters.actions[index]]
            decoded = clip.reshape(frames, -1)
            error = errors(decoded, real.reshape(-1, decoded.shape[1]))
            target = characters.actions[index] * length + np.arange(frames) % length
            in_phase = error[np.arange(frames), target] <= error.min(1) + SAME
            real_change = np.abs(np.diff(own, axis=0, append=own[:1])).mean()
            change = np.abs(np.diff(decoded, axis=0)).mean(1) / real_change
            for start in windows:
                part = slice(start, start + length)
                add(f"rollout.{start}.phase", in_phase[part])
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
    command = run_parser(__doc__, pairs=1000, of="test")
    command.add_argument("--frames", type=int, default=60, help="length of the rollouts, in frames")
    command.add_argument("--seed", type=int, default=0, help="seed of the pairs and the intervals")
    options = command.parse_args()
    try:
        scores = measure(options.run, options.data, options.pairs, options.frames, options.seed)
    except UserError as error:
        command.error(str(error))
    show_scores(scores, as_json=options.json)


if __name__ == "__main__":
    main()
