"""Machines for tests: network namespaces on a bridge, which Ray's cluster launcher logs in to.

No namespace has a route out, and the bridge has no address, so that the namespaces reach each other and nothing else.
One runs the services (the S3 server, a simulated EC2) and the client that calls `ray up`; the others are hosts with
sshd. Each host has its own processes, host name, Ray folder, shared memory and home; programs and files are shared.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

NETWORK = "10.78.8"
SERVICES = f"{NETWORK}.10"
S3 = f"http://{SERVICES}:8333"
EC2 = f"http://{SERVICES}:5077"
BIN = Path(sys.executable).parent
KEYS = {"AWS_ACCESS_KEY_ID": "namespace-key", "AWS_SECRET_ACCESS_KEY": "namespace-secret"}
TOKEN = "6f" * 32
SWITCH = "VDSM_NAMESPACE_TESTS"

_INIT = """
set -eu
mount --make-rprivate /
mkdir -p /tmp/ray /run/sshd
mount --bind {folder}/ray /tmp/ray
mount --bind {folder}/passwd /etc/passwd
mount -t tmpfs -o size=1g tmpfs /dev/shm
hostname {name}
exec /usr/sbin/sshd -D -e -f {folder}/sshd_config
"""
_SSHD = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups 100
"""


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


def until(condition: Callable[[], object], what: str, seconds: float = 240.0) -> object:
    """Wait until `condition` returns a true value, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.5)
    pytest.fail(f"not within {seconds:.0f} s: {what}")


def until_nothing_runs(hosts: "Sequence[Host]", seconds: float) -> None:
    """Wait until no process is left on the hosts, except for their own sshd and init."""
    end = time.monotonic() + seconds
    while left := [command for host in hosts for command in host.processes()]:
        if time.monotonic() > end:
            pytest.fail(f"still running after {seconds:.0f} s: {left}")
        time.sleep(0.5)


class Host:
    """One machine; its address is `NETWORK.number`."""

    def __init__(self, namespace: str, number: int, folder: Path, public_keys: Path) -> None:
        self.namespace, self.number, self.folder = namespace, number, folder
        self.address = f"{NETWORK}.{number}"
        self._public_keys = public_keys
        self._process: subprocess.Popen[bytes] | None = None

    def power_on(self) -> None:
        """Start sshd on a machine with an empty home."""
        shutil.rmtree(self.folder, ignore_errors=True)
        home = self.folder / "home"
        home.mkdir(parents=True)
        (self.folder / "ray").mkdir()
        (self.folder / "authorized_keys").symlink_to(self._public_keys)
        users = Path("/etc/passwd").read_text().splitlines()
        users = [line.replace(":/root:", f":{home}:") if line.startswith("root:") else line for line in users]
        (self.folder / "passwd").write_text("\n".join(users) + "\n")
        (self.folder / "sshd_config").write_text(_SSHD.format(folder=self.folder))
        args = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key")]
        subprocess.run(args, check=True)
        variables = {"PATH": f"{BIN}:$PATH", "RAY_USAGE_STATS_ENABLED": "0", "AWS_EC2_METADATA_DISABLED": "true"}
        variables |= {"AWS_ENDPOINT_URL_S3": S3, "AWS_ENDPOINT_URL_EC2": EC2, **KEYS, "OMP_NUM_THREADS": "1"}
        # The environment of the machine. A real machine would get the keys from its role.
        (home / ".bashrc").write_text("".join(f"export {name}={value}\n" for name, value in variables.items()))
        (home / ".bash_profile").write_text(". ~/.bashrc\n")
        script = self.folder / "init.sh"
        script.write_text(_INIT.format(folder=self.folder, name=self.namespace))
        enter = ["ip", "netns", "exec", self.namespace, "unshare", "--pid", "--fork", "--kill-child"]
        with (self.folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*enter, "--mount-proc", "--mount", "--uts", "bash", str(script)], stdout=log, stderr=log
            )

    def power_off(self) -> None:
        """Kill all its processes at once, as when a machine is preempted."""
        if self._process is not None:
            self._process.kill()  # --kill-child kills its first process, and the kernel all others of its namespace
            self._process.wait()
            self._process = None
            until(lambda: not self.processes(), f"{self.namespace} is off", 20)

    def processes(self) -> list[str]:
        """Return the command lines of its processes, except for its own sshd and init."""
        pids = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True)
        found = []
        for pid in pids.stdout.split():
            with contextlib.suppress(OSError):
                command = (
                    Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                if command and not any(own in command for own in ("sshd", "unshare --pid", "init.sh")):
                    found.append(command)
        return found


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
