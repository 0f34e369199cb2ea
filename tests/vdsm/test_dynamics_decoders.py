"""What drives the poses: a phase against a loop over complex numbers, and what lasts."""

import cmath
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.vdsm.tiny_models import tiny_config
from vdsm.disentangler import Disentangler
from vdsm.dynamics_decoders import HARMONICS, PERIOD, DynamicsDecoder, PhaseDecoder

CODES = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def decoder(width: int = 8) -> PhaseDecoder:
    torch.manual_seed(1)
    config = replace(tiny_config(), dynamics_decoder="phase", rnn_width=width, dynamics_size=5)
    return PhaseDecoder(config).double()


def slowly(made: PhaseDecoder, code: Tensor, length: int) -> Tensor:
    """Return the drive of one code [D], one time step and one harmonic after the other."""
    begin, rate = complex(*made.start(code).tolist()), made.rate(code).item()
    rate = math.exp(made.log_rate.item() + 0.5 * math.tanh(rate))
    content, frames = made.content(code), []
    for time in range(length):
        points = [(begin / abs(begin) * cmath.exp(1j * rate * time)) ** k / k for k in range(1, HARMONICS + 1)]
        inputs = torch.tensor([*(point.real for point in points), *(point.imag for point in points)]).double()
        frames.append(made.out(made.drawn(inputs) + content * (1 + made.scaled(inputs))))
    return torch.stack(frames)


def test_the_phase_turns_at_the_rate_that_the_code_gives_it() -> None:
    made = decoder()
    found = made(CODES, 7)
    assert found.shape == (3, 7, 8)
    for row, code in enumerate(CODES):
        torch.testing.assert_close(found[row], slowly(made, code, 7), rtol=1e-6, atol=1e-6)


def test_the_period_before_training_is_the_stated_one() -> None:
    assert 2 * math.pi / math.exp(decoder().log_rate.item()) == pytest.approx(PERIOD)


@pytest.mark.parametrize("kind", ["lstm", "phase"])
def test_a_longer_sequence_begins_as_a_shorter_one(kind: str) -> None:
    model = Disentangler(replace(tiny_config(), dynamics_decoder=kind)).eval()
    codes = torch.randn(2, model.config.dynamics_size)
    torch.testing.assert_close(model.poses(codes, 40)[:, :6], model.poses(codes, 6))


def test_a_motion_is_in_its_hundredth_cycle_what_it_is_in_its_first() -> None:
    made = decoder()
    with torch.no_grad():
        made.rate.weight.zero_()
        made.rate.bias.zero_()
        made.log_rate.fill_(math.log(2 * math.pi / 7))
        drive = made(CODES, 700)
    assert float(drive[:, :7].diff(dim=1).abs().mean()) > 0.01
    torch.testing.assert_close(drive[:, -7:], drive[:, :7], rtol=1e-8, atol=1e-8)


def test_models_of_before_drive_poses_by_an_lstm() -> None:
    config = tiny_config()
    assert config.dynamics_decoder == "lstm"
    assert isinstance(Disentangler(config).sequence_model.dynamics_decoder, DynamicsDecoder)
