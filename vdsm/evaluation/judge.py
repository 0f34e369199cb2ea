"""The judge: a classifier of action and static attributes that learns from real training clips only.

It measures generated clips, so it must never see one while it learns, and what it says of a clip must not depend on
the other clips of the batch: its normalisation is per frame (GroupNorm), not per batch.

Shapes: B clips, T frames, C H W image, F features of a frame, V values of a factor.
"""

import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vdsm.evaluation.clips import ACTION, LabelledClips, stack
from vdsm.evaluation.progress import NO_PROGRESS, Progress

JUDGE_VERSION = 1
"""Raised when the judge's architecture or training changes, so that no older judge is taken from a cache."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """How the judge is trained."""

    steps: int = 1500
    """Optimiser steps."""
    batch_clips: int = 64
    """Clips in a batch."""
    clip_frames: int = 8
    """Frames of a clip that it sees."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW; it falls to 0 along half a cosine."""
    shift: int = 2
    """Largest random shift of a training clip, in pixels."""
    seed: int = 0
    """Seed of its initial weights, its batches, windows and shifts."""


class Judge(nn.Module):
    """Convolutional frame encoder, bidirectional LSTM over the frames, one linear head per factor."""

    def __init__(self, channels: int, frame_size: int, values: dict[str, int], width: int = 32) -> None:
        super().__init__()
        self.channels, self.frame_size, self.values, self.width = channels, frame_size, dict(values), width
        features = 4 * width
        self.frame_encoder = nn.Sequential(
            nn.Conv2d(channels, width, 8, stride=4, padding=2), nn.GroupNorm(4, width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.GroupNorm(4, 2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, 3 * width, 3, stride=2, padding=1), nn.GroupNorm(4, 3 * width), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        # The normalisation takes away how bright a frame is as a whole, so its mean colour is given beside it.
        self.frame_features = nn.Sequential(
            nn.Linear(3 * width * (frame_size // 16) ** 2 + channels, features), nn.LayerNorm(features), nn.ReLU()
        )
        self.over_time = nn.LSTM(features, features, batch_first=True, bidirectional=True)
        self.heads = nn.ModuleDict({name: nn.Linear(4 * features, count) for name, count in values.items()})

    def features(self, frames: Tensor) -> Tensor:
        """Frames f32 [B, T, C, H, W] in [0, 1] -> [B, 4F]: mean and maximum over frames, mean of the LSTM."""
        clips, length = frames.shape[:2]
        pictures = frames.flatten(0, 1)
        encoded = torch.cat((self.frame_encoder(pictures), pictures.mean((2, 3))), dim=1)
        per_frame = self.frame_features(encoded).view(clips, length, -1)
        in_time, _ = self.over_time(per_frame)
        return torch.cat((per_frame.mean(1), per_frame.amax(1), in_time.mean(1)), dim=1)

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Logits [B, V] of each factor for frames f32 [B, T, C, H, W] in [0, 1]."""
        features = self.features(frames)
        return {name: head(features) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Verdicts:
    """What the judge says of N clips."""

    action: NDArray[np.float64]
    """Probability of each action: [N, V]."""
    values: dict[str, NDArray[np.int64]]
    """Most probable value of each factor, the action included: [N]."""
    features: NDArray[np.float32]
    """The judge's features of each clip: [N, 4F]."""


@torch.inference_mode()
def judge_frames(judge: Judge, frames: Tensor) -> Verdicts:
    """Verdicts on frames f32 [B, T, C, H, W] in [0, 1]. The judge is put into evaluation mode."""
    judge.eval()
    features = judge.features(frames)
    logits = {name: head(features) for name, head in judge.heads.items()}
    return Verdicts(
        logits[ACTION].double().softmax(1).numpy(),
        {name: value.argmax(1).numpy() for name, value in logits.items()},
        features.numpy(),
    )


def join(parts: Sequence[Verdicts]) -> Verdicts:
    """Verdicts of consecutive batches as one."""
    return Verdicts(
        np.concatenate([part.action for part in parts]),
        {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        np.concatenate([part.features for part in parts]),
    )


def judge_clips(
    judge: Judge, clips: LabelledClips, length: int, batch_clips: int = 64, progress: Progress = NO_PROGRESS
) -> Verdicts:
    """Verdicts on the first `length` frames of every real clip of a split."""
    parts = []
    progress.start("judging real test clips", len(clips), unit="clips")
    for start in range(0, len(clips), batch_clips):
        indices = range(start, min(start + batch_clips, len(clips)))
        parts.append(judge_frames(judge, stack(clips, indices, length)))
        progress.advance(len(indices))
    return join(parts)


def train_judge(clips: LabelledClips, config: JudgeConfig, progress: Progress = NO_PROGRESS) -> Judge:
    """A judge trained on the real clips of the training split, the same for the same clips and settings."""
    generator = np.random.default_rng(config.seed)
    counts = {name: len(names) for name, names in clips.vocabulary.items() if len(names) > 1 or name == ACTION}
    _, height, _, channels = clips.frames(0).shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        judge = Judge(channels, height, counts)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=config.learning_rate, weight_decay=0.01)
    labels = {name: torch.from_numpy(np.asarray(clips.labels[name])) for name in counts}
    lengths = np.asarray(clips.clip_frames)
    order = np.empty(0, dtype=np.int64)
    judge.train()
    progress.start("training the judge on real clips", config.steps, unit="steps")
    for step in range(config.steps):
        if len(order) < config.batch_clips:
            order = np.concatenate((order, generator.permutation(len(clips))))
        batch, order = order[: config.batch_clips], order[config.batch_clips :]
        starts = generator.integers(0, lengths[batch] - config.clip_frames + 1)
        frames = shifted(stack(clips, batch, config.clip_frames, starts), config.shift, generator)
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / min(20, config.steps))
            group["lr"] = config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        logits = judge(frames)
        loss = torch.stack([functional.cross_entropy(logits[name], labels[name][batch]) for name in counts]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimiser.step()
        progress.advance()
    return judge.eval()


def shifted(frames: Tensor, reach: int, generator: np.random.Generator) -> Tensor:
    """The same frames f32 [B, T, C, H, W], each clip moved by up to `reach` pixels, its border repeated."""
    if not reach:
        return frames
    height, width = frames.shape[-2:]
    padded = functional.pad(frames.flatten(1, 2), (reach,) * 4, mode="replicate").view(
        *frames.shape[:3], height + 2 * reach, width + 2 * reach
    )
    moves = generator.integers(0, 2 * reach + 1, size=(len(frames), 2))
    return torch.stack(
        [
            clip[..., down : down + height, right : right + width]
            for clip, (down, right) in zip(padded, moves, strict=True)
        ]
    )


def judge_key(data_sha256: str, config: JudgeConfig) -> str:
    """SHA-256 of all that a judge depends on: the data, its settings and its version."""
    text = json.dumps({"data": data_sha256, "config": asdict(config), "version": JUDGE_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def dump_judge(judge: Judge, key: str) -> bytes:
    """A judge as bytes that `parse_judge` reads; only tensors and plain values, no pickled code."""
    shape = {"channels": judge.channels, "frame_size": judge.frame_size, "values": judge.values, "width": judge.width}
    buffer = io.BytesIO()
    torch.save({"key": key, "shape": shape, "state": judge.state_dict()}, buffer)
    return buffer.getvalue()


def parse_judge(data: bytes, key: str) -> Judge:
    """The judge in `data`. Raises ValueError when the bytes are damaged or belong to another key."""
    try:
        stored = torch.load(io.BytesIO(data), weights_only=True)
        if stored["key"] != key:
            raise ValueError("it belongs to other data or settings")
        judge = Judge(**stored["shape"])
        judge.load_state_dict(stored["state"])
    except Exception as error:  # torch.load has no narrower promise for damaged bytes
        raise ValueError(f"the stored judge cannot be used: {str(error).splitlines()[0]}") from error
    return judge.eval()
