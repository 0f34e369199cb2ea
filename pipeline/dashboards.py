"""`vdsm dashboards`: TensorBoard for the runs in a folder and optuna-dashboard for its sweeps, on this machine only.

Both listen on the loopback address; to reach them from another machine, use an SSH tunnel.
"""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import contextlib
import importlib.util
import logging
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.run import entry
from cluster.cli.settings import Controls, Section
from cluster.cli.stop_signals import serve_until_stopped
from cluster.development.child_process import die_with_parent, terminate
from cluster.errors import UserError
from cluster.extras import install
from cluster.storage import api as storage
from cluster.storage.scratch import scratch_file

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
START_S = 60.0
"""Seconds that a dashboard may take to respond after its start."""
RAY_URL = f"http://{HOST}:8265"
"""Default URL of Ray's dashboard; a second one on the same machine gets another port."""


class DashboardsCommand(Section, Controls):
    """Serve dashboards of the runs and sweeps in a folder, until Ctrl-C."""

    out: Location
    """Folder of the runs and sweeps, as given to `vdsm train` and `vdsm tune`."""
    study: Location | None = None
    """A study stored elsewhere: a journal file, or a database such as postgresql://user@host/optuna."""
    port: int = Field(default=6006, ge=1, le=65535)
    """First port to try; each dashboard uses the next free one."""


def dashboards(command: DashboardsCommand) -> None:
    """Start the dashboards, print their addresses, and wait until Ctrl-C.

    Raises:
        UserError: the folder is missing or in S3, or a dashboard is not installed or does not start.
    """
    if storage.is_remote(command.out):
        raise UserError(
            f"--out {command.out} is in S3; copy the tensorboard folders of the runs to this machine and give --out "
            "their parent folder"
        )
    folder = Path(command.out)
    if not folder.is_dir():
        raise UserError(f"--out {command.out} is not a folder; give the folder that `vdsm train` wrote runs into")
    studies = [str(path) for path in sorted(folder.glob("*/study.journal"))]
    studies += [command.study] if command.study else []
    if command.dry_run:
        sys.stdout.write(f"would show the runs in {folder} and {len(studies)} studies\n")
        return
    # Ctrl-C, and SIGTERM and SIGHUP, which the command line turns into the same.
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        started = []
        for (name, args), port in zip(_servers(folder, studies), free_ports(command.port)):
            started.append((name, stack.enter_context(served([*args, "--port", str(port)], port))))
        sys.stdout.write("".join(f"{name}: {url}\n" for name, url in started))
        sys.stdout.write(f"Ray: {_ray_dashboard()}\n")
        sys.stdout.flush()
        serve_until_stopped()
    log.info("the dashboards have ended")


def _servers(folder: Path, studies: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the command line, without a port, of each dashboard."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(f"TensorBoard is not installed; {install('dashboards')}")
    yield "TensorBoard", [sys.executable, "-P", "-m", "tensorboard.main", "--logdir", str(folder), "--host", HOST]
    for study in studies:
        yield f"optuna-dashboard of {_label(study)}", [optuna_dashboard(), study, "--host", HOST, "--quiet"]


@contextlib.contextmanager
def served(args: list[str], port: int) -> Iterator[str]:
    """Run a server while the block runs, and yield its URL.

    Args:
        args: command line of the server.
        port: port that it listens on.

    Raises:
        UserError: it does not start.
    """
    with scratch_file() as stderr:  # an unread pipe would fill up and block the server
        process = subprocess.Popen(
            args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            preexec_fn=die_with_parent,
        )
        name = Path(args[0]).name
        try:
            deadline = time.monotonic() + START_S
            while not _responds(port):
                if process.poll() is not None:
                    stderr.seek(0)
                    lines = stderr.read().decode(errors="replace").strip().splitlines()
                    raise UserError(f"{name} exited on startup: {lines[-1] if lines else 'it printed nothing'}")
                if time.monotonic() > deadline:
                    raise UserError(f"{name} did not respond on port {port} within {START_S:.0f} s; rerun")
                time.sleep(0.2)
            yield f"http://{HOST}:{port}"
        finally:
            terminate(process)


def free_ports(first: int) -> Iterator[int]:
    """Yield the ports from `first` on that no process listens on."""
    for port in range(first, 65536):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            probe.close()
            yield port


def optuna_dashboard() -> str:
    """Return the path of the program.

    Raises:
        UserError: it is not installed.
    """
    path = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    if path is None or importlib.util.find_spec("optuna_dashboard") is None:
        raise UserError(f"optuna-dashboard is not installed; {install('dashboards')}")
    return path


def _responds(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((HOST, port), timeout=1).close()
        return True
    return False


def _ray_dashboard() -> str:
    """Return the URL of Ray's dashboard, or where to find it."""
    if _is_ray(RAY_URL):
        return RAY_URL
    return "not at its default port; `vdsm tune` logs its address, and a cluster has it at port 8265 of its head"


def _is_ray(url: str) -> bool:
    """Return whether Ray's dashboard responds, even if only to require its token."""
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=2) as response:
            return b"ray_version" in response.read(1000)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


def _label(study: str) -> str:
    return f"the {study.partition('://')[0]} database" if "://" in study else Path(study).parent.name


main = entry(DashboardsCommand, dashboards, prog="vdsm dashboards")


if __name__ == "__main__":
    main()
