"""Workers that cannot share a batch evenly compute the mean over the global batch all the same."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from pipeline.training import step as step_module
from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import DistributedContext, part_of
from pipeline.training.job import Job
from pipeline.training.notes import notes_on
from pipeline.training.stage import StageRun
from pipeline.training.stage_config import StageConfig
from vdsm import float_formats
from vdsm.config import AnnealingConfig
from vdsm.disentangler import Disentangler

Jobs = Callable[..., Job]
Gradients = dict[str, torch.Tensor]


def gradients(job: Job, stage: int, world: DistributedContext) -> tuple[Gradients, torch.Tensor]:
    """Return the gradients of one rank's share of step 2, and the terms of its loss."""
    torch.manual_seed(0)
    run = StageRun(job, 1 if stage == 1 else 2, Disentangler(job.model), None, world)  # type: ignore[arg-type]
    with run.batches(2) as batches:
        terms = run.stepper.gradients(2, next(iter(batches)))
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


@pytest.mark.parametrize("noise", ["keyed", "global"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_clips_that_exchange_static_codes_are_together_at_any_number_of_workers(
    tiny_job: Jobs, monkeypatch: pytest.MonkeyPatch, noise: str, accumulation: int
) -> None:
    monkeypatch.setattr(step_module, "wrap_ddp", lambda module, *_: module)
    annealing = dataclasses.replace(tiny_job().training.stage1.annealing, motion_consistency=0.5)
    stage1 = {"batch_clips": 10, "annealing": annealing}
    job = tiny_job(num_workers=2, noise=noise, stage1={**stage1, "accumulation": accumulation})
    ranks = [DistributedContext(rank, 2) for rank in range(2)]
    assert [rank.rows(10, together=2) for rank in ranks] == [slice(0, 4), slice(4, 10)]
    alone, terms = gradients(tiny_job(noise=noise, stage1=stage1), 1, DistributedContext())
    shares = [gradients(job, 1, rank) for rank in ranks]
    torch.testing.assert_close(torch.stack([own for _, own in shares]).mean(0), terms, rtol=1e-5, atol=1e-7)
    assert len(alone) > 10
    for name, gradient in alone.items():
        mean = torch.stack([found[name] for found, _ in shares]).mean(0)
        torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("together", [1, 2, 3])
def test_parts_are_whole_groups_that_differ_by_one(together: int) -> None:
    for groups in range(1, 9):
        for parts in range(1, groups + 1):
            found = [part_of(groups * together, number, parts, together) for number in range(parts)]
            assert [part.start for part in found] == [0, *(part.stop for part in found[:-1])]
            assert found[-1].stop == groups * together
            assert all(part.start % together == 0 for part in found)
            sizes = {part.stop - part.start for part in found}
            assert min(sizes) > 0
            assert max(sizes) - min(sizes) in (0, together)


def test_clips_that_cannot_exchange_static_codes_are_refused() -> None:
    annealing = AnnealingConfig(motion_consistency=0.02)

    def settings(clips: int, workers: int, accumulation: int = 1) -> None:
        stage1 = StageConfig(batch_clips=clips, annealing=annealing, accumulation=accumulation)
        TrainingConfig(num_workers=workers, stage1=stage1)

    settings(20, 10)
    with pytest.raises(ValueError, match=r"is 21; motion_consistency needs an even number.*; make it 22"):
        settings(21, 2)
    with pytest.raises(ValueError, match="is 20, but there are 11 workers; make it at least 22, or num_workers at"):
        settings(20, 11)
    with pytest.raises(ValueError, match="accumulation is 3, but each of 5 workers has 4 clips of a batch; lower it"):
        settings(20, 5, accumulation=3)
    note = "stage1.batch_clips is 20: of 4 workers, 2 take 6 clips and the others 4, and wait; 16 or 24 would be even"
    stage1 = StageConfig(batch_clips=20, annealing=annealing)
    assert list(notes_on(TrainingConfig(num_workers=4, stages="1", stage1=stage1))) == [note]


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
