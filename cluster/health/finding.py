"""Requirements that `vdsm doctor` checks, and the outcome of one check."""

import dataclasses

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.settings import Section


class HealthRequest(Section):
    """Requirements that each node must meet."""

    storage: Location | None = None
    """Folder or s3://bucket/prefix that every node must be able to use. Storage is not checked if this is absent."""
    min_free_gb: float = Field(default=10.0, ge=0)
    """Free disk space that Ray needs on every node, in GB (10^9 bytes)."""
    min_mb_s: float = Field(default=5.0, ge=0)
    """Minimum storage throughput of each node, both reading and writing, in MB/s (10^6 bytes)."""
    max_skew_s: float = Field(default=2.0, ge=0)
    """Clocks can differ by this much, in seconds."""
    dashboard_port: int = Field(default=8265, ge=1, le=65535)
    """Port of the dashboard and job API on the head node."""
    nodes: int | None = Field(default=None, ge=1)
    """Required number of nodes. Any number passes if this is absent."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    outcome: str
    """`ok`, `failed`, or `skipped`."""
    found: str
    remedy: str = ""
    """What to do, if the check failed."""
