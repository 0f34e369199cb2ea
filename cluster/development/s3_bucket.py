"""A development S3 server with one bucket, whose keys are generated once and kept in its folder."""

import contextlib
import json
import os
import secrets
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

from cluster.development.s3_server import S3Server, serve
from cluster.errors import UserError

ENVIRONMENT_FILE = "env.sh"
"""Shell script in the folder that sets the variables of the server, keys included."""


@contextlib.contextmanager
def serve_bucket(folder: Path, bucket: str) -> Iterator[S3Server]:
    """Run a server that has `bucket` and stores objects, keys and `ENVIRONMENT_FILE` in `folder`.

    Restarted with the same folder, it has the same keys and objects.

    Raises:
        UserError: the folder is not writable, the bucket cannot be created, or the server does not start.
    """
    try:
        access_key, secret_key = _stored_keys(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; give another --folder") from None
    with serve(folder, access_key=access_key, secret_key=secret_key) as server:
        _create_bucket(server, bucket)
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in server.environment().items())
        _write_private(folder / ENVIRONMENT_FILE, exports)
        yield server


def wait_for(stopped: threading.Event, server: S3Server) -> None:
    """Wait until `stopped` is set.

    Raises:
        UserError: the server exits before that.
    """
    while not stopped.wait(0.5):
        with contextlib.suppress(ChildProcessError):
            if os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                raise UserError("the S3 server exited; see server.log in its folder")


def _stored_keys(folder: Path) -> tuple[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "keys.json"
    if path.exists():
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # damaged
            access_key, secret_key = json.loads(path.read_text())
            return str(access_key), str(secret_key)
    keys = (f"dev{secrets.token_hex(8)}", secrets.token_urlsafe(30))
    _write_private(path, json.dumps(keys))
    return keys


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _create_bucket(server: S3Server, bucket: str) -> None:
    from botocore.exceptions import ClientError, ParamValidationError

    try:
        server.client().create_bucket(Bucket=bucket)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise UserError(f"cannot create --bucket {bucket} ({code}); choose another name") from None
    except ParamValidationError:
        raise UserError(
            f"--bucket {bucket} is not a valid bucket name; use lower-case letters, digits and hyphens"
        ) from None
