"""How many operators a training step launches: on a GPU, launching them is what the host spends its time on."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.vdsm.tiny_models import tiny_config
from vdsm.annealing import Weights
from vdsm.disentangler import Disentangler


class Operators(TorchDispatchMode):
    """Counts the operators that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [argument.alias_info for argument in function._schema.arguments]
        self.count += not any(alias is not None and not alias.is_write for alias in aliases)
        return function(*args, **(kwargs or {}))


# Before, 1,294 and 4,014 (docs/performance.md).
@pytest.mark.parametrize(("stage", "most"), [(1, 280), (2, 1000)])
def test_a_step_launches_few_operators(stage: Any, most: int) -> None:
    """With the numbers of layers and frames that were published. Sizes do not matter."""
    shape = {"frame_size": 64, "encoder_channels": (4, 5, 6, 7), "decoder_channels": (6, 5, 4, 3)}
    config = tiny_config(**shape, rnn_layers=3, rnn_dropout=0.3)
    module: Any = Disentangler(config).prepare_stage(stage).train()
    frames, noise = torch.rand(2, 8, 3, 64, 64), module.draw_noise(2, 8, torch.Generator().manual_seed(0))
    with Operators() as operators:
        module(frames, noise, Weights(pose=0.5, static=1.0, dynamics=1.0, temperature=5.0)).loss.backward()
    assert 0.8 * most < operators.count <= most
