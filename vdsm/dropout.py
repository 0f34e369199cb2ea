"""Dropout between the layers of an LSTM, with masks from a generator of its own.

Masks from torch's global generator would have to be seeded anew for every training step, which makes cuDNN rebuild the
state of its own dropout: an initialisation of many random streams that takes longer than the LSTM. They would also
depend on everything else that draws from it.
"""

import torch
from torch import Tensor, nn


class SeededDropout(nn.Module):
    """Dropout with a given probability. Without `reseed`, it draws from torch's global generator."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self._generator: torch.Generator | None = None

    def reseed(self, seed: int, device: torch.device) -> None:
        """Draw the next masks from a generator on `device`, seeded with `seed`."""
        self._generator = torch.Generator(device=device).manual_seed(seed)

    @property
    def is_active(self) -> bool:
        """Whether `forward` changes its input."""
        return self.training and self.probability > 0

    def forward(self, x: Tensor) -> Tensor:
        """Return x with random elements set to 0 and the others scaled up; in evaluation mode x itself."""
        return x * self.mask(x) if self.is_active else x

    def mask(self, like: Tensor) -> Tensor:
        """Return new factors of the shape of `like`: 0, or 1 over the probability of being kept."""
        kept = 1 - self.probability
        return torch.empty_like(like).bernoulli_(kept, generator=self._generator).div_(kept)


def final_states(rnn: nn.LSTM, inputs: Tensor, hidden: Tensor, cell: Tensor, dropout: SeededDropout) -> Tensor:
    """Return the last hidden states of all layers and directions of an LSTM, [layers * directions, B, R].

    Args:
        rnn: has `batch_first`; in training, `dropout` takes the place of its own.
        inputs: [B, T, N].
        hidden: hidden states before the first step, [layers * directions, B, R].
        cell: cell states, likewise.
        dropout: acts between layers.
    """
    if not dropout.is_active:
        states: tuple[Tensor, Tensor] = rnn(inputs, (hidden, cell))[1]
        return states[0]
    directions = 2 if rnn.bidirectional else 1
    steps, finals = inputs.transpose(0, 1), []
    for layer in range(rnn.num_layers):
        own = slice(layer * directions, (layer + 1) * directions)
        weights: list[Tensor] = [weight for direction in rnn.all_weights[own] for weight in direction]
        steps, final, _ = torch.lstm(
            dropout(steps) if layer > 0 else steps, (hidden[own], cell[own]), weights, rnn.bias, 1, 0.0, True,
            rnn.bidirectional, False,
        )  # fmt: skip
        finals.append(final)
    return torch.cat(finals)
