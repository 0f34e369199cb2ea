"""Kills of the driver and of a worker of a training that has reached a step."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.e2e.training_runs import descendants, lines, started, wait, workers
from tests.listeners import Listener
from tests.reachability import listeners_on_loopback


def kill_worker(run: Path, reached: Callable[[], bool], dice: random.Random, ports: list[Listener]) -> None:
    """Kill one of the workers once the run has reached a step. Take the ports that are open then."""
    wait(reached, "it has reached the step")
    with frozen_workers(run, dice) as pids:
        ports += listeners_on_loopback(descendants(os.getpid()))
        os.kill(pids[dice.randrange(2)], signal.SIGKILL)


@contextmanager
def frozen_workers(run: Path, dice: random.Random) -> Iterator[list[int]]:
    """Stop the workers after a moment, so that they do not finish the run while a busy machine looks at its processes.

    Yield their process ids. They continue after the block, unless they were killed.
    """
    pids = [one["pid"] for one in workers(run)]
    time.sleep(dice.uniform(0, 0.2))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def kill_driver(
    root: Path,
    args: list[str],
    run: Path,
    reached: Callable[[], bool],
    dice: random.Random,
    *,
    own_ray: bool,
) -> None:
    """Train in a process of its own, and kill it once the run has reached a step.

    It joins the Ray of this process like a job that was submitted, or starts a Ray of its own.
    """
    joined = {} if own_ray else shared_ray()
    with started(root, args, run.parent, **joined) as process:
        wait(reached, "it has reached the step", process=process)
        with frozen_workers(run, dice):
            family = descendants(process.pid if own_ray else os.getpid())
            working = [pid for pid, name in family.items() if "Train" in name or (own_ray and "raylet/raylet" in name)]
            assert sum("RayTrainWorker" in family[pid] for pid in working) == 2
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            if not own_ray:  # they stay frozen until Ray notices that their driver is gone, and ends them
                wait_until_gone(working)
        # Ray's own agents stay a minute longer; whatever trains or writes is gone in seconds.
        wait_until_gone(working)
        for pid in family if own_ray else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert lines(run / "events.jsonl")[-1]["event"] in ("start", "resume", "stage finished")


def wait_until_gone(pids: list[int]) -> None:
    wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "they are gone")


def shared_ray() -> dict[str, str]:
    """Return the variables by which the driver of a submitted job joins the Ray of this process."""
    import ray

    address = str(ray.get_runtime_context().gcs_address)
    # It listens on loopback, an address that Ray would otherwise replace.
    return {"RAY_ADDRESS": address, "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
