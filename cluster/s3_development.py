"""`vdsm s3`: a real S3 server on this machine, with keys of its own and one bucket, until ctrl-C."""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import contextlib
import json
import os
import secrets
import shlex
import signal
import sys
import threading
from pathlib import Path

from pydantic import ConfigDict

from cluster.cli import run as command_line
from cluster.cli.settings import Controls
from cluster.development.s3_server import S3Server, find_program, serve
from cluster.errors import UserError


class S3Command(Controls):
    """Run an S3 server for development. It listens on localhost only and wants the keys that it writes into a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Path("s3")
    """Where objects and keys are kept; started again with it, the server has them, the keys and the address again."""
    bucket: str = "data"
    """Bucket that is there when the server is ready."""


def main(argv: list[str] | None = None) -> None:
    """The command's entry."""
    command_line.run(lambda words: run(command_line.parse(S3Command, words, prog="vdsm s3")), argv)


def run(command: S3Command) -> None:
    """Serve until a signal comes or the server ends.

    Raises:
        UserError: the server is not installed or did not start, or the folder cannot be written.
    """
    find_program()
    if command.dry_run:
        sys.stdout.write(f"would serve s3://{command.bucket} from {command.folder}\n")
        return
    folder = command.folder.resolve()
    try:
        access_key, secret_key = _keys(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; give another --folder") from None
    with serve(folder, access_key=access_key, secret_key=secret_key) as server:
        _make_bucket(server, command.bucket)
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        variables = folder / "env.sh"
        _write_private(variables, "".join(f"export {k}={shlex.quote(v)}\n" for k, v in server.environment().items()))
        # The keys stay in the file, which only this user can read: what is printed ends in logs.
        sys.stdout.write(f"s3://{command.bucket} is served at {server.endpoint}; objects stay in {folder}\n")
        sys.stdout.write(f"in other shells: . {shlex.quote(str(variables))}\n")
        sys.stdout.flush()
        _wait(server, ended)


def _keys(folder: Path) -> tuple[str, str]:
    """The keys of this folder: those of the last time, or new ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "keys.json"
    if path.exists():
        with contextlib.suppress(ValueError):
            access_key, secret_key = json.loads(path.read_text())
            return str(access_key), str(secret_key)
    keys = (f"dev{secrets.token_hex(8)}", secrets.token_urlsafe(30))
    _write_private(path, json.dumps(keys))
    return keys


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _make_bucket(server: S3Server, bucket: str) -> None:
    from botocore.exceptions import ClientError, ParamValidationError

    try:
        server.client().create_bucket(Bucket=bucket)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise UserError(f"--bucket {bucket} cannot be made ({code}); give another name") from None
    except ParamValidationError:
        raise UserError(f"--bucket {bucket} is no name of a bucket; use small letters, digits and -") from None


def _wait(server: S3Server, ended: threading.Event) -> None:
    """Until a signal has come; UserError if the server ends by itself."""
    while not ended.wait(0.5):
        with contextlib.suppress(ChildProcessError):
            if os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                raise UserError("the S3 server ended; its log is server.log in the folder")


if __name__ == "__main__":
    main()
