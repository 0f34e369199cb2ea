"""The driver of a run under Ray Train: start the workers, take their records, and request them to stop."""

import contextlib
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.cli.stop_signals import handled_by
from cluster.errors import UserError
from cluster.storage import os_errors
from cluster.storage.errors import UnreachableError
from cluster.storage.fence import check_all
from cluster.storage.lock import RENEWAL_S
from cluster.storage.scratch import REMEDY, scratch_folder, scratch_root
from pipeline.ray_train.coordinator import Coordinator
from pipeline.ray_train.failure_log import FailureLog, summary
from pipeline.ray_train.network import NetworkConfig
from pipeline.ray_train.worker import worker
from pipeline.runs.log import RunLog
from pipeline.runs.work import WorkerConfig
from pipeline.training.config import TrainingConfig
from pipeline.training.position import Outcome
from vdsm.memory import TUNABLES

logger = logging.getLogger(__name__)


def fit(worker_config: WorkerConfig, log: RunLog) -> Outcome:
    """Train until the end, or until Ctrl-C. Needs a connection to Ray.

    The first Ctrl-C, SIGTERM or SIGHUP saves a checkpoint and stops; the second stops immediately.

    Args:
        worker_config: what every worker needs to train.
        log: takes the records of the workers.

    Raises:
        UserError: invalid input, or workers failed too often.
    """
    training = worker_config.recipe.training
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(poll_interval_s(training.num_workers)))
    least = training.min_workers or training.num_workers
    # Ray Train's timeout for the resources that it has requested. After a machine is lost it may request as much as
    # before; elastic workers should soon request what is left.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15" if least < training.num_workers else "180")
    for resource, amount in _resources(training).items():
        available = ray.cluster_resources().get(resource, 0)  # type: ignore[no-untyped-call]
        if available < least * amount:
            logger.info("waiting for %g %s, of which Ray has %g", least * amount, resource, available)
    # On the driver's node: on another machine it would be lost together with that machine.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    coordinator = Coordinator.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    # For Ray Train's own files. Checkpoints are not among them: see pipeline/runs/checkpoints.py.
    with scratch_folder() as folder:
        result = _fit_in_thread(_trainer(worker_config, coordinator, folder), coordinator, log)
    user_error = ray.get(coordinator.user_error.remote())
    if isinstance(result, BaseException):
        if user_error is None and (fault := os_errors.fault_in(getattr(result, "controller_failure", result))):
            os_errors.explain(fault.filename or scratch_root(), fault, REMEDY)
        if user_error is None and not isinstance(result, ray.train.TrainingFailedError):
            raise result
        log.event("gave up", error=user_error or summary(result))
        raise UserError(user_error or f"workers failed more than {training.max_failures} times: {summary(result)}")
    outcome: dict[str, Any] = result.return_value
    if "error" in outcome:
        log.event("gave up", error=outcome["error"])
        raise UserError(outcome["error"])
    return Outcome(**outcome)


def poll_interval_s(workers: int) -> float:
    """Return the seconds between polls of the workers by Ray Train's controller: from 0.2 to 2, which is Ray's default.

    A poll costs it about 0.7 ms per worker, and should take at most a tenth of its time.
    """
    return min(2.0, max(0.2, 0.007 * workers))


def _resources(training: TrainingConfig) -> dict[str, float]:
    """Return the Ray resources of one worker."""
    resources = {"CPU": float(training.threads_per_worker)} | ({"GPU": 1.0} if training.use_gpu else {})
    return resources | ({training.worker_resource: 1.0} if training.worker_resource else {})


def _trainer(worker_config: WorkerConfig, coordinator: Any, folder: Path) -> TorchTrainer:
    training = worker_config.recipe.training
    workers: dict[str, Any] = {"num_workers": training.num_workers}
    if training.min_workers is not None and training.min_workers < training.num_workers:
        workers = {
            "num_workers": (training.min_workers, training.num_workers),
            "elastic_resize_monitor_interval_s": training.resize_interval_s,
        }
    # glibc reads it when a process starts.
    environment = {} if training.use_gpu else {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", TUNABLES)}
    return TorchTrainer(
        lambda: worker(worker_config, coordinator),  # type: ignore[arg-type]
        torch_config=NetworkConfig(timeout_s=math.ceil(training.stall_timeout_s)),
        scaling_config=ray.train.ScalingConfig(
            **workers,
            use_gpu=training.use_gpu,
            resources_per_worker=_resources(training),
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]
            name=f"vdsm-{uuid.uuid4().hex[:12]}",
            storage_path=str(folder),
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures),
            callbacks=[FailureLog(coordinator)],  # type: ignore[list-item]
            worker_runtime_env={"env_vars": environment},
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )


def _fit_in_thread(trainer: TorchTrainer, coordinator: Any, log: RunLog) -> Any:
    """Return the result of the trainer, or its exception, after all records have been taken.

    Raises:
        StorageError: the lock of the run was lost.
    """
    results: list[Any] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(trainer.fit())
        except BaseException as error:  # handed to the main thread
            results.append(error)
        finally:
            done.set()

    # Not in the main thread, where Ray Train would abort immediately on Ctrl-C.
    threading.Thread(target=run, daemon=True, name="ray train").start()
    with _stop_signals() as stop:
        is_requested, checked_at = False, time.monotonic()
        while not done.wait(0.3):
            _drain(coordinator, log)
            if time.monotonic() - checked_at > RENEWAL_S:
                checked_at = time.monotonic()
                with contextlib.suppress(UnreachableError):  # then nobody else can take the lock either
                    check_all()
            if stop.is_set() and not is_requested:
                logger.info("saving a checkpoint before stopping; press Ctrl-C again to stop immediately")
                ray.get(coordinator.request_stop.remote())
                is_requested = True
    _drain(coordinator, log)
    return results[0]


def _drain(coordinator: Any, log: RunLog) -> None:
    for record in ray.get(coordinator.take.remote()):
        log.take(record)


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Set the event at the first Ctrl-C, SIGTERM or SIGHUP within the block; raise KeyboardInterrupt at the second."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with handled_by(handle):
        yield stop
