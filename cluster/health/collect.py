"""Collect the facts that `vdsm doctor` checks, from this machine or from every node of a Ray cluster."""

import dataclasses
import time
import uuid
from pathlib import Path
from typing import Any

from cluster import ray_runtime
from cluster.errors import UserError
from cluster.health import probes
from cluster.health.finding import HealthRequest
from cluster.health.probes import Facts
from cluster.storage import api as storage

TIMEOUT_S = 120.0
"""Longest wait for the result of one probe on one node."""


@dataclasses.dataclass
class Node:
    """Facts of one machine."""

    facts: Facts
    skew_s: float | None = None
    """Seconds by which its clock is ahead of the doctor's."""
    skew_error_s: float = 0.0
    """Uncertainty of `skew_s`, in seconds."""
    server_skew_s: float | None = None
    """Seconds by which its clock is ahead of the S3 server's."""
    storage: Facts | None = None
    sees_file: bool = True
    """Whether a file that the doctor wrote to local storage is visible here."""
    unreachable: list[str] = dataclasses.field(default_factory=list)
    """Ports of other nodes that it does not reach, as host:port."""
    claimed_gpus: float = 0.0
    """Number of GPUs that the node registered with Ray."""


@dataclasses.dataclass
class ClusterReport:
    """Facts of all nodes."""

    nodes: dict[str, Node]
    """Node by address."""
    cluster: bool = False
    """Whether this is a Ray cluster, not a single machine."""
    job_api: dict[str, str] = dataclasses.field(default_factory=dict)
    """Result of `probes.job_api_without_token` on the `loopback` and `network` addresses of the head."""


def collect_from_this_machine(request: HealthRequest) -> ClusterReport:
    """Return the facts of the machine that this process runs on."""
    node = Node(probes.facts())
    if request.storage is not None:
        node.storage = probes.use_storage(request.storage)
        node.server_skew_s = probes.storage_clock_skew(request.storage)
    return ClusterReport({"this machine": node})


def collect_from_cluster(request: HealthRequest) -> ClusterReport:
    """Return the facts of every live node of the Ray cluster.

    Raises:
        UserError: there is no cluster, or a node does not respond.
    """
    with ray_runtime.connect():
        return _Collector(request).collect()


class _Collector:
    def __init__(self, request: HealthRequest) -> None:
        import ray

        self._request = request
        self._ray: Any = ray
        self._live = {one["NodeID"]: one for one in ray.nodes() if one["Alive"]}  # type: ignore[no-untyped-call]
        self._names = {node: _name(one, list(self._live.values())) for node, one in self._live.items()}

    def collect(self) -> ClusterReport:
        nodes = {name: Node(facts) for name, facts in self._on_all_nodes(probes.facts).items()}
        for node_id, one in self._live.items():
            node = nodes[self._names[node_id]]
            node.claimed_gpus = float(one["Resources"].get("GPU", 0))
            node.skew_s, node.skew_error_s = self._skew(node_id)
        if self._request.storage is not None:
            self._storage(nodes, self._request.storage)
        for name, unreachable in self._unreachable_ports().items():
            nodes[name].unreachable = unreachable
        return ClusterReport(nodes, cluster=True, job_api=self._job_api())

    def _submit(self, node_id: str, probe: Any, *args: Any) -> Any:
        """Start a probe on one node, where it occupies no CPU slot; return Ray's reference to its result."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        remote = self._ray.remote(num_cpus=0, max_retries=0)(probe)
        return remote.options(scheduling_strategy=strategy).remote(*args)

    def _on_all_nodes(self, probe: Any, *args: Any) -> dict[str, Any]:
        """Return the result of a probe on every node, by name of the node."""
        pending = {node_id: self._submit(node_id, probe, *args) for node_id in self._live}
        return {self._names[node_id]: self._result(node_id, reference) for node_id, reference in pending.items()}

    def _result(self, node_id: str, reference: Any) -> Any:
        try:
            return self._ray.get(reference, timeout=TIMEOUT_S)
        except (self._ray.exceptions.RayError, OSError) as error:
            lines = str(error).strip().splitlines()
            raise UserError(
                f"node {self._names[node_id]} does not respond ({type(error).__name__}: {lines[-1] if lines else ''}); "
                "check its Ray logs (ray logs), or remove it from the cluster"
            ) from None

    def _skew(self, node_id: str) -> tuple[float, float]:
        """Return (seconds by which a node's clock is ahead of ours, uncertainty): the quickest of three round trips."""
        best = (0.0, float("inf"))
        for _ in range(3):
            before = time.time()
            remote = self._result(node_id, self._submit(node_id, probes.clock))
            after = time.time()
            if (after - before) / 2 < best[1]:
                best = (remote - (before + after) / 2, (after - before) / 2)
        return best

    def _storage(self, nodes: dict[str, Node], url: str) -> None:
        for name, found in self._on_all_nodes(probes.use_storage, url).items():
            nodes[name].storage = found
        for name, ahead in self._on_all_nodes(probes.storage_clock_skew, url).items():
            nodes[name].server_skew_s = ahead
        if not storage.is_remote(url):
            marker = storage.join(str(Path(url).resolve()), f".doctor-{uuid.uuid4().hex}")
            storage.write_bytes(marker, b"")
            for name, visible in self._on_all_nodes(probes.sees, marker).items():
                nodes[name].sees_file = visible
            storage.delete(marker)

    def _unreachable_ports(self) -> dict[str, list[str]]:
        """Return the ports of other nodes that each node does not reach: Ray's, and one as a collective would open."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        listeners, ports = [], {}  # the actors must stay alive until every node has tried their ports
        for node_id, one in self._live.items():
            strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
            listeners.append(
                self._ray.remote(num_cpus=0)(probes.Listener).options(scheduling_strategy=strategy).remote()
            )
            host = one["NodeManagerAddress"]
            own = [one["NodeManagerPort"], one["ObjectManagerPort"]]
            own.append(self._result(node_id, listeners[-1].port.remote()))
            ports[node_id] = [(host, port) for port in own]
        pending = {}
        for node_id in self._live:
            others = [address for peer, addresses in ports.items() if peer != node_id for address in addresses]
            pending[node_id] = self._submit(node_id, probes.unreachable, others)
        return {self._names[node_id]: self._result(node_id, reference) for node_id, reference in pending.items()}

    def _job_api(self) -> dict[str, str]:
        """Return how the head's job API treats a request without a token, on loopback and on its network address."""
        found = {}
        for node_id, one in self._live.items():
            if "node:__internal_head__" in one["Resources"]:
                for interface, host in (("loopback", "127.0.0.1"), ("network", one["NodeManagerAddress"])):
                    port = self._request.dashboard_port
                    reference = self._submit(node_id, probes.job_api_without_token, host, port)
                    found[interface] = self._result(node_id, reference)
        return found


def _name(one: Any, all_nodes: list[Any]) -> str:
    """Return the address of a node, followed by a part of its id if several nodes share the address."""
    address = str(one["NodeManagerAddress"])
    shared = sum(other["NodeManagerAddress"] == address for other in all_nodes) > 1
    return f"{address}/{one['NodeID'][:6]}" if shared else address
