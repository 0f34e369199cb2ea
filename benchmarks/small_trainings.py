"""Short trainings of varying quality on built-in figures of half the size, for `label_free.py`.

Each variant changes the settings of a good training such that the model gets worse in one respect: it ignores the
static code, its dynamics code carries the identity, and so on. No variant is chosen by its scores.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preprocessing.dataset.reader import ClipDataset
from vdsm.annealing import weights_at
from vdsm.config import AnnealingConfig, CosineRamp, ModelConfig, Spline
from vdsm.disentangler import Disentangler
from vdsm.frames import draw_frames

MODEL: dict[str, Any] = {
    "frame_size": 32, "num_experts": 24, "static_groups": 6, "pose_size": 16, "static_prior_scale": 0.15,
    "expert_init": "shared", "dynamics_size": 32, "dynamics_prior_scale": 1.0, "encoder_channels": (12, 24, 48),
    "encoder_downsampling": "stride", "encoder_init": "he", "encoder_slope": 0.2, "encoder_hidden": 96,
    "static_hidden": 64, "decoder_channels": (40, 24, 12), "rnn_width": 64, "rnn_layers": 1, "rnn_dropout": 0.0,
}  # fmt: skip
STAGE1: dict[str, Any] = {
    "pose": Spline(knots=((0, 4), (0.5, 3), (1, 2))), "static": CosineRamp(start=0.05, end=0.1, fraction=0.5),
    "temperature": CosineRamp(start=3, end=10, fraction=0.3), "static_consistency": 1.0,
}  # fmt: skip
STAGE2: dict[str, Any] = {
    "pose": Spline(knots=((0, 0.1), (0.5, 0.4), (1, 0.4))), "static": CosineRamp(start=0.1, end=0.1, fraction=0.5),
    "temperature": CosineRamp(start=10, end=10, fraction=1.0),
    "dynamics": CosineRamp(start=0.05, end=0.2, fraction=1.0), "dynamics_consistency": 1.0, "pose_distillation": 1.0,
}  # fmt: skip
RATE, WARMUP, BATCH = 3e-3, 30, 16
STEPS = {1: 400, 2: 200}
SNAPSHOTS = {1: (60, 200, 400), 2: (60, 200)}
"""Steps of each stage after which a model is measured."""
STAGE2_FRAMES = 4
"""Frames of each clip that a step of stage 2 decodes."""


@dataclass(frozen=True)
class Variant:
    """Changes of the settings of a good training."""

    paired: bool = True
    """Whether stage 1 sees two clips of the same figure; otherwise two windows of one clip."""
    model: dict[str, Any] = field(default_factory=dict)
    stage1: dict[str, Any] = field(default_factory=dict)
    stage2: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    "good": Variant(),
    "unpaired": Variant(paired=False),
    "no regularisers": Variant(
        stage1={"static_consistency": 0.0}, stage2={"dynamics_consistency": 0.0, "pose_distillation": 0.0}
    ),
    "no static": Variant(stage1={"static": CosineRamp(start=50, end=50, fraction=0.5)}),
    "weak pose prior": Variant(stage1={"pose": Spline(knots=((0, 0.05), (0.5, 0.05), (1, 0.05)))}),
    "no dynamics": Variant(stage2={"dynamics": CosineRamp(start=30, end=30, fraction=1.0)}),
}  # fmt: skip


class HalfSize:
    """A split of the built-in figures with every 2x2 pixels averaged, all in memory."""

    def __init__(self, clips: ClipDataset) -> None:
        self.keys, self.identities, self.labels = clips.keys, clips.identities, clips.labels
        self.vocabulary, self.clip_frames = clips.vocabulary, clips.clip_frames
        self._frames = [_halved(clips.frames(index)) for index in range(len(clips))]
        self.of_identity: dict[str, list[int]] = {}
        for index, name in enumerate(clips.identities):
            self.of_identity.setdefault(name, []).append(index)

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Return the frames of one clip: uint8 [T, H, W, C]."""
        return self._frames[index]


