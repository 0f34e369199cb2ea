"""`serve deploy cluster/studio.yaml` on a cluster of its own: it answers with the token, and nobody without."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml

from cluster.development.ray_cluster import LocalCluster, local_cluster
from cluster.storage.scratch import scratch_folder
from pipeline.dashboards import free_ports
from pipeline.web_studio.gate import TOKEN
from pipeline.web_studio.start import CALLBACK, GATE
from tests.e2e import training_runs

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.long]

SECRET = "a-token-of-enough-letters"


def own_address() -> str:
    """Return an address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            found = str(probe.getsockname()[0])
        except OSError:
            found = "127.0.0.1"
    if found.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    return found


@pytest.fixture(scope="module")
def nodes(root: Path) -> Iterator[LocalCluster]:
    """Return a cluster whose nodes have the variables that cluster/studio.yaml names."""
    variables = {TOKEN: SECRET, CALLBACK: GATE, "PYTHONPATH": str(root)}
    with scratch_folder("vs-") as folder, local_cluster(folder, variables=variables) as running:
        yield running


def ask(url: str, path: str, token: str | None, fields: dict[str, str] | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url + path, urlencode(fields).encode() if fields else None)
    if token is not None:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def test_it_is_deployed_and_answers_who_has_the_token(nodes: LocalCluster, root: Path, tmp_path: Path) -> None:
    host, port = own_address(), next(free_ports(28900))
    config = yaml.safe_load((root / "cluster" / "studio.yaml").read_text())
    config["http_options"] |= {"host": host, "port": port}  # others may use 8000
    file = tmp_path / "studio.yaml"
    file.write_text(yaml.safe_dump(config))
    serve = [str(Path(sys.executable).parent / "serve"), "deploy", "-a", nodes.job_api, str(file)]
    environment = {**os.environ, **nodes.environment()}
    done = subprocess.run(serve, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    url = f"http://{host}:{port}/"
    training_runs.wait(lambda: ask(url, "api/model", SECRET)[0] == 200, "the deployed studio answers", 300)
    for path in ("", "page/app.js", "api/model", "-/routes"):
        for token in (None, "wrong"):
            assert ask(url, path, token)[0] == 401
    assert ask(url, "-/healthz", None)[0] == 200, "load balancers have no token"
    status, body = ask(url, "api/transfer", SECRET, {"who": "figures:figure0014-walk", "how": "sample:1"})
    assert status == 200
    assert json.loads(body)["result"]["frames"] == 8
