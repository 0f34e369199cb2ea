"""An LSTM that is fed its own output.

Its inputs are known one step at a time, but the gradient of its weights is a sum over all steps. `torch.nn.LSTM`,
called step by step, makes that sum from one matrix product and one addition per step, each as large as the weights;
here it is one product over all steps (docs/performance.md has what that saves). The parameters are those of `nn.LSTM`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def feed_back(rnn: nn.LSTM, first: Tensor, hidden: Tensor, cell: Tensor, steps: int) -> Tensor:
    """Output of each of `steps` steps, [B, steps, R], where each step's input is the output of the one before.

    Args:
        rnn: inputs and outputs of the same width R, one direction. Its dropout acts between layers, as in `nn.LSTM`.
        first: input of the first step, [B, R].
        hidden, cell: states before the first step, [layers, B, R] each.
    """
    weights, biases, gates_of = [], [], []
    inputs: list[list[Tensor]] = [[] for _ in range(rnn.num_layers)]
    for layer in range(rnn.num_layers):
        weight_ih, weight_hh, bias_ih, bias_hh = rnn.all_weights[layer]
        weight, bias = torch.cat([weight_ih, weight_hh], dim=1), bias_ih + bias_hh
        later = _GradientOfAllSteps.apply(weight, bias, inputs[layer], steps, first.shape[0])  # type: ignore[no-untyped-call]
        weights.append(weight.detach())
        biases.append(bias.detach())
        gates_of.append(later.unbind(0))
    hiddens, cells, outputs, output = list(hidden.unbind(0)), list(cell.unbind(0)), [], first
    for step in range(steps):
        for layer in range(rnn.num_layers):
            seen = torch.cat([output, hiddens[layer]], dim=1)
            inputs[layer].append(seen.detach())
            gates = F.linear(seen, weights[layer], biases[layer]) + gates_of[layer][step]
            taken, kept, proposed, shown = gates.chunk(4, dim=1)
            cells[layer] = torch.sigmoid(kept) * cells[layer] + torch.sigmoid(taken) * torch.tanh(proposed)
            output = hiddens[layer] = torch.sigmoid(shown) * torch.tanh(cells[layer])
            if layer < rnn.num_layers - 1:
                output = F.dropout(output, rnn.dropout, rnn.training)
        outputs.append(output)
    return torch.stack(outputs, dim=1)


class _GradientOfAllSteps(torch.autograd.Function):
    """Zeros [steps, B, 4 R] to be added to the gates: the gradients that come back through them give those of the
    weight [4 R, 2 R] and of the bias [4 R] at once. `inputs` is filled, step by step, before the backward pass."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, inputs: list[Tensor], steps: int, clips: int) -> Tensor:
        ctx.inputs = inputs
        return weight.new_zeros(steps, clips, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_gates = gradients[0].flatten(0, 1)
        return of_gates.T @ torch.cat(ctx.inputs), of_gates.sum(0), None, None, None
