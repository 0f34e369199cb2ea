"""An LSTM that is fed its own output.

Its inputs become known one step at a time, but the gradient of its weights is a sum over all steps. `torch.nn.LSTM`,
called step by step, computes that sum with one matrix product and one addition of the size of the weights per step.
Here it is one product over all steps (docs/performance.md has the speed-up). The parameters are those of `nn.LSTM`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsm.dropout import SeededDropout


def feed_back(
    rnn: nn.LSTM, first: Tensor, hidden: Tensor, cell: Tensor, steps: int, dropout: SeededDropout | None = None
) -> Tensor:
    """Return the outputs [B, steps, R], where the input of each step is the output of the previous one.

    Args:
        rnn: unidirectional, with inputs and outputs of the same width R.
        first: input of the first step, [B, R].
        hidden, cell: states before the first step, [layers, B, R] each.
        steps: number of steps.
        dropout: acts between layers, in place of that of `rnn`.
    """
    weights, biases, gate_offsets = [], [], []
    inputs: list[list[Tensor]] = [[] for _ in range(rnn.num_layers)]
    for layer in range(rnn.num_layers):
        weight_ih, weight_hh, bias_ih, bias_hh = rnn.all_weights[layer]
        weight, bias = torch.cat([weight_ih, weight_hh], dim=1), bias_ih + bias_hh
        zeros = _AllStepsGradient.apply(weight, bias, inputs[layer], steps, first.shape[0])  # type: ignore[no-untyped-call]
        weights.append(weight.detach())
        biases.append(bias.detach())
        gate_offsets.append(zeros.unbind(0))
    hiddens, cells, outputs, output = list(hidden.unbind(0)), list(cell.unbind(0)), [], first
    for step in range(steps):
        for layer in range(rnn.num_layers):
            x = torch.cat([output, hiddens[layer]], dim=1)
            inputs[layer].append(x.detach())
            gates = F.linear(x, weights[layer], biases[layer]) + gate_offsets[layer][step]
            input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
            cells[layer] = torch.sigmoid(forget_gate) * cells[layer] + torch.sigmoid(input_gate) * torch.tanh(candidate)
            output = hiddens[layer] = torch.sigmoid(output_gate) * torch.tanh(cells[layer])
            if layer < rnn.num_layers - 1:
                output = F.dropout(output, rnn.dropout, rnn.training) if dropout is None else dropout(output)
        outputs.append(output)
    return torch.stack(outputs, dim=1)


class _AllStepsGradient(torch.autograd.Function):
    """Return zeros [steps, B, 4 R] to add to the gates. From their gradients, the backward pass computes those of the
    weight [4 R, 2 R] and of the bias [4 R] at once. The caller fills `inputs` step by step before the backward pass."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, inputs: list[Tensor], steps: int, clips: int) -> Tensor:
        ctx.inputs = inputs
        return weight.new_zeros(steps, clips, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gates = gradients[0].flatten(0, 1)
        return gates.T @ torch.cat(ctx.inputs), gates.sum(0), None, None, None
