"""The guide's transition between poses, and its walk from the first pose to the last.

The walk goes step by step, and steps are small. As in `vdsm.feedback`, the backward pass is written out, so that there
are few operations in each step and the gradient of the weights is one product over all of them.

Letters: T steps, B clips, Z pose, R width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vdsm.config import ModelConfig
from vdsm.encoder import positive_scale
from vdsm.precision import at_least_fp32, full_precision


class Combiner(nn.Module):
    """q(z_t | z_{t-1}, d) = N(loc(c), softplus(raw_scale(c))), c = (tanh(W z_{t-1}) + h(rnn_t(d), d)) / 2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.rnn_width
        self.from_dynamics = nn.Linear(width + config.dynamics_size, width)
        self.from_pose = nn.Linear(config.pose_size, width)
        self.loc = nn.Linear(width, config.pose_size)
        self.raw_scale = nn.Linear(width, config.pose_size)
        self.first_pose = nn.Parameter(torch.zeros(1, config.pose_size))

    def drive(self, rnn: Tensor, dynamics: Tensor) -> Tensor:
        """Return h [B, T, R] for rnn_1..T(d) [B, T, R] and d [B, D]: the part that does not depend on the poses."""
        code = dynamics[:, None].expand(-1, rnn.shape[1], -1)
        with full_precision(rnn):
            return F.leaky_relu(self.from_dynamics(torch.cat([at_least_fp32(rnn), code], dim=-1)))

    def forward(self, previous: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale of z_t, each [..., Z], given z_{t-1} [..., Z] and the drive h of time t [..., R]."""
        combined = 0.5 * (torch.tanh(self.from_pose(previous)) + drive)
        return self.loc(combined), positive_scale(self.raw_scale(combined))

    def walk(self, drive: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z_1..T = loc_t(z_{t-1}) + scale_t(z_{t-1}) noise_t, and all loc_t and scale_t, each [B, T, Z].

        Args:
            drive: h, [B, T, R].
            noise: standard Normal noise, [B, T, Z].
        """
        weight = torch.cat([self.loc.weight, self.raw_scale.weight])
        bias = torch.cat([self.loc.bias, self.raw_scale.bias])
        first = self.first_pose.expand(drive.shape[0], -1)
        is_trained = torch.is_grad_enabled()
        walked: tuple[Tensor, Tensor, Tensor] = _Walk.apply(  # type: ignore[no-untyped-call]
            self.from_pose.weight, self.from_pose.bias, weight, bias, first, drive, noise, is_trained
        )
        return walked


class _Walk(torch.autograd.Function):
    """`Combiner.walk`, with W and its bias, and with loc and raw_scale as one layer of weight [2 Z, R]."""

    @staticmethod
    def forward(
        ctx: Any, from_pose: Tensor, from_pose_bias: Tensor, weight: Tensor, bias: Tensor, first: Tensor,
        drive: Tensor, noise: Tensor, is_trained: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        half_drive, by_pose, by_combined, size = 0.5 * drive, from_pose.T, weight.T, first.shape[1]
        pose, steps = first, []
        for time in range(drive.shape[1]):
            squashed = torch.tanh(torch.addmm(from_pose_bias, pose, by_pose))
            combined = torch.add(half_drive[:, time], squashed, alpha=0.5)
            both = torch.addmm(bias, combined, by_combined)
            scale = positive_scale(both[:, size:])
            pose = torch.addcmul(both[:, :size], scale, noise[:, time])
            steps.append((pose, both, scale, *((squashed, combined) if is_trained else ())))
        path, both, scales, *kept = (torch.stack(each, dim=1) for each in zip(*steps, strict=True))
        if is_trained:
            ctx.save_for_backward(from_pose, weight, first, noise, path, both, *kept)
        return path, both[..., :size].clone(), scales

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_path: Tensor, of_loc: Tensor, of_scale: Tensor) -> tuple[Tensor | None, ...]:
        from_pose, weight, first, noise, path, both, squashed, combined = ctx.saved_tensors
        size = first.shape[1]
        slope = torch.sigmoid(both[..., size:])  # of softplus
        of_raw, by_pose = of_scale * slope, noise * slope
        bend = 0.5 * (1 - squashed * squashed)
        of_both, of_hidden = torch.empty_like(both), torch.empty_like(squashed)
        of_next = None
        for time in reversed(range(path.shape[1])):
            of_pose = of_path[:, time] if of_next is None else of_path[:, time] + of_next
            torch.add(of_loc[:, time], of_pose, out=of_both[:, time, :size])
            torch.addcmul(of_raw[:, time], of_pose, by_pose[:, time], out=of_both[:, time, size:])
            torch.mul(of_both[:, time] @ weight, bend[:, time], out=of_hidden[:, time])
            of_next = of_hidden[:, time] @ from_pose
        previous = torch.cat([first[:, None], path[:, :-1]], dim=1)
        flat, hidden = of_both.flatten(0, 1), of_hidden.flatten(0, 1)
        of_weights = hidden.T @ previous.flatten(0, 1), hidden.sum(0), flat.T @ combined.flatten(0, 1), flat.sum(0)
        return *of_weights, of_next, 0.5 * (of_both @ weight), None, None
