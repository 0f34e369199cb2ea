"""A training exports every metric of the Grafana dashboard to Prometheus."""

import contextlib
import json
import re
import time
import urllib.request
from pathlib import Path

import pytest


@pytest.mark.long
def test_a_run_exports_every_metric_of_the_dashboard(undisturbed: Path, root: Path) -> None:
    """Show the records of a real run as its worker did, and read them back from Ray."""
    import ray

    from pipeline.ray_train.gauges import Gauges

    board = (root / "cluster" / "grafana" / "vdsm.json").read_text()
    missing = set(re.findall(r"\bray_vdsm_\w+", board))
    assert missing
    gauges = Gauges("shown-again")
    for line in (undisturbed / "metrics.jsonl").read_text().splitlines():
        gauges.show(json.loads(line))
    node = next(one for one in ray.nodes() if one["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    end = time.monotonic() + 90
    while missing and time.monotonic() < end:
        time.sleep(0.5)
        with contextlib.suppress(OSError):  # the endpoint is not up yet
            exported = urllib.request.urlopen(url, timeout=10).read().decode()
            missing -= set(re.findall(r'^(ray_vdsm_\w+){.*run="shown-again"', exported, re.M))
    assert missing == set()
