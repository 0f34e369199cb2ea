"""Where two successive frames differ, and how far that is from where two others do.

m_c = STILL + mean of |x_2 - x_1| over the pixels and channels of cell c,  p = m / sum_c m
distance = 1 - sum_c sqrt(p_c q_c)    (the squared Hellinger distance)

It does not depend on who moves: two people who wave move in the same cells, whatever they wear.
"""

import torch.nn.functional as F
from torch import Tensor

from vdsm.precision import at_least_fp32, full_precision

CELLS = 8
"""Cells along a side of a frame."""
STILL = 0.002
"""Change, for values in [0, 1], that a cell shows without motion; half a step of an 8-bit pixel. Two frames that do not
differ thus have the same map as two others that do not."""


def motion_map(frames: Tensor) -> Tensor:
    """Return the share of each cell in the change between two frames [B, 2, C, H, W] in [0, 1]: [B, CELLS, CELLS]."""
    with full_precision(frames):
        values = at_least_fp32(frames)
        change = (values[:, 1] - values[:, 0]).abs().mean(dim=1, keepdim=True)
        cells = F.adaptive_avg_pool2d(change, CELLS).squeeze(1) + STILL
        return cells / cells.sum((-2, -1), keepdim=True)


def motion_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the squared Hellinger distance of the motion of two frames from that of two others: [B], from 0 to 1.

    Args:
        first, second: successive frames, each [B, 2, C, H, W] in [0, 1].
    """
    return 1 - (motion_map(first) * motion_map(second)).sqrt().sum((-2, -1))
