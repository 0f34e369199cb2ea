"""Refinement of the static code of a clip by gradient steps from the encoder's estimate.

One encoder for all clips is slightly off on each (the amortisation gap). A few gradient steps on the model's own
log-density close most of the gap: semi-amortised inference (Kim et al. 2018), here for the mode of the static latent.
It uses no label and no other clip.
"""

import torch
from torch import Tensor

from vdsm.frames import FrameModel

FRAMES_PER_STEP = 4
"""Approximate number of frames of a clip, evenly spaced, decoded in one step; successive steps cycle through all."""
STEP_SIZE = 1 / 8
"""Step size of Adam, in scales of the static latent's prior."""


def refine_static(
    model: FrameModel, frames: Tensor, poses: Tensor, start: Tensor, temperature: float, steps: int
) -> Tensor:
    """Return static latents i [B, K] after gradient steps from `start` on log p(x_1..T | z_1..T, i) + log p(i).

    Clips are refined independently of the rest of the batch. The model is not changed.

    Args:
        model: provides the decoder, the likelihood and the prior.
        frames: x, [B, T, C, H, W] in [0, 1].
        poses: z, held fixed, [B, T, Z].
        start: the encoder's estimate of i, [B, K].
        temperature: temperature of the softmax over the experts of each group.
        steps: number of steps of Adam.
    """
    stride = max(1, frames.shape[1] // FRAMES_PER_STEP)
    # Autograd refuses tensors made in inference mode, but accepts copies made outside it.
    with torch.inference_mode(False), torch.enable_grad():
        observed, fixed_poses, latent = (tensor.detach().clone() for tensor in (frames, poses, start))
        latent.requires_grad_()
        optimiser = torch.optim.Adam([latent], lr=STEP_SIZE * model.static_prior_scale)
        for step in range(steps):
            chosen = slice(step % stride, None, stride)
            logits = model.decoder(fixed_poses[:, chosen], model.static_code(latent, temperature))
            log_likelihood = model.likelihood(logits).log_prob(observed[:, chosen]).sum()
            share = len(range(frames.shape[1])[chosen]) / frames.shape[1]
            log_prior = -0.5 * (latent / model.static_prior_scale).square().sum()
            (latent.grad,) = torch.autograd.grad(-log_likelihood / share - log_prior, latent)
            optimiser.step()
    return latent.detach()
