"""Where two frames differ: the same whoever moves, and far from another motion."""

import torch
from torch import Tensor

from vdsm.motion import motion_distance, motion_map


def square(left: int, top: int, colour: tuple[float, float, float], background: float = 0.1) -> Tensor:
    """Draw a square of 8 pixels on a frame: [C, H, W]."""
    frame = torch.full((3, 64, 64), background)
    frame[:, top : top + 8, left : left + 8] = torch.tensor(colour)[:, None, None]
    return frame


def clip(*steps: tuple[int, int], colour: tuple[float, float, float], background: float = 0.1) -> Tensor:
    """Draw a square at two places, one after the other: [1, 2, C, H, W]."""
    return torch.stack([square(*step, colour, background) for step in steps])[None]


def test_a_map_shows_where_a_clip_moves() -> None:
    found = motion_map(clip((8, 16), (16, 16), colour=(0.9, 0.9, 0.9)))[0]
    assert torch.isclose(found.sum(), torch.tensor(1.0))
    assert set(found.flatten().topk(2).indices.tolist()) == {2 * 8 + 1, 2 * 8 + 2}
    assert found[2, 1] > 0.4


def test_the_distance_is_small_for_two_who_move_alike_and_large_for_other_motions() -> None:
    red = clip((8, 16), (16, 16), colour=(0.9, 0.2, 0.2))
    grey = clip((8, 16), (16, 16), colour=(0.6, 0.6, 0.6), background=0.3)
    elsewhere = clip((8, 40), (16, 40), colour=(0.9, 0.2, 0.2))
    still = clip((8, 16), (8, 16), colour=(0.9, 0.2, 0.2))
    assert motion_distance(red, grey) < 0.05
    assert motion_distance(red, elsewhere) > 0.5
    assert motion_distance(red, still) > 0.4
    assert motion_distance(still, clip((40, 8), (40, 8), colour=(0.3, 0.8, 0.3))) < 1e-6


def test_the_rounding_of_pixels_is_no_motion() -> None:
    frame = square(8, 16, (0.9, 0.2, 0.2))
    rounded = (frame + (torch.rand(frame.shape, generator=torch.Generator().manual_seed(0)) - 0.5) / 255).clamp(0, 1)
    assert motion_distance(torch.stack([frame, rounded])[None], torch.stack([frame, frame])[None]) < 0.01
