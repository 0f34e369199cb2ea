"""rnn_1..T(d): how one dynamics code drives a sequence of poses of any length (`model.dynamics_decoder`)."""

import math

import torch
from torch import Tensor, nn

from vdsm.config import ModelConfig
from vdsm.dropout import SeededDropout
from vdsm.feedback import feed_back
from vdsm.precision import full_precision

HARMONICS = 6
"""Number of multiples of the phase."""
PERIOD = 8.0
"""Period before training, in frames."""


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


class PhaseDecoder(nn.Module):
    """rnn_1..T(d): a function of one phase, which turns at a constant speed and never comes to rest.

    phase_t = angle(d) + t w(d),  w(d) = w exp(tanh(rate(d)) / 2)
    f_t = [cos(k phase_t) / k, sin(k phase_t) / k for k = 1..HARMONICS]
    rnn_t = out(relu(W f_t + c(d) + c(d) * V f_t))

    A periodic action is in its hundredth cycle what it is in its first: harmonics of one phase stay in step, as
    oscillators with speeds of their own do not. Each time step is independent of the others, so no gradient has to be
    carried through the sequence.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, code = config.rnn_width, config.dynamics_size
        self.start = nn.Linear(code, 2)
        self.rate = nn.Linear(code, 1)
        self.log_rate = nn.Parameter(torch.tensor(math.log(2 * math.pi / PERIOD)))
        self.content = nn.Sequential(nn.Linear(code, 2 * width), nn.ReLU(), nn.Linear(2 * width, 2 * width))
        self.drawn = nn.Linear(2 * HARMONICS, 2 * width)
        self.scaled = nn.Linear(2 * HARMONICS, 2 * width)
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, dynamics: Tensor, length: int) -> Tensor:
        """Return rnn_1..T(d) [B, length, R] for dynamics codes [B, D]."""
        return self.at(dynamics, torch.arange(length, device=dynamics.device))

    def at(self, dynamics: Tensor, times: Tensor) -> Tensor:
        """Return rnn_t(d) [B, T, R] for dynamics codes [B, D] at times [T], in frames from 0 on."""
        with full_precision(dynamics):
            x, y = self.start(dynamics).unbind(dim=-1)
            rates = torch.exp(self.log_rate + 0.5 * torch.tanh(self.rate(dynamics)[:, 0]))
            orders = torch.arange(1, 1 + HARMONICS, dtype=rates.dtype, device=rates.device)
            phases = torch.atan2(y, x)[:, None] + rates[:, None] * times.to(rates)
            angles = phases[..., None] * orders
            harmonics = torch.cat([angles.cos() / orders, angles.sin() / orders], dim=-1)
            content = self.content(dynamics)[:, None]
            drive: Tensor = self.out(self.drawn(harmonics) + content + content * self.scaled(harmonics))
            return drive


def make_dynamics_decoder(config: ModelConfig, dropout: SeededDropout) -> DynamicsDecoder | PhaseDecoder:
    """Return the decoder that the configuration selects, untrained."""
    return DynamicsDecoder(config, dropout) if config.dynamics_decoder == "lstm" else PhaseDecoder(config)
