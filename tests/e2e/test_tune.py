"""Complete sweeps whose driver is killed or whose trials fail, and which still end with every trial."""

import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from pipeline.runs.store import read_recipe
from pipeline.tune import main
from pipeline.tuning.study import ERROR, RUN, finished_trials, storage_of
from tests.e2e.training_runs import descendants, lines, reached, wait, workers

pytestmark = pytest.mark.long

RATE = "training.stage1.learning_rate"
TRIALS = 3


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
def args(root: Path, small_figures: Path, tmp_path: Path, sweep: Path) -> list[str]:
    """Return the arguments of `vdsm tune`."""
    recipe = yaml.safe_load((root / "tests" / "tiny.yaml").read_text())
    recipe["training"] |= {"num_workers": 1, "validation_fraction": 0.4}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    inputs = ["--config", str(tmp_path / "recipe.yaml"), "--sweep", str(sweep), "--data", str(small_figures)]
    return [*inputs, "--out", str(tmp_path / "runs"), "--name", "s"]


@pytest.fixture
def start(root: Path, args: list[str], tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    """Return a function that starts `vdsm tune` in a process of its own."""

    def start_sweep() -> subprocess.Popen[str]:
        command = [sys.executable, str(root / "pipeline" / "tune.py"), *args]
        variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
        with (tmp_path / "output.txt").open("a") as output:
            return subprocess.Popen(
                command, cwd=tmp_path, env=variables, stdout=output, stderr=output, start_new_session=True, text=True
            )

    return start_sweep


def finish(process: subprocess.Popen[str], output: Path) -> None:
    code = process.wait(500)
    assert code == 0, output.read_text()[-4000:]


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=storage_of(str(folder / "runs" / "s" / "study.journal")))


def runs_of(folder: Path) -> dict[str, list[str]]:
    """Return the events of each trial's run."""
    return {
        path.name: [line["event"] for line in lines(path / "events.jsonl")]
        for path in (folder / "runs" / "s" / "runs").glob("*")
    }


def kill(process: subprocess.Popen[str]) -> None:
    """Kill the driver, and wait until Ray's processes have noticed and ended."""
    started = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()

    def running() -> bool:
        # Ray's agents may linger for a minute; they hold no resources of the sweep.
        names = [Path(f"/proc/{pid}/comm") for pid, name in started.items() if "gent" not in name]
        return any(path.exists() for path in names)

    wait(lambda: not running(), "Ray's processes end after their driver")


