"""An LSTM that is fed its own output.

Its inputs become known one step at a time, and steps are small: what counts is the number of operations, which the host
launches one after the other, and the gradient of the weights, a sum over all steps. So the backward pass is written
out: it computes all that does not depend on later steps at once, before it goes through them, and the gradient of the
weights as one product after that (docs/performance.md has the numbers). The parameters are those of `nn.LSTM`.

Letters: L layers, T steps, B clips, R width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vdsm.dropout import SeededDropout


def feed_back(rnn: nn.LSTM, first: Tensor, hidden: Tensor, cell: Tensor, steps: int, dropout: SeededDropout) -> Tensor:
    """Return the outputs [B, steps, R], where the input of each step is the output of the previous one.

    Args:
        rnn: unidirectional, with inputs and outputs of the same width R.
        first: input of the first step, [B, R].
        hidden, cell: states before the first step, [L, B, R] each.
        steps: number of steps T.
        dropout: acts between layers, in place of that of `rnn`.
    """
    weights, biases = [], []
    for weight_ih, weight_hh, bias_ih, bias_hh in rnn.all_weights:
        weights.append(torch.cat([weight_ih, weight_hh], dim=1))
        biases.append(bias_ih + bias_hh)
    masks = dropout.mask(first.new_empty(rnn.num_layers - 1, steps, *first.shape)) if dropout.is_active else None
    is_trained = torch.is_grad_enabled()
    arguments = (torch.stack(weights), torch.stack(biases), first, hidden, cell, masks, steps, is_trained)
    outputs: Tensor = _FedBack.apply(*arguments)  # type: ignore[no-untyped-call]
    return outputs


class _FedBack(torch.autograd.Function):
    """The outputs [B, T, R] of weights [L, 4 R, 2 R], for input and state side by side, and biases [L, 4 R].

    i, f, g, o = sigmoid(.), sigmoid(.), tanh(.), sigmoid(.) of the four parts of W [x, h] + b
    c' = f c + i g,  h' = o tanh(c')
    """

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, biases: Tensor, first: Tensor, hidden: Tensor, cell: Tensor,
        masks: Tensor | None, steps: int, is_trained: bool,
    ) -> Tensor:  # fmt: skip
        layers, width = len(weights), first.shape[1]
        by_inputs = weights.transpose(1, 2).unbind(0)
        hiddens, cells, output, outputs = list(hidden.unbind(0)), list(cell.unbind(0)), first, []
        seen: list[tuple[list[Tensor], ...]] = [([], [], []) for _ in range(layers)]
        for step in range(steps):
            for layer in range(layers):
                x = torch.cat([output, hiddens[layer]], dim=1)
                before = torch.addmm(biases[layer], x, by_inputs[layer])
                gates = torch.sigmoid(before)
                i, f, g, o = gates.chunk(4, dim=1)
                torch.tanh(before[:, 2 * width : 3 * width], out=g)
                c = (f * cells[layer]).addcmul_(i, g)
                cells[layer] = c
                output = hiddens[layer] = o * torch.tanh(c)
                if is_trained:
                    for kept, value in zip(seen[layer], (x, gates, c), strict=True):
                        kept.append(value)
                if masks is not None and layer < layers - 1:
                    output = output * masks[layer, step]
            outputs.append(output)
        if is_trained:
            each = (torch.stack([torch.stack(kept[number]) for kept in seen]) for number in range(3))
            ctx.save_for_backward(weights, cell, masks, *each)
        return torch.stack(outputs, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, first_cell, masks, inputs, gates, cells = ctx.saved_tensors
        layers, steps, _, width = cells.shape
        i, f, g, o = gates.chunk(4, dim=-1)
        squashed = torch.tanh(cells)
        previous = torch.cat([first_cell[:, None], cells[:, :-1]], dim=1)
        # Of each gate before its activation, by the cell for i, f and g, and by the output for o: [L, T, B, 4 R].
        through = torch.cat([g * i * (1 - i), previous * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o)], dim=-1)
        from_hidden = o * (1 - squashed * squashed)
        for_hidden: list[Tensor | None] = [None] * layers
        for_cell: list[Tensor | None] = [None] * layers
        below = None
        for step in reversed(range(steps)):
            above = gradient[:, step] if below is None else gradient[:, step] + below
            for layer in reversed(range(layers)):
                later, cell_later = for_hidden[layer], for_cell[layer]
                h = above if later is None else above + later
                bend = from_hidden[layer, step]
                c = h * bend if cell_later is None else torch.addcmul(cell_later, h, bend)
                own = through[layer, step]
                own[:, : 3 * width].unflatten(1, (3, width)).mul_(c[:, None])
                own[:, 3 * width :].mul_(h)
                for_cell[layer] = c * f[layer, step]
                above, for_hidden[layer] = (own @ weights[layer]).chunk(2, dim=1)
                if masks is not None and layer > 0:
                    above = above * masks[layer - 1, step]
            below = above
        flat = through.flatten(1, 2)
        for_weights = flat.transpose(1, 2) @ inputs.flatten(1, 2)
        states = (torch.stack([value for value in found if value is not None]) for found in (for_hidden, for_cell))
        return for_weights, flat.sum(1), below, *states, None, None, None
