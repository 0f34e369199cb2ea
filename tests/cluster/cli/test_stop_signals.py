"""SIGTERM and SIGHUP end a command as Ctrl-C does; a fault of this machine ends it with one line."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.cli import stop_signals
from cluster.cli.run import run

COMMAND = """
import signal, sys
from cluster.cli import stop_signals
from cluster.cli.run import run

def work(args):
    try:
        print("ready", flush=True)
        stop_signals.serve_until_stopped()
    finally:
        print("cleaned up", flush=True)
        {finish}

run(work, [])
"""


def command(root: Path, finish: str = "", **options: object) -> "subprocess.Popen[str]":
    """Start a command in a process of its own, and wait until it works."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(finish=finish)],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process  # type: ignore[no-any-return]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_command_in_order_and_with_one_line(root: Path, number: signal.Signals) -> None:
    process = command(root)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "cleaned up\n")
    assert errors == "interrupted; rerun the same command to resume\n"


DROPPED = """
import os, signal, sys, time
from cluster.cli import stop_signals
from cluster.cli.run import run

class Late:
    def __del__(self):
        {deed}
        time.sleep(60)

def work(args):
    try:
        Late()
        print("not stopped", flush=True)
        stop_signals.serve_until_stopped()
    finally:
        print("cleaned up", flush=True)

run(work, [])
"""


@pytest.mark.parametrize("deed", ["os.kill(os.getpid(), signal.SIGTERM)", "signal.raise_signal(2)", "sys.exit(15)"])
def test_an_interruption_that_python_drops_is_repeated(root: Path, deed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPPED.format(deed=deed)],
        cwd=root, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "not stopped\ncleaned up\n")
    assert done.stderr == "interrupted; rerun the same command to resume\n"


def test_a_second_signal_does_not_interrupt_the_clean_up(root: Path) -> None:
    process = command(root, finish="sys.stdin.read(); print('completely', flush=True)", stdin=subprocess.PIPE)
    process.terminate()
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaned up\n"
    process.terminate()
    process.send_signal(signal.SIGHUP)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "completely\n")
    assert errors == "interrupted; rerun the same command to resume\n"


def test_a_command_under_nohup_survives_the_closing_of_its_terminal(root: Path) -> None:
    process = command(root, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.terminate()  # delivered after the one that is ignored
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "cleaned up\n")


def test_handlers_are_as_before_after_a_command_and_in_another_thread() -> None:
    before = [signal.getsignal(number) for number in stop_signals.SIGNALS]
    run(lambda args: None, [])
    thread = threading.Thread(target=run, args=(lambda args: None, []))
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in stop_signals.SIGNALS] == before


def test_a_library_that_installs_its_own_handler_does_not_keep_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals.kept():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) == before


def test_processes_started_while_the_hangup_is_withheld_survive_it(root: Path) -> None:
    code = "import signal; print(signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    with stop_signals.hangup_withheld():
        inside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    outside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (inside.stdout, outside.stdout) == ("True\n", "False\n")


@pytest.mark.parametrize("where", ["itself", "behind another"])
def test_a_fault_of_this_machine_is_one_line_and_no_traceback(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: list[str]) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/data/x")
        except OSError:
            if where == "itself":
                raise
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 - as torch.save does

    with pytest.raises(SystemExit) as stopped:
        run(fail, [])
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line == ("error: /data/x: No space left on device; free space on this disk, or choose another folder\n")


def test_a_full_disk_under_the_output_is_one_line(root: Path) -> None:
    code = "import sys; from cluster.cli.run import run; run(lambda args: print('x', flush=True), [])"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the output or a temporary folder: No space left on device; free space")


def test_a_thread_that_ends_by_a_fault_of_this_machine_prints_no_traceback(root: Path) -> None:
    code = (
        "import threading, errno; from cluster.cli.run import run\n"
        "def fail(error): raise error\n"
        "def work(args):\n"
        "    for error in (OSError(errno.ENOSPC, 'full'), ValueError('a bug')):\n"
        "        thread = threading.Thread(target=fail, args=(error,)); thread.start(); thread.join()\n"
        "run(work, [])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "full" not in done.stderr
    assert done.stderr.endswith("ValueError: a bug\n")


def test_a_terminal_that_has_closed_does_not_change_the_exit_code(root: Path) -> None:
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(finish="")],
        cwd=root, stdin=follower, stdout=subprocess.PIPE, stderr=follower, text=True, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.close(leader)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 130
    process.stdout.close()
