"""The training under Ray Train, as the driver sees it: start the workers, take their records, ask them to stop."""

import contextlib
import getpass
import math
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.errors import UserError
from pipeline.ray_train.network import NetworkConfig
from pipeline.ray_train.worker import Coordinator, WorkerConfig, worker
from pipeline.runs.log import RunLog
from vdsm.memory import TUNABLES


class FailureLog(ray.train.UserCallback):
    """Tells the coordinator that workers failed. Runs in Ray Train's controller, where an exception would end the run."""

    def __init__(self, coordinator: Any) -> None:
        self._ledger = coordinator

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train with the error of each rank that failed."""
        ranks = sorted(worker_exceptions)
        error = _summary(worker_exceptions[ranks[0]]) if ranks else "no reason given"
        with contextlib.suppress(Exception):
            self._ledger.push.remote({"kind": "event", "event": "failure", "ranks": ranks, "error": error})


def _summary(error: BaseException) -> str:
    """The end of an error in at most 200 characters: of a traceback, the line that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def fit(worker_config: WorkerConfig, log: RunLog) -> dict[str, Any]:
    """Trains until the end, or until ctrl-C; the records of the workers go to `log`. Needs a connection to Ray.

    Returns `stage`, `step` and `finished`. Raises UserError for mistakes of the user and where workers fail too often.
    The first ctrl-C or SIGTERM saves a checkpoint and stops, the second stops at once.
    """
    # How often Ray Train's controller looks at the workers.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    training = worker_config.recipe.training
    elastic = (training.min_workers or training.num_workers) < training.num_workers
    # How long Ray Train waits for the room that it has asked for. After a machine was lost it may ask for as much as
    # there was; with elastic workers it should soon ask for what there is.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15" if elastic else "180")
    resources = {"CPU": float(training.threads_per_worker)} | ({"GPU": 1.0} if training.use_gpu else {})
    if training.worker_resource:
        resources[training.worker_resource] = 1.0
    least = training.min_workers or training.num_workers
    workers: dict[str, Any] = {"num_workers": training.num_workers}
    if elastic:
        workers = {
            "num_workers": (least, training.num_workers),
            "elastic_resize_monitor_interval_s": training.resize_interval_s,
        }
    for resource, amount in resources.items():
        there = ray.cluster_resources().get(resource, 0)  # type: ignore[no-untyped-call]
        if there < least * amount:
            log.note(f"waiting for {least * amount:g} {resource}, of which Ray has {there:g}")
    # glibc reads it when a process starts.
    environment = {} if training.use_gpu else {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", TUNABLES)}
    # Beside the driver: on another machine it would die with that one.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    coordinator = Coordinator.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    trainer = TorchTrainer(
        lambda: worker(worker_config, coordinator),  # type: ignore[arg-type]
        torch_config=NetworkConfig(timeout_s=math.ceil(training.stall_timeout_s)),
        scaling_config=ray.train.ScalingConfig(
            **workers,
            use_gpu=training.use_gpu,
            resources_per_worker=resources,
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]
            # Where Ray Train keeps notes of its own. Checkpoints are not among them: see checkpoints.py.
            name=f"vdsm-{uuid.uuid4().hex[:12]}",
            storage_path=str(Path(tempfile.gettempdir()) / f"vdsm-ray-train-{getpass.getuser()}"),
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures),
            callbacks=[FailureLog(coordinator)],  # type: ignore[list-item]
            worker_runtime_env={"env_vars": environment},
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    results: list[Any] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(trainer.fit())
        except BaseException as error:  # handed to the main thread
            results.append(error)
        finally:
            done.set()

    # Not in the main thread, where Ray Train would take ctrl-C as the wish to abort at once.
    threading.Thread(target=run, daemon=True, name="ray train").start()
    with _interruptions() as asked:
        told = False
        while not done.wait(0.3):
            _drain(coordinator, log)
            if asked.is_set() and not told:
                log.note("saving a checkpoint, then stopping; once more stops at once")
                ray.get(coordinator.ask_to_stop.remote())
                told = True
    _drain(coordinator, log)
    result, mistake = results[0], ray.get(coordinator.mistake.remote())
    if isinstance(result, BaseException):
        if mistake is None and not isinstance(result, ray.train.TrainingFailedError):
            raise result
        log.event("gave up", error=mistake or _summary(result))
        raise UserError(mistake or f"workers failed more than {training.max_failures} times: {_summary(result)}")
    outcome: dict[str, Any] = result.return_value
    if "mistake" in outcome:
        log.event("gave up", error=outcome["mistake"])
        raise UserError(outcome["mistake"])
    return outcome


def _drain(coordinator: Any, log: RunLog) -> None:
    for record in ray.get(coordinator.take.remote()):
        log.take(record)


@contextlib.contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """Within the block, the first ctrl-C or SIGTERM sets the event; the second raises KeyboardInterrupt."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may handle signals
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
