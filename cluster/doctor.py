"""`vdsm doctor`: whether this machine, or every machine of a cluster, is fit for work, and what to do where it is not.

Submitted as a job it looks at the whole cluster:
`ray job submit --working-dir . -- python cluster/doctor.py --storage URL`.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import dataclasses
import json
import os
import sys
from collections.abc import Sequence

from cluster.cli.run import parse, run
from cluster.cli.settings import Controls
from cluster.errors import UserError


class DoctorCommand(Controls):
    """Check versions, GPUs, storage, clocks, disks, ports and the token, here or on every node of a cluster."""

    storage: str | None = None
    """Folder or s3://bucket/prefix that every node must be able to use; nothing of it is checked if absent."""
    min_free_gb: float = 10.0
    """Free disk space that every node must have for Ray, in GB (10^9 bytes)."""
    min_mb_s: float = 5.0
    """Throughput that storage must give each node, reading and writing, in MB/s (10^6 bytes)."""
    max_skew_s: float = 2.0
    """How far clocks may differ, in seconds."""
    dashboard_port: int = 8265
    """Port of the dashboard and job API on the head."""
    nodes: int | None = None
    """How many nodes there must be; any number if absent."""
    json_output: bool = False
    """Print one JSON object instead of lines; --json for short."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    outcome: str
    """`ok`, `failed`, or `skipped`."""
    found: str
    remedy: str = ""
    """What to do; only of a failed check."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; the exit code is 1 where a check fails.

    Args:
        argv: its words; those of the process if absent.
    """
    run(_main, argv)


def _main(words: list[str]) -> None:
    words = ["--json-output" if word == "--json" else word for word in words]  # pydantic has a `json` of its own
    command = parse(DoctorCommand, words, prog="vdsm doctor")
    in_cluster = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or bool(os.environ.get("RAY_ADDRESS"))
    if command.dry_run:
        sys.stdout.write(f"would check {'every node of the cluster' if in_cluster else 'this machine'}\n")
        return
    if command.storage is not None and not command.storage.strip():
        raise UserError("--storage is empty; give a folder or s3://bucket/prefix, or leave it out")
    from cluster.health import checks as judgement
    from cluster.health import collect as examination

    seen = examination.of_cluster(command) if in_cluster else examination.of_this_machine(command)
    findings = judgement.judge(seen, command)
    failed = [one for one in findings if one.outcome == "failed"]
    if command.json_output:
        report = {
            "ok": not failed,
            "nodes": {name: node.facts for name, node in seen.nodes.items()},
            "findings": [dataclasses.asdict(one) for one in findings],
        }
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        for one in findings:
            sys.stdout.write(f"{one.outcome:8}{one.check:13}{one.found}\n")
            if one.remedy:
                sys.stdout.write(f"{'':21}-> {one.remedy}\n")
        good = sum(one.outcome == "ok" for one in findings)
        where = f"{len(seen.nodes)} node{'s' if len(seen.nodes) != 1 else ''}"
        sys.stdout.write(f"{where}: {good} checks ok, {len(failed)} failed\n")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
