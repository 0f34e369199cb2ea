"""Machines for tests: network namespaces on a bridge, which Ray's cluster launcher logs in to.

No namespace has a route out, and the bridge has no address, so that the namespaces reach each other and nothing else.
One runs the services (the S3 server, a simulated EC2) and the client that calls `ray up`; the others are hosts with
sshd (`tests.e2e.hosts`). Programs and files are shared.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.e2e.hosts import BIN, EC2, KEYS, NETWORK, S3, SERVICES, Host

TOKEN = "6f" * 32
SWITCH = "VDSM_NAMESPACE_TESTS"


def reason_to_skip() -> str | None:
    """Return why such machines cannot be created here; None if they can."""
    if not os.environ.get(SWITCH):
        return f"takes minutes and creates network namespaces; run it by `make cluster-test`, or with {SWITCH}=1"
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    programs = {"ip": "iproute2", "/usr/sbin/sshd": "openssh-server", "rsync": "rsync", "unshare": "util-linux"}
    missing = [package for program, package in programs.items() if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    done = subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else "this machine does not allow new namespaces"


class Machines:
    """All hosts, and the namespace of the services and the client."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self._stack = folder, contextlib.ExitStack()
        self._name = f"v{os.getpid() % 100_000}"
        self.public_keys = folder / "authorized_keys"
        self.public_keys.touch()
        self.home = folder / "client"
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ray").mkdir()
        (self.home / ".ray" / "auth_token").write_text(TOKEN)
        (self.home / ".ray" / "auth_token").chmod(0o600)
        (self.home / "ray").mkdir()
        (self.home / "tmp").mkdir()
        self.services = f"{self._name}s10"
        self.hosts = [
            Host(f"{self._name}h{n}", n, folder / f"host{n}", self.public_keys) for n in range(11, 11 + count)
        ]

    def __enter__(self) -> "Machines":
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        bridge = f"{self._name}br"
        ip("link", "add", bridge, "type", "bridge")
        self._stack.callback(ip, "link", "del", bridge)
        ip("link", "set", bridge, "up")
        for namespace, number in [(self.services, 10), *((host.namespace, host.number) for host in self.hosts)]:
            ip("netns", "add", namespace)
            self._stack.callback(ip, "netns", "del", namespace)
            outer = f"{self._name}w{number}"
            ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            ip("link", "set", outer, "master", bridge, "up")
            ip("-n", namespace, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "route", "add", "172.31.0.0/16", "dev", "eth0")
            # Ray finds its own address through this route. It leads to the bridge, which has no other members.
            ip("-n", namespace, "route", "add", "default", "dev", "eth0", "src", f"{NETWORK}.{number}")
        for host in self.hosts:
            host.power_on()
            self._stack.callback(host.power_off)

    def start(self, args: Sequence[str | Path], log: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a service or a long command of the client, which runs until the end of the test."""
        with (self.folder / log).open("wb") as output:
            process = subprocess.Popen(
                self._client(args), env=self._environment(variables), stdout=output, stderr=output, cwd=self.home
            )

        def end() -> None:
            process.kill()
            process.wait()

        self._stack.callback(end)
        return process

    def run(
        self, args: Sequence[str | Path], cwd: Path | None = None, timeout: float = 300, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the client to completion; its stdout includes stderr."""
        return subprocess.run(
            self._client(args),
            env=self._environment(variables),
            cwd=cwd or self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def _client(self, args: Sequence[str | Path]) -> list[str]:
        # A process namespace, so that what a command leaves behind (such as an SSH master) is killed with it.
        script = f'mount --make-rprivate / && mkdir -p /tmp/ray && mount --bind {self.home}/ray /tmp/ray && exec "$@"'
        enter = ["ip", "netns", "exec", self.services, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return [*enter, "--mount", "bash", "-c", script, "client", *map(str, args)]

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        own = {"HOME": str(self.home), "PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        own |= {"RAY_USAGE_STATS_ENABLED": "0", "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-west-2"}
        own |= {"TMPDIR": str(self.home / "tmp")}
        own |= {"AWS_ENDPOINT_URL_S3": S3, "AWS_ENDPOINT_URL_EC2": EC2, **KEYS, "AWS_ENDPOINT_URL_IAM": EC2}
        return own | {"RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1", **variables}

    def python(self, code: str, **variables: str) -> str:
        """Return the output of a Python program of the client."""
        done = self.run([sys.executable, "-c", code], **variables)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def open_ports(self, address: str, *, filtered: bool = False) -> set[int]:
        """Return the TCP ports of a host that accept a connection from the client; every port is tried.

        With `filtered`, a firewall may drop packets without an answer.
        """
        silent, seconds, threads = ("errno.EAGAIN", 1, 900) if filtered else ("0", 5, 4)
        code = (
            "import errno, socket, sys\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "def attempt(port):\n"
            "    with socket.socket() as tried:\n"
            f"        tried.settimeout({seconds})\n"
            "        failed = tried.connect_ex((sys.argv[1], port))\n"
            f"    if failed not in (0, errno.ECONNREFUSED, {silent}):\n"
            "        raise SystemExit(f'port {port}: {errno.errorcode.get(failed)}')\n"
            "    return port, failed\n"
            f"with ThreadPoolExecutor({threads}) as pool:\n"
            "    for port, failed in pool.map(attempt, range(1, 65536)):\n"
            "        if not failed: print(port)\n"
        )
        done = self.run([sys.executable, "-c", code, address])
        assert done.returncode == 0, done.stdout
        return set(map(int, done.stdout.split()))

    def serve_s3(self, bucket: str) -> None:
        """Start the S3 server and create an empty bucket."""
        folder = self.folder / "s3"
        folder.mkdir()
        pair = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = {"identities": [{"name": "admin", "credentials": pair, "actions": actions}]}
        (folder / "s3.json").write_text(json.dumps(identities))
        args = [BIN / "weed", "mini", f"-dir={folder}", f"-ip={SERVICES}", f"-ip.bind={SERVICES}", "-s3.port=8333"]
        args += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false"]
        args += ["-admin.ui=false", f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false"]
        self.start(args, "s3.log")
        code = (
            "import boto3, contextlib, time\n"
            "client = boto3.client('s3')\n"
            "for attempt in range(120):\n"
            "    try:\n"
            "        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):\n"
            f"            client.create_bucket(Bucket={bucket!r})\n"
            f"        client.put_object(Bucket={bucket!r}, Key='ready', Body=b'1')\n"
            "        break\n"
            "    except Exception as error:\n"
            "        last = error; time.sleep(0.5)\n"
            "else: raise last\n"
        )
        self.python(code)


def ip(*args: str) -> None:
    """Run iproute2's `ip`."""
    subprocess.run(["ip", *args], check=True, capture_output=True)


@contextlib.contextmanager
def machines(folder: Path, count: int) -> Iterator[Machines]:
    """Yield `count` hosts and a client; skip the test if they cannot be created."""
    reason = reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    with Machines(folder, count) as found:
        yield found
