"""Progress of a long command in a pseudo-terminal: one line with a bar, which other output does not tear."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

PROGRAM = """
import logging, sys, time
from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import set_up_logging

set_up_logging()
with ProgressDisplay(2) as progress:
    progress.start("reading [bold]x[/nonsense]", 20, unit="clips")
    for number in range(20):
        time.sleep(0.05)
        progress.advance()
        if number % 5 == 0:
            logging.info("record %d of [red]this[/] log", number)
    progress.start("waiting")
    sys.stderr.write("written to stderr\\n")
    sys.stdout.write("result\\n")
    time.sleep(0.4)
logging.info("after the end")
"""


def in_terminal(root: Path, columns: int, *, piped: bool = False, **variables: str) -> tuple[str, str]:
    """Run PROGRAM in a pseudo-terminal; return what the terminal received, and stdout if that was a pipe."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=root,
        env={**kept, "TERM": "xterm-256color", **variables},
        stdin=theirs,
        stdout=subprocess.PIPE if piped else theirs,
        stderr=theirs,
    )
    os.close(theirs)
    received = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # Linux: every writer has closed the terminal
            break
        if not chunk:
            break
        received += chunk
    os.close(ours)
    printed = process.stdout.read().decode() if process.stdout is not None else ""
    if process.stdout is not None:
        process.stdout.close()
    assert process.wait(60) == 0, received
    return received.decode(), printed


ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def lines_of(received: str) -> list[str]:
    """Return the texts between line breaks and carriage returns, without colours and cursor movements."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", ESCAPE.sub("", received)) if line.strip()]


def screen_of(received: str) -> list[str]:
    """Return the lines that remain on the screen. Handles the few control sequences that a bar uses."""
    rows, row = [""], 0
    for text in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", received):
        if text == "\n":
            row += 1
            if row == len(rows):
                rows.append("")
        elif text.endswith("A") and text.startswith("\x1b"):
            row -= int(text[2:-1] or 1)
        elif text == "\x1b[2K":
            rows[row] = ""
        elif not text.startswith(("\x1b", "\r")):
            rows[row] += text
    return [line.rstrip() for line in rows if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [150, 60, 25])
def test_a_terminal_shows_a_bar_that_log_records_do_not_tear(root: Path, columns: int) -> None:
    received, _ = in_terminal(root, columns)
    lines = lines_of(received)
    shown = [line for line in lines if line.startswith("phase 1 of 2: reading ")]
    assert shown
    assert all(cell_len(line) <= columns for line in lines)
    if columns >= 60:
        assert any("/20 (" in line for line in shown)
    if columns == 150:
        assert any("━" in line and "clips/s" in line and " s left" in line for line in shown)
        assert any(line.startswith("phase 2 of 2: waiting") for line in lines)
    screen = screen_of(received)
    joined = " ".join(" ".join(screen).split())
    for number in (0, 5, 10, 15):  # complete, in the order of the log, and nothing else is left on the screen
        assert f"record {number} of [red]this[/] log" in joined
    assert re.sub(r"\d\d:\d\d:\d\d I", "|", joined) == (
        "| record 0 of [red]this[/] log | record 5 of [red]this[/] log | record 10 of [red]this[/] log "
        "| record 15 of [red]this[/] log written to stderr result | after the end"
    )
    assert received.count("\x1b[?25l") == received.count("\x1b[?25h") == 1  # the cursor is visible again


@pytest.mark.slow
def test_output_that_is_piped_stays_out_of_the_terminal(root: Path) -> None:
    received, printed = in_terminal(root, 100, piped=True)
    assert printed == "result\n"
    assert "result" not in received


@pytest.mark.slow
def test_a_dumb_terminal_gets_log_lines(root: Path) -> None:
    received, _ = in_terminal(root, 100, TERM="dumb")
    assert "\x1b" not in received
    assert lines_of(received)[-1].endswith("I after the end")
