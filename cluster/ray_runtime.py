"""Connect to Ray: to the cluster if there is one, otherwise to a local instance."""

import contextlib
import logging
import os
import secrets
import site
import socket
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster import ray_internals
from cluster.cli import stop_signals
from cluster.errors import UserError, first_line
from cluster.ray_folder import REMEDY, ray_folder
from cluster.storage import os_errors
from cluster.storage.s3_client import VARIABLES
from cluster.storage.scratch import home

log = logging.getLogger(__name__)

PACKAGES = ("cluster", "pipeline", "preprocessing", "vdsm")
"""The project's packages, which workers must be able to import."""
OBJECT_STORE_BYTES = 300_000_000
"""Object store of a local Ray. It can be small, as clips and weights travel through storage and collectives."""
CONNECT_TIMEOUT_S = 5.0
"""Timeout for a cluster to accept a connection, in seconds."""
_FORWARDED = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ENDPOINT",
    *VARIABLES,
)
"""Variables that workers on other machines need to find the same storage. Credentials are never among them, since the
machines of a cluster have their own."""
_IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the driver of a submitted job."""
_LOOPBACK = "127.0.0.1"
_SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Whether a Ray may span machines, on every system. Without that, its processes accept loopback as their address."""


def in_cluster() -> bool:
    """Return whether `connect` joins a cluster: in a submitted job, or with RAY_ADDRESS set."""
    return _IN_JOB in os.environ or bool(os.environ.get("RAY_ADDRESS"))


@contextlib.contextmanager
def connect(num_cpus: int | None = None, *, dashboard: bool = False) -> Iterator[None]:
    """Connect to Ray for the duration of the `with` block.

    In a submitted job, or with RAY_ADDRESS set, connect to the cluster. Otherwise start a small Ray on this machine,
    which stops with the block or with this process, even if it is killed. A nested `connect` has no effect.

    Args:
        num_cpus: CPUs of the local Ray, by default those available to this process. A cluster defines its own.
        dashboard: whether the local Ray serves its dashboard, on localhost.

    Raises:
        UserError: RAY_ADDRESS is set but there is no cluster, or the local Ray does not start.
    """
    set_defaults()
    import ray

    if ray.is_initialized():
        yield
        return
    if in_cluster():
        start = _joined(os.environ.get("RAY_ADDRESS", "auto"))
    else:
        start = _local_ray(num_cpus or len(os.sched_getaffinity(0)), dashboard=dashboard)
    with start:
        yield


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    with stop_signals.kept():
        _join_cluster(address)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _local_ray(num_cpus: int, *, dashboard: bool) -> Iterator[None]:
    import ray

    # Protect its ports by a token. Ray would store a new one in ~/.ray, which enables it for later clusters too.
    has_token = "RAY_AUTH_TOKEN" in os.environ or _token_path().is_file()
    os.environ.setdefault("RAY_AUTH_TOKEN", _token())
    # It prints the logs of a process that does not start, after which one line names the remedy.
    logging.getLogger("ray._private.services").setLevel(logging.CRITICAL)
    # Otherwise it warns at every start that the token is enabled, which is intended.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    with ray_folder() as folder:
        try:
            with os_errors.explained(folder, REMEDY):
                context = _start(folder, num_cpus, dashboard)
            if dashboard:
                how = "" if has_token else " --generate, then rerun"
                log.info("Ray's dashboard: http://%s, token: ray get-auth-token%s", context.dashboard_url, how)
            yield
        finally:
            ray.shutdown()


