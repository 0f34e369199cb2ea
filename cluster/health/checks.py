"""Checks of `vdsm doctor`: from the facts collected on each node to findings, with a remedy for each failure."""

from collections.abc import Iterator

from cluster.errors import one_line
from cluster.extras import EXTRA_OF, install
from cluster.health.collect import ClusterReport, Node
from cluster.health.finding import Finding, HealthRequest
from cluster.storage import api as storage

VERSIONS = {
    "python": "run the same Python version on every node, for example from one image",
    "ray": "install the versions of constraints.txt on every node (pip install -c constraints.txt) and restart Ray",
    "torch": "install the versions of constraints.txt on every node (pip install -c constraints.txt)",
    "project": "submit with --working-dir . from one checkout, or install the same one on every node",
}
"""Fact that must be equal on all nodes -> remedy if it is not."""
DEDICATED_KEYS = ("vdsm-cluster", "no comment")
"""Comments of SSH keys made for a cluster: by cluster/onprem.yaml, and by Ray on AWS. Others are people's own."""

S3_REMEDIES = {
    "write": "name a bucket or folder that exists, and grant the key, role or user write access",
    "read": "grant the key or role read access",
    "list": "grant the key or role list access",
    "conditional": "use a server that supports If-None-Match: without it, two jobs can lock the same run",
}
"""Step that failed on S3 -> remedy."""
FOLDER_REMEDIES = {
    "write": "name a folder that this user can write, on a disk with free space",
    "read": "grant this user read access to the files of the folder",
    "list": "grant this user read access to the folder",
    "conditional": "use a folder on another file system: on this one, two jobs can lock the same run",
}
"""Step that failed on a local folder -> remedy."""


def run_checks(report: ClusterReport, request: HealthRequest) -> list[Finding]:
    """Return all findings, the most important ones for setting up a cluster first."""
    checks = (_nodes, _versions, _gpus, _storage, _throughput, _clocks, _disk, _ports, _token, _ssh_key, _job_api)
    return [finding for check in checks for finding in check(report, request)]


