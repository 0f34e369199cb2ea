"""Hosts of tests: namespaces with sshd, each with processes, a host name, a Ray folder, shared memory and a home."""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

NETWORK = "10.78.8"
SERVICES = f"{NETWORK}.10"
"""Address of the S3 server and the simulated EC2."""
S3 = f"http://{SERVICES}:8333"
EC2 = f"http://{SERVICES}:5077"
BIN = Path(sys.executable).parent
KEYS = {"AWS_ACCESS_KEY_ID": "namespace-key", "AWS_SECRET_ACCESS_KEY": "namespace-secret"}

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
