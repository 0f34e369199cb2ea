"""Invalid settings of the model are refused with a message that names the setting and its value."""

import re
from typing import Any

import pytest

from vdsm.config import ModelConfig
from vdsm.decoder import Decoder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_experts": 0}, "num_experts is 0; it must be at least 1"),
        ({"pose_size": 0}, "pose_size is 0; it must be at least 1"),
        ({"dynamics_size": -1}, "dynamics_size is -1; it must be at least 1"),
        ({"encoder_hidden": 0}, "encoder_hidden is 0; it must be at least 1"),
        ({"static_hidden": 0}, "static_hidden is 0; it must be at least 1"),
        ({"rnn_width": 0}, "rnn_width is 0; it must be at least 1"),
        ({"rnn_layers": 0}, "rnn_layers is 0; it must be at least 1"),
        ({"encoder_channels": ()}, "encoder_channels is ()"),
        ({"encoder_channels": (32, 0, 64, 64)}, "encoder_channels is (32, 0, 64, 64); every entry must be at least 1"),
        ({"decoder_channels": (8, 8, -8, 8)}, "decoder_channels is (8, 8, -8, 8); every entry must be at least 1"),
        ({"static_prior_scale": 0.0}, "static_prior_scale is 0.0; it must be above 0"),
        ({"static_prior_scale": float("nan")}, "static_prior_scale is nan; it must be above 0"),
        ({"dynamics_prior_scale": -0.5}, "dynamics_prior_scale is -0.5; it must be above 0"),
        ({"frame_size": 48}, "frame_size is 48; it must be 32, 64 or 128"),
        ({"static_groups": 0}, "static_groups is 0; it must divide num_experts, 40"),
        ({"static_groups": 3}, "static_groups is 3; it must divide num_experts, 40"),
        ({"channels": 2}, "channels is 2; it must be 1 (grey) or 3 (RGB)"),
        ({"rnn_dropout": 1.0}, "rnn_dropout is 1.0; it must be in [0, 1)"),
        ({"rnn_dropout": -0.1}, "rnn_dropout is -0.1; it must be in [0, 1)"),
        (
            {"decoder_channels": (8, 8, 8)},
            "decoder_channels has 3 entries, which fits frames of 32 pixels, but frame_size is 64",
        ),
        (
            {"encoder_channels": (8, 8, 8)},
            "encoder_channels has 3 entries, which fits frames of 32 pixels, but frame_size is 64",
        ),
        ({"num_experts": 6, "static_groups": 6}, "static_groups is 6, one expert per group"),
        ({"likelihood_scale": 0.1}, "likelihood_scale is 0.1, but a bernoulli likelihood has no scale"),
        ({"likelihood": "gaussian", "likelihood_scale": 0.0}, "likelihood_scale is 0.0; it must be at least 0.0039"),
        ({"likelihood": "laplace", "likelihood_scale": float("nan")}, "likelihood_scale is nan; it must be at least"),
        ({"encoder_weights": "resnet.pth"}, "encoder_weights is resnet.pth, but image_encoder conv takes none"),
        (
            {"image_encoder": "inception_v3"},
            "frame_size is 64, but image_encoder inception_v3 needs at least 75 pixels",
        ),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelConfig(**settings)


def test_the_defaults_are_the_published_shapes() -> None:
    config = ModelConfig()
    assert (config.pose_size, config.num_experts, config.dynamics_size) == (30, 40, 50)
    assert config.encoder_channels == (32, 32, 64, 64)
    assert config.decoder_channels == (512, 256, 128, 64)
    assert (config.rnn_width, config.rnn_layers, config.rnn_dropout) == (512, 3, 0.2)
    assert (config.encoder_hidden, config.static_hidden) == (256, 128)


def test_the_published_decoder_has_133_million_parameters() -> None:
    # One expert with the same 30 + 40 inputs is a fortieth of them.
    published = ModelConfig()
    decoder = Decoder(ModelConfig(num_experts=1, pose_size=published.pose_size + published.num_experts - 1))
    per_expert = sum(parameter.numel() for parameter in decoder.parameters())
    assert round(published.num_experts * per_expert / 1e6, 1) == 133.2
