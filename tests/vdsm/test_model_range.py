"""The model works at every frame size, clip length and number of experts that its settings allow."""

from typing import Any

import pytest
import torch

from tests.vdsm.tiny_models import CLIPS, LENGTH, tiny_case, tiny_config
from vdsm.annealing import un_annealed
from vdsm.decoder import ExpertTransposedConv
from vdsm.disentangler import Disentangler


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("downsampling", ["blur", "stride"])
def test_frames_of_every_size_and_kind(stage: int, channels: int, size: int, downsampling: str) -> None:
    widths = (4,) * {32: 3, 64: 4, 128: 5}[size]
    config = tiny_config(
        frame_size=size, channels=channels, encoder_downsampling=downsampling, encoder_channels=widths,
        decoder_channels=widths,
    )  # fmt: skip
    model = Disentangler(config)
    module: Any = model.prepare_stage(1 if stage == 1 else 2)
    frames = torch.rand(2, 2, channels, size, size)
    terms = module(frames, module.draw_noise(2, 2, torch.Generator().manual_seed(0)), un_annealed(3.0))
    terms.loss.backward()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in trained)
    assert model.reconstruct(frames).shape == frames.shape


@pytest.mark.parametrize("experts", [1, 2, 7])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_any_number_of_experts_and_any_length(experts: int, length: int) -> None:
    model = Disentangler(tiny_config(num_experts=experts)).eval()
    frames = torch.rand(2, length, 3, 32, 32)
    for number in (1, 2):
        stage: Any = model.prepare_stage(1 if number == 1 else 2)
        noise = stage.draw_noise(2, length, torch.Generator().manual_seed(0))
        assert all(torch.isfinite(term) for term in stage(frames, noise, un_annealed(3.0)))
    assert model.swap(dynamics_of=frames, static_of=frames).shape == frames.shape


@pytest.mark.parametrize("size", [4, 8])
def test_both_ways_of_upsampling_a_map_agree(size: int) -> None:
    conv: ExpertTransposedConv = tiny_case(1).model.decoder.layers[2]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(CLIPS, LENGTH, conv.shape[0], size, size, generator=generator, dtype=torch.float64)
    static = torch.softmax(torch.randn(CLIPS, 6, generator=generator, dtype=torch.float64), -1)
    drawn = []
    for largest in (0, 1000):
        conv.largest_folded = largest
        drawn.append(conv(x, static))
    assert drawn[0].shape == (CLIPS, LENGTH, conv.shape[1], 2 * size, 2 * size)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-11, atol=1e-12)
