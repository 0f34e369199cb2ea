"""Static codes fitted to their own clip by gradient, where the encoder's are only near it.

An encoder that answers for every clip at once is off by a little on each (the amortisation gap). From its answer on, a
few gradient steps up the model's own density close most of the gap: semi-amortised inference (Kim et al. 2018), here
for the mode of the static latent. It needs no label and looks at no other clip.
"""

import torch
from torch import Tensor

from vdsm.frames import FrameModel

FRAMES_PER_STEP = 4
"""About so many frames of a clip, evenly spaced, are decoded in one step; the steps take turns through all of them."""
STEP_SIZE = 1 / 8
"""Step size of Adam, in scales of the static latent's prior."""


def refine_static(
    model: FrameModel, frames: Tensor, poses: Tensor, start: Tensor, temperature: float, steps: int
) -> Tensor:
    """The static latents i [B, K] after `steps` steps from `start` up log p(x_1..T | z_1..T, i) + log p(i).

    Each clip goes its own way, whatever the others of the batch. Nothing of the model is changed.

    Args:
        model: whose decoder draws the clips.
        frames: x, [B, T, C, H, W] in [0, 1].
        poses: z, held fixed, [B, T, Z].
        start: where the encoder sees i, [B, K].
        temperature: of the softmax over the experts of each group.
        steps: how many.
    """
    stride = max(1, frames.shape[1] // FRAMES_PER_STEP)
    # A caller in inference mode has tensors that autograd refuses; copies made outside it will do.
    with torch.inference_mode(False), torch.enable_grad():
        seen, fixed, latent = (tensor.detach().clone() for tensor in (frames, poses, start))
        latent.requires_grad_()
        optimiser = torch.optim.Adam([latent], lr=STEP_SIZE * model.static_prior_scale)
        for step in range(steps):
            chosen = slice(step % stride, None, stride)
            logits = model.decoder(fixed[:, chosen], model.static_code(latent, temperature))
            of_frames = model.likelihood(logits).log_prob(seen[:, chosen]).sum()
            share = len(range(frames.shape[1])[chosen]) / frames.shape[1]
            of_prior = -0.5 * (latent / model.static_prior_scale).square().sum()
            (latent.grad,) = torch.autograd.grad(-of_frames / share - of_prior, latent)
            optimiser.step()
    return latent.detach()
