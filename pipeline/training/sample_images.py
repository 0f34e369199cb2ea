"""Pictures that show what the model has learned so far, from clips held out for validation."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.training.batches import Clips, read, to_model
from pipeline.training.order import GlobalOrder, Windows
from vdsm.disentangler import Disentangler

CLIPS = 5
"""Clips in a picture."""
FRAMES = 8
"""Most frames of a clip that are shown."""

Picture = NDArray[np.uint8]


@torch.no_grad()
def pictures(
    model: Disentangler, stage: int, clips: Clips, order: GlobalOrder, temperature: float
) -> dict[str, Picture]:
    """Pictures by name, uint8 [H, W, 3 or 1], always of the same clips. `model` is left as it was.

    - `reconstruction`: below each clip's frames the model's.
    - `action transfer`: the middle frame of each column's clip (first row), of each row's (first column), and of the
      action of the column performed by the figure of the row. In stage 1 the action is the clip's own poses, in stage 2
      what its dynamics code generates.
    """
    device = next(model.parameters()).device
    places = np.linspace(0, len(order.validation) - 1, CLIPS).astype(int)
    chosen = order.validation[np.unique(places)]
    windows = Windows(chosen, np.zeros(len(chosen), dtype=np.int64), None, None)
    frames = to_model(read(clips, windows, order.window), device)
    kept, temperature_before = {module: module.training for module in model.modules()}, model.temperature
    model.eval()
    model.temperature = temperature
    try:
        reconstructed = model.reconstruct(frames)
        count, middle = len(chosen), order.window // 2
        actors = frames.repeat_interleave(count, dim=0)
        actions = frames.repeat(count, 1, 1, 1, 1)
        if stage == 2:
            swapped = model.swap(dynamics_of=actions, static_of=actors)
        else:
            swapped = model.decode(model.encode(actions).pose, model.encode(actors).static)
    finally:
        model.temperature = temperature_before
        for module, training in kept.items():
            module.training = training
    shown = frames[:, :FRAMES], reconstructed[:, :FRAMES]
    rows = torch.stack(shown, dim=1).flatten(0, 1)
    first = torch.cat([torch.ones_like(frames[:1, 0]), frames[:, middle]])[None]
    grid = torch.cat([frames[:, None, middle], swapped[:, middle].unflatten(0, (count, count))], dim=1)
    return {"reconstruction": _mosaic(rows), "action transfer": _mosaic(torch.cat([first, grid]))}


def _mosaic(cells: Tensor) -> Picture:
    """[rows, columns, C, H, W] in [0, 1] -> uint8 [rows * H, columns * W, C]."""
    joined = cells.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    picture: Picture = (joined * 255).round().to(torch.uint8).cpu().numpy()
    return picture