def _halved(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    length, height, width, channels = frames.shape
    blocks = frames.reshape(length, height // 2, 2, width // 2, 2, channels)
    return blocks.mean((2, 4)).round().astype(np.uint8)


def snapshots() -> list[tuple[int, int]]:
    """Return stage and step of every snapshot of a training."""
    return [(stage, step) for stage, steps in SNAPSHOTS.items() for step in steps]


def own_snapshots(name: str) -> list[tuple[int, int]]:
    """Return the snapshots of a variant, without stage 1 if it is that of the good training."""
    variant = VARIANTS[name]
    shared = variant.paired and not variant.model and not variant.stage1 and variant.stage2
    return [(stage, step) for stage, step in snapshots() if stage == 2 or not shared]


def snapshot_file(out: Path, name: str, seed: int, stage: int, step: int) -> Path:
    """Return the file of a snapshot of a variant."""
    return out / f"{name.replace(' ', '_')}-{seed}-{stage}-{step}.pt"


def save_snapshots(name: str, clips: HalfSize, seed: int, out: Path) -> None:
    """Train a variant and write its snapshots, unless all of them exist."""
    if all(snapshot_file(out, name, seed, *each).exists() for each in snapshots()):
        return
    for stage, step, model in train(VARIANTS[name], clips, seed):
        content = {"config": asdict(model.config), "state": model.state_dict(), "temperature": model.temperature}
        file = snapshot_file(out, name, seed, stage, step)
        torch.save(content, file.with_suffix(".partial"))
        file.with_suffix(".partial").rename(file)


def train(variant: Variant, clips: HalfSize, seed: int) -> Iterator[tuple[int, int, Disentangler]]:
    """Train both stages; yield (stage, step, model) at every snapshot. The model changes when the next is asked for."""
    torch.manual_seed(seed)
    generator, draws = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    model = Disentangler(ModelConfig(**MODEL | variant.model))
    for number in (1, 2):
        stage: Any = model.prepare_stage(number).train()  # type: ignore[arg-type]
        weights = [weight for weight in stage.parameters() if weight.requires_grad]
        optimiser = torch.optim.Adam(weights, lr=RATE, fused=True)
        settings = (STAGE1 | variant.stage1) if number == 1 else (STAGE2 | variant.stage2)
        for step in range(STEPS[number]):
            done = max(step - WARMUP, 0) / (STEPS[number] - WARMUP)
            optimiser.param_groups[0]["lr"] = (
                RATE * min(1, (step + 1) / WARMUP) * (1 - 0.95 * 0.5 * (1 - math.cos(math.pi * done)))
            )
            frames = _pairs(clips, variant.paired, generator) if number == 1 else _whole(clips, generator)
            annealed = weights_at(AnnealingConfig(**settings), step / (STEPS[number] - 1), frames[0, 0].numel())
            decoded = None if number == 1 else draw_frames(*frames.shape[:2], STAGE2_FRAMES, draws)
            stage(frames, stage.draw_noise(*frames.shape[:2], draws), annealed, decoded).loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            if step + 1 in SNAPSHOTS[number]:
                model.temperature = annealed.temperature
                yield number, step + 1, model.eval()
                stage.train()


def _pairs(clips: HalfSize, paired: bool, generator: np.random.Generator) -> Tensor:
    """Draw two frames of each of two clips of a figure, or of two windows of one clip: f32 [BATCH, 4, C, H, W]."""
    names = list(clips.of_identity)
    windows = []
    for number in generator.choice(len(names), BATCH, replace=False):
        chosen = generator.choice(clips.of_identity[names[number]], 2, replace=False)
        for index in chosen if paired else chosen[[0, 0]]:
            start = generator.integers(int(clips.clip_frames[index]) - 1)
            windows.append(clips.frames(index)[start : start + 2])
    return _floats(np.stack(windows).reshape(BATCH, 4, *windows[0].shape[1:]))


def _whole(clips: HalfSize, generator: np.random.Generator) -> Tensor:
    chosen = generator.choice(len(clips), BATCH, replace=False)
    return _floats(np.stack([clips.frames(int(index)) for index in chosen]))


def _floats(frames: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255
