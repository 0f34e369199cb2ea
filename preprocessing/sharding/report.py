"""The printed summary of a finished dataset: clips, identities, shards, size and rejects of each split."""

import logging
import sys

from cluster.storage import api as storage
from preprocessing.dataset.format import PREVIEW, REJECTS
from preprocessing.dataset.inputs import describe_identities
from preprocessing.dataset.manifest import read_manifest

log = logging.getLogger(__name__)


def print_report(url: str) -> None:
    """Print the totals of the dataset at `url`, and the paths of its preview and its rejects."""
    manifest, _ = read_manifest(url)
    splits = manifest["splits"]
    for split, totals in splits.items():
        rejects = f", rejects: {totals['rejects']:,} of {totals['inputs']:,} inputs" if totals["rejects"] else ""
        sys.stdout.write(
            f"{split}: {totals['clips']:,} clips of {totals['identities']:,} identities, shards: {totals['shards']}, "
            f"{totals['size_bytes'] / 1e6:,.1f} MB{rejects}\n"
        )
        if not totals["clips"]:
            log.warning("the %s split has no clips: all its inputs were rejected", split)
    groups = sum(totals["groups"] for totals in splits.values())
    sys.stdout.write(f"none of the {groups:,} groups is in two splits; {describe_identities(url, manifest)}\n")
    if any(totals["rejects"] for totals in splits.values()):
        sys.stdout.write(f"rejects: {storage.join(url, REJECTS)}\n")
    sys.stdout.write(f"preview: {storage.join(url, PREVIEW)}\n")
    sys.stdout.write(f"dataset: {url}\n")
