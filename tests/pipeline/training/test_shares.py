"""Workers that cannot share a batch evenly compute the mean over the global batch all the same."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from pipeline.training import step as step_module
from pipeline.training.batches import read_windows
from pipeline.training.config import StageConfig, TrainingConfig
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job
from pipeline.training.notes import notes_on
from pipeline.training.stage import StageRun
from vdsm import float_formats
from vdsm.disentangler import Disentangler

Jobs = Callable[..., Job]
Gradients = dict[str, torch.Tensor]


def gradients(job: Job, stage: int, world: DistributedContext) -> tuple[Gradients, torch.Tensor]:
    """Return the gradients of one rank's share of step 2, and the terms of its loss."""
    torch.manual_seed(0)
    run = StageRun(job, 1 if stage == 1 else 2, Disentangler(job.model), None, world)  # type: ignore[arg-type]
    windows = run.order.at(2).part(world.rows(run.config.batch_clips))
    terms = run.stepper.gradients(2, read_windows(job.clips, windows, 4))
    found = {name: p.grad for name, p in run.module.named_parameters() if p.grad is not None}
    return found, torch.stack(list(terms))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_gradients_and_loss_are_the_mean_over_the_global_batch(
    tiny_job: Jobs, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    monkeypatch.setattr(step_module, "wrap_ddp", lambda module, *_: module)
    # Dropout is drawn per worker.
    job = tiny_job(num_workers=3, model={"rnn_dropout": 0.0}, **{f"stage{stage}": {"batch_clips": 5}})
    ranks = [DistributedContext(rank, 3) for rank in range(3)]
    assert [len(range(5)[rank.rows(5)]) for rank in ranks] == [1, 2, 2]
    alone, terms = gradients(job, stage, DistributedContext())
    shares = [gradients(job, stage, rank) for rank in ranks]
    torch.testing.assert_close(torch.stack([own for _, own in shares]).mean(0), terms, rtol=1e-5, atol=1e-7)
    assert len(alone) > 10
    for name, gradient in alone.items():
        mean = torch.stack([found[name] for found, _ in shares]).mean(0)  # as DDP computes it
        torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_more_workers_than_clips_are_refused() -> None:
    TrainingConfig(num_workers=20)
    with pytest.raises(
        ValueError, match="is 20, but there are 21 workers; make it at least 21, or num_workers at most 2"
    ):
        TrainingConfig(num_workers=21)


def test_uneven_shares_are_noted_with_the_numbers_that_are_even() -> None:
    assert list(notes_on(TrainingConfig(num_workers=4))) == []
    notes = list(notes_on(TrainingConfig(num_workers=8, stages="1")))
    assert notes == [
        "stage1.batch_clips is 20: of 8 workers, 4 take 3 clips and the others 2, and wait; 16 or 24 would be even"
    ]


def test_a_static_graph_is_not_used_with_accumulation() -> None:
    accumulating = StageConfig(accumulation=2)
    training = TrainingConfig(static_graph=True, stage2=accumulating)
    assert (training.uses_static_graph(1), training.uses_static_graph(2)) == (True, False)
    assert not dataclasses.replace(training, static_graph=False).uses_static_graph(1)
    assert list(notes_on(training)) == [
        "static_graph is not used in stage 2, whose accumulation is 2: DDP fails with both"
    ]


def test_bf16_without_instructions_for_it_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_fast in (True, False):
        monkeypatch.setattr("pipeline.training.notes.has_fast_bf16", lambda device, is_fast=is_fast: is_fast)
        notes = list(notes_on(TrainingConfig(precision="bf16")))
        assert len(notes) == (not is_fast)
        assert all(
            f"about {float_formats.SLOW_BF16} times as long as in fp32; choose fp32, or auto" in n for n in notes
        )
    assert list(notes_on(TrainingConfig(precision="auto"))) == []
