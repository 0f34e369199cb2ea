"""Number formats and determinism of a training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.training import precision
from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.precision import Precision, resolve_precision
from vdsm.device import CPU


@pytest.mark.parametrize("is_fast", [True, False])
def test_auto_is_bf16_where_that_is_fast(monkeypatch: pytest.MonkeyPatch, is_fast: bool) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: is_fast)
    assert resolve_precision(TrainingConfig(precision="auto"), DistributedContext()) == ("bf16" if is_fast else "fp32")
    assert resolve_precision(TrainingConfig(precision="bf16"), DistributedContext()) == "bf16"


def test_auto_is_fp32_if_one_rank_has_no_fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(DistributedContext, "any_rank", lambda self, *flags: (True,))
    assert resolve_precision(TrainingConfig(precision="auto"), DistributedContext(0, 2)) == "fp32"


@pytest.mark.parametrize("name", ["fp32", "tf32"])
def test_the_full_formats_do_not_cast(name: Any) -> None:
    with Precision(name, CPU).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_tf32_needs_gpus() -> None:
    TrainingConfig(precision="tf32", use_gpu=True)
    with pytest.raises(ValueError, match="precision is tf32, which needs use_gpu"):
        TrainingConfig(precision="tf32")


@pytest.mark.slow
def test_a_deterministic_training_on_the_cpu_is_the_usual_one(tiny_job: Callable[..., Job], recorder: Any) -> None:
    changes: dict[str, Any] = {"stage1": {"steps": 3}, "stage2": {"steps": 3}, "picture_interval": 0}
    weights = []
    try:
        for deterministic in (False, True):
            recorded = recorder()
            train_run(tiny_job(deterministic=deterministic, **changes), recorded)
            weights.append(recorded.states[2, 3].weights)
            assert torch.are_deterministic_algorithms_enabled() == deterministic
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
