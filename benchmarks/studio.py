"""Transfers per second and their latency of a `vdsm studio`, with batching and without, and while replicas are killed.

    python benchmarks/studio.py --requests 100 --json
    python benchmarks/studio.py --kill --json

Each variant starts a studio of its own with the built-in model. All requests are sent at once; a client repeats what is
answered with 503, after the time that the answer names. `lost` counts requests that got neither a transfer nor a 503.
"""

import concurrent.futures
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from arguments import ROOT, machine, parser, show

from pipeline.dashboards import free_ports

PATIENCE_S = 300.0


def ask(url: str, number: int, keys: list[str]) -> dict[str, float]:
    """Send one transfer until it is answered; return its seconds, and how often it was answered with 503."""
    form = urlencode({"who": keys[number % len(keys)], "how": keys[(7 * number + 3) % len(keys)]})
    request = urllib.request.Request(f"{url}api/transfer", form.encode())
    started, busy = time.monotonic(), 0
    while time.monotonic() < started + PATIENCE_S:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                answer = json.loads(response.read())
                return {"seconds": time.monotonic() - started, "busy": busy, "lost": answer["result"]["frames"] != 8}
        except urllib.error.HTTPError as error:
            wait = error.headers.get("retry-after")
            if error.code != 503 or wait is None:
                return {"seconds": time.monotonic() - started, "busy": busy, "lost": 1}
            busy += 1
            time.sleep(float(wait))
        except OSError:
            return {"seconds": time.monotonic() - started, "busy": busy, "lost": 1}
    return {"seconds": PATIENCE_S, "busy": busy, "lost": 1}


def measure(requests: int, batch_clips: int, *, kill: bool) -> dict[str, Any]:
    """Return the figures of one studio."""
    port = next(free_ports(29450))
    command = [sys.executable, str(ROOT / "pipeline" / "studio.py"), "--port", str(port), "--max-replicas", "1"]
    with subprocess.Popen([*command, "--batch-clips", str(batch_clips)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            printed = time.monotonic()
            found = json.loads(urllib.request.urlopen(f"{url}api/clips?kind=figures&limit=48").read())
            keys = [clip["of"] for clip in found["clips"]]
            first = ask(url, 0, keys)
            first_s = time.monotonic() - printed
            for number in range(8):
                ask(url, number, keys)
            model, web = replica(process.pid, "Model"), replica(process.pid, "Web")
            before = cpu_seconds(model), cpu_seconds(web)
            with concurrent.futures.ThreadPoolExecutor(requests) as pool:
                started = time.monotonic()
                waiting = [pool.submit(ask, url, number, keys) for number in range(requests)]
                if kill:
                    concurrent.futures.wait(waiting[: requests // 5])
                    os.kill(model, signal.SIGKILL)
                answers = [one.result() for one in waiting]
                wall = time.monotonic() - started
            used = {} if kill else {
                "model_cpu_ms_per_transfer": round(1000 * (cpu_seconds(model) - before[0]) / requests, 1),
                "web_cpu_ms_per_transfer": round(1000 * (cpu_seconds(web) - before[1]) / requests, 1),
            }  # fmt: skip
        finally:
            process.terminate()
            process.wait(60)
    seconds = sorted(answer["seconds"] for answer in answers)
    return {
        "batch_clips": batch_clips,
        "requests": requests,
        "lost": int(sum(answer["lost"] for answer in answers) + first["lost"]),
        "answered_503_first": sum(answer["busy"] > 0 for answer in answers),
        "first_transfer_s_after_address": round(first_s, 2),
        "p50_s": round(statistics.median(seconds), 3),
        "p95_s": round(seconds[int(0.95 * (len(seconds) - 1))], 3),
        "clips_per_s": round(requests / wall, 2),
        **used,
    }


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, which other load does not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def replica(pid: int, deployment: str) -> int:
    """Return the process of a deployment's replica of a studio."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"ServeReplica:studio:{deployment}" in (folder / "cmdline").read_text() and is_below(
                int(folder.name), pid
            ):
                return int(folder.name)
        except OSError:
            continue
    raise SystemExit(f"the studio has no replica of {deployment}")


def is_below(pid: int, ancestor: int) -> bool:
    """Return whether a process was started by another, directly or not."""
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def ratio(found: dict[str, Any], key: str) -> float:
    """Return a figure with batching, divided by that without."""
    return round(float(found["batching"][key] / found["no_batching"][key]), 2)


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--requests", type=int, default=100, help="concurrent transfers")
    options.add_argument("--kill", action="store_true", help="kill the model's replica after a fifth of the answers")
    args = options.parse_args()
    variants = [("killed", 16)] if args.kill else [("batching", 16), ("no_batching", 1)]
    found: dict[str, Any] = {name: measure(args.requests, size, kill=args.kill) for name, size in variants}
    if not args.kill:
        found |= {f"ratio_{key}": ratio(found, key) for key in ("clips_per_s", "model_cpu_ms_per_transfer")}
    show(found | {"load_average": os.getloadavg(), "machine": machine()}, as_json=args.json)


if __name__ == "__main__":
    main()
