"""What `vdsm doctor` makes of what it saw: one finding for each check, with a remedy where it fails."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cluster.doctor import Finding
from cluster.health.collect import ClusterReport, Node

if TYPE_CHECKING:
    from cluster.doctor import DoctorCommand

VERSIONS = {
    "python": "run the same Python on every node: one image, or one version of the interpreter",
    "ray": "install the versions of constraints.txt on every node (pip install -c constraints.txt) and start Ray anew",
    "torch": "install the versions of constraints.txt on every node (pip install -c constraints.txt)",
    "project": "submit with --working-dir . from one checkout, or install the same one on every node",
}


def judge(seen: ClusterReport, command: "DoctorCommand") -> list[Finding]:
    """All findings, in the order of their importance to somebody who sets up a cluster."""
    checks = (_nodes, _versions, _gpus, _storage, _throughput, _clocks, _disk, _ports, _token, _job_api)
    return [finding for check in checks for finding in check(seen, command)]


def _nodes(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    there, wanted = len(seen.nodes), command.nodes
    if wanted is None or there == wanted:
        yield Finding("nodes", "ok", ", ".join(seen.nodes))
    else:
        remedy = (
            "look at `ray status` and the log of the machine that is missing; start Ray there with this head's address"
        )
        yield Finding("nodes", "failed", f"{there} of {wanted}: {', '.join(seen.nodes)}", remedy)


def _versions(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    for name, remedy in VERSIONS.items():
        found: dict[str, list[str]] = {}
        for address, node in seen.nodes.items():
            found.setdefault(str(node.facts[name]), []).append(address)
        if len(found) == 1 and "not installed" not in found:
            yield Finding(name, "ok", next(iter(found)))
        else:
            text = "; ".join(f"{version} on {', '.join(nodes)}" for version, nodes in found.items())
            yield Finding(name, "failed", text, remedy)


def _gpus(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    having = {name: node for name, node in seen.nodes.items() if node.facts["gpu"]["names"]}
    lacking = {name: node for name, node in seen.nodes.items() if node.claimed_gpus > len(node.facts["gpu"]["names"])}
    if lacking:
        first = next(iter(lacking.values())).facts["gpu"]
        remedy = "start Ray there without --num-gpus"
        if not first["driver"]:
            remedy = "install the NVIDIA driver there (nvidia-smi must list the GPU), or " + remedy
        elif not first["cuda_build"]:
            remedy = "install the CUDA build of torch there, or " + remedy
        text = ", ".join(
            f"{name} claims {node.claimed_gpus:g}, torch sees {len(node.facts['gpu']['names'])}"
            for name, node in lacking.items()
        )
        yield Finding("gpus", "failed", text, remedy)
    elif not having:
        yield Finding("gpus", "skipped", "no node has one")
    else:
        yield Finding("gpus", "ok", ", ".join(f"{name}: {node.facts['gpu']['names']}" for name, node in having.items()))
    if having:
        yield _alike("driver", having, "install the same NVIDIA driver on every GPU node")
        yield _alike(
            "nccl", having, "install the same build of torch on every GPU node; without NCCL they cannot train together"
        )


def _alike(what: str, nodes: dict[str, Node], remedy: str) -> Finding:
    found = {str(node.facts["gpu"][what]) for node in nodes.values()}
    good = len(found) == 1 and "" not in found
    return Finding(what, "ok" if good else "failed", ", ".join(sorted(found)) or "none", "" if good else remedy)


def _storage(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    steps = {
        "write": "name a bucket or folder that exists, and let the key, the role or the user write there",
        "read": "let the key or the role read there",
        "list": "let the key or the role list there",
        "conditional": "use a server that knows If-None-Match: without it two jobs can take the same run",
    }
    if command.storage is None:
        yield Finding("storage", "skipped", "give --storage to check it")
        return
    bad = {name: node.storage for name, node in seen.nodes.items() if node.storage and node.storage["failed"]}
    blind = [name for name, node in seen.nodes.items() if not node.sees_file]
    if bad:
        step = next(one for one in steps if any(found["failed"] == one for found in bad.values()))
        error = next(found["error"] for found in bad.values() if found["failed"] == step)
        yield Finding(
            "storage", "failed", f"{step} on {', '.join(bad)}: {error}", f"{steps[step]}; the error says more"
        )
    elif blind:
        remedy = "use s3://, or a folder of a file system that is mounted at the same path on every node"
        yield Finding("storage", "failed", f"{command.storage} is another folder on {', '.join(blind)}", remedy)
    else:
        yield Finding("storage", "ok", f"{command.storage}: read, write, list, conditional write")


def _throughput(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    measured = {
        name: min(node.storage["read_mb_s"], node.storage["write_mb_s"])
        for name, node in seen.nodes.items()
        if node.storage and not node.storage["failed"]
    }
    if not measured:
        return
    slow = [name for name, speed in measured.items() if speed < command.min_mb_s]
    text = ", ".join(f"{name} {speed:g} MB/s" for name, speed in measured.items())
    remedy = (
        "bring storage nearer (same region, a gateway endpoint, a faster link), or lower --min-mb-s if that is enough"
    )
    yield Finding("throughput", "failed" if slow else "ok", text, remedy if slow else "")


def _clocks(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    def wrong(node: Node) -> str:
        # Of the answer's way only the length is known; S3 tells whole seconds.
        if node.skew_s is not None and abs(node.skew_s) - node.skew_error_s > command.max_skew_s:
            return f"{node.skew_s:+.1f} s from the examiner"
        if node.server_skew_s is not None and abs(node.server_skew_s) - 1 > command.max_skew_s:
            return f"{node.server_skew_s:+.1f} s from the S3 server"
        return ""

    off = {name: wrong(node) for name, node in seen.nodes.items() if wrong(node)}
    if off:
        remedy = "switch on NTP (timedatectl set-ntp true, or chrony); S3 refuses requests that are 15 minutes off"
        yield Finding("clock", "failed", ", ".join(f"{name} {text}" for name, text in off.items()), remedy)
    else:
        yield Finding("clock", "ok", f"within {command.max_skew_s:g} s")


def _disk(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    full = [name for name, node in seen.nodes.items() if node.facts["free_gb"] < command.min_free_gb]
    text = ", ".join(f"{name} {node.facts['free_gb']:g} GB free" for name, node in seen.nodes.items())
    remedy = (
        f"free space for Ray's temporary folder, or set RAY_TMPDIR to a larger disk ({command.min_free_gb:g} GB wanted)"
    )
    yield Finding("disk", "failed" if full else "ok", text, remedy if full else "")


def _ports(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    if len(seen.nodes) < 2:
        yield Finding("ports", "skipped", "there is one node")
        return
    shut = {name: node.unreachable for name, node in seen.nodes.items() if node.unreachable}
    if shut:
        text = "; ".join(f"{name} does not reach {', '.join(ports)}" for name, ports in shut.items())
        remedy = (
            "let the nodes reach one another on all TCP ports (a security group that names itself, or the firewall)"
        )
        yield Finding("ports", "failed", text, remedy)
    else:
        yield Finding("ports", "ok", "every node reaches every other")


def _token(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    if not seen.cluster:
        yield Finding("token", "skipped", "no cluster")
        return
    without = [name for name, node in seen.nodes.items() if not node.facts["token"]]
    remedy = "start Ray on every node with RAY_AUTH_MODE=token and the same token (ray get-auth-token --generate)"
    yield Finding(
        "token",
        "failed" if without else "ok",
        f"off on {', '.join(without)}" if without else "on",
        remedy if without else "",
    )


def _job_api(seen: ClusterReport, command: "DoctorCommand") -> Iterator[Finding]:
    if not seen.cluster:
        return
    at = seen.job_api
    if "answers" in at.values():
        remedy = (
            "end this cluster now: whoever reaches its ports runs code on it; start it anew with RAY_AUTH_MODE=token"
        )
        yield Finding("job api", "failed", "it answers without a token", remedy)
    elif at.get("network") == "refuses" and at.get("loopback") == "closed":
        yield Finding("job api", "ok", "listens on the network, wants the token")
    elif at.get("loopback") == "closed":
        yield Finding("job api", "skipped", f"none at port {command.dashboard_port} of the head; give --dashboard-port")
    else:
        where = "listens on the network too" if at.get("network") == "refuses" else "listens on loopback only"
        yield Finding("job api", "ok", f"wants the token, {where}")
