"""One driver per run, in a folder and in S3."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.runs.lock import run_lock

HOLD = (
    "import sys; from pipeline.runs.lock import run_lock\n"
    "with run_lock(sys.argv[1], renewal_s=0.2): print('held', flush=True); input()"
)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "folder" else f"{request.getfixturevalue('s3_bucket')}/runs/run"


def hold_in_process(root: Path, run: str) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, run], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_driver_is_refused_until_the_first_is_done(root: Path, run: str) -> None:
    first = hold_in_process(root, run)
    try:
        with pytest.raises(UserError, match=r"is training this run; wait, or choose another --name"), run_lock(run):
            pytest.fail("both hold it")
        first.communicate("\n")
        with run_lock(run):
            pass
        with run_lock(run):
            pass
    finally:
        first.kill()
        first.wait()
    if run.startswith("s3"):
        assert storage.list_files(run) == []


def test_the_lock_of_a_killed_driver_is_taken_over(root: Path, run: str) -> None:
    first = hold_in_process(root, run)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    # Immediately: its process was on this machine and has ended. The lease is longer than the test.
    with run_lock(run, lease_s=1000):
        pass


def test_a_lock_of_another_machine_is_taken_over_when_it_is_not_renewed(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.runs import lock as lock_module

    run = f"{s3_bucket}/runs/run"
    with monkeypatch.context() as patch:
        elsewhere = {"host": "another", "boot": "x", "space": "y", "pid": 1}
        patch.setattr(lock_module, "_owner", lambda: elsewhere)
        storage.write_bytes(f"{run}/.lock", lock_module._claim())
    began = time.monotonic()
    with run_lock(run, lease_s=1.0):
        assert time.monotonic() - began >= 1.0


def test_exactly_one_of_several_contenders_wins(s3_bucket: str) -> None:
    run, inside, most, refused = f"{s3_bucket}/runs/run", [], [0], []
    barrier = threading.Barrier(8)

    def attempt(number: int) -> None:
        barrier.wait()
        try:
            with run_lock(run, lease_s=1.5, renewal_s=0.2):
                inside.append(number)
                most[0] = max(most[0], len(inside))
                end = time.monotonic() + 60
                while len(refused) < 7 and time.monotonic() < end:
                    time.sleep(0.05)
                inside.remove(number)
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert len(refused) == 7


def test_an_owner_whose_lock_was_taken_over_reports_it_and_keeps_the_new_lock(
    s3_bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    from pipeline.runs import lock as lock_module

    run = f"{s3_bucket}/runs/run"
    with run_lock(run, renewal_s=0.1):
        other = lock_module._claim().replace(f'"pid": {os.getpid()}'.encode(), b'"pid": 1')
        storage.write_bytes(f"{run}/.lock", other)
        end = time.monotonic() + 20
        while "took over this run" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert storage.read_bytes(f"{run}/.lock") == other


@pytest.mark.usefixtures("file_system_without_locks")
def test_a_folder_without_locks_admits_one_owner(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    with (
        run_lock(run, lease_s=0.5, renewal_s=0.05),
        pytest.raises(UserError, match="is training this run"),
        run_lock(run, lease_s=0.5),
    ):
        pytest.fail("both hold it")
    assert list((tmp_path / "run").iterdir()) == []
    with run_lock(run, lease_s=1000):  # it was released
        pass
