"""Error of generated motion against ground truth: the path of a digit of Moving MNIST, the angle of the pendulum.

    vdsm train --config configs/moving-mnist.yaml --data DATA --out RUNS --name NAME
    python benchmarks/motion.py --run RUNS/NAME --data DATA --json

Motion is measured in decoded frames, not in codes. The position of a digit is the centroid of its brightness minus the
offset of that centroid in the digit's real clip. The angle of a pendulum is the direction from the pivot to the
centroid of all pixels that are not background. `poses` decodes the poses of clip A with the static code of clip B,
`dynamics` the dynamics code of A with it. `real` is A itself, and so the measurement error; `other` is B; `still` stays
at A's mean. Errors are means over the frames of test clips, with 95% intervals by bootstrap over identities.

    Moving MNIST   `<system>.error_px`       distance from A's path, in pixels
    pendulum       `<system>.error_rad`      distance from A's angle, in radians
                   `<system>.period`         mean relative error of the period of the swing
                   `<system>.period_within`  share of clips in which that error is below 5%
                   `beyond.*`                the same for `rollout` (A = B), in as many frames after the clip's end
"""

from collections.abc import Callable

import numpy as np
from arguments import run_parser, show_scores
from numpy.typing import NDArray
from torch import Tensor

from cluster.errors import UserError
from pipeline.evaluation.inputs import load
from vdsm.evaluation.clips import LabelledClips, clip_factors, clips_per_batch, frame_factors
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder, decode_batches, slice_decoder
from vdsm.evaluation.pairs import Indices, Pairs, draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.scores import Score, mean_score

Array = NDArray[np.float64]
PERIODS_S = np.geomspace(0.7, 6, 1200)
"""Candidate periods, 0.2% apart."""


def centroid(weight: Array) -> Array:
    """Return the centroid (x, y) of each image [T, H, W], in pixels from the centre of the first pixel: [T, 2].

    The centroid of an image of zeros is its centre.
    """
    height, width = weight.shape[1:]
    weight = weight + 1e-6
    total = weight.sum((1, 2))
    x = (weight.sum(1) @ np.arange(width)) / total
    y = (weight.sum(2) @ np.arange(height)) / total
    return np.stack([x, y], axis=1)


class Digits:
    """Positions of the digits of Moving MNIST: the upper left corner [T, 2], in pixels."""

    unit = "px"

    def __init__(self, clips: LabelledClips, length: int) -> None:
        if set(clips.vocabulary) != {"action", "digit"}:
            raise UserError(
                "the data has several digits per clip, whose positions are ambiguous; use Moving MNIST with one digit"
            )
        tracks = frame_factors(clips, length)
        self.truth: Array = np.stack([tracks["x"], tracks["y"]], axis=-1)
        centroids = [centroid_of_brightness(clips.frames(index)[:length] / 255) for index in range(len(clips))]
        self._offset = (np.stack(centroids) - self.truth).mean(1)

    def __call__(self, frames: NDArray[np.floating], static_of: int) -> Array:
        """Locate the digit of clip `static_of` in frames [T, H, W, C] of values from 0 to 1."""
        return centroid_of_brightness(frames) - self._offset[static_of]


def centroid_of_brightness(frames: NDArray[np.floating]) -> Array:
    """Return the centroid (x, y) of all pixels that are not nearly black, of frames [T, H, W, C] in [0, 1]: [T, 2]."""
    brightness = frames.mean(-1, dtype=np.float64)
    return centroid(np.where(brightness > 0.1, brightness, 0))


class Angles:
    """Angles of pendulums: [T, 1], in radians."""

    unit = "rad"

    def __init__(self, clips: LabelledClips, length: int) -> None:
        self.truth: Array = frame_factors(clips, length)["angle"][..., None]
        self._background = [clips.frames(index)[0, 0, 0] / 255 for index in range(len(clips))]

    def __call__(self, frames: NDArray[np.floating], static_of: int) -> Array:
        """Measure the angles in frames [T, H, W, C] of values from 0 to 1, with the background of clip `static_of`."""
        # The pendulum never reaches the corner, so its colour is the background.
        difference = np.abs(frames - self._background[static_of]).sum(-1).astype(np.float64)
        x, y = centroid(np.where(difference > 0.15, difference, 0)).T - (frames.shape[1] - 1) / 2
        return np.arctan2(x, y)[:, None]


