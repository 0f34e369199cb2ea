"""Two workers compute what one does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def results(root: Path, figures_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What ddp_rank.py wrote for one rank alone (`alone`) and for the ranks of a pair (`first`, `second`)."""
    folder = tmp_path_factory.mktemp("ddp")
    ranks = {"alone": ("0", "1"), "first": ("0", "2"), "second": ("1", "2")}
    script, recipe = str(root / "tests" / "pipeline" / "ddp_rank.py"), str(root / "tests" / "tiny.yaml")
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    processes = []
    for name, (rank, size) in ranks.items():
        words = [rank, size, str(folder / "store"), str(figures_dataset), recipe, str(folder / name)]
        processes.append(subprocess.Popen([sys.executable, script, *words], env=environment))
    try:
        assert [process.wait(timeout=240) for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
    return {name: torch.load(folder / name, weights_only=True) for name in ranks}


@pytest.mark.parametrize("stage", [1, 2])
def test_gradients_are_equal_on_both_ranks_and_are_those_of_the_whole_batch(
    results: dict[str, dict[str, Any]], stage: int
) -> None:
    alone, first, second = (results[name]["gradients"][stage] for name in ("alone", "first", "second"))
    assert alone.keys() == first.keys() == second.keys()
    assert len(alone) > 10
    for name, gradient in alone.items():
        # A call past DDP.forward leaves each rank with the gradient of its own half of the batch.
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], gradient, rtol=1e-4, atol=1e-8, msg=name)


def test_losses_are_equal_but_for_rounding(results: dict[str, dict[str, Any]]) -> None:
    alone, pair = results["alone"]["records"], results["first"]["records"]
    assert not results["second"]["records"]  # rank 0 reports
    assert [record["overall_step"] for record in alone] == [record["overall_step"] for record in pair]
    assert {record["kind"] for record in alone} == {"train", "validation"}
    for one, two in zip(alone, pair, strict=True):
        for name in ("loss", "elbo", "reconstruction"):
            if name in one:
                # Sums over 2 x 2 clips instead of 4 differ in the last bits of fp32; 40 steps of Adam widen that.
                assert one[name] == pytest.approx(two[name], rel=1e-4), (name, one["overall_step"])
