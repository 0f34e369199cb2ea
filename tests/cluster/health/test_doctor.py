"""The doctor passes a healthy cluster and finds each planted fault; the cluster is closed to outsiders."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import doctor
from cluster.development.ray_cluster import LocalCluster, local_cluster
from cluster.development.s3_server import serve
from tests.cluster.storage.fault_proxy import Fault, fault_proxy

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.slow]

Report = dict[str, Any]
BIN = Path(sys.executable).parent
LENIENT = ("--min-free-gb", "0.5", "--min-mb-s", "0.1")
"""Requirements that a small and busy machine meets."""


def short_folder(name: str) -> Iterator[Path]:
    """Yield a folder with a short path, which Ray's sockets need."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix=name))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run an S3 server that also has read-only keys; yield the variables for access to it."""
    folder, reader = tmp_path_factory.mktemp("store"), ("reader", "reader-secret")
    with serve(folder, access_key="writer", secret_key="writer-secret", read_only=reader) as server:
        server.client().create_bucket(Bucket="store")
        yield server.environment()


@pytest.fixture(scope="module")
def healthy(store: dict[str, str]) -> Iterator[LocalCluster]:
    for folder in short_folder("vdsm-s-"):
        with local_cluster(folder, variables=store) as cluster:
            yield cluster


def clean(more: Mapping[str, str]) -> dict[str, str]:
    """Return this environment without the variables of clusters and S3 servers, updated with `more`."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("RAY_", "AWS_", "VDSM_S3_"))}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", **more}


def submitted(root: Path, cluster: LocalCluster, *args: str) -> Report:
    """Return the report of `vdsm doctor`, run as a job."""
    start = [BIN / "ray", "job", "submit", "--working-dir", ".", "--", "python", "cluster/doctor.py", "--json"]
    port = cluster.job_api.rpartition(":")[2]
    done = subprocess.run(
        [*start, "--dashboard-port", port, *LENIENT, *args],
        cwd=root, env=clean(cluster.environment()), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert "\n{\n" in done.stdout, done.stdout + done.stderr
    # If the job fails, Ray repeats the end of its output.
    report: Report = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("\n{\n") + 1)[0]
    assert (done.returncode == 0) == report["ok"]
    return report


def here(variables: Mapping[str, str], *args: str) -> tuple[int, dict[str, Report]]:
    """Return the exit code and the findings of `vdsm doctor` on this machine, with these variables."""
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
        wanted = clean(variables)
        for name in os.environ.keys() - wanted.keys():
            patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        try:
            doctor.main(["--json", *LENIENT, *args])
        except SystemExit as ended:
            code = ended.code
    return code, {one["check"]: one for one in json.loads(output.getvalue())["findings"]}


@pytest.mark.long
def test_a_healthy_cluster_passes(root: Path, healthy: LocalCluster) -> None:
    report = submitted(root, healthy, "--storage", "s3://store/vdsm", "--nodes", "2")
    outcomes = {one["check"]: one["outcome"] for one in report["findings"]}
    assert report["ok"], report["findings"]
    assert set(outcomes.values()) == {"ok", "skipped"}
    assert [check for check, outcome in outcomes.items() if outcome == "skipped"] == ["gpus"]
    assert {"python", "ray", "torch", "project", "storage", "throughput", "clock", "disk", "ports", "token"} <= set(
        outcomes
    )
    assert "writer-secret" not in json.dumps(report)


@pytest.mark.long
def test_outsiders_can_neither_submit_nor_query_nor_join(healthy: LocalCluster, tmp_path: Path) -> None:
    """Try without the token and with a wrong one, all concurrently, since Ray is slow to give up."""
    join = f"import ray; ray.init({healthy.address!r}, logging_level='ERROR'); print('joined')"
    request = (
        "import os, urllib.request as u, urllib.error as e\n"
        "token = os.environ.get('RAY_AUTH_TOKEN')\n"
        "own = {'Authorization': f'Bearer {token}'} if token else {}\n"
        f"try: print(u.urlopen(u.Request('{healthy.job_api}/api/jobs/', headers=own)).status)\n"
        "except e.HTTPError as error: print(error.code)\n"
    )
    submit = [BIN / "ray", "job", "submit", "--address", healthy.job_api, "--", "python", "-c", "print('ran')"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    outsiders = ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64})
    started = [
        subprocess.Popen(
            args, cwd=tmp_path, env=clean({"HOME": str(tmp_path), **own}), **pipes
        )  # ~ can contain a token
        for own in outsiders
        for args in ([sys.executable, "-c", join], [sys.executable, "-c", request], submit)
    ]
    results = [(one.communicate(timeout=200)[0], one.returncode) for one in started]
    for joined, queried, submitted_job in (results[:3], results[3:]):
        assert "joined" not in joined[0]
        assert joined[1] != 0
        assert queried[0].strip() in ("401", "403")
        assert "ran" not in submitted_job[0].splitlines()
        assert submitted_job[1] != 0


@pytest.mark.long
def test_the_token_gives_access(healthy: LocalCluster, tmp_path: Path) -> None:
    own = clean({**healthy.environment(), "HOME": str(tmp_path)})
    join = f"import ray; ray.init({healthy.address!r}, logging_level='ERROR'); print('joined')"
    done = subprocess.run(
        [sys.executable, "-c", join], env=own, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert "joined" in done.stdout, done.stderr


PLANTED = """
# Makes this node differ from the rest of the cluster: its clock, its torch, its code.
import importlib.metadata as metadata, time
_time, _version = time.time, metadata.version
time.time = lambda: _time() + 300
metadata.version = lambda name: "2.6.0" if name == "torch" else _version(name)
try:
    import cluster.health.probes as probe
    probe.project_version = lambda: "another code"
