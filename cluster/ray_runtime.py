"""Ray, whether a cluster is there or not."""

import contextlib
import logging
import os
import secrets
import site
import socket
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.storage.s3_client import VARIABLES

log = logging.getLogger(__name__)

PACKAGES = ("cluster", "pipeline", "preprocessing", "vdsm")
OBJECT_STORE_BYTES = 300_000_000
"""Of a local Ray. Clips and weights travel by storage and by collectives, so little passes through it."""
ANSWER_S = 5.0
"""How long a cluster may take to answer."""
_PASSED_ON = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
    *VARIABLES,
)
"""Variables that workers on other machines need to find the same storage. Credentials are never among them: a cluster's
machines have their own."""
_IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the driver of a submitted job."""


@contextlib.contextmanager
def connect(num_cpus: int | None = None, *, dashboard: bool = False) -> Iterator[None]:
    """Be connected to Ray inside the `with` block.

    In a submitted job, or with RAY_ADDRESS set, that is the cluster. Otherwise a small Ray starts on this machine; it
    ends with the block and also when this process dies, however it dies. Inside another `connect` nothing happens.

    Args:
        num_cpus: CPUs of the local Ray; those this process may use if absent. A cluster has its own.
        dashboard: whether the local Ray serves its dashboard, on localhost.

    Raises:
        UserError: RAY_ADDRESS is set, and there is no cluster.
    """
    # Read by Ray when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    if _IN_JOB in os.environ or os.environ.get("RAY_ADDRESS"):
        _join_cluster(os.environ.get("RAY_ADDRESS", "auto"))
    else:
        # A token for its ports. Ray would store a new one in ~/.ray, which turns tokens on for later clusters too.
        known = "RAY_AUTH_TOKEN" in os.environ or _token_path().is_file()
        os.environ.setdefault("RAY_AUTH_TOKEN", _token())
        # That it protects itself by a token, which is what we want, is no reason for a warning at every start.
        logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
        try:
            context = ray.init(
                # Not "auto": a Ray that happens to run on this machine belongs to somebody else.
                address="local",
                num_cpus=num_cpus or len(os.sched_getaffinity(0)),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=dashboard,
                runtime_env=_local_environment(),
                logging_level=logging.WARNING,
                # What Ray's own actors say; errors of our tasks come back as exceptions.
                log_to_driver=False,
            )
        except Exception as error:  # Ray has no better name for a part of it that did not start
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"Ray did not start on this machine ({reason:.200}); start the same command again"
            ) from error
        if dashboard:
            how = "" if known else " --generate, then start again"
            log.info("Ray's dashboard: http://%s, token: ray get-auth-token%s", context.dashboard_url, how)
    try:
        yield
    finally:
        ray.shutdown()


def _join_cluster(address: str) -> None:
    import ray

    _check_answers(address)
    try:
        ray.init(
            address=address, runtime_env=_cluster_environment(), logging_level=logging.WARNING, log_to_driver=False
        )
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise UserError(
            f"cannot join the Ray cluster at RAY_ADDRESS={address} ({str(error).strip().splitlines()[0]:.150}); unset "
            "RAY_ADDRESS to use this machine; if the cluster wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from None


def _token() -> str:
    """The token that this user has for Ray, or a new one."""
    with contextlib.suppress(OSError):
        return _token_path().read_text().strip() or secrets.token_hex(32)
    return secrets.token_hex(32)


def _token_path() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _check_answers(address: str) -> None:
    """UserError where nobody listens at `address`; Ray itself would wait there for many minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    end = time.monotonic() + ANSWER_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"no Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}); start it, or unset "
                    "RAY_ADDRESS to use this machine"
                ) from None
            time.sleep(0.5)


def _root() -> Path:
    """The folder that holds the project's packages."""
    return Path(__file__).resolve().parent.parent


def _is_installed() -> bool:
    """Whether every Python of this environment finds the packages by itself."""
    return str(_root()) in {*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("purelib")}


def _local_environment() -> dict[str, Any]:
    """Workers on this machine read the same files, so a path is all they need; they inherit the other variables."""
    if _is_installed():
        return {}
    paths = [str(_root()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}}


def _cluster_environment() -> dict[str, Any]:
    """A job's workers have what the job was submitted with; those of any other driver get our packages sent."""
    if _IN_JOB in os.environ:
        return {}
    return {
        "py_modules": [str(_root() / name) for name in PACKAGES if (_root() / name).is_dir()],
        "excludes": ["__pycache__"],
        "env_vars": {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    }
