"""What the Grafana dashboard asks of a training is what a training offers to Prometheus."""

import contextlib
import json
import re
import time
import urllib.request
from pathlib import Path


def test_a_run_offers_every_figure_of_the_dashboard(undisturbed: Path, root: Path) -> None:
    """The records of a real run, shown as its worker showed them, and asked back from Ray."""
    import ray

    from pipeline.ray_train.gauges import Gauges

    board = (root / "cluster" / "grafana" / "vdsm.json").read_text()
    missing = set(re.findall(r"\bray_vdsm_\w+", board))
    assert missing
    gauges = Gauges("shown-again")
    for line in (undisturbed / "metrics.jsonl").read_text().splitlines():
        gauges.show(json.loads(line))
    node = next(one for one in ray.nodes() if one["Alive"])
    place = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    end = time.monotonic() + 90
    while missing and time.monotonic() < end:
        time.sleep(0.5)
        with contextlib.suppress(OSError):  # it is not up yet
            offered = urllib.request.urlopen(place, timeout=10).read().decode()
            missing -= set(re.findall(r'^(ray_vdsm_\w+){.*run="shown-again"', offered, re.M))
    assert missing == set()
