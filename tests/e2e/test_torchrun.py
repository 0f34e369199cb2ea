"""Training by torchrun, without Ray: the same weights as under Ray, from each other's checkpoints as well."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.train import main
from tests.e2e.training_runs import (
    LONGER,
    assert_every_clip_once,
    assert_same_weights,
    events,
    group_sizes,
    lines,
    reached,
    wait,
)

pytestmark = pytest.mark.slow
SPEEDS = {"clips_per_s", "seconds_per_step", "data_wait_share", "memory_gb"}


@pytest.fixture(scope="module")
def without_ray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for PYTHONPATH in whose presence Ray cannot be imported."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "ray.py").write_text("raise ImportError('this training needs no Ray')")
    return folder


@contextmanager
def torchrun(root: Path, args: list[str], without_ray: Path, ranks: int = 2) -> Iterator["subprocess.Popen[str]"]:
    """Start torchrun as a user does; it and what it started end with the block."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = {**os.environ, "PYTHONPATH": str(without_ray), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*launcher, "-m", "pipeline.train", "--launcher", "torchrun", *args],
        cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # it ends its workers, which are in sessions of their own
        if process.stdout is not None and not process.stdout.closed:
            process.communicate()


def train(root: Path, args: list[str], without_ray: Path) -> str:
    """Train to the end, and return the output."""
    with torchrun(root, args, without_ray) as process:
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the metrics of a run without the speeds."""
    return [{name: v for name, v in line.items() if name not in SPEEDS} for line in lines(run / "metrics.jsonl")]


def steps(run: Path) -> list[int]:
    return [one["overall_step"] for one in metrics(run)]


def test_torchrun_gives_the_weights_the_order_and_the_metrics_of_ray(
    undisturbed: Path, root: Path, train_args: Any, without_ray: Path, tmp_path: Path
) -> None:
    output = train(root, train_args(tmp_path, "run"), without_ray)
    run = tmp_path / "run"
    assert output.count("finished: ") == 1  # rank 0 alone logs
    assert events(run) == events(undisturbed)
    assert group_sizes(run) == [2]
    assert_same_weights(run, undisturbed, tmp_path)
    assert_every_clip_once(run, undisturbed)
    assert metrics(run) == metrics(undisturbed)
    changed = [*train_args(tmp_path, "run"), "--seed", "5"]
    with torchrun(root, changed, without_ray) as process:
        output, _ = process.communicate()
    assert process.returncode != 0
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "was started with other settings: seed 0 -> 5" in error


@pytest.mark.long
def test_each_resumes_the_checkpoint_of_the_other(
    undisturbed: Path, root: Path, train_args: Any, without_ray: Path, tmp_path: Path, local_ray: None
) -> None:
    args = train_args(tmp_path, "stopped")
    with torchrun(root, [*args, *LONGER], without_ray) as process:
        run = tmp_path / "stopped"
        wait(reached(run, 8), "step 8", process=process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()
    assert events(run) == ["start", "stopped"], output
    main(args)  # under Ray
    assert events(run)[2:3] == ["resume"]
    ray_run = Path(shutil.copytree(undisturbed, tmp_path / "ray"))
    for path in (ray_run / "stage2.pt", *(ray_run / "checkpoints").glob("stage2-*")):
        path.unlink()
    train(root, train_args(tmp_path, "ray"), without_ray)
    assert "resume" in events(ray_run)
    for resumed in (run, ray_run):
        assert_same_weights(resumed, undisturbed, tmp_path)
        assert_every_clip_once(resumed, undisturbed)
        # Neither a gap nor a step twice. The means of the record in which a training stopped are of fewer steps.
        assert steps(resumed) == steps(undisturbed)
    assert metrics(ray_run) == metrics(undisturbed)
