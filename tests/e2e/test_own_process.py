"""What a training writes once another took over its run, and who can reach one in a process of its own."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import boto3
import pytest

from cluster.storage import api as storage
from cluster.storage.lock_owner import lock_content
from pipeline.train import main
from tests.e2e.training_runs import S3_INTERVAL, started, wait
from tests.listeners import session, store_ports
from tests.reachability import assert_only_its_owner_reaches, listeners_on_loopback

pytestmark = pytest.mark.slow

FILES = ("stage1.pt", "stage2.pt", "events.jsonl", "metrics.jsonl")
ENDLESS = ("--training.stage1.steps", "100000")


def test_a_training_writes_nothing_after_another_took_over_the_run(
    local_ray: None, s3_bucket: str, train_args: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, bucket = f"{s3_bucket}/runs/run", s3_bucket.removeprefix("s3://")

    def take_over() -> None:
        wait(lambda: has_checkpoint(run), "it has saved a checkpoint", interval=S3_INTERVAL)
        other = boto3.session.Session().client("s3")  # `storage` is that of the training, which will be refused
        other.put_object(Bucket=bucket, Key="runs/run/.lock", Body=lock_content())
        for name in FILES:
            other.put_object(Bucket=bucket, Key=f"runs/run/{name}", Body=b"of another process")

    thread = threading.Thread(target=take_over)
    thread.start()
    with pytest.raises(SystemExit) as caught:
        main([*train_args(f"{s3_bucket}/runs", "run"), *ENDLESS, "--training.num-workers", "1"])
    thread.join()
    assert caught.value.code == 2
    assert f"error: {run}: another process took over this run" in capsys.readouterr().err.splitlines()[-1]
    assert {storage.read_bytes(f"{run}/{name}") for name in FILES} == {b"of another process"}


@pytest.mark.long
@pytest.mark.parametrize("place", ["folder", pytest.param("s3", marks=pytest.mark.s3)])
def test_only_its_owner_reaches_a_local_training_and_it_writes_nothing_after_another_took_over_the_run(
    place: str, root: Path, request: pytest.FixtureRequest, train_args: Any, tmp_path: Path
) -> None:
    out = str(tmp_path / "runs") if place == "folder" else f"{request.getfixturevalue('s3_bucket')}/runs"
    run, home = f"{out}/run", tmp_path / "home"
    home.mkdir()  # without a token of Ray
    if place == "folder":
        Path(run).mkdir(parents=True)
    with started(root, [*train_args(out, "run"), *ENDLESS], tmp_path, HOME=str(home)) as process:
        wait(lambda: has_checkpoint(run), "it has saved a checkpoint", process=process, interval=S3_INTERVAL)
        ports = listeners_on_loopback(session(process.pid))
        assert {one.port for one in ports} & store_ports()  # torch's store
        assert len(ports) > 8  # the GCS, the raylet, the agents, the workers
        assert_only_its_owner_reaches(session(process.pid), home)
        os.kill(process.pid, signal.SIGSTOP)
        storage.write_bytes(f"{run}/.lock", lock_content())
        for name in FILES:
            storage.write_bytes(f"{run}/{name}", b"of another process")
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(120) == 2
    output = (tmp_path / "output.txt").read_text()
    assert f"error: {run}: another process took over this run" in output.splitlines()[-1]
    assert "Traceback" not in output
    assert {storage.read_bytes(f"{run}/{name}") for name in FILES} == {b"of another process"}


def has_checkpoint(run: str) -> bool:
    return any(name.startswith("checkpoints/stage") for name in storage.list_files(run))
