"""The judge: a classifier of action and static attributes that learns from real training clips only.

It measures generated clips, so it must never see one while it learns. Its verdict on a clip must not depend on the
other clips of the batch, so its normalisation is per frame (GroupNorm), not per batch.

Shapes: B clips, T frames, C H W image, F features of a frame, V values of a factor.
"""

import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vdsm.device import CPU, device_of, upload
from vdsm.evaluation.clips import ACTION, LabelledClips, stack
from vdsm.evaluation.progress import NO_PROGRESS, Progress, in_batches
from vdsm.foreign_file import is_unpacked_zip

JUDGE_VERSION = 1
"""Raised when the judge's architecture or training changes, so that no older judge is used from a cache."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """How the judge is trained."""

    steps: int = 1500
    """Optimiser steps."""
    batch_clips: int = 64
    """Clips in a batch."""
    clip_frames: int = 8
    """Frames of each clip that it sees."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW, decayed to 0 by a half cosine."""
    shift: int = 2
    """Maximum random shift of a training clip, in pixels."""
    seed: int = 0
    """Seed of its initial weights, batches, windows and shifts."""


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
        # The normalisation removes the overall brightness of a frame, so its mean colour is an extra input.
        self.frame_features = nn.Sequential(
            nn.Linear(3 * width * (frame_size // 16) ** 2 + channels, features), nn.LayerNorm(features), nn.ReLU()
        )
        self.over_time = nn.LSTM(features, features, batch_first=True, bidirectional=True)
        heads = {_module_name(name): nn.Linear(4 * features, count) for name, count in values.items()}
        self.heads = nn.ModuleDict(heads)

    def features(self, frames: Tensor) -> Tensor:
        """Return features [B, 4F] of frames f32 [B, T, C, H, W] in [0, 1].

        They are the mean and the maximum over the frames' features, and the mean of the LSTM's outputs.
        """
        clips, length = frames.shape[:2]
        images = frames.flatten(0, 1)
        encoded = torch.cat((self.frame_encoder(images), images.mean((2, 3))), dim=1)
        per_frame = self.frame_features(encoded).view(clips, length, -1)
        in_time, _ = self.over_time(per_frame)
        return torch.cat((per_frame.mean(1), per_frame.amax(1), in_time.mean(1)), dim=1)

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Return logits [B, V] of each factor for frames f32 [B, T, C, H, W] in [0, 1]."""
        features = self.features(frames)
        return {name: head(features) for name, head in self.named_heads.items()}

    @property
    def named_heads(self) -> dict[str, nn.Module]:
        """The head of each factor."""
        return {name.removeprefix(":"): head for name, head in self.heads.items()}


def _module_name(factor: str) -> str:
    """Return the name of a factor's head among modules, which refuse those of their own attributes, such as `type`."""
    return f":{factor}" if hasattr(nn.ModuleDict(), factor) else factor  # no label has a colon in its name


@dataclass(frozen=True)
class Verdicts:
    """The judge's verdicts on N clips."""

    action: NDArray[np.float64]
    """Probability of each action: [N, V]."""
    values: dict[str, NDArray[np.int64]]
    """Most probable value of each factor, including the action: [N]."""
    features: NDArray[np.float32]
    """The judge's features of each clip: [N, 4F]."""
    entropies: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Entropy of the probabilities of each factor, in nats: [N]."""

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> "Verdicts":
        """Return the verdicts on some of the clips."""
        values = {name: value[rows] for name, value in self.values.items()}
        entropies = {name: value[rows] for name, value in self.entropies.items()}
        return Verdicts(self.action[rows], values, self.features[rows], entropies)


@torch.inference_mode()
def judge_frames(judge: Judge, frames: Tensor) -> Verdicts:
    """Return verdicts on frames f32 [B, T, C, H, W] in [0, 1], and put the judge into evaluation mode."""
    judge.eval()
    on_device = judge.features(upload(frames, device_of(judge)))
    heads = [head(on_device) for head in judge.named_heads.values()]
    # One copy from the device, and float64 on the CPU, which not every device has.
    features, *each = (
        torch.cat([on_device, *heads], dim=1).cpu().split([part.shape[1] for part in (on_device, *heads)], 1)
    )
    logits = dict(zip(judge.named_heads, each, strict=True))
    probabilities = {name: value.double().softmax(1) for name, value in logits.items()}
    return Verdicts(
        probabilities[ACTION].numpy(),
        {name: value.argmax(1).numpy() for name, value in logits.items()},
        features.numpy(),
        {name: torch.special.entr(value).sum(1).numpy() for name, value in probabilities.items()},
    )


def join(parts: Sequence[Verdicts]) -> Verdicts:
    """Return the verdicts of consecutive batches as one."""
    return Verdicts(
        np.concatenate([part.action for part in parts]),
        {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        np.concatenate([part.features for part in parts]),
        {name: np.concatenate([part.entropies[name] for part in parts]) for name in parts[0].entropies},
    )


def judge_clips(
    judge: Judge, clips: LabelledClips, length: int, batch_clips: int = 64, progress: Progress = NO_PROGRESS
) -> Verdicts:
    """Return verdicts on the first `length` frames of every real clip of a split."""
    parts = []
    progress.start("judging real test clips", len(clips), unit="clips")
    for batch in in_batches(len(clips), batch_clips, progress):
        parts.append(judge_frames(judge, stack(clips, range(len(clips))[batch], length)))
    return join(parts)


def train_judge(
    clips: LabelledClips, config: JudgeConfig, progress: Progress = NO_PROGRESS, device: torch.device = CPU
) -> Judge:
    """Train a judge on the real clips of the training split; the same clips and settings give the same judge.

    It is trained on `device`, and stays there.
    """
    generator = np.random.default_rng(config.seed)
    counts = {name: len(names) for name, names in clips.vocabulary.items() if len(names) > 1 or name == ACTION}
    _, height, _, channels = clips.frames(0).shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        judge = Judge(channels, height, counts).to(device)
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
        frames = random_shift(stack(clips, batch, config.clip_frames, starts, device), config.shift, generator)
        for group in optimiser.param_groups:
            warm_up = min(1.0, (step + 1) / min(20, config.steps))
            group["lr"] = config.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        logits = judge(frames)
        wanted = {name: upload(values[batch], device) for name, values in labels.items()}
        loss = torch.stack([functional.cross_entropy(logits[name], wanted[name]) for name in counts]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimiser.step()
        progress.advance()
    return judge.eval()


def random_shift(frames: Tensor, reach: int, generator: np.random.Generator) -> Tensor:
    """Return frames f32 [B, T, C, H, W] with each clip shifted by up to `reach` pixels and its border repeated."""
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


def judge_key(data_id: str, config: JudgeConfig) -> str:
    """Return the SHA-256 of all that a judge depends on: its data, settings and version."""
    text = json.dumps({"data": data_id, "config": asdict(config), "version": JUDGE_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def dump_judge(judge: Judge, key: str) -> bytes:
    """Return a judge as bytes for `parse_judge`: only tensors and plain values, no pickled code."""
    shape = {"channels": judge.channels, "frame_size": judge.frame_size, "values": judge.values, "width": judge.width}
    buffer = io.BytesIO()
    state = {name: value.cpu() for name, value in judge.state_dict().items()}
    torch.save({"key": key, "shape": shape, "state": state}, buffer)
    return buffer.getvalue()


def parse_judge(data: bytes, key: str) -> Judge:
    """Return the judge in `data`.

    Raises:
        ValueError: the bytes are damaged or belong to another key.
    """
    try:
        if not is_unpacked_zip(io.BytesIO(data)):
            raise ValueError("it is not as torch.save writes it")
        stored = torch.load(io.BytesIO(data), weights_only=True)
        if stored["key"] != key:
            raise ValueError("it belongs to other data or settings")
        judge = Judge(**stored["shape"])
        judge.load_state_dict(stored["state"])
    except Exception as error:  # torch.load promises nothing narrower for damaged bytes
        raise ValueError(f"the stored judge cannot be used: {str(error).splitlines()[0]}") from error
    return judge.eval()
