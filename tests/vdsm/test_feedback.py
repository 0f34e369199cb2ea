"""An LSTM fed its own output, against `nn.LSTM` called step by step."""

import pytest
import torch
from torch import Tensor, nn

from vdsm.feedback import feed_back

STEPS, CLIPS, WIDTH = 5, 3, 7


def called_step_by_step(rnn: nn.LSTM, first: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
    output, outputs = first[:, None], []
    for _ in range(STEPS):
        output, (hidden, cell) = rnn(output, (hidden, cell))
        outputs.append(output)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("layers", [1, 3])
def test_outputs_and_every_gradient_are_those_of_the_module(layers: int) -> None:
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    rnn = nn.LSTM(WIDTH, WIDTH, layers, batch_first=True).double()
    state = drawn(CLIPS, WIDTH), drawn(layers, CLIPS, WIDTH), drawn(layers, CLIPS, WIDTH)
    weights = drawn(CLIPS, STEPS, WIDTH).detach()
    expected = called_step_by_step(rnn, *state)
    found = feed_back(rnn, *state, STEPS)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    leaves = [*rnn.parameters(), *state]
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_dropout_acts_between_layers_while_training_and_never_afterwards() -> None:
    torch.manual_seed(5)
    rnn = nn.LSTM(WIDTH, WIDTH, 2, batch_first=True, dropout=1.0)
    state = torch.randn(CLIPS, WIDTH), torch.randn(2, CLIPS, WIDTH), torch.randn(2, CLIPS, WIDTH)
    other = state[0], torch.cat([torch.randn(1, CLIPS, WIDTH), state[1][1:]]), state[2]
    # All of the first layer's output is dropped, so its state does not reach the second layer.
    torch.testing.assert_close(feed_back(rnn, *state, STEPS), feed_back(rnn, *other, STEPS))
    rnn.eval()
    assert not torch.allclose(feed_back(rnn, *state, STEPS), feed_back(rnn, *other, STEPS))
    torch.testing.assert_close(feed_back(rnn, *state, STEPS), called_step_by_step(rnn, *state))
