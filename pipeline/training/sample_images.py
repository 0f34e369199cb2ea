"""Sample images of what the model has learned so far, from clips held out for validation."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.training.batches import Clips, read_windows, to_model
from pipeline.training.order import GlobalOrder, Windows
from vdsm.disentangler import Disentangler

CLIPS = 5
"""Clips per image."""
FRAMES = 8
"""Maximum frames shown of each clip."""
ANIMATED_FRAMES = 24
"""Maximum frames of an animation."""

Image = NDArray[np.uint8]


@torch.no_grad()
def sample_images(
    model: Disentangler, stage: int, clips: Clips, order: GlobalOrder, temperature: float
) -> dict[str, Image]:
    """Return images by name, uint8 [H, W, 3 or 1], or with a first axis T, always of the same clips. `model` is left
    unchanged.

    - `reconstruction`: frames of each clip, and below them their reconstruction.
    - `action transfer`: the middle frame of each column's clip (first row), that of each row's clip (first column), and
      the action of the column performed by the identity of the row. In stage 1 the action is the clip's own poses, in
      stage 2 what its dynamics code generates.
    - `action transfer animated`: the same with all frames of the window, at most `ANIMATED_FRAMES`.
    """
    device = next(model.parameters()).device
    rows = np.linspace(0, order.clips.validation_count - 1, CLIPS).astype(int)
    chosen = order.clips.validation_at(np.unique(rows))
    windows = Windows(chosen, np.zeros(len(chosen), dtype=np.int64), None, None)
    frames = to_model(read_windows(clips, windows, order.window), device)
    count, middle = len(chosen), order.window // 2
    with _evaluating(model, temperature):
        reconstructed = model.reconstruct(frames)
        actors = frames.repeat_interleave(count, dim=0)
        actions = frames.repeat(count, 1, 1, 1, 1)
        if stage == 2:
            swapped = model.swap(dynamics_of=actions, static_of=actors)
        else:
            swapped = model.decode(model.encode(actions).pose, model.encode(actors).static)
    pairs = torch.stack((frames[:, :FRAMES], reconstructed[:, :FRAMES]), dim=1).flatten(0, 1)

    def transfer(time: int) -> Image:
        header = torch.cat([torch.ones_like(frames[:1, 0]), frames[:, time]])[None]
        grid = torch.cat([frames[:, None, time], swapped[:, time].unflatten(0, (count, count))], dim=1)
        return _mosaic(torch.cat([header, grid]))

    return {
        "reconstruction": _mosaic(pairs),
        "action transfer": transfer(middle),
        "action transfer animated": np.stack([transfer(time) for time in range(min(order.window, ANIMATED_FRAMES))]),
    }


@contextlib.contextmanager
def _evaluating(model: Disentangler, temperature: float) -> Iterator[None]:
    """Set evaluation mode and the temperature within the block."""
    was_training, temperature_before = {module: module.training for module in model.modules()}, model.temperature
    model.eval()
    model.temperature = temperature
    try:
        yield
    finally:
        model.temperature = temperature_before
        for module, training in was_training.items():
            module.training = training


def _mosaic(cells: Tensor) -> Image:
    """Join cells [rows, columns, C, H, W] in [0, 1] into one image, uint8 [rows * H, columns * W, C]."""
    joined = cells.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    image: Image = (joined * 255).round().to(torch.uint8).cpu().numpy()
    return image
