"""The work of the commands on a device that is not the CPU (tests/second_device.py): it gives what the CPU gives."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline.second_device_runs import STEPS, UNSUPPORTED

pytestmark = pytest.mark.slow

Results = dict[str, Any]


@pytest.fixture(scope="module")
def results(root: Path, small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("second-device")
    script, recipe = (str(root / "tests" / name) for name in ("pipeline/second_device_runs.py", "tiny.yaml"))
    done = subprocess.run(
        [sys.executable, script, str(small_figures), recipe, str(folder)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    if done.returncode == UNSUPPORTED:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    found: Results = torch.load(folder / "results.pt", weights_only=True)
    return found


def assert_equal(found: Any, expected: Any, where: str) -> None:
    """Compare nested results up to rounding: both devices use the kernels of the CPU, but not always the same ones."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_equal(found[name], value, f"{where}, {name}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_equal(one, other, f"{where}, {number}")
    elif isinstance(expected, torch.Tensor):
        assert type(found) is torch.Tensor, where
        close = {"rtol": 0, "atol": 1} if expected.dtype == torch.uint8 else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(found, expected, equal_nan=True, msg=lambda text: f"{where}: {text}", **close)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-8, nan_ok=True), where
    else:
        assert found == expected, where


def test_a_training_that_was_stopped_and_resumed_there_equals_one_on_the_cpu(results: Results) -> None:
    on_cpu, there = results["cpu"]["training"], results["device"]["training"]
    assert there["outcome"] == (2, STEPS, True)
    assert len(there["metrics"]) > 12
    assert len(there["images"]) == 6
    assert there["priors"]
    assert_equal(there, on_cpu, "training")


def test_a_warm_start_there_equals_one_on_the_cpu(results: Results) -> None:
    assert results["device"]["warm start"]["outcome"] == (1, 1, True)
    assert_equal(results["device"]["warm start"], results["cpu"]["warm start"], "warm start")


@pytest.mark.parametrize("stage", [1, 2])
def test_a_step_waits_for_the_device_once(results: Results, stage: int) -> None:
    # For the flags of the step before, which it has computed meanwhile.
    assert results["waits per step"][stage] == {"vdsm/device.py:Readout.read": 1}


@pytest.mark.parametrize("work", ["training", "warm start"])
def test_checkpoints_hold_tensors_of_the_cpu(results: Results, work: str) -> None:
    assert results["device"][work]["kinds"] == ["Tensor"]


@pytest.mark.parametrize("work", ["evaluation", "generation", "adaptation"])
def test_commands_with_a_device_give_what_they_give_on_the_cpu(results: Results, work: str) -> None:
    assert results["device"][work]
    assert_equal(results["device"][work], results["cpu"][work], work)


def test_every_kind_of_output_was_generated(results: Results) -> None:
    kinds = ("interpolation", "prior", "reconstruction", "rollout", "samples", "transfer")
    files = {f"{prior} {kind}" for prior in ("fitted", "published") for kind in kinds}
    assert results["device"]["generation"].keys() == files | {"drawn codes"}


def test_an_evaluation_waits_at_most_twice_per_batch(results: Results) -> None:
    # For the judge's verdicts and, of the swaps, for the frames, whose traits are computed on the CPU.
    assert results["waits per batch"] == {
        "swapping poses": 1, "reconstructing": 1, "swapping dynamics codes": 2, "sampling identities": 1,
        "sampling actions": 1,
    }  # fmt: skip