def _start(folder: Path, num_cpus: int, dashboard: bool) -> Any:
    """Start a local Ray, and try again if it timed out, as on a machine that is busy for a while.

    Raises:
        UserError: it does not start.
    """
    import ray

    for attempt in (1, 2):
        try:
            with (
                inherited(_local_environment(folder)),
                ray_internals.loopback_allowed(),
                ray_internals.any_command_line(),
                stop_signals.kept(),
                stop_signals.hangup_withheld(),
            ):
                return ray.init(
                    # Not "auto", which would use any Ray that happens to run on this machine.
                    address="local",
                    # Every port of this Ray, and of torch in its workers, listens on the address of its node.
                    _node_ip_address=_LOOPBACK,
                    job_config=_job_config(),
                    num_cpus=num_cpus,
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=dashboard,
                    logging_level=logging.WARNING,
                    # The log of Ray's own actors; errors of our tasks are raised as exceptions.
                    log_to_driver=False,
                    # Not the folder itself: Ray lets every user write to its own.
                    _temp_dir=f"{folder}/r",
                )
        except SystemExit:  # from the handler of SIGTERM that Ray installs while it starts
            raise KeyboardInterrupt from None
        except Exception as error:  # Ray raises nothing more specific if one of its processes does not start
            if os_errors.fault_in(error) is not None:
                raise
            reason = f"{first_line(error):.200}"
            if attempt == 1 and (isinstance(error, TimeoutError) or "timed out" in reason.lower()):
                log.warning("Ray did not start in time (%s); trying again", reason)
                ray.shutdown()
                continue
            raise UserError(
                f"Ray did not start on this machine ({reason}); free memory and space in {folder.parent}, or "
                "set RAY_TMPDIR to a folder on another local disk; if the machine is busy, rerun later"
            ) from error
    raise AssertionError("the second attempt returns or raises")


def set_defaults() -> None:
    """Set the variables that Ray reads when it is imported, unless they are set."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ.setdefault(name, "0")


def _join_cluster(address: str) -> None:
    import ray

    _check_reachable(address)
    # A Ray Client has no such path, and sends the job configuration to a process without this module.
    own: dict[str, Any] = {} if address.startswith("ray://") else {"job_config": _job_config()}
    try:
        with ray_internals.any_command_line():
            ray.init(
                address=address,
                runtime_env=_cluster_environment(),
                logging_level=logging.WARNING,
                log_to_driver=False,
                **own,
            )
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise UserError(
            f"cannot join the Ray cluster at RAY_ADDRESS={address} ({first_line(error):.150}); unset "
            "RAY_ADDRESS to use this machine, or set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if it requires a token"
        ) from None


def _token() -> str:
    """Return this user's token for Ray, or a new one."""
    with contextlib.suppress(OSError):
        return _token_path().read_text().strip() or secrets.token_hex(32)
    return secrets.token_hex(32)


def _token_path() -> Path:
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(path) if path else home() / ".ray" / "auth_token"


def _check_reachable(address: str) -> None:
    """Raise UserError if nothing listens at `address`, where Ray itself would wait for many minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    end = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"no Ray cluster responds at RAY_ADDRESS={address} ({error.strerror or error}); start it, or unset "
                    "RAY_ADDRESS to use this machine"
                ) from None
            time.sleep(0.5)


def _root() -> Path:
    """Return the folder that contains the project's packages."""
    return Path(__file__).resolve().parent.parent


def _is_installed() -> bool:
    """Return whether the packages are installed, so that every worker on this machine finds them."""
    return str(_root()) in {*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("purelib")}


def _local_environment(folder: Path) -> dict[str, str]:
    """Return the variables of a local Ray. Its workers read the same files, and only need the path to them."""
    # On this machine only, no notice of a preemption can arrive, and the actor that watches for one starts in seconds.
    variables = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")}
    # Ray kills its workers, which cannot remove their temporary files then.
    variables["TMPDIR"] = str(folder)
    variables[_SEVERAL_MACHINES] = "0"
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if paths or not _is_installed():
        # First, since other folders may hold modules with the names of ours.
        variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(_root()), *paths]))
    return variables


def _job_config() -> Any:
    """Return a job configuration that keeps the driver's working folder off the import path of its workers.

    Ray puts it first, as if by `python -m`, where a `pipeline.py` of the user's would replace our package.
    """
    from ray.job_config import JobConfig

    class Job(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            return True  # whose workers get no folder of the driver

    return Job()


@contextlib.contextmanager
def inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes that start within the block, such as Ray's, and through them every worker.

    In a runtime environment, they would have Ray start new workers instead of using those that wait for work.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _cluster_environment() -> dict[str, Any]:
    """Return the runtime environment of workers of a cluster.

    Those of a submitted job inherit the job's; for any other driver, Ray uploads the packages.
    """
    if _IN_JOB in os.environ:
        return {}
    return {
        "py_modules": [str(_root() / name) for name in PACKAGES if (_root() / name).is_dir()],
        "excludes": ["__pycache__"],
        "env_vars": {name: os.environ[name] for name in _FORWARDED if name in os.environ},
    }
