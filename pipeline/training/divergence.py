"""When a run counts as diverged, and the error that names the cause."""

import math
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from pipeline.training.distributed import DistributedContext
from pipeline.training.position import TrainPosition
from vdsm.loss import LossTerms

BLOWN_UP = 1e4
"""Nats per pixel value above which a KL divergence never recovers. With their initial weights, all eight recipes that
were measured stay below 0.01; a run on Moving MNIST that blew up exceeded a million within 30 steps.
"""


class DivergenceError(ArithmeticError):
    """The loss or its gradient is NaN or infinite, or one of its terms has blown up.

    The message names the terms, the step and the clips.
    """

    def __init__(
        self, position: TrainPosition, terms: Sequence[str], clips: Sequence[str], *, finite: bool = False
    ) -> None:
        self.position, self.terms, self.clips = position, list(terms), list(clips)
        fault = f"is above {BLOWN_UP:,.0f} nats per value" if finite else "is not finite"
        super().__init__(
            f"{position}: {', '.join(terms)} {fault} on clips {', '.join(clips)}; inspect these clips, or start "
            f"a new run with a lower stage{position.stage}.learning_rate or a gradient_clip"
        )


def divergence_flags(terms: LossTerms, gradient_norm: Tensor) -> Tensor:
    """Return whether the loss is bad, and whether the loss or the gradient is: int32 [2], 0 or 1, on their device.

    A loss is bad if it is not finite or a KL divergence has blown up, a gradient if it is not finite.
    """
    blown_up = (torch.stack(list(terms.divergences.values())) > BLOWN_UP).any()
    bad_loss = blown_up | ~torch.isfinite(terms.loss)
    return torch.stack([bad_loss, bad_loss | ~torch.isfinite(gradient_norm)]).int()


def raise_divergence(
    position: TrainPosition, terms: LossTerms, clips: Sequence[str], world: DistributedContext
) -> NoReturn:
    """Raise the same DivergenceError on every rank, which all ranks must do together.

    Args:
        position: the step that diverged.
        terms: terms of this rank.
        clips: keys of this rank's clips.
        world: the ranks, of which those with a bad term are named.
    """
    bad = [name for name, value in terms._asdict().items() if not bool(torch.isfinite(value))]
    # The loss is the sum of the terms: name it only where each of them is finite.
    bad = [name for name in bad if name != "loss"] or bad
    large = [name for name, value in terms.divergences.items() if bool(BLOWN_UP < value < math.inf)]
    found = world.gather((bad, large, list(clips)))
    not_finite = [(names, keys) for names, _, keys in found if names]
    blown_up = [(names, keys) for _, names, keys in found if names]
    causes = not_finite or blown_up or [(["gradient"], keys) for *_, keys in found]
    names = sorted({name for some, _ in causes for name in some})
    keys = [key for _, some in causes for key in some]
    raise DivergenceError(position, names, keys, finite=bool(blown_up) and not not_finite)
