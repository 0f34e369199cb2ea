"""An LSTM fed its own output, against `nn.LSTM` called step by step."""

import pytest
import torch
from torch import Tensor, nn

from vdsm.dropout import SeededDropout
from vdsm.feedback import feed_back

STEPS, CLIPS, WIDTH = 5, 3, 7
NONE = SeededDropout(0.0)


def called_step_by_step(rnn: nn.LSTM, first: Tensor, hidden: Tensor, cell: Tensor, masks: Tensor) -> Tensor:
    """Call the layers as single LSTMs, with `masks` [L - 1, T, B, R] between them."""
    layers = []
    for number in range(rnn.num_layers):
        layer = nn.LSTM(WIDTH, WIDTH, batch_first=True).to(first.dtype)
        # The same tensors, so that gradients reach the parameters of `rnn`.
        names = [name.replace(f"l{number}", "l0") for name, _ in rnn.named_parameters() if name.endswith(f"l{number}")]
        layers.append((layer, dict(zip(names, rnn.all_weights[number], strict=True))))
    output, outputs = first[:, None], []
    states = [(hidden[number][None], cell[number][None]) for number in range(rnn.num_layers)]
    for step in range(STEPS):
        for number, (layer, weights) in enumerate(layers):
            output, states[number] = torch.func.functional_call(layer, weights, (output, states[number]))
            if number < rnn.num_layers - 1:
                output = output * masks[number, step][:, None]
        outputs.append(output)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("probability", [0.0, 0.4])
def test_outputs_and_every_gradient_are_those_of_the_module(layers: int, probability: float) -> None:
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    rnn = nn.LSTM(WIDTH, WIDTH, layers, batch_first=True).double()
    state = drawn(CLIPS, WIDTH), drawn(layers, CLIPS, WIDTH), drawn(layers, CLIPS, WIDTH)
    weights = drawn(CLIPS, STEPS, WIDTH).detach()
    dropout = SeededDropout(probability)
    dropout.reseed(7, torch.device("cpu"))
    masks = torch.ones(layers - 1, STEPS, CLIPS, WIDTH, dtype=torch.float64)
    if probability:
        masks = dropout.mask(masks)
        assert layers == 1 or set(masks.unique().tolist()) == {0.0, 1 / 0.6}
        dropout.reseed(7, torch.device("cpu"))
    expected = called_step_by_step(rnn, *state, masks)
    found = feed_back(rnn, *state, STEPS, dropout)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    leaves = [*rnn.parameters(), *state]
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_without_gradients_the_outputs_are_the_same() -> None:
    rnn = nn.LSTM(WIDTH, WIDTH, 2, batch_first=True)
    state = torch.randn(CLIPS, WIDTH), torch.randn(2, CLIPS, WIDTH), torch.randn(2, CLIPS, WIDTH)
    expected = feed_back(rnn, *state, STEPS, NONE)
    with torch.no_grad():
        assert torch.equal(feed_back(rnn, *state, STEPS, NONE), expected)
    with torch.inference_mode():
        assert torch.equal(feed_back(rnn, *state, STEPS, NONE), expected)


def test_dropout_acts_between_layers_while_training_and_never_afterwards() -> None:
    torch.manual_seed(5)
    rnn, dropout = nn.LSTM(WIDTH, WIDTH, 2, batch_first=True), SeededDropout(0.999)
    state = torch.randn(CLIPS, WIDTH), torch.randn(2, CLIPS, WIDTH), torch.randn(2, CLIPS, WIDTH)
    other = state[0], torch.cat([torch.randn(1, CLIPS, WIDTH), state[1][1:]]), state[2]
    dropout.reseed(0, torch.device("cpu"))
    # All of the first layer's output is dropped, so its state does not reach the second layer.
    torch.testing.assert_close(feed_back(rnn, *state, STEPS, dropout), feed_back(rnn, *other, STEPS, dropout))
    dropout.eval()
    found = feed_back(rnn, *state, STEPS, dropout)
    assert not torch.allclose(found, feed_back(rnn, *other, STEPS, dropout))
    ones = torch.ones(1, STEPS, CLIPS, WIDTH)
    torch.testing.assert_close(found, called_step_by_step(rnn, *state, ones))
