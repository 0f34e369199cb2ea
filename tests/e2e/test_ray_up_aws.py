"""The shipped ray_cluster.yaml from `ray up` to `ray down`: machines over SSH, jobs, a preempted spot machine, cleanup.

EC2 is simulated and its machines are network namespaces. Instance types, spot requests, profiles, metadata options,
commands, files, scaling and jobs are tested; Docker, images, quotas and the evaluation of IAM policies are not.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.hosts import BIN, Host, until, until_nothing_runs
from tests.e2e.namespaces import Machines, machines
from tests.e2e.simulated_ec2 import SimulatedEc2
from tests.e2e.strangers import check_client, check_job_api, check_ports
from tests.e2e.submitted_jobs import ADDRESS, BUCKET, SHARD, STEPS, TRAIN, URL, copy_code, lines, stored, submit


def overlay(root: Path, ec2: SimulatedEc2) -> dict[str, Any]:
    """Return the shipped file adapted to machines without Docker and pip, with room for two workers on two cores."""
    tree: dict[str, Any] = yaml.safe_load((root / "ray_cluster.yaml").read_text())
    del tree["docker"]
    tree["auth"]["ssh_user"] = "root"
    tree["provider"]["use_internal_ips"] = True
    tree["idle_timeout_minutes"] = 0.3
    tree["file_mounts"] = {
        remote.replace("/home/ray", "~"): local if local.startswith("~") else str(root / local)
        for remote, local in tree["file_mounts"].items()
    }
    tree["setup_commands"] = [line for line in tree["setup_commands"] if "pip install" not in line]
    for name, kind in tree["available_node_types"].items():
        kind["node_config"] |= {"SecurityGroupIds": [ec2.group], "ImageId": ec2.image}
        if name != "head":
            # `gpu_machine` stands for the GPU in the training job, since no real one is available here.
            kind["resources"] |= {"CPU": 2, **({"gpu_machine": 1} if name == "gpu_spot" else {})}
            kind["max_workers"] = 1
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        tree[key] = [f"{line} --object-store-memory=100000000" if "ray start" in line else line for line in tree[key]]
    return tree


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_ray_up_to_ray_down(root: Path, tmp_path: Path) -> None:
    with machines(tmp_path, 3) as net, SimulatedEc2(net) as ec2:
        net.serve_s3(BUCKET)
        code = copy_code(root, tmp_path)
        file = tmp_path / "cluster.yaml"
        file.write_text(yaml.safe_dump(overlay(root, ec2)))

        up = net.run([BIN / "ray", "up", "-y", "--no-config-cache", file], cwd=root)
        assert up.returncode == 0, up.stdout[-4000:]
        (head,) = ec2.live()
        assert (head.type, head.spot, head.profile) == ("m7i.large", False, "vdsm-ray-head")
        assert (head.metadata["HttpTokens"], head.metadata["HttpPutResponseHopLimit"]) == ("required", 2)

        check_ports(net, head.address, must={22, 6379, 10001})
        check_client(net, head.address)
        net.start([BIN / "ray", "dashboard", "--no-config-cache", file], "forward.log")
        api = f"import urllib.request; urllib.request.urlopen('{ADDRESS}').status"
        until(lambda: net.run([BIN / "python", "-c", api]).returncode == 0, "the dashboard is forwarded", 60)
        check_job_api(net)

        # A CPU job starts a CPU machine, a GPU job a GPU machine.
        submit(net, code, *SHARD)
        assert stored(net, code, "data/manifest.json")
        cpu = ec2.launched("c7i.2xlarge")
        assert cpu
        assert not ec2.live("g6.xlarge")
        output = submit(net, code, "python", "-c", "import os; print('GPU', os.environ.get('CUDA_VISIBLE_DEVICES'))",
                        options=("--entrypoint-num-gpus", "1"))  # fmt: skip
        assert "GPU " in output
        (gpu,) = ec2.live("g6.xlarge")
        for one in (*cpu, gpu):
            assert (one.spot, one.profile, one.tags["project"]) == (True, "vdsm-ray-worker", "vdsm")
            assert (one.metadata["HttpTokens"], one.metadata["HttpPutResponseHopLimit"]) == ("required", 2)

        # The machine is preempted during training, which resumes on the next one.
        job = (*TRAIN, "--name", "spot", "--training.worker-resource", "gpu_machine")
        submit(net, code, *job, options=("--no-wait",))
        until(lambda: "checkpoints" in listing(net, code), "a checkpoint is stored")
        (gpu,) = ec2.live("g6.xlarge")
        ec2.preempt(gpu)
        until(lambda: '"finished"' in stored(net, code, "runs/spot/events.jsonl"), "training has finished", 400)
        events = [line["event"] for line in lines(stored(net, code, "runs/spot/events.jsonl"))]
        assert {"start", "failure", "resume"} <= set(events)
        assert events[-1] == "finished"
        steps = [
            line["overall_step"]
            for line in lines(stored(net, code, "runs/spot/metrics.jsonl"))
            if line["kind"] == "train"
        ]
        assert steps[-1] == sum(STEPS)
        assert steps == sorted(set(steps))
        launched = ec2.launched("g6.xlarge")
        assert len(launched) >= 2
        assert all((one.spot, one.profile) == (True, "vdsm-ray-worker") for one in launched)

        status = net.run([BIN / "ray", "exec", "--no-config-cache", file, "ray status"], cwd=root)
        assert status.returncode == 0, status.stdout[-4000:]
        assert "Resources" in status.stdout
        check_autoscaler_metrics(net, ec2.host_of(head))
        check_no_key_is_stored(net, code)
        until(lambda: [one.id for one in ec2.live()] == [head.id], "idle workers are terminated", 120)
        down = net.run([BIN / "ray", "down", "-y", file], cwd=root)
        assert down.returncode == 0, down.stdout[-4000:]
        until(lambda: not ec2.live(), "no instance is left", 30)
        until_nothing_runs(net.hosts, 30)


def listing(net: Machines, code: Path) -> str:
    """Return the files of the run `spot`."""
    return net.python(
        f"from cluster.storage import api as storage; print(storage.list_files('s3://{BUCKET}/vdsm/runs/spot'))",
        PYTHONPATH=str(code),
    )


def check_autoscaler_metrics(net: Machines, head: Host) -> None:
    """Check that the metrics of the Grafana dashboard are served at the targets that Ray lists for Prometheus."""
    (session,) = (head.folder / "ray").glob("session_[0-9]*")
    listed = json.loads((session / "prom_metrics_service_discovery.json").read_text())
    code = (
        "import contextlib, sys, urllib.request\n"
        "for target in sys.argv[1:]:\n"
        "    with contextlib.suppress(OSError):\n"  # a terminated worker
        "        print(urllib.request.urlopen(f'http://{target}/metrics', timeout=5).read().decode())\n"
    )
    metrics = net.run([BIN / "python", "-c", code, *(target for entry in listed for target in entry["targets"])]).stdout
    for name in ("autoscaler_active_nodes", "autoscaler_pending_nodes"):
        assert re.search(rf'^{name}{{.*NodeType="gpu_spot"', metrics, re.M), name


def check_no_key_is_stored(net: Machines, code: Path) -> None:
    """Check that neither Ray's list of jobs nor any object contains the nodes' S3 secret or token."""
    program = (
        "import os, urllib.request\n"
        "from pathlib import Path\n"
        "from cluster.storage import api as storage\n"
        "token = (Path.home() / '.ray' / 'auth_token').read_text()\n"
        f"request = urllib.request.Request('{ADDRESS}/api/jobs/', headers={{'Authorization': f'Bearer {{token}}'}})\n"
        "texts = [urllib.request.urlopen(request).read()]\n"
        f"texts += [storage.read_bytes('{URL}/' + name) for name in storage.list_files('{URL}')]\n"
        "secrets = [token.encode(), os.environ['AWS_SECRET_ACCESS_KEY'].encode()]\n"
        "print(len(texts), sum(secret in text for text in texts for secret in secrets))\n"
    )
    count, found = map(int, net.python(program, PYTHONPATH=str(code)).split())
    assert count > 10
    assert found == 0
