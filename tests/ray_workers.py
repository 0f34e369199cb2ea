"""Ray's workers as forks of one process that has imported torch and Ray, which saves each of them seconds of imports.

Ray runs this file in place of its own `setup_worker.py`. The worker runs Ray's `default_worker.py` as always, with the
arguments, variables and files with which it was started; only its modules are those that the server has imported. A
worker that needs more than this is started by Ray's own file: one whose runtime environment is more than variables, or
whose variables differ in those that take effect when a process starts.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SOCKET = "VDSM_TEST_RAY_WORKERS"
"""Variable that holds the path of the server's socket."""
READ_AT_START = ("PYTHONPATH", "OMP_NUM_THREADS", "LD_", "GLIBC_TUNABLES")
"""Names of variables that take effect when a process starts, or the beginnings of their names."""
IMPORTED = (
    "boto3",
    "torch._dynamo",
    "ray.train.torch",
    "ray.train.v2._internal.execution.controller.controller",
    "pipeline.ray_train.worker",
    "preprocessing.sharding.tasks",
)
CONTEXT = "--serialized-runtime-env-context"


def ray_file(name: str) -> str:
    """Return the path of one of the files by which Ray starts workers."""
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.submodule_search_locations is not None
    return str(Path(found.submodule_search_locations[0]) / "_private" / "workers" / name)


@contextlib.contextmanager
def forked_workers(folder: Path) -> Iterator[None]:
    """Have the Rays that start in this block take their workers from a server, which ends with the block."""
    from cluster.ray_runtime import set_defaults

    set_defaults()
    from ray._private import services

    start_raylet, setup = services.start_raylet, ray_file("setup_worker.py")
    with contextlib.ExitStack() as running:

        def start(*args: Any, **options: Any) -> Any:
            if SOCKET not in os.environ:
                running.enter_context(server(folder / "ray_workers"))
            assert setup in args
            return start_raylet(*[__file__ if value == setup else value for value in args], **options)

        services.start_raylet = start
        try:
            yield
        finally:
            services.start_raylet = start_raylet


@contextlib.contextmanager
def server(path: Path) -> Iterator[None]:
    """Run the server with the variables of this process; processes that start in the block find it."""
    from vdsm.memory import TUNABLES

    # Ray reads its own two when it is imported. A worker that belongs to no job takes the work of any.
    variables = {"GLIBC_TUNABLES": TUNABLES, "RAY_JOB_ID": "ffffffff", "RAY_RAYLET_PID": str(os.getpid())}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        number = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, __file__, "serve", str(number)],
            env=os.environ | variables,
            stdin=subprocess.PIPE,  # ends with this process
            pass_fds=[number],
        )
    with process:
        os.environ[SOCKET] = str(path)
        try:
            yield
        finally:
            del os.environ[SOCKET]


def serve(listener: socket.socket) -> dict[str, Any]:
    """Fork for each request until standard input ends. In the fork, return the request."""
    sys.path[0] = str(Path(ray_file("default_worker.py")).parent)
    for name in IMPORTED:
        importlib.import_module(name)
    # Nobody asks for the exit code of a worker.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        with connection:
            try:
                size, files, _, _ = socket.recv_fds(connection, 4, 3)
                with connection.makefile("rb") as stream:
                    request: dict[str, Any] = json.loads(stream.read(int.from_bytes(size, "big")))
            except (OSError, ValueError):  # Ray ended this worker while it started, as on a busy machine
                continue
            wanted = read_at_start({"GLIBC_TUNABLES": os.environ["GLIBC_TUNABLES"]} | request["variables"])
            accepted = wanted == read_at_start(os.environ)
            draw_ids()
            if accepted and os.fork() == 0:
                listener.close()
                for number, file in enumerate(files):
                    os.dup2(file, number)
                    os.close(file)
                return request
            with contextlib.suppress(OSError):  # ended likewise
                connection.sendall(b"y" if accepted else b"n")
        for file in files:
            os.close(file)
    os._exit(0)


def draw_ids() -> None:
    """Draw random IDs of Ray, so that the next fork draws others than the last one.

    Forks inherit the state of Ray's random numbers. Two workers that start at once would put objects of the same ID,
    which ends one of them, and a driver that waits for both waits for ever. Each thread has a state of its own, which
    starts from that of the process.
    """
    from ray._raylet import NodeID

    NodeID.from_random()
    thread = threading.Thread(target=NodeID.from_random)
    thread.start()
    thread.join()


def read_at_start(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(READ_AT_START)}


def run(request: Mapping[str, Any]) -> None:
    """Run a worker in this process, a fork of the server."""
    import numpy as np

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    tempfile.tempdir = None  # a module that the server imported may have asked for it
    np.random.seed()  # noqa: NPY002 (the generator of other libraries; the standard library seeds its own in a fork)
    threading.Thread(target=end_with, args=(int(os.environ["RAY_RAYLET_PID"]),), daemon=True).start()
    sys.argv = request["args"]
    runpy.run_path(sys.argv[0], run_name="__main__")


def end_with(pid: int) -> None:
    """End this process once another has ended, as a worker does that Ray has started."""
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(pid)], [], [])
    os._exit(1)


def start(args: list[str]) -> None:
    """Do what Ray's `setup_worker.py` does, for a worker whose file is the first of the arguments."""
    options = dict(arg.partition("=")[::2] for arg in args)
    context = json.loads(options.get(CONTEXT, "{}"))
    variables = os.environ | context.pop("env_vars", {})
    if not any(value for name, value in context.items() if name != "py_executable"):
        plain = [arg for arg in args if arg.partition("=")[0] not in (CONTEXT, "--language")]
        message = json.dumps({"args": plain, "variables": variables, "folder": str(Path.cwd())}).encode()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.environ[SOCKET])
            socket.send_fds(connection, [len(message).to_bytes(4, "big")], [0, 1, 2])
            connection.sendall(message)
            if connection.recv(1) == b"y":
                return
    setup = ray_file("setup_worker.py")
    os.execv(sys.executable, [sys.executable, setup, *args])


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        run(serve(socket.socket(fileno=int(sys.argv[2]))))
    else:
        start(sys.argv[1:])
