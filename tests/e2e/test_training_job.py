"""Complete training jobs under Ray Train, disturbed in every way that a process can be."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.storage import api as storage
from pipeline.runs.store import load_run
from pipeline.train import main
from pipeline.training.state import TrainState
from tests.e2e.killed import kill_driver, kill_worker
from tests.e2e.training_runs import (
    LONGER,
    accidents,
    assert_every_clip_once,
    assert_same_weights,
    events,
    lines,
    newest,
    training,
    wait,
    workers,
)
from tests.listeners import Listener, store_ports
from vdsm import checkpoint

pytestmark = pytest.mark.slow


def test_a_run_writes_what_others_rely_on(undisturbed: Path) -> None:
    assert events(undisturbed) == ["start", "stage finished", "stage finished", "finished"]
    model, recipe, origin = load_run(str(undisturbed))
    assert (origin["stage"], origin["step"], origin["finished"]) == (2, 24, True)
    assert recipe.training.stage1.steps == 36
    assert model.sample_dynamics(3, torch.Generator()).shape == (3, 5)
    # The newest two, and the best of each stage.
    kept = {path.name for path in (undisturbed / "checkpoints").iterdir()}
    state = TrainState.from_dict(checkpoint.load(undisturbed / "stage2.pt"))
    best = {f"stage{stage}-step{step:08d}.pt" for stage, (step, _) in state.best_validation.items()}
    assert len(best) == 2
    assert best | {"stage2-step00000024.pt"} <= kept
    assert kept - best <= {"stage2-step00000024.pt", "stage2-step00000020.pt"}
    assert len(kept) in (3, 4)
    train = [line for line in lines(undisturbed / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["overall_step"] for line in train] == list(range(4, 61, 4))
    assert list((undisturbed / "tensorboard").iterdir())
    assert state.provenance.recipe["training"]["stage1"]["steps"] == 36
    assert len(state.provenance.manifest_sha256) == 64


def test_a_finished_run_is_not_trained_again(
    undisturbed: Path, train_args: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = checkpoint.verify(undisturbed / "stage2.pt")
    with caplog.at_level("INFO"):
        main(train_args(undisturbed.parent, "undisturbed"))
    assert "is finished; nothing is left to train" in caplog.text
    assert checkpoint.verify(undisturbed / "stage2.pt") == before
    assert events(undisturbed)[-1] == "finished"


@pytest.mark.long
def test_killed_workers_cost_nothing_but_time(undisturbed: Path, train_args: Any, tmp_path: Path, trials: Any) -> None:
    environments = []
    for number, (dice, instants) in enumerate(accidents(trials(1), "worker")):
        run = tmp_path / f"run{number}"

        def kill(run: Path = run, dice: random.Random = dice, instants: list[int] = instants) -> None:
            for group, instant in enumerate(instants, start=1):
                wait(training(run, group, instant), "it has reached the step")
                time.sleep(dice.uniform(0, 0.2))
                pid = workers(run)[dice.randrange(2)]["pid"]
                environments.append(Path(f"/proc/{pid}/environ").read_bytes())
                os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        main([*train_args(tmp_path, run.name), *LONGER, f"--training.max-failures={len(instants)}"])
        thread.join()
        logged = [event for event in events(run) if event != "stage finished"]
        again = ["failure", "resume"] * len(instants)
        assert [{"start": "resume"}.get(event, event) for event in logged[1:]] == [*again, "finished"]
        assert_same_weights(run, undisturbed, tmp_path)
        assert_every_clip_once(run, undisturbed)
        train = [line["overall_step"] for line in lines(run / "metrics.jsonl") if line["kind"] == "train"]
        assert train == list(range(4, 61, 4))
    assert all(b"glibc.malloc.arena_max=1" in environment for environment in environments)


@pytest.mark.parametrize("own_ray", [False, pytest.param(True, marks=pytest.mark.long)], ids=["joined", "own Ray"])
def test_a_killed_driver_and_a_killed_worker_cost_nothing_but_time(
    own_ray: bool,
    root: Path,
    local_ray: None,
    undisturbed: Path,
    train_args: Any,
    tmp_path: Path,
    trials: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number, (dice, instants) in enumerate(accidents(trials(2), "driver")):
        (tmp_path / str(number)).mkdir()
        run, args = tmp_path / str(number) / "run", [*train_args(tmp_path / str(number), "run"), *LONGER]
        *drivers, last = instants
        for group, instant in enumerate(drivers, start=1):
            kill_driver(root, args, run, training(run, group, instant), dice, own_ray=own_ray)
        ports: list[Listener] = []
        thread = threading.Thread(target=kill_worker, args=(run, training(run, len(instants), last), dice, ports))
        thread.start()
        with caplog.at_level("INFO"):
            main(args)
        thread.join()
        assert {one.port for one in ports} & store_ports()  # torch's store, on loopback as all others
        assert (f"resuming {run} from stage " in caplog.text) == bool(drivers)
        logged = [event for event in events(run) if event != "stage finished"]
        resumed = ["resume"] * len(drivers)
        # Before its first checkpoint, a run starts again.
        begun = [{"start": "resume"}.get(event, event) for event in logged[1:]]
        assert begun == [*resumed, "failure", "resume", "finished"]
        assert_same_weights(run, undisturbed, tmp_path)
        assert_every_clip_once(run, undisturbed)
        output = tmp_path / str(number) / "output.txt"
        assert "Traceback" not in (output.read_text() if drivers else "")


@pytest.mark.long
def test_an_interruption_saves_a_checkpoint_and_costs_nothing_but_time(
    local_ray: None, undisturbed: Path, train_args: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, args = tmp_path / "run", [*train_args(tmp_path, "run"), *LONGER]
    # Early: the complete run takes seconds, and the request to stop takes one.
    thread = threading.Thread(target=interrupt, args=(training(run, 1, 12),))
    thread.start()
    with pytest.raises(SystemExit) as caught:
        main(args)
    thread.join()
    assert caught.value.code == 130
    stopped = lines(run / "events.jsonl")[-1]
    assert stopped["event"] == "stopped"
    position = TrainState.from_dict(checkpoint.load(newest(run))).position
    assert (position.stage, position.step) == (stopped["stage"], stopped["step"])
    with caplog.at_level("INFO"):
        main(args)
    assert f"resuming {run} from stage {stopped['stage']}, step {stopped['step']}" in caplog.text
    assert [event for event in events(run) if event not in ("resume", "stage finished")] == [
        "start",
        "stopped",
        "finished",
    ]
    assert_same_weights(run, undisturbed, tmp_path)
    assert_every_clip_once(run, undisturbed)


def interrupt(reached: Callable[[], bool]) -> None:
    """Send Ctrl-C to this process once the run has reached a step."""
    wait(reached, "it has reached the step")
    os.kill(os.getpid(), signal.SIGINT)


def test_a_loss_that_is_not_finite_ends_the_run_after_its_rollbacks(
    local_ray: None, train_args: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--training.stage1.learning-rate", "1e9", "--training.stage1.warmup-steps", "0"]
    with pytest.raises(SystemExit) as caught:
        main([*train_args(tmp_path, "run"), *changes])
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: stage 1, step ")
    assert "lower stage1.learning_rate" in error
    # The same workers tried three lower learning rates; restarting them would not help.
    tried = ["divergence", "rollback"]
    assert events(tmp_path / "run") == ["start", *tried, *tried, *tried, "divergence", "gave up"]
    first = next(line for line in lines(tmp_path / "run" / "events.jsonl") if line["event"] == "divergence")
    assert (first["stage"], first["step"]) == (1, 2)
    assert len(first["clips"]) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--data", "nowhere"], "nowhere/manifest.json is missing"),
        (["--training.stage1.clip-frames", "99"], "stage1.clip_frames is 99"),
        (["--model.channels", "1"], "model.channels is 1; set model.channels to 3"),
        (["--model.num-experts", "-4"], "num_experts is -4"),
        (
            ["--training.num-workers", "5"],
            "is 4, but there are 5 workers; make it at least 5, or num_workers at most 4",
        ),
        (["--training.stages", "2"], "stage 2 needs a finished stage 1"),
        (["--name", "a/b"], "--name 'a/b'"),
    ],
)
def test_invalid_input_is_one_line_before_anything_is_started(
    local_ray: None,
    train_args: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*train_args(tmp_path, "run"), *changes])
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not list(tmp_path.rglob("*.pt"))


def test_a_changed_recipe_under_an_old_name_is_refused(
    undisturbed: Path, train_args: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*train_args(undisturbed.parent, "undisturbed"), "--training.stage2.learning-rate", "0.5"])
    assert caught.value.code == 2
    assert "training.stage2.learning_rate 0.001 -> 0.5" in capsys.readouterr().err.splitlines()[-1]


def test_two_trainings_of_one_run_at_a_time_are_refused(
    undisturbed: Path, train_args: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from cluster.storage.lock import run_lock

    with run_lock(str(undisturbed)), pytest.raises(SystemExit) as caught:
        main(train_args(undisturbed.parent, "undisturbed"))
    assert caught.value.code == 2
    assert f"process {os.getpid()} on " in (line := capsys.readouterr().err.splitlines()[-1])
    assert line.endswith(" is training this run; wait, or choose another --name")


def test_a_dry_run_prints_what_would_happen_and_writes_nothing(
    train_args: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*train_args(tmp_path, "run"), "--dry-run"])
    output = capsys.readouterr().out
    assert "stage 1: 36 steps of 4 clips x 8 frames" in output
    assert "stage 2: 24 steps of 4 clips x 4 frames, 3 of them decoded" in output
    assert "GB per worker" in output
    assert "2 workers x 1 threads" in output
    assert f"run: {tmp_path}/run, a new one" in output
    assert "missing" not in output
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_an_existing_run_prints_its_state(
    undisturbed: Path, train_args: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    args = train_args(undisturbed.parent, "undisturbed")
    main([*args, "--dry-run"])
    assert f"run: {undisturbed}, finished" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*args, "--dry-run", "--seed", "9"])
    assert "missing: run: it was started with other settings: seed 0 -> 9" in capsys.readouterr().out


def test_a_dry_run_names_what_is_missing(root: Path, s3_bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["--config", str(root / "configs" / "sprites.yaml"), "--data", f"{s3_bucket}/sprites"]
    with pytest.raises(SystemExit) as caught:
        main([*recipe, "--training.use-gpu", "--training.num-workers", "4", "--dry-run"])
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert "stage 1: 10,000 steps of 20 clips x 16 frames, 133,640,212 parameters" in printed.out
    assert "4 workers x 1 threads, one GPU each" in printed.out
    for item in (
        f"data: {s3_bucket}/sprites/manifest.json is missing",
        "GPUs: 4 are needed",
        "run: give --out and --name",
    ):
        assert f"missing: {item}" in printed.out
    assert printed.err.splitlines()[-1].startswith("error: missing for this training: data: ")
    assert storage.list_files(s3_bucket) == []
