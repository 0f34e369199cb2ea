"""What drives the poses: oscillators against a loop over complex numbers, and what lasts."""

import cmath
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.vdsm.tiny_models import tiny_config
from vdsm.disentangler import Disentangler
from vdsm.dynamics_decoders import HARMONICS, OSCILLATORS, PERIODS, DynamicsDecoder, OscillatingDecoder

CODES = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def decoder(width: int = 8) -> OscillatingDecoder:
    torch.manual_seed(1)
    config = replace(tiny_config(), dynamics_decoder="oscillators", rnn_width=width, dynamics_size=5)
    return OscillatingDecoder(config).double()


def slowly(made: OscillatingDecoder, code: Tensor, length: int) -> Tensor:
    """Return the drive of one code [D], one oscillator, one time step and one harmonic after the other."""
    first, rates, log_rates = (values.tolist() for values in (made.start(code), made.rate(code), made.log_rate))
    frames = []
    for time in range(length):
        points = []
        for number in range(OSCILLATORS):
            begin = complex(first[number], first[OSCILLATORS + number])
            rate = math.exp(log_rates[number] + 0.5 * math.tanh(rates[number]))
            points += [(begin / abs(begin) * cmath.exp(1j * rate * time)) ** (k + 1) for k in range(HARMONICS)]
        inputs = [*(point.real for point in points), *(point.imag for point in points), *code.tolist()]
        frames.append(made.mix(torch.tensor(inputs, dtype=torch.float64)))
    return torch.stack(frames)


def test_each_oscillator_turns_at_the_rate_that_the_code_gives_it() -> None:
    made = decoder()
    found = made(CODES, 7)
    assert found.shape == (3, 7, 8)
    for row, code in enumerate(CODES):
        torch.testing.assert_close(found[row], slowly(made, code, 7), rtol=1e-10, atol=1e-10)


def test_periods_before_training_span_the_stated_range() -> None:
    made = decoder()
    periods = 2 * torch.pi / made.log_rate.detach().exp()
    assert len(periods) == OSCILLATORS
    assert float(periods[0]) == pytest.approx(PERIODS[0])
    assert float(periods[-1]) == pytest.approx(PERIODS[1])
    assert torch.all(periods.diff() > 0)


@pytest.mark.parametrize("kind", ["lstm", "oscillators"])
def test_a_longer_sequence_begins_as_a_shorter_one(kind: str) -> None:
    model = Disentangler(replace(tiny_config(), dynamics_decoder=kind)).eval()
    codes = torch.randn(2, model.config.dynamics_size)
    torch.testing.assert_close(model.poses(codes, 40)[:, :6], model.poses(codes, 6))


def test_a_motion_of_one_oscillator_is_in_its_hundredth_cycle_what_it_is_in_its_first() -> None:
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
