"""The shipped cluster/onprem.yaml on three machines over SSH: the same jobs, the findings of the doctor, cleanup."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.hosts import BIN, until, until_nothing_runs
from tests.e2e.namespaces import Machines, ip, machines
from tests.e2e.strangers import FIREWALL, check_job_api, check_ports
from tests.e2e.submitted_jobs import ADDRESS, BUCKET, SHARD, TRAIN, URL, copy_code, lines, stored, submit
from tests.listeners import store_ports


def overlay(root: Path, net: Machines) -> dict[str, Any]:
    """Return the shipped file with the addresses of this network and the installed environment."""
    tree: dict[str, Any] = yaml.safe_load((root / "cluster" / "onprem.yaml").read_text())
    head, *workers = (host.address for host in net.hosts)
    tree["provider"] |= {"head_ip": head, "worker_ips": workers}
    tree["auth"] = {"ssh_user": "root", "ssh_private_key": str(net.home / ".ssh" / "key")}
    tree["file_mounts"] = {
        remote: local if local.startswith("~") else str(root / local) for remote, local in tree["file_mounts"].items()
    }
    installed = f"ln -sfn {BIN.parent} ~/vdsm-node/.venv"
    tree["setup_commands"] = [installed, *(line for line in tree["setup_commands"] if ".venv" not in line)]
    for key, more in (("head", ""), ("worker", " --num-cpus=1")):
        commands = tree[f"{key}_start_ray_commands"]
        options = f"--disable-usage-stats --object-store-memory=100000000{more}"
        tree[f"{key}_start_ray_commands"] = [line.replace("--disable-usage-stats", options) for line in commands]
    return tree


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_same_jobs_on_private_machines(root: Path, tmp_path: Path) -> None:
    with machines(tmp_path, 3) as net:
        net.serve_s3(BUCKET)
        code = copy_code(root, tmp_path)
        key = net.home / ".ssh" / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vdsm-cluster", "-f", key], check=True)
        net.public_keys.write_text(key.with_suffix(".pub").read_text())
        file = tmp_path / "onprem.yaml"
        file.write_text(yaml.safe_dump(overlay(root, net)))
        head, *workers = net.hosts

        up = net.run([BIN / "ray", "up", "-y", "--no-config-cache", file], cwd=root, RAY_UP_enable_autoscaler_v2="0")
        assert up.returncode == 0, up.stdout[-4000:]
        tunnel = net.start([BIN / "ray", "dashboard", "--no-config-cache", file], "forward.log")
        api = f"import urllib.request; urllib.request.urlopen('{ADDRESS}').status"
        until(lambda: net.run([BIN / "python", "-c", api]).returncode == 0, "the dashboard is forwarded", 60)
        until(
            lambda: all(any("raylet" in one for one in host.processes()) for host in net.hosts), "all have joined", 300
        )
        check_job_api(net)

        submit(net, code, *SHARD)
        submit(net, code, *TRAIN, "--name", "own", "--training.num-workers", "2", "--training.stage1.steps", "100")
        events = [line["event"] for line in lines(stored(net, code, "runs/own/events.jsonl"))]
        assert events[-1] == "finished"
        # A stopped training job saves a checkpoint first, however long that takes.
        endless = (*TRAIN, "--name", "stopped", "--training.stage1.steps", "1000000")
        submit(net, code, *endless, options=("--no-wait", "--submission-id", "endless"))
        until(lambda: '"start"' in stored(net, code, "runs/stopped/events.jsonl"), "the endless training has started")
        found = set().union(*(check_ports(net, host.address, must={22}, training=True) for host in net.hosts))
        assert found & store_ports()  # the training runs, and its ports were tried
        if shutil.which("nft"):
            nodes = ", ".join(host.address for host in net.hosts)
            for host in net.hosts:
                enter = ["ip", "netns", "exec", host.namespace, "sh", "-euc", FIREWALL.replace("NODES", nodes)]
                subprocess.run(enter, check=True)
                assert net.open_ports(host.address, filtered=True) == {22}
                subprocess.run([*enter[:4], "nft", "delete", "table", "inet", "ray"], check=True)
        stop = net.run([BIN / "ray", "job", "stop", "--address", ADDRESS, "endless"])
        assert stop.returncode == 0, stop.stdout
        assert lines(stored(net, code, "runs/stopped/events.jsonl"))[-1]["event"] == "stopped"
        for host in net.hosts:
            check_ports(net, host.address, must={22, 6380, *([6379] if host is head else [])})

        healthy = doctor(net, code)
        assert healthy["ok"], [one for one in healthy["findings"] if one["outcome"] == "failed"]
        assert {one["check"]: one["outcome"] for one in healthy["findings"]}["ports"] == "ok"
        # Cut a route: one worker no longer reaches the other, while both still reach the head.
        ip("-n", workers[0].namespace, "route", "add", "blackhole", f"{workers[1].address}/32")
        cut = {one["check"]: one for one in doctor(net, code)["findings"]}["ports"]
        assert cut["outcome"] == "failed"
        assert f"{workers[0].address} does not reach {workers[1].address}" in cut["found"]
        assert "firewall" in cut["remedy"]
        ip("-n", workers[0].namespace, "route", "del", "blackhole", f"{workers[1].address}/32")

        down = net.run([BIN / "ray", "down", "-y", file], cwd=root)
        assert down.returncode == 0, down.stdout[-4000:]
        # The tunnel of `ray dashboard` keeps a shell alive on the head until the user closes it.
        tunnel.kill()
        until_nothing_runs([head], 60)
        # `ray down` stops Ray on the head only. Raylets that have lost the head exit; their log monitors do not.
        login = ["ssh", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        for worker in workers:
            stop = net.run([*login, f"root@{worker.address}", "~/vdsm-node/.venv/bin/ray stop"])
            assert stop.returncode == 0, stop.stdout
        until_nothing_runs(workers, 60)


def doctor(net: Machines, code: Path) -> dict[str, Any]:
    """Return the report of `vdsm doctor`, submitted as a job."""
    job = ["python", "cluster/doctor.py", "--json", "--storage", URL, "--nodes", "3"]
    job += ["--min-free-gb", "1", "--min-mb-s", "0.1"]  # easy to meet: the machine may be busy
    args = [BIN / "ray", "job", "submit", "--address", ADDRESS, "--working-dir", code, "--", *job]
    output = net.run(args, cwd=code, timeout=200).stdout
    # If the job fails, Ray repeats the end of its output.
    found: dict[str, Any] = json.JSONDecoder().raw_decode(output, output.index("\n{\n") + 1)[0]
    return found
