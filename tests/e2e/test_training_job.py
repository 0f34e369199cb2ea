"""Whole training jobs under Ray Train, disturbed in every way that a machine can be."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster import storage
from cluster.errors import UserError
from pipeline.train import main
from pipeline.training.run_store import load_run
from vdsm import checkpoint

pytestmark = pytest.mark.slow

STEPS = ["--training.stage1.steps", "60", "--training.stage2.steps", "40"]


@pytest.fixture(scope="module")
def words(root: Path, figures_dataset: Path) -> Callable[[Path | str, str], list[str]]:
    """The words of `vdsm train` for a run."""

    def make(out: Path | str, name: str, data: Path | str = figures_dataset) -> list[str]:
        recipe = str(root / "tests" / "tiny.yaml")
        return ["--config", recipe, *STEPS, "--data", str(data), "--out", str(out), "--name", name]

    return make


@pytest.fixture(scope="module")
def undisturbed(local_ray: None, words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to which nothing happened."""
    out = tmp_path_factory.mktemp("runs")
    main(words(out, "undisturbed"))
    return out / "undisturbed"


@contextmanager
def started(root: Path, words: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The job as a process of its own, started by path from another folder; it ends with the block."""
    command = [sys.executable, str(root / "pipeline" / "train.py"), *words]
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    with (folder / "output.txt").open("a") as output:
        process = subprocess.Popen(
            command,
            env={**variables, **environment},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def descendants(pid: int) -> dict[int, str]:
    """Processes that `pid` started, directly or not, with their names."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            name, fields = (folder / "stat").read_text().rsplit(")", 1)
            parents[int(folder.name)] = int(fields.split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ") or name
        except (OSError, ValueError):
            continue
    found: dict[int, str] = {}
    grown = {pid}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown}
        found |= {child: names.get(child, "") for child in grown}
    return found


