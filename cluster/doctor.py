"""`vdsm doctor`: check this machine, or every machine of a cluster, and report what to fix.

Submitted as a job, it checks the whole cluster:
`ray job submit --working-dir . -- python cluster/doctor.py --storage URL`.
"""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError
from cluster.health.finding import Finding, HealthRequest
from cluster.ray_runtime import in_cluster

if TYPE_CHECKING:
    from cluster.health.collect import ClusterReport


class DoctorCommand(HealthRequest, Controls):
    """Check versions, GPUs, storage, clocks, disks, ports and the token, here or on every node of a cluster."""

    json_output: bool = False
    """Print one JSON object instead of lines; --json for short."""


def check(command: DoctorCommand) -> None:
    """Collect facts, check them and print the findings; the exit code is 1 if a check fails.

    Raises:
        UserError: --storage is empty, or a node does not respond.
    """
    if command.dry_run:
        sys.stdout.write(f"would check {'every node of the cluster' if in_cluster() else 'this machine'}\n")
        return
    if command.storage is not None and not command.storage.strip():
        raise UserError("--storage is empty; give a folder or s3://bucket/prefix, or omit the option")
    from cluster.health.checks import run_checks
    from cluster.health.collect import collect_from_cluster, collect_from_this_machine

    report = collect_from_cluster(command) if in_cluster() else collect_from_this_machine(command)
    findings = run_checks(report, command)
    sys.stdout.write(_as_json(report, findings) if command.json_output else _as_lines(report, findings))
    if any(one.outcome == "failed" for one in findings):
        raise SystemExit(1)


def _as_json(report: "ClusterReport", findings: list[Finding]) -> str:
    content = {
        "ok": all(one.outcome != "failed" for one in findings),
        "nodes": {name: node.facts for name, node in report.nodes.items()},
        "findings": [dataclasses.asdict(one) for one in findings],
    }
    return json.dumps(content, indent=2) + "\n"


def _as_lines(report: "ClusterReport", findings: list[Finding]) -> str:
    lines = []
    for one in findings:
        lines.append(f"{one.outcome:8}{one.check:13}{one.found}")
        if one.remedy:
            lines.append(f"{'':21}-> {one.remedy}")
    ok, failed = (sum(one.outcome == outcome for one in findings) for outcome in ("ok", "failed"))
    nodes = f"{len(report.nodes)} node{'s' if len(report.nodes) != 1 else ''}"
    return "\n".join([*lines, f"{nodes}: {ok} checks ok, {failed} failed"]) + "\n"


def _expand_json(args: list[str]) -> list[str]:
    # A field cannot be called `json`: pydantic's base class has a method of that name.
    return ["--json-output" if arg == "--json" else arg for arg in args]


main = entry(DoctorCommand, check, prog="vdsm doctor", prepare=_expand_json)

if __name__ == "__main__":
    main()
