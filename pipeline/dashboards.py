"""`vdsm dashboards`: TensorBoard for the runs of a folder and optuna-dashboard for its sweeps, on this machine only.

Both listen on the loopback address; from elsewhere they are reached through an SSH tunnel.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import contextlib
import importlib.util
import logging
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from cluster.cli.run import entry
from cluster.cli.settings import Controls, Section
from cluster.development.child_process import end
from cluster.errors import UserError
from cluster.storage import api as storage

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
START_S = 60.0
"""How long a dashboard may take until it answers."""
RAY = f"http://{HOST}:8265"
"""Where Ray's dashboard listens, unless another one of this machine does."""


class DashboardsCommand(Section, Controls):
    """Show the runs and sweeps of a folder in the browser, until ctrl-C."""

    out: str
    """Folder of the runs and sweeps, as given to `vdsm train` and `vdsm tune`."""
    study: str | None = None
    """A study kept elsewhere: a journal file, or a database such as postgresql://user@host/optuna."""
    port: int = Field(default=6006, ge=1, le=65535)
    """First port to try; each dashboard takes the next free one."""


def dashboards(command: DashboardsCommand) -> None:
    """Start the dashboards, print their addresses, and wait until ctrl-C.

    Raises:
        UserError: the folder is missing or in S3, or what shows it is not installed.
    """
    if storage.is_s3(command.out):
        raise UserError(f"--out {command.out} is in S3; copy the runs' tensorboard folders here and name their folder")
    folder = Path(command.out)
    if not folder.is_dir():
        raise UserError(f"--out {command.out} is not a folder; name the one that `vdsm train` wrote runs into")
    studies = [str(path) for path in sorted(folder.glob("*/study.journal"))]
    studies += [command.study] if command.study else []
    if command.dry_run:
        sys.stdout.write(f"would show the runs of {folder} and {len(studies)} studies\n")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends what was started, too
    with contextlib.ExitStack() as stack:
        ports = free_ports(command.port)
        words = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", HOST]
        port = next(ports)
        shown = [("TensorBoard", stack.enter_context(child([*words, "--port", str(port)], port)))]
        for study in studies:
            port = next(ports)
            words = [optuna_dashboard(), study, "--host", HOST, "--port", str(port), "--quiet"]
            shown.append((f"optuna-dashboard of {_named(study)}", stack.enter_context(child(words, port))))
        for name, address in shown:
            sys.stdout.write(f"{name}: {address}\n")
        elsewhere = "not at its usual port; `vdsm tune` logs its address, and a cluster has it at port 8265 of its head"
        sys.stdout.write(f"Ray: {RAY if _is_ray(RAY) else elsewhere}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


@contextlib.contextmanager
def child(words: list[str], port: int) -> Iterator[str]:
    """A process that serves `port` while the block runs; gives its address. UserError if it does not start."""
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads would fill, and stop the dashboard
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        try:
            deadline = time.monotonic() + START_S
            while not _answers(port):
                if process.poll() is not None:
                    said.seek(0)
                    lines = said.read().decode(errors="replace").strip().splitlines()
                    raise UserError(f"{Path(words[0]).name} ended at once: {lines[-1] if lines else 'it said nothing'}")
                if time.monotonic() > deadline:
                    raise UserError(f"{Path(words[0]).name} does not answer on port {port} after {START_S:.0f} s")
                time.sleep(0.2)
            yield f"http://{HOST}:{port}"
        finally:
            end(process)


def free_ports(first: int) -> Iterator[int]:
    """Ports from `first` on that nobody listens on."""
    for port in range(first, 65536):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            probe.close()
            yield port


def optuna_dashboard() -> str:
    """Path of the program. UserError if it is not installed."""
    beside = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    if beside is None or importlib.util.find_spec("optuna_dashboard") is None:
        raise UserError("optuna-dashboard is not installed; pip install 'vdsm-pipeline[dashboards]'")
    return beside


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((HOST, port), timeout=1).close()
        return True
    return False


def _is_ray(address: str) -> bool:
    """Whether a dashboard of Ray answers there, perhaps asking for its token."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=2) as answer:
            return b"ray_version" in answer.read(1000)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


def _named(study: str) -> str:
    return f"the {study.partition('://')[0]} database" if "://" in study else Path(study).parent.name


main = entry(DashboardsCommand, dashboards, prog="vdsm dashboards")


if __name__ == "__main__":
    main()
