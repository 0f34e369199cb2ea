"""Dropout from a generator of its own, against that of torch.nn.LSTM."""

import pytest
import torch
from torch import Tensor, nn

from tests.vdsm.tiny_models import tiny_config
from vdsm.device import CPU
from vdsm.disentangler import Disentangler
from vdsm.dropout import SeededDropout, final_states

CLIPS, STEPS, WIDTH = 3, 5, 7


@pytest.mark.parametrize(("layers", "bidirectional"), [(2, True), (3, True), (3, False)])
def test_states_and_gradients_are_those_of_the_module_whose_generator_has_the_same_seed(
    layers: int, bidirectional: bool
) -> None:
    torch.manual_seed(1)
    rnn = nn.LSTM(4, WIDTH, layers, batch_first=True, dropout=0.3, bidirectional=bidirectional)
    states = torch.randn(2, layers * (1 + bidirectional), CLIPS, WIDTH)
    inputs = torch.randn(CLIPS, STEPS, 4, requires_grad=True)

    def gradients(final: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(final.square().sum(), [inputs, *rnn.parameters()]))

    torch.manual_seed(8)
    _, (expected, _) = rnn(inputs, (states[0], states[1]))
    dropout = SeededDropout(0.3)
    dropout.reseed(8, CPU)
    found = final_states(rnn, inputs, states[0], states[1], dropout)
    assert torch.equal(found, expected)
    for one, other in zip(gradients(found), gradients(expected), strict=True):
        torch.testing.assert_close(one, other)


def test_masks_depend_on_the_seed_alone() -> None:
    dropout, x = SeededDropout(0.5), torch.ones(1000)
    drawn = []
    for seed, before in ((3, 0), (3, 1), (4, 0)):
        dropout.reseed(seed, CPU)
        torch.manual_seed(before)
        torch.rand(before)
        drawn.append(dropout(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert set(drawn[0].tolist()) == {0.0, 2.0}
    assert 400 < int((drawn[0] == 0).sum()) < 600


def test_evaluation_and_a_probability_of_0_drop_nothing() -> None:
    x = torch.ones(5)
    assert SeededDropout(0.5).eval()(x) is x
    assert SeededDropout(0.0)(x) is x


def test_the_sequence_model_drops_between_layers_in_training_only() -> None:
    model = Disentangler(tiny_config(rnn_dropout=0.5)).sequence_model
    poses, dynamics = torch.randn(CLIPS, STEPS, 3), torch.randn(CLIPS, 4)
    assert [parameter for name, parameter in model.named_parameters() if "dropout" in name] == []
    for mode in (True, False):
        model.train(mode)
        locs, outputs = [], []
        for seed in (0, 0, 1):
            model.dropout.reseed(seed, CPU)
            locs.append(model.dynamics_encoder(poses)[0])
            outputs.append(model.dynamics_decoder(dynamics, STEPS))
        for same, other in (locs[:2], outputs[:2]):
            assert torch.equal(same, other)
        for one, other in (locs[1:], outputs[1:]):
            assert torch.equal(one, other) == (not mode)