def wait(condition: Callable[[], Any], what: str, seconds: float = 300) -> None:
    """Until `condition` holds; the limit only ends a test that would hang."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain until {what}"
        time.sleep(0.02)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def reached(run: Path, overall_step: int) -> Callable[[], bool]:
    return lambda: any(line["overall_step"] >= overall_step for line in lines(run / "metrics.jsonl"))


def events(run: Path) -> list[str]:
    return [line["event"] for line in lines(run / "events.jsonl")]


def assert_same_weights(run: Path, other: Path) -> None:
    for name in ("stage1.pt", "stage2.pt"):
        here, there = checkpoint.load(run / name), checkpoint.load(other / name)
        assert here["model"].keys() == there["model"].keys()
        assert all(torch.equal(here["model"][key], there["model"][key]) for key in here["model"]), name


def test_a_run_leaves_what_others_rely_on(undisturbed: Path) -> None:
    assert events(undisturbed) == ["start", "stage finished", "stage finished", "finished"]
    model, recipe, info = load_run(str(undisturbed))
    assert (info["stage"], info["step"], info["finished"]) == (2, 40, True)
    assert recipe.training.stage1.steps == 60
    assert model.sample_dynamics(3, torch.Generator()).shape == (3, 5)
    # The newest two, and the best of each stage.
    kept = {path.name for path in (undisturbed / "checkpoints").iterdir()}
    bests = checkpoint.load(undisturbed / "stage2.pt")["bests"]
    best = {f"stage{stage}-step{step:08d}.pt" for stage, (step, _) in bests.items()}
    assert len(best) == 2
    assert best | {"stage2-step00000040.pt"} <= kept
    assert kept - best <= {"stage2-step00000040.pt", "stage2-step00000036.pt", "stage2-step00000030.pt"}
    assert len(kept) in (3, 4)
    train = [line for line in lines(undisturbed / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["overall_step"] for line in train] == list(range(4, 101, 4))
    assert list((undisturbed / "tensorboard").iterdir())
    state = checkpoint.load(undisturbed / "stage2.pt")
    assert state["recipe"]["training"]["stage1"]["steps"] == 60
    assert len(state["manifest_sha256"]) == 64


def test_a_finished_run_is_found_finished(undisturbed: Path, words: Any, caplog: pytest.LogCaptureFixture) -> None:
    before = checkpoint.verify(undisturbed / "stage2.pt")
    with caplog.at_level("INFO"):
        main(words(undisturbed.parent, "undisturbed"))
    assert "is finished; nothing is left to train" in caplog.text
    assert checkpoint.verify(undisturbed / "stage2.pt") == before
    assert events(undisturbed)[-1] == "finished"


def test_a_killed_worker_costs_nothing_but_time(undisturbed: Path, words: Any, tmp_path: Path) -> None:
    run, killed = tmp_path / "run", []

    def kill() -> None:
        wait(reached(run, 24), "step 24")
        workers = [pid for pid, name in descendants(os.getpid()).items() if "RayTrainWorker" in name]
        os.kill(workers[-1], signal.SIGKILL)
        killed.append(len(workers))

    thread = threading.Thread(target=kill)
    thread.start()
    main(words(tmp_path, "run"))
    thread.join()
    assert killed == [2]
    assert events(run)[:3] == ["start", "failure", "resume"]
    assert events(run)[-1] == "finished"
    assert_same_weights(run, undisturbed)
    train = [line["overall_step"] for line in lines(run / "metrics.jsonl") if line["kind"] == "train"]
    assert train == list(range(4, 101, 4))


def test_a_killed_driver_and_an_interruption_cost_nothing_but_time(
    root: Path, undisturbed: Path, words: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with started(root, words(tmp_path, "run"), tmp_path) as first:
        wait(reached(run, 24), "step 24")
        family = descendants(first.pid)
        assert sum("RayTrainWorker" in name for name in family.values()) == 2
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        # Ray's own agents stay a minute longer; whoever trains or writes is gone in seconds.
        working = [pid for pid, name in family.items() if "Train" in name or "raylet/raylet" in name]
        wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in working), "its workers are gone")
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    at_kill = lines(run / "events.jsonl")[-1]
    assert at_kill["event"] in ("start", "stage finished")

    with started(root, words(tmp_path, "run"), tmp_path) as second:
        wait(lambda: "resume" in events(run), "the second process goes on")
        wait(reached(run, 64), "stage 2")
        os.killpg(second.pid, signal.SIGINT)
        assert second.wait(timeout=120) == 130
    stopped = lines(run / "events.jsonl")[-1]
    assert stopped["event"] == "stopped"
    assert checkpoint.load(newest(run))["step"] == stopped["step"]

    with started(root, words(tmp_path, "run"), tmp_path) as third:
        assert third.wait(timeout=240) == 0
    assert events(run)[-1] == "finished"
    assert_same_weights(run, undisturbed)
    output = (tmp_path / "output.txt").read_text()
    assert f"goes on from stage {stopped['stage']}, step {stopped['step']}" in output
    assert "Traceback" not in output


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("stage*.pt"))


def test_data_and_run_may_lie_in_s3(
    root: Path, undisturbed: Path, words: Any, figures_dataset: Path, s3_bucket: str, tmp_path: Path
) -> None:
    for name in storage.list_files(str(figures_dataset)):
        storage.upload(figures_dataset / name, storage.join(s3_bucket, "data", name))
    line = words(f"{s3_bucket}/runs", "run", f"{s3_bucket}/data")
    with started(root, line, tmp_path, VDSM_CACHE=str(tmp_path / "cache")) as process:
        assert process.wait(timeout=240) == 0, (tmp_path / "output.txt").read_text()
    model, _, info = load_run(f"{s3_bucket}/runs/run")
    assert (info["stage"], info["step"], info["finished"]) == (2, 40, True)
    expected = load_run(str(undisturbed))[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    files = storage.list_files(f"{s3_bucket}/runs/run")
    assert {"config.yaml", "events.jsonl", "metrics.jsonl", "run.json", "stage1.pt", "stage2.pt"} <= set(files)
    assert any(name.startswith("tensorboard/") for name in files)
    assert "checkpoints/stage2-step00000040.pt" in files
    assert ".lock" not in files


def test_a_loss_that_is_not_finite_ends_the_run_at_once(
    local_ray: None, words: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--training.stage1.learning-rate", "1e30", "--training.stage1.warmup-steps", "0"]
    with pytest.raises(SystemExit) as caught:
        main([*words(tmp_path, "run"), *changes])
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: stage 1, step ")
    assert "lower stage1.learning_rate" in error
    # Three lower rates were tried by the same workers; starting those again would not help.
    tried = ["non-finite loss", "rollback"]
    assert events(tmp_path / "run") == ["start", *tried, *tried, *tried, "non-finite loss", "gave up"]
    first = next(line for line in lines(tmp_path / "run" / "events.jsonl") if line["event"] == "non-finite loss")
    assert (first["stage"], first["step"]) == (1, 2)
    assert len(first["clips"]) == 4


@pytest.mark.parametrize(
    ("changes", "words_of_the_error"),
    [
        (["--data", "nowhere"], "nowhere/manifest.json is missing"),
        (["--training.stage1.clip-frames", "99"], "stage1.clip_frames is 99"),
        (["--model.channels", "1"], "model.channels is 1; set model.channels to 3"),
        (["--model.num-experts", "-4"], "num_experts is -4"),
        (["--training.num-workers", "3"], "which 3 workers cannot share evenly"),
        (["--training.stages", "2"], "stage 2 needs a finished stage 1"),
        (["--name", "a/b"], "--name 'a/b'"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_started(
    local_ray: None,
    words: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    words_of_the_error: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words(tmp_path, "run"), *changes])
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert words_of_the_error in error
    assert not list(tmp_path.rglob("*.pt"))


def test_a_changed_recipe_under_an_old_name_is_refused(
    undisturbed: Path, words: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words(undisturbed.parent, "undisturbed"), "--training.stage2.learning-rate", "0.5"])
    assert caught.value.code == 2
    assert "training.stage2.learning_rate 0.001 -> 0.5" in capsys.readouterr().err.splitlines()[-1]


def test_two_trainings_of_one_run_at_a_time_are_refused(undisturbed: Path, words: Any) -> None:
    from pipeline.train import TrainCommand, alone, train

    command = TrainCommand(data=words(".", "x")[-5], out=str(undisturbed.parent), name="undisturbed")
    with alone(str(undisturbed)), pytest.raises(UserError, match="another process is training this run"):
        train(command)


def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    words: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*words(tmp_path, "run"), "--dry-run"])
    output = capsys.readouterr().out
    assert "stage 1: 60 steps of 4 clips x 8 frames" in output
    assert "stage 2: 40 steps of 4 clips x 4 frames" in output
    assert "2 workers x 1 threads" in output
    assert not list(tmp_path.iterdir())