def period(angles: Array, fps: float) -> float:
    """Return the period in seconds of angles [T]: that of the best-fitting sine plus constant."""
    phase = 2 * np.pi * np.arange(len(angles)) / fps / PERIODS_S[:, None]
    basis, _ = np.linalg.qr(np.stack([np.ones_like(phase), np.cos(phase), np.sin(phase)], axis=-1))
    explained = np.square(np.einsum("ptk,t->pk", basis, angles)).sum(1)
    return float(PERIODS_S[explained.argmax()])


def locate_decoded(
    locate: Digits | Angles, decoder: SwapDecoder, pairs: Pairs, decode: Callable[[Indices, Indices], Tensor]
) -> Array:
    """Return the positions [P, T, D] in the decoded frames of each pair."""
    positions: list[Array] = []

    def observe(frames: Tensor) -> None:
        for clip in frames.permute(0, 1, 3, 4, 2).numpy():
            positions.append(locate(clip, int(pairs.static_of[len(positions)])))

    decode_batches(len(pairs), slice_decoder(decode, pairs), decoder.batch_clips, "decoding", NO_PROGRESS, observe)
    return np.stack(positions)


def measure(run: str, data: str, count: int, seed: int) -> dict[str, Score]:
    """Measure all scores of a run."""
    inputs = load(run, data)
    clips, length = inputs.test, inputs.clip_frames
    name = clips.source["name"]
    if name not in ("moving_mnist", "pendulum"):
        raise UserError(f"{data} is from source {name}, whose motion has no ground truth; use moving_mnist or pendulum")
    locate: Digits | Angles = (Digits if name == "moving_mnist" else Angles)(clips, length)
    pairs = draw_pairs(clips, count, seed)
    model, size = inputs.model, clips_per_batch(length)
    decoder = SwapDecoder(model, encode_clips(model, clips, length, size), length, size)
    a, b = pairs.dynamics_of, pairs.static_of

    truth = locate.truth[a]
    positions = {
        "poses": locate_decoded(locate, decoder, pairs, decoder.pose_swap),
        "real": np.stack([locate(clips.frames(index)[:length] / 255, index) for index in a]),
        "other": locate.truth[b],
        "still": np.broadcast_to(truth.mean(1, keepdims=True), truth.shape),
    }
    if inputs.sequence_stage:
        positions["dynamics"] = locate_decoded(locate, decoder, pairs, decoder.swap)
    who = identity_indices(clips.identities)[a]
    scores: dict[str, Score] = {}
    for system, found in positions.items():
        error = np.linalg.norm(found - truth, axis=-1).mean(1)
        scores[f"{system}.error_{locate.unit}"] = mean_score(error, who, None, seed)
    if isinstance(locate, Angles):
        exact = clip_factors(clips)["period_s"][a]
        fps = float(clips.source["pendulum"]["fps"])
        swings = {name: positions[name][..., 0] for name in ("poses", "real", "dynamics") if name in positions}
        if inputs.sequence_stage:
            twice = SwapDecoder(model, decoder.codes, 2 * length, max(1, size // 2))
            long = locate_decoded(locate, twice, Pairs(a, a), twice.swap)[..., 0]
            swings |= {"rollout": long[:, :length], "beyond": long[:, length:]}
        for system, angles in swings.items():
            error = np.array([abs(period(swing, fps) / true - 1) for swing, true in zip(angles, exact, strict=True)])
            scores[f"{system}.period"] = mean_score(error, who, None, seed)
            scores[f"{system}.period_within"] = mean_score(error < 0.05, who, None, seed)
    return scores


def main() -> None:
    """Measure and print."""
    command = run_parser(__doc__, pairs=1000, of="test")
    command.add_argument("--seed", type=int, default=0, help="seed of the pairs and the intervals")
    options = command.parse_args()
    try:
        scores = measure(options.run, options.data, options.pairs, options.seed)
    except UserError as error:
        command.error(str(error))
    show_scores(scores, as_json=options.json)


if __name__ == "__main__":
    main()
