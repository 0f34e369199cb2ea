"""The guide's walk over the poses, against calls of its transition one step after the other."""

import torch
from torch import Tensor

from tests.vdsm.tiny_models import tiny_config
from vdsm.combiner import Combiner

CLIPS, STEPS = 3, 5


def drawn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)


def stepped(combiner: Combiner, drive: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
    pose, steps = combiner.first_pose.expand(CLIPS, -1), []
    for time in range(STEPS):
        loc, scale = combiner(pose, drive[:, time])
        pose = loc + scale * noise[:, time]
        steps.append((pose, loc, scale))
    return tuple(torch.stack(each, dim=1) for each in zip(*steps, strict=True))


def test_the_walk_and_every_gradient_are_those_of_single_steps() -> None:
    config = tiny_config()
    torch.manual_seed(0)
    combiner = Combiner(config).double()
    for parameter in combiner.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    drive = drawn(CLIPS, STEPS, config.rnn_width, seed=1)
    noise = drawn(CLIPS, STEPS, config.pose_size, seed=2).detach()
    found, expected = combiner.walk(drive, noise), stepped(combiner, drive, noise)
    leaves = [drive, *(value for name, value in combiner.named_parameters() if not name.startswith("from_dynamics"))]
    assert len(leaves) == 8
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        # Each output alone, so that the gradient of none hides behind that of another.
        weights = drawn(*one.shape, seed=3 + number).detach()
        gradients = (
            torch.autograd.grad(
                (value * weights).sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for value in (one, other)
        )
        for gradient, wanted in zip(*gradients, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-12)


def test_without_gradients_the_walk_is_the_same() -> None:
    config = tiny_config()
    combiner = Combiner(config)
    drive, noise = torch.randn(CLIPS, STEPS, config.rnn_width), torch.randn(CLIPS, STEPS, config.pose_size)
    expected = combiner.walk(drive, noise)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert all(map(torch.equal, combiner.walk(drive, noise), expected))
