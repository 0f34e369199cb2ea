"""Adapt a trained model to one person whom it has not seen, from a few clips of that person.

A static code can only blend people of the training, all layers of the decoder alike. A new person gets a blend for each
layer, and a shift of the blended kernels, W_l(s + b_l) + D_l. The experts know all poses, so a blend of them, with
weights of any size and sign, looks the same in poses that the clips do not show. The shift adds what no blend has; it
does not know other poses and is held close to 0. The image encoder stays as trained, so poses keep their meaning.

1. The static latent i of all clips together is refined (`vdsm.refinement`).
2. b and D minimise  mean over frames of -log p(x_t | z_t, s, b, D) / (C H W)  +  anchor |D|^2,  with z_t and s fixed.

|D|^2 sums over all kernels and biases, so that the anchor is a Gaussian prior on each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vdsm.code_density import FittedPriors, density_at
from vdsm.decoder import ExpertTransposedConv, KernelShift
from vdsm.device import upload
from vdsm.disentangler import Disentangler
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.frames import FrameModel
from vdsm.refinement import refine_static

BLEND_RATE = 5
"""Learning rate of the blends, relative to that of the shift."""


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
    """How a model is adapted."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    static_steps: int = 150
    """Gradient steps that refine the static code; 0 keeps the encoder's."""
    decoder_steps: int = 250
    """Gradient steps that shift the decoder's kernels; 0 leaves them unchanged."""
    anchor: float = 2.5e-3
    """Weight of the squared shift, relative to the reconstruction in nats per pixel value. More keeps poses that the
    clips do not show closer to the original model, less shows more of the person's detail."""
    batch_frames: int = 12
    """Frames per step."""
    learning_rate: float = 1e-3
    """Learning rate of Adam for the shift; for the blends it is `BLEND_RATE` times as large."""
    seed: int = 0
    """Seed of the choice of frames."""

    def __post_init__(self) -> None:
        for name in ("static_steps", "decoder_steps", "anchor"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.batch_frames < 1:
            raise ValueError(f"batch_frames is {self.batch_frames}; it must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")


class Adaptation(NamedTuple):
    """What was fitted to the clips of one person."""

    static: Tensor
    """Static latent i, [1, K]."""
    shifts: tuple[KernelShift, ...]
    """What is added to the blended weights of each layer: b_l times the experts' kernels, and D_l."""


def fit(model: Disentangler, frames: Tensor, config: AdaptationConfig, progress: Progress = NO_PROGRESS) -> Adaptation:
    """Fit a static latent and shifts of the decoder to frames of one person. The model is not changed.

    Args:
        model: the trained model.
        frames: the frames of all clips, one after the other, [T, C, H, W] in [0, 1], on the model's device.
        config: steps and weights.
        progress: receives the phases "fitting the static code" and "fitting the decoder".
    """
    stage1, clip = model.frame_model, frames[None]
    progress.start("fitting the static code", 1, unit="fits")
    with torch.no_grad():
        latents = stage1.encoder(clip)
        latent, _ = stage1.pool_static(latents)
    if config.static_steps:
        latent = refine_static(stage1, clip, latents.pose_loc, latent, model.temperature, config.static_steps)
    progress.advance()
    static = stage1.static_code(latent, model.temperature)
    shifts = _fit_shifts(stage1, clip, latents.pose_loc, static, config, progress)
    return Adaptation(latent, shifts)


def _fit_shifts(
    model: FrameModel, clip: Tensor, poses: Tensor, static: Tensor, config: AdaptationConfig, progress: Progress
) -> tuple[KernelShift, ...]:
    """Return the shifts for one clip [1, T, C, H, W] with given poses [1, T, Z] and static code [1, K]."""
    free = model.decoder.no_shifts()
    blends = [torch.zeros_like(static) for _ in free]
    parts = [part for shift in free for part in shift]
    fitted = [*blends, *parts]
    generator = torch.Generator().manual_seed(config.seed)
    groups: list[dict[str, Any]] = [{"params": blends, "lr": BLEND_RATE * config.learning_rate}, {"params": parts}]
    optimiser = torch.optim.Adam(groups, lr=config.learning_rate)
    progress.start("fitting the decoder", config.decoder_steps, unit="steps")
    with torch.inference_mode(False), torch.enable_grad():
        for tensor in fitted:
            tensor.requires_grad_()
        for _ in range(config.decoder_steps):
            chosen = upload(torch.randint(clip.shape[1], (config.batch_frames,), generator=generator), clip.device)
            logits = model.decoder(poses[:, chosen], static, _shifts(model, blends, free))
            observed = clip[:, chosen]
            reconstruction = -model.likelihood(logits).log_prob(observed).sum() / observed.numel()
            size = torch.stack([part.square().sum() for part in parts]).sum()
            gradients = torch.autograd.grad(reconstruction + config.anchor * size, fitted)
            for tensor, gradient in zip(fitted, gradients, strict=True):
                tensor.grad = gradient
            optimiser.step()
            progress.advance()
    with torch.no_grad():
        return _shifts(model, blends, free)


def _shifts(model: FrameModel, blends: Sequence[Tensor], free: Sequence[KernelShift]) -> tuple[KernelShift, ...]:
    """Return the shift of each layer, of its blend [1, K] and its free shift together."""
    found = []
    for layer, blend, shift in zip(model.decoder.layers, blends, free, strict=True):
        assert isinstance(layer, ExpertTransposedConv)
        kernels, biases = (blend @ layer.kernels)[0], (blend @ layer.biases)[0]
        found.append(KernelShift(kernels + shift.kernels, biases + shift.biases))
    return tuple(found)


@torch.no_grad()
def apply(model: Disentangler, adaptation: Adaptation) -> None:
    """Turn `model` into one that shows the person: with the shifts, and one static code, encoded or sampled."""
    stage1 = model.frame_model
    stage1.decoder.add_shifts(adaptation.shifts)
    stage1.static_loc.weight.zero_()
    stage1.static_loc.bias.copy_(adaptation.static[0])
    static = density_at(adaptation.static[0].cpu())
    fitted = model.fitted_priors
    model.fitted_priors = FittedPriors(static) if fitted is None else fitted._replace(static=static)


def is_adapted(model: Disentangler) -> bool:
    """Return whether a model shows one person, whatever clip it encodes; see `apply`."""
    return not bool(model.frame_model.static_loc.weight.any())
