"""rnn_1..T(d): how one dynamics code drives a sequence of poses of any length (`model.dynamics_decoder`)."""

import math

import torch
from torch import Tensor, nn

from vdsm.config import ModelConfig
from vdsm.dropout import SeededDropout
from vdsm.feedback import feed_back
from vdsm.precision import full_precision

OSCILLATORS, HARMONICS = 4, 4
"""Number of oscillators, and of multiples of the phase of each."""
PERIODS = (4.0, 32.0)
"""Shortest and longest period of the oscillators before training, in frames."""


class DynamicsDecoder(nn.Module):
    """rnn_1..T(d): an LSTM whose initial state is a function of d and which is fed its own output."""

    def __init__(self, config: ModelConfig, dropout: SeededDropout) -> None:
        super().__init__()
        layers, width = config.rnn_layers, config.rnn_width
        self.state_shape = (2, layers, width)
        self.start = nn.Linear(config.dynamics_size, 2 * layers * width)
        self.first_input = nn.Parameter(torch.zeros(1, 1, width))
        self.rnn = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout.probability)
        self.dropout = dropout

    def forward(self, dynamics: Tensor, length: int) -> Tensor:
        """Return rnn_1..T(d) [B, length, R] for dynamics codes [B, D]."""
        clips = dynamics.shape[0]
        # [B, 2 L R] -> h and c, each [L, B, R].
        with full_precision(dynamics):
            hidden, cell = self.start(dynamics).view(clips, *self.state_shape).permute(1, 2, 0, 3)
            return feed_back(self.rnn, self.first_input[0].expand(clips, -1), hidden, cell, length, self.dropout)


class OscillatingDecoder(nn.Module):
    """rnn_1..T(d): a few oscillators with their harmonics, which never come to rest.

    phase_j,t = angle_j(d) + t w_j(d),  w_j(d) = w_j exp(tanh(rate(d)_j) / 2),
    rnn_t = mix([cos(k phase_j,t), sin(k phase_j,t) for k = 1..HARMONICS, d])

    A periodic action follows one of them, at its own speed, and is in its hundredth cycle what it is in its first:
    harmonics of one phase stay in step, as oscillators with speeds of their own do not. Each time step is independent
    of the others, so no gradient has to be carried through the sequence.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, code = config.rnn_width, config.dynamics_size
        self.start = nn.Linear(code, 2 * OSCILLATORS)
        self.rate = nn.Linear(code, OSCILLATORS)
        shortest, longest = PERIODS
        periods = torch.linspace(math.log(shortest), math.log(longest), OSCILLATORS)
        self.log_rate = nn.Parameter(math.log(2 * math.pi) - periods)
        self.mix = nn.Sequential(
            nn.Linear(2 * OSCILLATORS * HARMONICS + code, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, dynamics: Tensor, length: int) -> Tensor:
        """Return rnn_1..T(d) [B, length, R] for dynamics codes [B, D]."""
        with full_precision(dynamics):
            x, y = self.start(dynamics).chunk(2, dim=-1)
            rates = torch.exp(self.log_rate + 0.5 * torch.tanh(self.rate(dynamics)))
            times, orders = (
                torch.arange(first, first + count, dtype=rates.dtype, device=rates.device)
                for first, count in ((0, length), (1, HARMONICS))
            )
            phases = torch.atan2(y, x)[:, None] + rates[:, None] * times[:, None]
            angles = (phases[..., None] * orders).flatten(2)
            code = dynamics[:, None].expand(-1, length, -1)
            mixed: Tensor = self.mix(torch.cat([angles.cos(), angles.sin(), code], dim=-1))
            return mixed


def make_dynamics_decoder(config: ModelConfig, dropout: SeededDropout) -> DynamicsDecoder | OscillatingDecoder:
    """Return the decoder that the configuration selects, untrained."""
    return DynamicsDecoder(config, dropout) if config.dynamics_decoder == "lstm" else OscillatingDecoder(config)
