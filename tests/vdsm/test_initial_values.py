"""A model starts as documented: signals keep their size, scales are the prior's, and the transition keeps the pose."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.vdsm.tiny_models import tiny_config
from vdsm.config import ModelConfig
from vdsm.decoder import Decoder, ExpertTransposedConv
from vdsm.disentangler import Disentangler
from vdsm.encoder import ImageEncoder, start_scale_at


def deviation(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean().sqrt())


def wide(**changes: Any) -> ModelConfig:
    """Return a configuration with enough parameters for their deviations to be known to a few percent."""
    return tiny_config(**({"num_experts": 12, "decoder_channels": (48, 32, 24)} | changes))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_kernels_of_experts_have_the_deviation_that_keeps_a_blended_signal(groups: int, shared: bool) -> None:
    torch.manual_seed(0)
    config = wide(static_groups=groups, expert_init="shared" if shared else "independent")
    decoder = Decoder(config)
    layers: list[ExpertTransposedConv] = list(decoder.layers)  # type: ignore[arg-type]
    widths = [config.pose_size + 12, 48, 32, 24, 3]
    relu = math.sqrt(2 / (1 + 0.2**2))
    assert [layer.stride for layer in layers] == [1, 2, 2, 2]
    assert [layer.shape[:2] for layer in layers] == list(itertools.pairwise(widths))
    for number, layer in enumerate(layers):
        # A pixel of a layer that doubles a map sees 2 x 2 taps of each input channel, one of the first layer a single.
        gain, taps = relu if number < 3 else 1.0, 1 if number == 0 else 4
        scale = gain / math.sqrt(widths[number] * taps)
        own, common = scale**2 / groups, scale**2 / groups**2
        kernels = layer.kernels.detach()
        expected = math.sqrt(0.5 * (own + common)) if shared else math.sqrt(own)
        assert deviation(kernels) == pytest.approx(expected, rel=0.06)
        # The mean over the experts keeps what is common to them, and a twelfth of the variance of the rest.
        mean = math.sqrt(0.5 * (own / 12 + common)) if shared else math.sqrt(own / 12)
        assert deviation(kernels.mean(0)) == pytest.approx(mean, rel=0.08)
        assert not layer.biases.any()


def test_shared_kernels_pass_a_signal_through_all_layers_of_an_even_blend() -> None:
    sizes = {}
    for init in ("shared", "independent"):
        torch.manual_seed(0)
        decoder = Decoder(wide(expert_init=init, decoder_channels=(64, 64, 64)))
        static = torch.full((8, 12), 1 / 12)
        with torch.no_grad():
            sizes[init] = deviation(decoder(torch.randn(8, 4, 3) * 3, static))
    assert sizes["shared"] > 10 * sizes["independent"]


def test_initial_scales_are_those_of_the_priors() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(400, 300)
    start_scale_at(layer, 0.3)
    assert torch.allclose(F.softplus(layer.bias), torch.tensor(0.3))
    assert deviation(layer.weight) == pytest.approx(0.1 / 20, rel=0.02)

    for settings, static, dynamics in (
        ({}, 1 / 6, 1 / 4),
        ({"static_prior_scale": 0.5, "dynamics_prior_scale": 2.0}, 0.5, 2),
    ):
        model = Disentangler(tiny_config(**settings)).eval()
        assert (model.frame_model.static_prior_scale, model.sequence_model.dynamics_prior_scale) == (static, dynamics)
        with torch.no_grad():
            posterior: Any = model.sequence_model.infer(torch.rand(4, 3, 3, 32, 32))
        for (_, scale), expected in ((posterior.static, static), (posterior.dynamics, dynamics)):
            assert (scale / expected - 1).abs().max() < 0.25
            assert float(scale.mean()) == pytest.approx(expected, rel=0.1)


def test_codes_of_an_untrained_encoder_stand_out_of_their_noise_as_at_the_published_scale() -> None:
    poses, ratios = torch.randn(64, 6, 3), {}
    for init, scale in (("default", None), ("scaled", None), ("scaled", 1.0), ("scaled", 2.0), ("default", 2.0)):
        torch.manual_seed(0)
        config = tiny_config(dynamics_init=init, dynamics_prior_scale=scale)
        encoder = Disentangler(config).sequence_model.dynamics_encoder.eval()
        with torch.no_grad():
            loc, noise = encoder(poses)
        ratios[init, scale] = float(loc.std(0).mean() / noise.mean())
    published = ratios["default", None]
    assert ratios["scaled", None] == published
    assert ratios["scaled", 1.0] == pytest.approx(published, rel=0.3)
    assert ratios["scaled", 2.0] == pytest.approx(published, rel=0.3)
    assert ratios["default", 2.0] < published / 4


def test_the_transition_starts_as_the_identity_and_all_learned_starts_at_zero() -> None:
    model = Disentangler(tiny_config()).sequence_model
    assert torch.equal(model.transition.step.weight, torch.eye(3))
    starts = (
        model.transition.step.bias, model.dynamics_encoder.initial, model.dynamics_decoder.first_input,
        model.combiner.first_pose,
    )  # fmt: skip
    assert not any(start.any() for start in starts)


@pytest.mark.parametrize("slope", [0.0, 0.5])
@pytest.mark.parametrize("init", ["default", "he"])
def test_he_initialisation_has_the_variance_of_its_paper_and_no_bias(init: Any, slope: float) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(
        tiny_config(encoder_init=init, encoder_slope=slope, encoder_channels=(16, 24, 32), encoder_hidden=64)
    )
    layers = [
        layer
        for layer in (*encoder.blocks.modules(), encoder.to_hidden, encoder.static[0])
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    assert len(layers) == 5
    for layer in layers:
        inputs = layer.weight[0].numel()
        assert layer.bias is not None
        if init == "he":
            assert deviation(layer.weight) == pytest.approx(math.sqrt(2 / ((1 + slope**2) * inputs)), rel=0.1)
            assert not layer.bias.any()
        else:
            # torch's own: uniform within 1 / sqrt(inputs), for weights and biases.
            assert float(layer.weight.detach().abs().max()) == pytest.approx(1 / math.sqrt(inputs), rel=0.1)
            assert layer.bias.all()


@pytest.mark.parametrize(("layers", "dropout"), [(1, 0.0), (3, 0.4)])
def test_dropout_is_between_layers_of_the_recurrent_nets(layers: int, dropout: float) -> None:
    model = Disentangler(tiny_config(rnn_layers=layers, rnn_dropout=0.4)).sequence_model
    for rnn in (model.dynamics_encoder.rnn, model.dynamics_decoder.rnn):
        assert (rnn.num_layers, rnn.dropout, rnn.hidden_size) == (layers, dropout, 7)


def test_a_normal_draw_of_noise_has_the_shapes_of_the_latents() -> None:
    model = Disentangler(tiny_config())
    first = model.frame_model.draw_noise(400, 5, torch.Generator().manual_seed(0))
    second = model.sequence_model.draw_noise(400, 5, torch.Generator().manual_seed(0))
    assert [tuple(part.shape) for part in first] == [(400, 6), (400, 5, 3)]
    assert [tuple(part.shape) for part in second] == [(400, 6), (400, 4), (400, 5, 3), (400, 6)]
    for part in (*first, *second):
        assert float(part.mean()) == pytest.approx(0, abs=0.1)
        assert deviation(part) == pytest.approx(1, abs=0.1)
