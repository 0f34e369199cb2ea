"""Each check of the doctor passes on healthy facts, and fails with its remedy on a planted fault."""

import copy
import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.health import probes
from cluster.health.checks import run_checks
from cluster.health.collect import ClusterReport, Node
from cluster.health.finding import Finding, HealthRequest

FACTS: dict[str, Any] = {
    "python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0", "project": "abc", "free_gb": 50.0, "token": True,
    "gpu": {"driver": "550", "names": ["L4"], "nccl": "2.21", "cuda_build": "12.4"},
}  # fmt: skip
STORAGE = {"failed": "", "error": "", "read_mb_s": 100.0, "write_mb_s": 90.0}
REQUEST = HealthRequest(storage="s3://bucket/x", nodes=2)


def healthy() -> ClusterReport:
    nodes = {
        name: Node(copy.deepcopy(FACTS), skew_s=0.1, storage=dict(STORAGE), claimed_gpus=1.0) for name in ("a", "b")
    }
    return ClusterReport(nodes, cluster=True, job_api={"loopback": "refused", "network": "closed"})


def failed(report: ClusterReport) -> list[Finding]:
    return [finding for finding in run_checks(report, REQUEST) if finding.outcome == "failed"]


def test_a_healthy_report_passes_every_check() -> None:
    findings = run_checks(healthy(), REQUEST)
    assert {finding.outcome for finding in findings} == {"ok"}
    assert not any(finding.remedy for finding in findings)
    assert len(findings) == 15


def test_a_machine_without_ray_is_told_which_extra_brings_it_and_a_node_without_it_fails() -> None:
    report = ClusterReport({"this machine": Node(copy.deepcopy(FACTS) | {"ray": "not installed"})})
    findings = {one.check: one for one in run_checks(report, HealthRequest())}
    assert findings["ray"].outcome == "skipped"
    assert findings["ray"].found == "not installed; to shard and train, pip install 'vdsm-pipeline[train]'"
    assert not any(one.outcome == "failed" for one in findings.values())
    report.cluster = True
    assert {one.check: one.outcome for one in run_checks(report, HealthRequest())}["ray"] == "failed"


@pytest.mark.parametrize(
    ("plant", "check", "found", "remedy"),
    [
        (lambda r: r.nodes.pop("b"), "nodes", "1 of 2: a", "ray status"),
        (lambda r: r.nodes["b"].facts.update(ray="2.50.0"), "ray", "2.60.0 on a; 2.50.0 on b", "constraints.txt"),
        (lambda r: r.nodes["b"].facts["gpu"].update(names=[]), "gpus", "b claims 1, torch sees 0", "--num-gpus"),
        (lambda r: r.nodes["b"].facts["gpu"].update(driver="535"), "driver", "535, 550", "NVIDIA driver"),
        (
            lambda r: r.nodes["b"].storage.update(failed="write", error="no"),
            "storage",
            "write on b: no",
            "write access",
        ),
        (lambda r: setattr(r.nodes["b"], "sees_file", False), "storage", "different folder on b", "mounted"),
        (lambda r: r.nodes["b"].storage.update(read_mb_s=1.0), "throughput", "b 1 MB/s", "--min-mb-s"),
        (lambda r: setattr(r.nodes["b"], "skew_s", -3.0), "clock", "b -3.0 s from the doctor's clock", "NTP"),
        (lambda r: setattr(r.nodes["b"], "server_skew_s", 9.0), "clock", "b +9.0 s from the S3 server", "NTP"),
        (lambda r: r.nodes["b"].facts.update(free_gb=1.0), "disk", "b 1 GB free", "10 GB needed"),
        (lambda r: r.nodes["b"].unreachable.append("a:6380"), "ports", "b does not reach a:6380", "firewall"),
        (lambda r: r.nodes["b"].facts.update(token=False), "token", "off on b", "RAY_AUTH_MODE=token"),
        (lambda r: r.job_api.update(network="open"), "job api", "open to requests", "stop this cluster now"),
    ],
)
def test_a_planted_fault_fails_its_check_alone(
    plant: Callable[[ClusterReport], object], check: str, found: str, remedy: str
) -> None:
    report = healthy()
    plant(report)
    (finding,) = failed(report)
    assert finding.check == check
    assert found in finding.found
    assert remedy in finding.remedy


def test_the_uncertainty_of_a_clock_is_allowed_for() -> None:
    report = healthy()
    report.nodes["b"].skew_s, report.nodes["b"].skew_error_s = 3.0, 1.5
    assert failed(report) == []


@pytest.mark.parametrize(
    ("access", "outcome", "text"),
    [
        ({"loopback": "closed", "network": "refused"}, "ok", "listens on the network, requires the token"),
        ({"loopback": "refused", "network": "refused"}, "ok", "requires the token, listens on the network too"),
        ({"loopback": "closed", "network": "closed"}, "skipped", "not on port 8265 of the head; give --dashboard-port"),
    ],
)
def test_the_job_api_is_described(access: dict[str, str], outcome: str, text: str) -> None:
    report = healthy()
    report.job_api = access
    (finding,) = (finding for finding in run_checks(report, REQUEST) if finding.check == "job api")
    assert (finding.outcome, finding.found) == (outcome, text)


@pytest.mark.parametrize("step", ["write", "read", "list", "conditional"])
def test_a_local_problem_has_no_advice_about_s3(step: str) -> None:
    report = healthy()
    report.nodes["b"].storage = {**STORAGE, "failed": step, "error": "/data: No space left on device; free space"}
    (finding,) = (one for one in run_checks(report, HealthRequest(storage="/data")) if one.outcome == "failed")
    assert not any(word in finding.remedy for word in ("S3", "bucket", "key", "role", "server", "If-None-Match"))
    report.nodes["b"].storage |= {"local": True, "error": "s3://bucket/x: Too many open files; raise the limit"}
    (finding,) = failed(report)
    assert finding.remedy == "fix this on the machine, as the error says; S3 is not at fault"


def test_the_free_space_of_a_folder_that_does_not_exist_yet_is_that_of_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", f"{tmp_path}/not/yet")
    monkeypatch.setattr(probes, "_gpus", dict)
    assert probes.facts()["free_gb"] > 0


def test_a_full_disk_is_found_as_a_fault_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = probes.use_storage(str(tmp_path))
    assert (found["failed"], found["local"]) == ("write", True)
    assert "No space left on device; free space" in found["error"]


@pytest.mark.parametrize(
    ("comment", "outcome"), [("vdsm-cluster", "ok"), ("no comment", "ok"), ("anna@laptop", "failed"), (None, None)]
)
def test_a_key_that_was_not_made_for_the_cluster_is_found_on_its_head(comment: str | None, outcome: str | None) -> None:
    report = healthy()
    next(iter(report.nodes.values())).facts["ssh_key"] = comment
    found = {one.check: one for one in run_checks(report, REQUEST)}.get("ssh key")
    assert (found.outcome if found else None) == outcome
    if outcome == "failed":
        assert found is not None
        assert "ssh-keygen" in found.remedy
        assert "anna@laptop" in found.found


def test_the_comment_of_a_key_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert probes._ssh_key() is None
    path = tmp_path / "ray_bootstrap_key.pem"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "anna at home", "-f", path], check=True)
    assert probes._ssh_key() == "anna at home"
