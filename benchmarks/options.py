"""Effect of each option of the model on a short training of stage 1, one change at a time.

    vdsm shard --config configs/quickstart.yaml --out data/figures
    python benchmarks/options.py --data data/figures --steps 300 --json

Sizes, pairing and schedules are those of configs/quickstart.yaml: two frames of each of two clips of the same figure.
`base` has four of the settings of the preset `improved`; every other variant changes the settings that it names.
Measured on test figures, which are not in the training:

    `reconstruction_mse`  of frames decoded from their own codes
    `identity_mse`        of frames decoded with the static code of another clip of the same figure, which rises with
                          identity that the static code lacks and action that it carries
    `expert_use`          number of experts over which the codes of all test clips spread: exp of the entropy of the
                          mean code, averaged over the groups
    `negative_elbo`       in nats per pixel value, comparable only within one likelihood
"""

import json
import math
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from arguments import add_threads, parser
from torch import Tensor

from preprocessing.dataset.reader import ClipDataset
from vdsm.annealing import un_annealed, weights_at
from vdsm.config import AnnealingConfig, CosineRamp, ModelConfig, Spline
from vdsm.disentangler import Disentangler
from vdsm.memory import keep_freed_memory

SMALL: dict[str, Any] = {
    "num_experts": 48, "encoder_channels": (16, 32, 64, 64), "encoder_hidden": 128, "static_hidden": 64,
    "decoder_channels": (64, 64, 32, 16), "rnn_width": 8, "rnn_layers": 1,
}  # fmt: skip
BASE: dict[str, Any] = {
    "static_groups": 8, "expert_init": "shared", "static_prior_scale": 0.15, "encoder_downsampling": "stride",
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "one group": {"static_groups": 1},
    "independent expert init": {"expert_init": "independent"},
    "static prior 1/K": {"static_prior_scale": None},
    "blur encoder": {"encoder_downsampling": "blur"},
    "linear encoder (release)": {"encoder_slope": 1.0},
    "he encoder init": {"encoder_init": "he"},
    "he encoder init, slope 0.2": {"encoder_init": "he", "encoder_slope": 0.2},
    "layer normalisation": {"decoder_normalisation": "layer"},
    "layer normalisation, independent init": {"decoder_normalisation": "layer", "expert_init": "independent"},
    "gaussian": {"likelihood": "gaussian"},
    "laplace": {"likelihood": "laplace"},
    "all as published": {
        "static_groups": 1, "expert_init": "independent", "static_prior_scale": None, "encoder_downsampling": "blur",
    },
}  # fmt: skip
ANNEALING = AnnealingConfig(
    pose=Spline(knots=((0, 4), (0.5, 3), (1, 2))),
    static=CosineRamp(start=0.05, end=0.1, fraction=0.5),
    temperature=CosineRamp(start=3, end=10, fraction=0.3),
)
RATE, WARMUP = 3e-3, 50


class FigureClips:
    """All clips of a split in memory, by identity."""

    def __init__(self, data: str, split: str) -> None:
        dataset = ClipDataset(data, split)
        self.frames = torch.from_numpy(np.stack([dataset.frames(index) for index in range(len(dataset))]))
        clips: dict[Any, list[int]] = defaultdict(list)
        for index, identity in enumerate(dataset.identities):
            clips[identity].append(index)
        self.clips = [np.array(indices) for indices in clips.values() if len(indices) > 1]

    def pairs(self, count: int, generator: np.random.Generator) -> Tensor:
        """Draw two frames of each of two clips of `count` identities: [count, 4, C, H, W]."""
        windows = []
        for identity in generator.choice(len(self.clips), count, replace=False):
            for clip in generator.choice(self.clips[identity], 2, replace=False):
                start = generator.integers(self.frames.shape[1] - 1)
                windows.append(self.frames[clip, start : start + 2])
        frames = torch.stack(windows).unflatten(0, (count, 2)).flatten(1, 2)
        return frames.permute(0, 1, 4, 2, 3).float() / 255


def train(config: ModelConfig, figures: FigureClips, *, steps: int, batch: int, seed: int) -> Disentangler:
    """Train stage 1 for `steps` steps."""
    torch.manual_seed(seed)
    generator, draws = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    model = Disentangler(config)
    stage: Any = model.prepare_stage(1).train()
    optimiser = torch.optim.Adam(stage.parameters(), lr=RATE, fused=True)
    for step in range(steps):
        done = max(step - WARMUP, 0) / (steps - WARMUP)
        rate = RATE * min(1, (step + 1) / WARMUP) * (1 - 0.95 * 0.5 * (1 - math.cos(math.pi * done)))
        optimiser.param_groups[0]["lr"] = rate
        frames = figures.pairs(batch, generator)
        weights = weights_at(ANNEALING, step / (steps - 1), frames[0, 0].numel())
        stage(frames, stage.draw_noise(*frames.shape[:2], draws), weights).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.temperature = 10.0
    return model.eval()


@torch.no_grad()
def measure(model: Disentangler, figures: FigureClips, batches: int, batch: int) -> dict[str, float]:
    """Measure on the figures of another split, with the same draws every time."""
    generator, draws = np.random.default_rng(0), torch.Generator().manual_seed(0)
    totals: dict[str, list[float]] = defaultdict(list)
    codes = []
    for _ in range(batches):
        frames = figures.pairs(batch, generator)
        stage: Any = model.frame_model
        terms = stage(frames, stage.draw_noise(*frames.shape[:2], draws), un_annealed(10.0))
        totals["negative_elbo"].append(terms.negative_elbo.item())
        first, second = frames[:, :2], frames[:, 2:]
        own, other = model.encode(first), model.encode(second)
        totals["reconstruction_mse"].append((model.decode(own.pose, own.static) - first).square().mean().item())
        totals["identity_mse"].append((model.decode(own.pose, other.static) - first).square().mean().item())
        codes.append(other.static)
    use = torch.cat(codes).mean(0).view(model.config.static_groups, -1)
    use = use / use.sum(-1, keepdim=True)
    means = {name: sum(values) / len(values) for name, values in totals.items()}
    return means | {"expert_use": torch.exp(-(use * use.log()).sum(-1)).mean().item()}


def main() -> None:
    """Train every variant with every seed and print its measurements."""
    command = parser(__doc__, json_help="print one JSON object per variant and seed")
    command.add_argument("--data", required=True, help="dataset of built-in figures")
    command.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS), help="variants to train")
    command.add_argument("--steps", type=int, default=300, help="steps of each training")
    command.add_argument("--clips", type=int, default=24, help="B: figures per batch")
    command.add_argument("--seeds", type=int, nargs="*", default=[0], help="seeds, one training each")
    add_threads(command, 1)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    training, testing = FigureClips(options.data, "train"), FigureClips(options.data, "test")
    for name in options.only:
        for seed in options.seeds:
            started = time.perf_counter()
            config = ModelConfig(**(SMALL | BASE | VARIANTS[name]))
            model = train(config, training, steps=options.steps, batch=options.clips, seed=seed)
            record = {
                "variant": name,
                "seed": seed,
                "steps": options.steps,
                **measure(model, testing, 10, options.clips),
            }
            record["seconds_per_step"] = (time.perf_counter() - started) / options.steps
            rounded = {key: float(f"{x:.4g}") if isinstance(x, float) else x for key, x in record.items()}
            print(json.dumps(rounded) if options.json else rounded, flush=True)


if __name__ == "__main__":
    main()
