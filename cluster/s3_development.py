"""`vdsm s3`: run a real S3 server on this machine until Ctrl-C, with keys of its own and one bucket."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import logging
import shlex
import signal
import sys
import threading
from pathlib import Path

from pydantic import ConfigDict

from cluster.cli.paths import LocalPath
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.cli.stop_signals import SIGNALS
from cluster.development.s3_bucket import ENVIRONMENT_FILE, serve_bucket, wait_for
from cluster.development.s3_server import find_program

log = logging.getLogger(__name__)


class S3Command(Controls):
    """Run an S3 server for development. It listens on localhost only and requires the keys that it writes to a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: LocalPath = Path("s3")
    """Folder for objects and keys. Restarted with the same folder, the server has the same objects, keys and
    address."""
    bucket: str = "data"
    """Bucket to create, if it does not exist."""


def serve(command: S3Command) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP.

    Raises:
        UserError: the server is not installed, does not start or exits, or the folder is not writable.
    """
    find_program()
    if command.dry_run:
        sys.stdout.write(f"would serve s3://{command.bucket} from {command.folder}\n")
        return
    folder = command.folder.resolve()
    with serve_bucket(folder, command.bucket) as server:
        stopped = threading.Event()
        for number in (signal.SIGINT, *SIGNALS):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: stopped.set())
        # The keys stay in the file, which only this user can read: output often ends up in logs.
        sys.stdout.write(f"s3://{command.bucket} is served at {server.endpoint}; objects are stored in {folder}\n")
        sys.stdout.write(f"in other shells: . {shlex.quote(str(folder / ENVIRONMENT_FILE))}\n")
        sys.stdout.flush()
        wait_for(stopped, server)
    log.info("the S3 server has ended; rerun the same command to serve the same objects")


main = entry(S3Command, serve, prog="vdsm s3")

if __name__ == "__main__":
    main()
