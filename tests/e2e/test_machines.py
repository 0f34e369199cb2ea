"""What happens to a training when machines are lost or added."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.training_runs import (
    LONGER,
    STAGES,
    accidents,
    assert_every_clip_once,
    assert_same_weights,
    events,
    group_sizes,
    lines,
    reached,
    started,
    trained_on,
    training,
    wait,
    workers,
)

pytestmark = pytest.mark.slow


class Machines:
    """A Ray cluster on this machine: a head that trains nothing, and nodes that can be added and lost.

    Each node has one CPU and one MOCK_GPU, which stands for a GPU: a worker that requests one has the node to itself.
    """

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # A lost node is detected in seconds, not in the half minute that suits a real network.
        fast_health_checks = {
            "health_check_initial_delay_ms": 1000,
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 4,
        }
        head = {"num_cpus": 0, "object_store_memory": 100_000_000, "_system_config": fast_health_checks}
        self._cluster = Cluster(initialize_head=True, head_node_args=head, connect=False)
        self.address: str = self._cluster.address
        self._nodes: list[Any] = []

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self._nodes.append(
                self._cluster.add_node(num_cpus=1, resources={"MOCK_GPU": 1}, object_store_memory=100_000_000)
            )

    def lose(self, node_id: str) -> None:
        """Kill the raylet of a node, with which its workers die."""
        node = next(node for node in self._nodes if node.node_id == node_id)
        for process in node.all_processes["raylet"]:
            os.kill(process.process.pid, signal.SIGKILL)
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def announce_loss(self, node_id: str) -> None:
        ray = str(Path(sys.executable).parent / "ray")
        args = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        args += ["--node-id", node_id, "--deadline-remaining-seconds", "300"]
        subprocess.run([ray, "drain-node", "--address", self.address, *args], check=True, timeout=120)

    def metrics(self) -> str:
        """Return what all nodes export to Prometheus."""
        found = ""
        for node in (self._cluster.head_node, *self._nodes):
            with suppress(OSError):
                url = f"http://127.0.0.1:{node.metrics_export_port}/metrics"
                found += urllib.request.urlopen(url, timeout=10).read().decode()
        return found

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def machines(count: int) -> Iterator[Machines]:
    cluster = Machines()
    try:
        cluster.add(count)
        yield cluster
    finally:
        cluster.close()


MOCK_GPU = ["--training.worker-resource", "MOCK_GPU"]


@pytest.mark.long
def test_a_lost_machine_is_replaced_and_costs_nothing_but_time(
    root: Path, undisturbed: Path, train_args: Any, tmp_path: Path, trials: Any
) -> None:
    with machines(2) as cluster:
        for number, (dice, instants) in enumerate(accidents(trials(1), "machine")):
            run = tmp_path / f"run{number}"
            args = [*train_args(tmp_path, run.name), *MOCK_GPU, *LONGER, f"--training.max-failures={3 * len(instants)}"]
            with started(root, args, tmp_path, RAY_ADDRESS=cluster.address) as process:
                for group, instant in enumerate(instants, start=1):
                    wait(training(run, group, instant), "it has reached the step", process=process)
                    time.sleep(dice.uniform(0, 0.2))
                    nodes = [worker["node"] for worker in workers(run)]
                    assert len(set(nodes)) == 2  # as with GPUs: one worker on each node
                    cluster.lose(nodes[dice.randrange(2)])
                    cluster.add()
                assert process.wait(timeout=300) == 0, (tmp_path / "output.txt").read_text()
            assert events(run).count("failure") >= len(instants)
            assert events(run)[-1] == "finished"
            assert_same_weights(run, undisturbed, tmp_path)
            assert_every_clip_once(run, undisturbed)


@pytest.mark.campaign
def test_with_fewer_machines_it_continues_and_uses_new_ones(
    root: Path, undisturbed: Path, train_args: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    elastic = ["--training.min-workers", "1", "--training.resize-interval-s", "5"]
    # Long enough that it does not end before the new machine is available.
    longer = [
        "--training.stage1.steps",
        "4000",
        "--training.checkpoint-interval",
        "100",
        "--training.log-interval",
        "20",
    ]
    few = ["--training.picture-interval", "0", "--training.validation-interval", "4000"]

    with machines(2) as cluster:
        args = [*train_args(tmp_path, "run"), *MOCK_GPU, *elastic, *longer, *few]
        with started(root, args, tmp_path, RAY_ADDRESS=cluster.address) as process:
            wait(reached(run, 60), "step 60")
            wait(lambda: "ray_vdsm_loss" in cluster.metrics(), "the loss is exported to Prometheus")
            leaving = workers(run)[1]["node"]
            cluster.announce_loss(leaving)
            wait(lambda: "preemption notice" in events(run), "the notice is received")
            notice = next(line for line in lines(run / "events.jsonl") if line["event"] == "preemption notice")
            saved = f"stage1-step{notice['step']:08d}.jsonl"
            wait(lambda: (run / "audit" / saved).exists(), "it is saved immediately")
            cluster.lose(leaving)
            wait(lambda: group_sizes(run)[-1] == 1, "it continues with one worker")
            cluster.add()
            wait(lambda: group_sizes(run)[-1] == 2, "it has two workers again")
            process.send_signal(signal.SIGTERM)  # as a scheduler does that reclaims the machine
            assert process.wait(timeout=120) == 130
    sizes = group_sizes(run)
    assert [size for size, before in zip(sizes, [0, *sizes], strict=False) if size != before] == [2, 1, 2]
    stopped = lines(run / "events.jsonl")[-1]
    assert stopped["event"] == "stopped"
    seen = trained_on(run)
    assert sorted(seen) == [(1, step) for step in range(stopped["step"])]
    # The same clips at every step, whatever the number of workers.
    expected = trained_on(undisturbed)
    assert all(seen[1, step] == expected[1, step] for step in range(STAGES[0]))
    clips = [clip for _, some in sorted(seen.items()) for clip in some]
    size = len(set(clips))
    assert len(clips) > size
    assert all(len(set(clips[n : n + size])) == size for n in range(0, len(clips) - size, size))
