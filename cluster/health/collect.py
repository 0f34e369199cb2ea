"""Asks every machine for what `vdsm doctor` judges."""

import dataclasses
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import ray_runtime
from cluster.errors import UserError
from cluster.health import probes as node_probe
from cluster.health.probes import Facts
from cluster.storage import api as storage

if TYPE_CHECKING:
    from cluster.doctor import DoctorCommand

ANSWER_S = 120.0
"""How long a node may take to answer a question."""


@dataclasses.dataclass
class Node:
    """What is known of one machine."""

    facts: Facts
    skew_s: float | None = None
    """How far its clock is ahead of the examiner's, in seconds, and by how much that may be wrong."""
    skew_error_s: float = 0.0
    server_skew_s: float | None = None
    """How far its clock is ahead of the S3 server's."""
    storage: Facts | None = None
    sees_file: bool = True
    """Whether a file that the examiner wrote into local storage is there."""
    unreachable: list[str] = dataclasses.field(default_factory=list)
    """Ports of other nodes that it does not reach."""
    claimed_gpus: float = 0.0
    """GPUs that Ray believes it has."""
    head: bool = False


@dataclasses.dataclass
class ClusterReport:
    """What was found out."""

    nodes: dict[str, Node]
    """By address."""
    cluster: bool = False
    job_api: dict[str, str] = dataclasses.field(default_factory=dict)
    """`loopback` and `network` to what the job API does with a stranger there: see `node_probe.open_without_token`."""


def of_this_machine(command: "DoctorCommand") -> ClusterReport:
    """Facts of the machine that this process runs on."""
    node = Node(node_probe.facts())
    if command.storage is not None:
        node.storage = node_probe.use_storage(command.storage)
        node.server_skew_s = node_probe.storage_clock(command.storage)
    return ClusterReport({"this machine": node})


def of_cluster(command: "DoctorCommand") -> ClusterReport:
    """Facts of every living node of the Ray cluster.

    Raises:
        UserError: there is no cluster, or a node does not answer.
    """
    with ray_runtime.connect():
        return _Examiner(command).look()


class _Examiner:
    def __init__(self, command: "DoctorCommand") -> None:
        import ray

        self._command = command
        self._ray: Any = ray
        self._living = {one["NodeID"]: one for one in ray.nodes() if one["Alive"]}  # type: ignore[no-untyped-call]
        self._names = {node: _name(one, list(self._living.values())) for node, one in self._living.items()}

    def look(self) -> ClusterReport:
        nodes = {name: Node(facts) for name, facts in self._ask(node_probe.facts).items()}
        for identity, one in self._living.items():
            node = nodes[self._names[identity]]
            node.claimed_gpus = float(one["Resources"].get("GPU", 0))
            node.head = "node:__internal_head__" in one["Resources"]
            node.skew_s, node.skew_error_s = self._skew(identity)
        if self._command.storage is not None:
            self._storage(nodes, self._command.storage)
        for name, missing in self._reach().items():
            nodes[name].unreachable = missing
        return ClusterReport(nodes, cluster=True, job_api=self._job_api())

    def _on(self, identity: str, question: Any, *arguments: Any) -> Any:
        """The question, put to one node; it takes no CPU there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place = NodeAffinitySchedulingStrategy(identity, soft=False)
        remote = self._ray.remote(num_cpus=0, max_retries=0)(question)
        return remote.options(scheduling_strategy=place).remote(*arguments)

    def _ask(self, question: Any, *arguments: Any) -> dict[str, Any]:
        """The answers of all nodes, by name."""
        asked = {identity: self._on(identity, question, *arguments) for identity in self._living}
        return {self._names[identity]: self._answer(identity, one) for identity, one in asked.items()}

    def _answer(self, identity: str, asked: Any) -> Any:
        try:
            return self._ray.get(asked, timeout=ANSWER_S)
        except (self._ray.exceptions.RayError, OSError) as error:
            words = str(error).strip().splitlines()
            raise UserError(
                f"node {self._names[identity]} does not answer ({type(error).__name__}: {words[-1] if words else ''}); "
                "look at its Ray logs (ray logs), or take it out of the cluster"
            ) from None

    def _skew(self, identity: str) -> tuple[float, float]:
        """How far a node's clock is ahead of ours, by the quickest of three questions, and half of what that took."""
        best = (0.0, float("inf"))
        for _ in range(3):
            before = time.time()
            there = self._answer(identity, self._on(identity, node_probe.clock))
            after = time.time()
            if (after - before) / 2 < best[1]:
                best = (there - (before + after) / 2, (after - before) / 2)
        return best

    def _storage(self, nodes: dict[str, Node], url: str) -> None:
        for name, found in self._ask(node_probe.use_storage, url).items():
            nodes[name].storage = found
        for name, ahead in self._ask(node_probe.storage_clock, url).items():
            nodes[name].server_skew_s = ahead
        if not storage.is_s3(url):
            mine = storage.join(str(Path(url).resolve()), f".doctor-{uuid.uuid4().hex}")
            storage.write_bytes(mine, b"")
            for name, there in self._ask(node_probe.sees, mine).items():
                nodes[name].sees_file = there
            storage.delete(mine)

    def _reach(self) -> dict[str, list[str]]:
        """For each node, the ports of the others that it does not reach: Ray's, and one as a collective would open."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        bells, ports = [], {}
        for identity, one in self._living.items():
            place = NodeAffinitySchedulingStrategy(identity, soft=False)
            bells.append(self._ray.remote(num_cpus=0)(node_probe.Doorbell).options(scheduling_strategy=place).remote())
            host = one["NodeManagerAddress"]
            own = [one["NodeManagerPort"], one["ObjectManagerPort"], self._answer(identity, bells[-1].port.remote())]
            ports[identity] = [(host, port) for port in own]
        found = {}
        for identity in self._living:
            others = [address for peer, addresses in ports.items() if peer != identity for address in addresses]
            found[self._names[identity]] = self._on(identity, node_probe.unreachable, others)
        identities = {name: identity for identity, name in self._names.items()}
        return {name: self._answer(identities[name], asked) for name, asked in found.items()}

    def _job_api(self) -> dict[str, str]:
        """What the head's job API does with a stranger, asked on the head: at loopback and at its address."""
        found = {}
        for identity, one in self._living.items():
            if "node:__internal_head__" in one["Resources"]:
                for place, host in (("loopback", "127.0.0.1"), ("network", one["NodeManagerAddress"])):
                    asked = self._on(identity, node_probe.open_without_token, host, self._command.dashboard_port)
                    found[place] = self._answer(identity, asked)
        return found


def _name(one: Any, all_of_them: list[Any]) -> str:
    """A node's address, or its address and a piece of its id where several share one."""
    address = str(one["NodeManagerAddress"])
    shared = sum(other["NodeManagerAddress"] == address for other in all_of_them) > 1
    return f"{address}/{one['NodeID'][:6]}" if shared else address
