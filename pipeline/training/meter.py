"""Training metrics over the last few steps."""

import contextlib
import resource
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pipeline.training.distributed import DistributedContext
from vdsm.annealing import Weights
from vdsm.config import REGULARISERS
from vdsm.loss import LossTerms


class Meter:
    """Averages the terms of a stage over steps and ranks, and measures the time.

    Sums stay on the device until a record is due, so that no step waits for them.
    """

    def __init__(self, batch_clips: int, world: DistributedContext) -> None:
        self._batch_clips, self._world = batch_clips, world
        self._waited_s = 0.0
        self._reset()

    def _reset(self) -> None:
        self._sums: Tensor | None = None
        self._steps = 0
        self._began = time.perf_counter()

    def add(self, terms: LossTerms, gradient_norm: Tensor) -> None:
        """Add one step: the terms of this rank's clips, and the gradient norm before clipping."""
        values = torch.stack([*terms, gradient_norm]).detach().double()
        self._sums = values if self._sums is None else self._sums + values
        self._steps += 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time spent in this block, such as in validation, from the rates."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def record(self, *, waited_s: float, weights: Weights, learning_rate: float) -> dict[str, Any]:
        """Return the means since the last record. All ranks must call together.

        Args:
            waited_s: total time that this rank has waited for data, in seconds.
            weights: annealed weights of the last step.
            learning_rate: learning rate of the last step.

        Returns:
            A dict with the keys

            - `loss` and its terms `reconstruction`, `kl_static`, `kl_pose`, `kl_dynamics`, in nats per pixel value,
              the KLs without their weights; and the regularisers that have a weight, see `vdsm.loss.LossTerms`
            - `gradient_norm` before clipping, `learning_rate`, `weight_pose`, `weight_static`, `weight_dynamics`,
              `temperature`
            - `clips_per_s` over all workers, `seconds_per_step`
            - `data_wait_share`: fraction of the time spent waiting for data, averaged over workers
            - `memory_gb`: peak memory of any worker so far, in 10^9 bytes; of its GPU if it has one
        """
        if self._sums is None:
            raise ValueError("no step since the last record")
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        own = torch.zeros(1 + self._world.size, dtype=torch.float64, device=self._sums.device)
        own[0] = (waited_s - self._waited_s) / elapsed
        own[1 + self._world.rank] = self._memory_gb() * self._world.size
        means = self._world.sum(torch.cat([self._sums / self._steps, own])) / self._world.size
        names = (*LossTerms._fields, "gradient_norm", "data_wait_share")
        record: dict[str, Any] = dict(zip(names, means.tolist(), strict=False))
        record["memory_gb"] = float(means[len(names) :].max())
        for name in REGULARISERS:
            if not getattr(weights, name):
                del record[name]
        record |= {f"weight_{name}": getattr(weights, name) for name in ("pose", "static", "dynamics")}
        record |= {"temperature": weights.temperature, "learning_rate": learning_rate}
        record["clips_per_s"] = self._steps * self._batch_clips / elapsed
        record["seconds_per_step"] = elapsed / self._steps
        self._waited_s = waited_s
        self._reset()
        return record

    def _memory_gb(self) -> float:
        if self._world.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._world.device) / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