except ImportError:
    pass
"""


@pytest.mark.long
def test_planted_faults_of_a_node_are_found_with_their_remedies(
    root: Path, tmp_path: Path, store: dict[str, str]
) -> None:
    """Check a cluster without a token, whose worker claims a GPU and differs in clock, torch and code."""
    import shutil

    other = tmp_path / "other"
    shutil.copytree(root / "cluster", other / "cluster", ignore=shutil.ignore_patterns("__pycache__"))
    (other / "sitecustomize.py").write_text(PLANTED)
    planted = {"PYTHONPATH": f"{other}"}
    for folder in short_folder("vdsm-f-"):
        with local_cluster(
            folder, token=False, variables=store, worker_variables=planted, worker_args=["--num-gpus=1"]
        ) as cluster:
            report = submitted(root, cluster, "--storage", str(tmp_path), "--nodes", "3", "--min-free-gb", "1e9")
    failed = {one["check"]: one for one in report["findings"] if one["outcome"] == "failed"}
    remedies = {
        "nodes": ("2 of 3", "ray status"),
        "torch": ("2.6.0 on", "constraints.txt"),
        "project": ("another code on", "--working-dir"),
        "gpus": ("claims 1, torch sees 0", "without --num-gpus"),
        "clock": ("s from the doctor's clock", "NTP"),
        "disk": ("GB free", "RAY_TMPDIR"),
        "token": ("off on", "RAY_AUTH_MODE=token"),
        "job api": ("open to requests without a token", "stop this cluster now"),
    }
    assert set(failed) == set(remedies)
    for check, (found, remedy) in remedies.items():
        assert found in failed[check]["found"], check
        assert remedy in failed[check]["remedy"], check


def test_planted_faults_of_storage_are_found_with_their_remedies(store: dict[str, str], tmp_path: Path) -> None:
    import boto3

    url = ("--storage", "s3://store/vdsm")
    assert here(store, *url)[0] == 0

    def fault(found: str, remedy: str, variables: Mapping[str, str], *args: str, check: str = "storage") -> None:
        code, findings = here({**store, **variables}, *(args or url))
        assert code == 1
        assert findings[check]["outcome"] == "failed", findings[check]
        assert found in findings[check]["found"]
        assert remedy in findings[check]["remedy"]

    fault("refused the credentials", "grant the key", {"AWS_SECRET_ACCESS_KEY": "wrong"})
    fault("no bucket absent; create it", "a bucket or folder that exists", {}, "--storage", "s3://absent/x")
    read_only = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader-secret"}
    fault("write on this machine", "write access", read_only)
    fault("does not respond", "see the error for details", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    (tmp_path / "file").write_text("")
    fault(
        "Not a directory", "name a folder that this user can write", {}, "--storage", str(tmp_path / "file" / "below")
    )
    with fault_proxy(store["AWS_ENDPOINT_URL"], lambda method, path, n: Fault(bytes_per_s=2e6)) as slow:
        fault("MB/s", "same region", {"AWS_ENDPOINT_URL": slow.endpoint}, *url, "--min-mb-s", "5", check="throughput")

    def overwrite(method: str, path: str, n: int) -> None:
        """Behave like a server that ignores If-None-Match: make room for the second conditional write."""
        if method == "PUT" and path.endswith("-once"):
            client.delete_object(Bucket="store", Key=path.removeprefix("/store/"))

    client: Any = boto3.session.Session(
        store["AWS_ACCESS_KEY_ID"], store["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
    ).client("s3", endpoint_url=store["AWS_ENDPOINT_URL"])
    with fault_proxy(store["AWS_ENDPOINT_URL"], overwrite) as old:
        fault("both succeeded", "If-None-Match", {"AWS_ENDPOINT_URL": old.endpoint})


def test_the_text_output_names_check_and_remedy(root: Path) -> None:
    start = [sys.executable, str(root / "cluster" / "doctor.py"), "--min-free-gb", "1e9"]
    done = subprocess.run(start, env=clean({}), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    disk = next(number for number, line in enumerate(lines) if line.startswith("failed  disk"))
    assert lines[disk + 1].strip().startswith("-> free space")
    assert lines[-1] == "1 node: 6 checks ok, 1 failed"


@pytest.mark.long
def test_the_metrics_of_the_grafana_dashboard_exist(root: Path, healthy: LocalCluster) -> None:
    """Each is exported by the training, or by a node of a real cluster."""
    import re
    import time
    import urllib.request

    from pipeline.ray_train.gauges import NAMES

    board = json.loads((root / "cluster" / "grafana" / "vdsm.json").read_text())
    queried = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:ray|autoscaler)_\w+", target["expr"])
    }
    assert {name.removeprefix("ray_vdsm_") for name in queried if name.startswith("ray_vdsm_")} == set(NAMES)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    # Exported only if there is a GPU, or an autoscaler that can start machines.
    queried -= {"ray_node_gpus_utilization", "autoscaler_active_nodes", "autoscaler_pending_nodes"}
    missing = {name for name in queried if not name.startswith("ray_vdsm_")}
    assert missing
    end = time.monotonic() + 60
    while missing and time.monotonic() < end:
        time.sleep(1)
        for entry in json.loads((healthy.folder / "prom_metrics_service_discovery.json").read_text()):
            for target in entry["targets"]:
                with contextlib.suppress(OSError):  # it has not started yet
                    text = urllib.request.urlopen(f"http://{target}/metrics", timeout=10).read().decode()
                    missing -= set(re.findall(r"^(\w+)", text, re.M))
    assert missing == set()
