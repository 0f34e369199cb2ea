"""The printed summary of a finished dataset: clips, identities, shards, size and rejects of each split."""

import json
import logging
import sys

from cluster.storage import api as storage
from preprocessing.sharding import manifest, rejects

log = logging.getLogger(__name__)


def print_report(url: str) -> None:
    """Print what the manifest of the dataset at `url` says, and where its preview and its rejects are."""
    content = json.loads(storage.read_bytes(storage.join(url, manifest.FILE)))
    for split, totals in content["splits"].items():
        bad = f", rejects: {totals['rejects']:,} of {totals['inputs']:,} inputs" if totals["rejects"] else ""
        sys.stdout.write(
            f"{split}: {totals['clips']:,} clips of {totals['identities']:,} identities, shards: {totals['shards']}, "
            f"{totals['size_bytes'] / 1e6:,.1f} MB{bad}\n"
        )
        if not totals["clips"]:
            log.warning("the %s split has no clips: all its inputs were rejected", split)
    groups = sum(totals["groups"] for totals in content["splits"].values())
    sys.stdout.write(f"the splits share none of the {groups:,} groups and no identity\n")
    if any(totals["rejects"] for totals in content["splits"].values()):
        sys.stdout.write(f"rejects: {storage.join(url, rejects.FILE)}\n")
    sys.stdout.write(f"preview: {storage.join(url, 'preview.html')}\n")
    sys.stdout.write(f"dataset: {url}\n")