def _nodes(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    count, required = len(report.nodes), request.nodes
    if required is None or count == required:
        yield Finding("nodes", "ok", ", ".join(report.nodes))
    else:
        remedy = "check `ray status` and the log of the missing machine; start Ray there with the address of this head"
        yield Finding("nodes", "failed", f"{count} of {required}: {', '.join(report.nodes)}", remedy)


def _versions(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    for name, remedy in VERSIONS.items():
        found: dict[str, list[str]] = {}
        for address, node in report.nodes.items():
            found.setdefault(str(node.facts[name]), []).append(address)
        if len(found) == 1 and "not installed" not in found:
            yield Finding(name, "ok", next(iter(found)))
        elif name == "ray" and set(found) == {"not installed"} and not report.cluster:
            yield Finding(name, "skipped", f"not installed; to shard and train, {install(EXTRA_OF[name])}")
        else:
            text = "; ".join(f"{version} on {', '.join(nodes)}" for version, nodes in found.items())
            yield Finding(name, "failed", text, remedy)


def _gpus(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    having = {name: node for name, node in report.nodes.items() if node.facts["gpu"]["names"]}
    lacking = {name: node for name, node in report.nodes.items() if node.claimed_gpus > len(node.facts["gpu"]["names"])}
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
        yield _same_everywhere("driver", having, "install the same NVIDIA driver on every GPU node")
        yield _same_everywhere(
            "nccl", having, "install the same build of torch on every GPU node; without NCCL they cannot train together"
        )


def _same_everywhere(fact: str, nodes: dict[str, Node], remedy: str) -> Finding:
    found = {str(node.facts["gpu"][fact]) for node in nodes.values()}
    ok = len(found) == 1 and "" not in found
    return Finding(fact, "ok" if ok else "failed", ", ".join(sorted(found)) or "none", "" if ok else remedy)


def _storage(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    if request.storage is None:
        yield Finding("storage", "skipped", "give --storage to check it")
        return
    remedies = S3_REMEDIES if storage.is_remote(request.storage) else FOLDER_REMEDIES
    failed = {name: node.storage for name, node in report.nodes.items() if node.storage and node.storage["failed"]}
    unshared = [name for name, node in report.nodes.items() if not node.sees_file]
    if failed:
        step = next(step for step in remedies if any(found["failed"] == step for found in failed.values()))
        first = next(found for found in failed.values() if found["failed"] == step)
        remedy = f"{remedies[step]}; see the error for details"
        if first.get("local") and storage.is_remote(request.storage):
            remedy = "fix this on the machine, as the error says; S3 is not at fault"
        yield Finding("storage", "failed", f"{step} on {', '.join(failed)}: {first['error']}", remedy)
    elif unshared:
        remedy = "use s3://, or a folder of a file system that is mounted at the same path on every node"
        yield Finding("storage", "failed", f"{request.storage} is a different folder on {', '.join(unshared)}", remedy)
    else:
        yield Finding("storage", "ok", f"{request.storage}: read, write, list, conditional write")


def _throughput(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    measured = {
        name: min(node.storage["read_mb_s"], node.storage["write_mb_s"])
        for name, node in report.nodes.items()
        if node.storage and not node.storage["failed"]
    }
    if not measured:
        return
    slow = [name for name, speed in measured.items() if speed < request.min_mb_s]
    text = ", ".join(f"{name} {speed:g} MB/s" for name, speed in measured.items())
    remedy = (
        "move storage closer (same region, a gateway endpoint, a faster link), or accept it with a lower --min-mb-s"
    )
    yield Finding("throughput", "failed" if slow else "ok", text, remedy if slow else "")


def _clocks(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    def skew(node: Node) -> str:
        # Network delay makes the first one uncertain; S3 reports whole seconds.
        if node.skew_s is not None and abs(node.skew_s) - node.skew_error_s > request.max_skew_s:
            return f"{node.skew_s:+.1f} s from the doctor's clock"
        if node.server_skew_s is not None and abs(node.server_skew_s) - 1 > request.max_skew_s:
            return f"{node.server_skew_s:+.1f} s from the S3 server"
        return ""

    skewed = {name: text for name, node in report.nodes.items() if (text := skew(node))}
    if skewed:
        remedy = "enable NTP (timedatectl set-ntp true, or chrony); S3 refuses requests that are 15 minutes off"
        yield Finding("clock", "failed", ", ".join(f"{name} {text}" for name, text in skewed.items()), remedy)
    else:
        yield Finding("clock", "ok", f"within {request.max_skew_s:g} s")


def _disk(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    full = [name for name, node in report.nodes.items() if node.facts["free_gb"] < request.min_free_gb]
    text = ", ".join(f"{name} {node.facts['free_gb']:g} GB free" for name, node in report.nodes.items())
    remedy = (
        f"free space for Ray's temporary folder, or set RAY_TMPDIR to a larger disk ({request.min_free_gb:g} GB needed)"
    )
    yield Finding("disk", "failed" if full else "ok", text, remedy if full else "")


def _ports(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    if len(report.nodes) < 2:
        yield Finding("ports", "skipped", "there is only one node")
        return
    blocked = {name: node.unreachable for name, node in report.nodes.items() if node.unreachable}
    if blocked:
        text = "; ".join(f"{name} does not reach {', '.join(ports)}" for name, ports in blocked.items())
        remedy = "open all TCP ports between the nodes (a security group that allows itself, or the firewall)"
        yield Finding("ports", "failed", text, remedy)
    else:
        yield Finding("ports", "ok", "every node reaches every other")


def _token(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    if not report.cluster:
        yield Finding("token", "skipped", "no cluster")
        return
    without = [name for name, node in report.nodes.items() if not node.facts["token"]]
    if without:
        remedy = "start Ray on every node with RAY_AUTH_MODE=token and the same token (ray get-auth-token --generate)"
        yield Finding("token", "failed", f"off on {', '.join(without)}", remedy)
    else:
        yield Finding("token", "ok", "on")


def _ssh_key(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    found = {name: node.facts["ssh_key"] for name, node in report.nodes.items() if node.facts.get("ssh_key")}
    own = {name: comment for name, comment in found.items() if comment not in DEDICATED_KEYS}
    if own:
        text = "; ".join(f"{name} holds the key {one_line(comment)}" for name, comment in own.items())
        remedy = (
            "every job can read it: create a key for this cluster alone (ssh-keygen -t ed25519 -N '' -C vdsm-cluster "
            "-f ~/.ssh/vdsm_cluster), name it in the cluster file, run `ray up`, and replace the exposed key elsewhere"
        )
        yield Finding("ssh key", "failed", text, remedy)
    elif found:
        yield Finding("ssh key", "ok", "dedicated to the cluster")


def _job_api(report: ClusterReport, request: HealthRequest) -> Iterator[Finding]:
    if not report.cluster:
        return
    access = report.job_api
    if "open" in access.values():
        remedy = "stop this cluster now: anyone who can reach its ports can run code; restart with RAY_AUTH_MODE=token"
        yield Finding("job api", "failed", "open to requests without a token", remedy)
    elif access.get("network") == "refused" and access.get("loopback") == "closed":
        yield Finding("job api", "ok", "listens on the network, requires the token")
    elif access.get("loopback") == "closed":
        yield Finding("job api", "skipped", f"not on port {request.dashboard_port} of the head; give --dashboard-port")
    else:
        where = "listens on the network too" if access.get("network") == "refused" else "listens on loopback only"
        yield Finding("job api", "ok", f"requires the token, {where}")
