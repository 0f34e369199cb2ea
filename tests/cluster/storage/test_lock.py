"""One driver per run, in a folder and in S3."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage import lock, lock_owner
from cluster.storage.fence import check_all
from cluster.storage.lock import run_lock
from cluster.storage.lock_owner import lock_content, read_token

HOLD = (
    "import sys; from cluster.storage.lock import run_lock\n"
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


def in_threads(attempt: Callable[[int], None]) -> None:
    """Call `attempt` with 0 to 7 at the same time, and wait for all of them."""
    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_second_driver_is_refused_until_the_first_is_done(root: Path, run: str) -> None:
    first = hold_in_process(root, run)
    try:
        with pytest.raises(UserError) as caught, run_lock(run):
            pytest.fail("both hold it")
        owner = f"process {first.pid} on {socket.gethostname()}"
        assert str(caught.value) == f"{run}: {owner} is training this run; wait, or choose another --name"
        first.communicate("\n")
        with run_lock(run):
            pass
        with run_lock(run):
            pass
    finally:
        first.kill()
        first.wait()
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
    run = f"{s3_bucket}/runs/run"
    with monkeypatch.context() as patch:
        elsewhere = lock_owner.LockOwner("another", "x", "y", 1, "")
        patch.setattr(lock_owner, "this_process", lambda use="": elsewhere)
        storage.write_bytes(f"{run}/.lock", lock_content())
    began = time.monotonic()
    with run_lock(run, lease_s=1.0):
        assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("repetition", range(3))
def test_exactly_one_of_several_contenders_wins(repetition: int, run: str) -> None:
    if repetition and run.startswith("s3"):
        pytest.skip("its contenders take seconds")
    inside, most, refused = list[int](), [0], list[str]()
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

    in_threads(attempt)
    assert most == [1]
    assert len(refused) == 7


def test_locks_that_are_released_and_acquired_in_turns_have_one_owner_at_a_time(tmp_path: Path) -> None:
    """The file is removed with the lock; a contender may have opened it before."""
    run, inside, most, acquired = str(tmp_path / "run"), list[int](), [0], [0]

    def attempt(number: int) -> None:
        for _ in range(100):
            with suppress(UserError), run_lock(run):
                inside.append(number)
                most[0], acquired[0] = max(most[0], len(inside)), acquired[0] + 1
                time.sleep(0)
                inside.remove(number)

    in_threads(attempt)
    assert most == [1]
    assert acquired[0] > 1
    assert storage.list_files(run) == []


def test_a_lock_that_was_removed_between_its_opening_and_its_locking_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, opened, open_own_file = tmp_path / "run", list[Path](), lock.open_own_file

    def removed_once(path: Path) -> BinaryIO:
        file = open_own_file(path)
        if not opened:
            path.unlink()  # by the owner that releases it
        opened.append(path)
        return file

    monkeypatch.setattr(lock, "open_own_file", removed_once)
    with run_lock(str(run)):
        assert len(opened) == 2
        assert read_token((run / ".lock").read_bytes())
        check_all()


def test_an_owner_whose_lock_was_taken_over_reports_it_and_keeps_the_new_lock(
    s3_bucket: str, caplog: pytest.LogCaptureFixture
) -> None:

    run = f"{s3_bucket}/runs/run"
    with run_lock(run, renewal_s=0.1):
        other = lock_content().replace(f'"pid": {os.getpid()}'.encode(), b'"pid": 1')
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