def test_a_sweep_whose_driver_is_killed_again_and_again_ends_with_all_its_trials(
    local_ray: None,
    args: list[str],
    start: Any,
    tmp_path: Path,
    sweep: Path,
    trials: Callable[[int], int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kills = trials(1)
    trials_wanted = max(TRIALS, kills + 2)
    sweep.write_text(yaml.safe_dump(yaml.safe_load(sweep.read_text()) | {"trials": trials_wanted}))
    generator = random.Random(7)
    killed = 0
    while killed < kills:
        before, size = groups_started(tmp_path), output_size(tmp_path)
        process = start()
        try:
            # Every second time while trials train, otherwise at any moment after the driver's start.
            if killed % 2 == 0:
                wait(functools.partial(trains_or_ended, tmp_path, before, process), "the sweep resumes")
            time.sleep(generator.uniform(0, 3) if killed % 2 == 0 else generator.uniform(4, 16))
            if process.poll() is None:
                kill(process)
                killed += 1
            else:  # a busy machine may not start Ray within its 30 s
                output = (tmp_path / "output.txt").read_text()[size:]
                assert "Ray did not start" in output, f"the sweep ended before kill {killed + 1}: {output[-2000:]}"
        finally:
            process.kill()
    finish(start(), tmp_path / "output.txt")
    study = study_of(tmp_path)
    done = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(done) == len(finished_trials(study)) == trials_wanted
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    runs = runs_of(tmp_path)
    assert {trial.user_attrs[RUN] for trial in done} == set(runs)  # no runs but those of the complete trials
    assert all(events.count("finished") == 1 for events in runs.values())  # none was trained twice
    assert (tmp_path / "runs" / "s" / "best.yaml").exists()
    # A rerun of the same command has nothing to do.
    with caplog.at_level("INFO"):
        main(args)
    assert runs_of(tmp_path) == runs
    assert f"all {trials_wanted} trials are finished" in caplog.text


def groups_started(folder: Path) -> int:
    """Return how often a group of workers started or resumed a trial."""
    return sum(event in ("start", "resume") for events in runs_of(folder).values() for event in events)


def trains_or_ended(folder: Path, before: int, process: subprocess.Popen[str]) -> bool:
    """Return whether more groups than `before` have started, or the driver has ended."""
    return groups_started(folder) > before or process.poll() is not None


def output_size(folder: Path) -> int:
    path = folder / "output.txt"
    return len(path.read_text()) if path.exists() else 0


def test_trials_that_fail_are_recorded_one_whose_worker_dies_recovers_and_none_starves(
    local_ray: None, args: list[str], tmp_path: Path, sweep: Path
) -> None:
    content = yaml.safe_load(sweep.read_text())
    # At 1e30 the loss is not finite after a step, so those trials fail by themselves. All four are drawn at random;
    # this seed draws two good rates first, then two bad ones.
    content |= {"trials": 4, "startup_trials": 4, "seed": 1, "steps_fraction": 0.5, "promoted": 1}
    content["space"] = {RATE: {"choices": [1e-3, 2e-3, 1e30]}}
    sweep.write_text(yaml.safe_dump(content))
    folder, hit = tmp_path / "runs" / "s" / "runs", list[Path]()

    def training() -> list[Path]:
        """Return the runs with a good rate that have taken a few steps."""
        return [
            run
            for run in folder.glob("trial-*")
            if reached(run, 4)() and read_recipe(str(run)).training.stage1.learning_rate < 1
        ]

    def kill_worker() -> None:
        wait(training, "a trial with a good rate trains")
        hit.append(training()[0])
        os.kill(workers(hit[0])[0]["pid"], signal.SIGKILL)

    thread = threading.Thread(target=kill_worker)
    thread.start()
    # Runs of 60 steps, which are far from finished when a worker is killed at its first steps.
    main([*args, "--training.stage1.steps", "120"])
    thread.join()
    study = study_of(tmp_path)
    for trial in finished_trials(study):
        assert (trial.params[RATE] == 1e30) == (ERROR in trial.user_attrs), trial
        if ERROR in trial.user_attrs:
            assert "not finite" in trial.user_attrs[ERROR]
    assert sorted(ERROR in trial.user_attrs for trial in finished_trials(study)) == [False, False, True, True]
    events = runs_of(tmp_path)[hit[0].name]
    assert "failure" in events
    assert events[-1] == "finished"
    # More trials than the machine has room for, in two rounds: none starts before there is room, and none waits long.
    second = optuna.load_study(study_name="s/second-round", storage=study._storage)
    assert [trial.state for trial in second.get_trials()] == [TrialState.COMPLETE]
    trials = [*study.get_trials(), *second.get_trials()]
    slots = max(1, len(os.sched_getaffinity(0)))
    for trial in trials:
        assert trial.datetime_start is not None
        others = [one for one in trials if one.datetime_start <= trial.datetime_start < one.datetime_complete]  # type: ignore[operator]
        assert len(others) <= slots
        waited = first_event(folder / trial.user_attrs[RUN]) - trial.datetime_start.astimezone(UTC)
        assert waited < timedelta(seconds=120)


def first_event(run: Path) -> datetime:
    """Return when the first worker of a run started."""
    return datetime.fromisoformat(lines(run / "events.jsonl")[0]["time"])
