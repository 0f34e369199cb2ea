"""Models small enough for exact comparisons: float64, no dropout, and no parameter left at a special value."""

from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from vdsm.annealing import Weights
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.frames import FrameNoise
from vdsm.loss import LossTerms
from vdsm.sequence import SequenceNoise

CLIPS, LENGTH = 3, 4


class Case(NamedTuple):
    """A stage of a tiny model with a batch for it."""

    model: Any
    frames: Tensor
    noise: Any
    decoded: Tensor | None = None
    """Frames to reconstruct [B, N]; none: all."""

    def terms(self, weights: Weights) -> LossTerms:
        """Return the loss by the package."""
        terms: LossTerms = self.model(self.frames, self.noise, weights, self.decoded)
        return terms

    def traces(self, temperature: float) -> tuple[Trace, Trace]:
        """Run guide and model through Pyro: their traces, with log-probabilities."""
        guide = poutine.trace(self.guide).get_trace()
        model = poutine.trace(poutine.replay(self.model.model, trace=guide)).get_trace(
            self.frames, temperature, self.decoded
        )
        guide.compute_log_prob()
        model.compute_log_prob()
        return guide, model

    def guide(self) -> None:
        """Sample the posterior of the frames."""
        self.model.guide(self.model.infer(self.frames), self.noise)


class PerClip(NamedTuple):
    """Log-probabilities and KLs of each clip by the name of the Pyro site, [B] each."""

    likelihood: Tensor
    guide: dict[str, Tensor]
    model: dict[str, Tensor]
    kl: dict[str, Tensor]


def tiny_config(**changes: Any) -> ModelConfig:
    """Configure frames of 32 pixels, six experts, two layers everywhere."""
    settings: dict[str, Any] = {
        "num_experts": 6,
        "pose_size": 3,
        "dynamics_size": 4,
        "frame_size": 32,
        "encoder_channels": (4, 5, 6),
        "encoder_hidden": 9,
        "static_hidden": 8,
        "decoder_channels": (6, 5, 4),
        "rnn_width": 7,
        "rnn_layers": 2,
        "rnn_dropout": 0.0,
    }
    return ModelConfig(**(settings | changes))


def tiny_model(**changes: Any) -> Disentangler:
    """Build a model at its initial values plus noise, since zeros, ones and identities would hide errors."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Disentangler(tiny_config(**changes)).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.15)
    return model


def tiny_case(stage: int, **changes: Any) -> Case:
    """Build the stage, a batch of three different clips of four frames, and noise."""
    model: Any = tiny_model(**changes).prepare_stage(1 if stage == 1 else 2)
    generator = torch.Generator().manual_seed(5)
    shape = (CLIPS, LENGTH, model.config.channels, model.config.frame_size, model.config.frame_size)
    frames = torch.rand(shape, generator=generator, dtype=torch.float64)
    return Case(model, frames, double(model.draw_noise(CLIPS, LENGTH, generator)))


def double(noise: Any) -> Any:
    """Convert noise to float64."""
    return type(noise)(*(part.double() for part in noise))


def pick(noise: FrameNoise | SequenceNoise, clips: list[int]) -> Any:
    """Select the noise of some clips."""
    return type(noise)(*(part[clips] for part in noise))


def per_clip(case: Case, temperature: float) -> PerClip:
    """Return what the sites of guide and model contribute for each clip."""
    guide, model = case.traces(temperature)
    names = [name for name in guide.stochastic_nodes if name != "clips"]
    return PerClip(
        model.nodes["frames"]["log_prob"],
        {name: guide.nodes[name]["log_prob"] for name in names},
        {name: model.nodes[name]["log_prob"] for name in names},
        {name: kl_divergence(guide.nodes[name]["fn"], model.nodes[name]["fn"]) for name in names},
    )
