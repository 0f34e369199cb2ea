"""Motion against the truth, where it is known: the path of a digit of Moving MNIST, the swing of the pendulum.

    vdsm train --config configs/moving-mnist.yaml --data DATA --out RUNS --name NAME
    python benchmarks/motion.py --run RUNS/NAME --data DATA --json

Looked at are decoded frames, not codes. Where a digit is, is the centre of its light less that of the digit itself,
which its real clip tells; the angle of a pendulum is where the centre of all that is no background lies from the pivot.
`poses` decodes the poses of clip A with the static code of clip B, `dynamics` the dynamics code of A with it; `real` is
A itself, which is the error of the measuring, `other` is B, and `still` stays at A's mean. Errors are means over frames
of test clips, with 95% intervals by bootstrap over identities.

    Moving MNIST   `<system>.error_px`       distance from A's path, in pixels
    pendulum       `<system>.error_rad`      distance from A's angle, in radians
                   `<system>.period`         mean relative error of the period of a swing, against the exact one
                   `<system>.period_within`  share of clips in which that is below 5%
                   `beyond.*`                the same of `rollout` (A = B) in as many frames after the clip's end
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
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
"""Periods that are tried, 0.2% apart."""


def centre(light: Array) -> Array:
    """Centre (x, y) of each image of light [T, H, W], in pixels from the middle of the first pixel: [T, 2]. That of an
    image without light is the middle."""
    height, width = light.shape[1:]
    light = light + 1e-6
    whole = light.sum((1, 2))
    x = (light.sum(1) @ np.arange(width)) / whole
    y = (light.sum(2) @ np.arange(height)) / whole
    return np.stack([x, y], axis=1)


class Digits:
    """Places of the digits of Moving MNIST: the upper left corner [T, 2], in pixels."""

    unit = "px"

    def __init__(self, clips: LabelledClips, length: int) -> None:
        if set(clips.vocabulary) != {"action", "digit"}:
            raise UserError("only Moving MNIST with one digit is measured: with several, it is unclear which is where")
        tracks = frame_factors(clips, length)
        self.truth: Array = np.stack([tracks["x"], tracks["y"]], axis=-1)
        seen = [centre_of_light(clips.frames(index)[:length] / 255) for index in range(len(clips))]
        self._offset = (np.stack(seen) - self.truth).mean(1)

    def __call__(self, frames: NDArray[np.floating], static_of: int) -> Array:
        """Where the digit of clip `static_of` is in frames [T, H, W, C] of values from 0 to 1."""
        return centre_of_light(frames) - self._offset[static_of]


def centre_of_light(frames: NDArray[np.floating]) -> Array:
    """Centre (x, y) of all that is not nearly black in frames [T, H, W, C] of values from 0 to 1: [T, 2]."""
    light = frames.mean(-1, dtype=np.float64)
    return centre(np.where(light > 0.1, light, 0))


class Angles:
    """Angles of pendulums: [T, 1], in radians."""

    unit = "rad"

    def __init__(self, clips: LabelledClips, length: int) -> None:
        self.truth: Array = frame_factors(clips, length)["angle"][..., None]
        self._background = [clips.frames(index)[0, 0, 0] / 255 for index in range(len(clips))]

    def __call__(self, frames: NDArray[np.floating], static_of: int) -> Array:
        """Angles in frames [T, H, W, C], of values from 0 to 1, with the background of clip `static_of`."""
        # The corner is never reached, so its colour is that of the background.
        other = np.abs(frames - self._background[static_of]).sum(-1).astype(np.float64)
        x, y = centre(np.where(other > 0.15, other, 0)).T - (frames.shape[1] - 1) / 2
        return np.arctan2(x, y)[:, None]


def period(angles: Array, fps: float) -> float:
    """Seconds of a swing [T]: the period of the sine that, with a constant, fits it best."""
    phase = 2 * np.pi * np.arange(len(angles)) / fps / PERIODS_S[:, None]
    basis, _ = np.linalg.qr(np.stack([np.ones_like(phase), np.cos(phase), np.sin(phase)], axis=-1))
    explained = np.square(np.einsum("ptk,t->pk", basis, angles)).sum(1)
    return float(PERIODS_S[explained.argmax()])


def located(
    locate: Digits | Angles, decoder: SwapDecoder, pairs: Pairs, decode: Callable[[Indices, Indices], Tensor]
) -> Array:
    """Places [P, T, D] in what is decoded of each pair."""
    places: list[Array] = []

    def watch(frames: Tensor) -> None:
        for clip in frames.permute(0, 1, 3, 4, 2).numpy():
            places.append(locate(clip, int(pairs.static_of[len(places)])))

    decode_batches(len(pairs), slice_decoder(decode, pairs), decoder.batch_clips, "decoding", NO_PROGRESS, watch)
    return np.stack(places)


def measure(run: str, data: str, count: int, seed: int) -> dict[str, Score]:
    """All figures of a run."""
    inputs = load(run, data)
    clips, length = inputs.test, inputs.clip_frames
    name = clips.source["name"]
    if name not in ("moving_mnist", "pendulum"):
        raise UserError(f"{data} was made from {name}; the motion is known of moving_mnist and pendulum")
    locate: Digits | Angles = (Digits if name == "moving_mnist" else Angles)(clips, length)
    pairs = draw_pairs(clips, count, seed)
    model, size = inputs.model, clips_per_batch(length)
    decoder = SwapDecoder(model, encode_clips(model, clips, length, size), length, size)
    a, b = pairs.dynamics_of, pairs.static_of

    wanted = locate.truth[a]
    places = {
        "poses": located(locate, decoder, pairs, decoder.pose_swap),
        "real": np.stack([locate(clips.frames(index)[:length] / 255, index) for index in a]),
        "other": locate.truth[b],
        "still": np.broadcast_to(wanted.mean(1, keepdims=True), wanted.shape),
    }
    if inputs.sequence_stage:
        places["dynamics"] = located(locate, decoder, pairs, decoder.swap)
    who = identity_indices(clips.identities)[a]
    scores: dict[str, Score] = {}
    for system, found in places.items():
        off = np.linalg.norm(found - wanted, axis=-1).mean(1)
        scores[f"{system}.error_{locate.unit}"] = mean_score(off, who, None, seed)
    if isinstance(locate, Angles):
        exact = clip_factors(clips)["period_s"][a]
        fps = float(clips.source["pendulum"]["fps"])
        swings = {system: found[..., 0] for system, found in places.items() if system in ("real", "poses", "dynamics")}
        if inputs.sequence_stage:
            twice = SwapDecoder(model, decoder.codes, 2 * length, max(1, size // 2))
            long = located(locate, twice, Pairs(a, a), twice.swap)[..., 0]
            swings |= {"rollout": long[:, :length], "beyond": long[:, length:]}
        for system, angles in swings.items():
            off = np.array([abs(period(swing, fps) / true - 1) for swing, true in zip(angles, exact, strict=True)])
            scores[f"{system}.period"] = mean_score(off, who, None, seed)
            scores[f"{system}.period_within"] = mean_score(off < 0.05, who, None, seed)
    return scores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of the run")
    parser.add_argument("--data", required=True, help="dataset that it was trained on")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of test clips")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs and the intervals")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    words = parser.parse_args()
    try:
        scores = measure(words.run, words.data, words.pairs, words.seed)
    except UserError as error:
        parser.error(str(error))
    if words.json:
        found: dict[str, Any] = {name: score.rounded() for name, score in scores.items()}
        print(json.dumps(found))
    else:
        for name, score in scores.items():
            print(f"{name:26} {score.value:.4g} ({score.low:.4g} to {score.high:.4g}), n {score.n}")


if __name__ == "__main__":
    main()
