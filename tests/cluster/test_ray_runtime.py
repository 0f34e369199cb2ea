"""Workers can import the project wherever the driver runs, and no process outlives the driver."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.listeners import session
from tests.reachability import assert_only_its_owner_reaches

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DRIVER = """
from cluster.ray_runtime import connect

with connect(num_cpus=1):
    import ray
    print(ray.get(ray.remote(lambda: 1).remote()), flush=True)
    import time
    time.sleep(600)
"""


def environment(root: Path) -> dict[str, str]:
    """Return an environment without Ray's variables, with the repository on PYTHONPATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"PYTHONPATH": str(root), "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}


def session_processes(session: int) -> dict[int, str]:
    """Return the live processes of a session, PID to name: one driver and the Ray it started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, fields = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has just exited
            continue
        if int(fields.split()[3]) == session and fields.split()[0] != "Z":
            found[int(folder.name)] = name
    return found


@pytest.mark.long
def test_a_killed_driver_stops_its_ray(root: Path, tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=tmp_path,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline()
        assert {"raylet", "gcs_server"} < set(session_processes(driver.pid).values())
        driver.kill()
        driver.wait()
        driver.stdout.close()
        # Ray's two idle agents exit by themselves, but only after a minute of waiting for the other processes.
        agents = {"ray::DashboardA", "ray::RuntimeEnv"}
        end = time.monotonic() + 30
        while set(session_processes(driver.pid).values()) - agents and time.monotonic() < end:
            time.sleep(0.2)
        assert set(session_processes(driver.pid).values()) <= agents
    finally:
        for process in session_processes(driver.pid):
            os.kill(process, signal.SIGKILL)


def test_an_address_without_a_cluster_is_reported_without_waiting(root: Path, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "preprocessing.shard", "--out", str(tmp_path / "data")],
            cwd=root,
            env=environment(root) | {"RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no Ray cluster responds at RAY_ADDRESS={address}")


STOPPED = """
import os, tempfile, time
from cluster.cli.run import run
from cluster.ray_runtime import connect

def where():
    import preprocessing.clip, vdsm.config
    return preprocessing.clip.__file__, os.environ.get("AWS_ENDPOINT_URL")

def wait(marker):
    os.mkdir(os.path.join(tempfile.mkdtemp(), "left behind"))
    with open(marker, "w") as file:
        file.write(tempfile.gettempdir())
    time.sleep(600)

def work(args):
    import ray
    try:
        with connect(num_cpus=1):
            with connect():
                print(*ray.get(ray.remote(where).remote()), flush=True)
            assert ray.is_initialized()
            task = ray.remote(wait).remote(os.path.abspath("marker"))
            while not (os.path.exists("marker") and open("marker").read()):
                time.sleep(0.1)
            print(open("marker").read(), flush=True)
            ray.get(task)
    finally:
        print(ray.is_initialized(), flush=True)

run(work, [])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.long)])
def test_workers_import_the_project_and_a_command_that_is_asked_to_stop_ends_its_ray_and_leaves_no_file(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    script, home = tmp_path / "driver.py", tmp_path / "home"
    home.mkdir()  # without a token of Ray
    for name in ("preprocessing", "cluster", "pipeline"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a module of the user')")
    script.write_text(f"import sys; sys.path.insert(0, {str(root)!r})\n" + STOPPED)
    variables = environment(root) | {"HOME": str(home)}
    del variables["PYTHONPATH"]
    driver = subprocess.Popen(
        [sys.executable, str(script), b"caf\xe9.mp4"],  # a name that is not UTF-8
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline().split() == [str(root / "preprocessing" / "clip.py"), "http://127.0.0.1:1"]
        folder = Path(driver.stdout.readline().strip())
        assert folder.name.startswith("ray-")
        assert_only_its_owner_reaches(session(driver.pid), home)
        if number == signal.SIGHUP:
            os.killpg(driver.pid, number)  # as a terminal that closes
        else:
            driver.send_signal(number)
        output, errors = driver.communicate(timeout=60)
        assert (driver.returncode, errors) == (130, "interrupted; rerun the same command to resume\n")
        assert output.split() == ["False"]  # Ray is shut down when the block ends
        assert not folder.exists()
        assert session_processes(driver.pid) == {}
    finally:
        for process in session_processes(driver.pid):
            os.kill(process, signal.SIGKILL)
