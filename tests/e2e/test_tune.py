"""Whole sweeps, whose driver is killed, whose trials fail, and which always end with what was asked for."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from pipeline.tuning.study import ERROR, RUN, settled, storage_of
from tests.e2e.training_runs import descendants, lines, wait

pytestmark = pytest.mark.slow

RATE = "training.stage1.learning_rate"
TRIALS = 4


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    content = {
        "trials": TRIALS,
        "startup_trials": 2,
        "judge_steps": 3,
        "pairs": 12,
        "space": {RATE: {"low": 1e-4, "high": 1e-2, "log": True}, "model.expert_init": {"choices": ["shared"]}},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def start(root: Path, figures_dataset: Path, tmp_path: Path, sweep: Path) -> Callable[[], subprocess.Popen[str]]:
    """Start the sweep's command as a process of its own."""

    def make() -> subprocess.Popen[str]:
        recipe = yaml.safe_load((root / "tests" / "tiny.yaml").read_text())
        recipe["training"] |= {"num_workers": 1, "validation_fraction": 0.4}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        words = ["--config", "recipe.yaml", "--sweep", str(sweep), "--data", str(figures_dataset)]
        command = [sys.executable, str(root / "pipeline" / "tune.py"), *words, "--out", "runs", "--name", "s"]
        variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
        with (tmp_path / "output.txt").open("a") as output:
            return subprocess.Popen(
                command, cwd=tmp_path, env=variables, stdout=output, stderr=output, start_new_session=True, text=True
            )

    return make


def finish(process: subprocess.Popen[str], output: Path) -> None:
    code = process.wait(500)
    assert code == 0, output.read_text()[-4000:]


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=storage_of(str(folder / "runs" / "s" / "study.journal")))


def runs_of(folder: Path) -> dict[str, list[str]]:
    """The events of each trial's run."""
    return {
        path.name: [line["event"] for line in lines(path / "events.jsonl")]
        for path in (folder / "runs" / "s" / "runs").iterdir()
    }


def kill(process: subprocess.Popen[str]) -> None:
    """The driver dies, and Ray's processes, which notice it, after it."""
    started = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()

    def still_there() -> bool:
        # The agents may linger for a minute; they hold nothing of the sweep.
        names = [Path(f"/proc/{pid}/comm") for pid, name in started.items() if "gent" not in name]
        return any(path.exists() for path in names)

    wait(lambda: not still_there(), "Ray's processes end after their driver")


def test_a_sweep_whose_driver_is_killed_again_and_again_ends_with_all_its_trials(
    start: Any, tmp_path: Path, trials: Callable[[int], int]
) -> None:
    generator = random.Random(7)
    for _ in range(trials(1)):
        process = start()
        try:
            # Anywhere between the first moments of the driver and several trials later.
            end = time.monotonic() + generator.uniform(4, 30)
            while time.monotonic() < end and process.poll() is None:
                time.sleep(0.1)
            kill(process)
        finally:
            process.kill()
    finish(start(), tmp_path / "output.txt")
    study = study_of(tmp_path)
    done = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(done) == len(settled(study)) == TRIALS
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    runs = runs_of(tmp_path)
    assert {trial.user_attrs[RUN] for trial in done} == set(runs)  # no run but those of the complete trials
    assert all(events.count("finished") == 1 for events in runs.values())  # and none was trained twice
    assert (tmp_path / "runs" / "s" / "best.yaml").exists()
    # The same command once more has nothing to do.
    finish(start(), tmp_path / "output.txt")
    assert runs_of(tmp_path) == runs
    assert f"all {TRIALS} trials are done" in (tmp_path / "output.txt").read_text()


def test_trials_that_fail_are_recorded_and_one_whose_worker_dies_recovers(
    start: Any, tmp_path: Path, sweep: Path
) -> None:
    content = yaml.safe_load(sweep.read_text())
    content["trials"] = 4
    # At 1e30 the loss is not finite after a step, so that those trials fail by themselves.
    content["space"] = {RATE: {"choices": [1e-3, 2e-3, 1e30]}}
    sweep.write_text(yaml.safe_dump(content))
    process = start()
    try:
        runs = tmp_path / "runs" / "s" / "runs"
        wait(lambda: any(lines(path) for path in runs.glob("*/metrics.jsonl")), "the first trial trains")
        workers = [pid for pid, name in descendants(process.pid).items() if "RayTrainWorker" in name]
        os.kill(workers[0], signal.SIGKILL)
        finish(process, tmp_path / "output.txt")
    finally:
        process.kill()
    study = study_of(tmp_path)
    for trial in settled(study):
        assert (trial.params[RATE] == 1e30) == (ERROR in trial.user_attrs), trial
        if ERROR in trial.user_attrs:
            assert "not finite" in trial.user_attrs[ERROR]
    assert len(settled(study)) == 4
    assert any("failure" in events and events[-1] == "finished" for events in runs_of(tmp_path).values())
