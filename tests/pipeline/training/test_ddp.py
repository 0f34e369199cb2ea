"""Several workers compute what one does, and with each of their options a resumed run equals an uninterrupted one."""

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

SINGLE_OPTIONS = ("static graph", "sharded optimiser", "compressed gradients")
Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def results(root: Path, small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return what the ranks of groups of one, two and four wrote, by `<rank>of<size>`."""
    return run_ranks(root, small_figures, tmp_path_factory.mktemp("ddp"), (1, 2, 4), ("plain", "all"))


@pytest.fixture(scope="module")
def single_options(root: Path, small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return what a pair wrote that trained with one option at a time."""
    return run_ranks(root, small_figures, tmp_path_factory.mktemp("ddp"), (2,), ("plain", *SINGLE_OPTIONS))


def run_ranks(root: Path, data: Path, folder: Path, sizes: Sequence[int], options: Sequence[str]) -> Results:
    """Run ddp_ranks.py, and return what each rank wrote, by `<rank>of<size>`."""
    script, recipe = str(root / "tests" / "pipeline" / "training" / "ddp_ranks.py"), str(root / "tests" / "tiny.yaml")
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    args = [sys.executable, script, str(data), recipe, str(folder), "".join(map(str, sizes)), *options]
    ranks = subprocess.Popen(args, env=environment, start_new_session=True)
    try:
        assert ranks.wait(timeout=400) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ranks.pid, signal.SIGKILL)
        ranks.wait()
    names = [f"{rank}of{size}" for size in sizes for rank in range(size)]
    return {name: torch.load(folder / name, weights_only=True) for name in names}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("stage", [1, 2, 3], ids=["stage 1", "stage 2", "stage 2, stored latents"])
def test_gradients_are_equal_on_all_ranks_and_are_those_of_the_whole_batch(
    results: Results, stage: int, size: int
) -> None:
    alone = results["0of1"]["gradients"][stage]
    first, *others = (results[f"{rank}of{size}"]["gradients"][stage] for rank in range(size))
    assert len(alone) > 10
    for name, gradient in alone.items():
        # A call past DDP.forward leaves each rank with the gradient of its own part of the batch.
        assert all(torch.equal(first[name], other[name]) for other in others), name
        torch.testing.assert_close(first[name], gradient, rtol=1e-4, atol=1e-8, msg=name)
    assert all(alone.keys() == other.keys() for other in (first, *others))


@pytest.mark.parametrize("size", [2, 4])
def test_losses_are_equal_up_to_rounding(results: Results, size: int) -> None:
    alone, group = results["0of1"]["records"], results[f"0of{size}"]["records"]
    assert not results[f"1of{size}"]["records"]  # rank 0 reports
    assert [record["overall_step"] for record in alone] == [record["overall_step"] for record in group]
    assert {record["kind"] for record in alone} == {"train", "validation"}
    for one, two in zip(alone, group, strict=True):
        for name in ("loss", "elbo", "reconstruction"):
            if name in one:
                # Sums over parts of the batch differ in the last bits of fp32, which 16 steps of Adam amplify.
                assert one[name] == pytest.approx(two[name], rel=1e-4), (name, one["overall_step"])


def test_every_number_of_workers_sees_the_same_clips_in_the_same_order(results: Results) -> None:
    orders = {}
    for size in (1, 2, 4):
        lines = sorted(results[f"0of{size}"]["audit"], key=lambda line: (line["stage"], line["step"], line["rank"]))
        assert {line["rank"] for line in lines} == set(range(size))
        assert len({(line["stage"], line["step"], line["rank"]) for line in lines}) == len(lines) == 16 * size
        orders[size] = [(line["stage"], line["step"], clip) for line in lines for clip in line["clips"]]
    assert orders[1] == orders[2] == orders[4]
    assert len(orders[1]) == 16 * 4
    # An epoch of stage 1 visits each of its clips once.
    visited = [clip for stage, _, clip in orders[1] if stage == 1]
    epoch = max(n for n in range(1, len(visited) + 1) if len(set(visited[:n])) == n)
    assert epoch < len(visited)
    assert set(Counter(visited[: len(visited) // epoch * epoch]).values()) == {len(visited) // epoch}


@pytest.mark.parametrize("option", ["plain", "all"])
def test_a_pair_that_was_stopped_ends_with_the_same_weights_bit_for_bit(results: Results, option: str) -> None:
    assert_stopped_equals_uninterrupted(results, option)


@pytest.mark.long
@pytest.mark.parametrize("option", SINGLE_OPTIONS)
def test_a_pair_with_one_option_that_was_stopped_ends_with_the_same_weights_bit_for_bit(
    single_options: Results, option: str
) -> None:
    assert_stopped_equals_uninterrupted(single_options, option)


def assert_stopped_equals_uninterrupted(results: Results, option: str) -> None:
    first, second = results["0of2"][option], results["1of2"][option]
    for name, value in first["uninterrupted"].items():
        assert torch.equal(value, first["resumed"][name]), name
        assert torch.equal(value, second["uninterrupted"][name]), name


@pytest.mark.long
def test_options_for_speed_and_memory_do_not_change_the_weights(single_options: Results) -> None:
    plain = single_options["0of2"]["plain"]["uninterrupted"]
    for option in ("sharded optimiser", "static graph"):
        for name, value in single_options["0of2"][option]["uninterrupted"].items():
            assert torch.equal(value, plain[name]), (option, name)
    compressed = single_options["0of2"]["compressed gradients"]["uninterrupted"]
    assert not all(torch.equal(value, plain[name]) for name, value in compressed.items())
