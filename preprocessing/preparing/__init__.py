"""From raw recordings to the sidecar of `vdsm shard`: cuts, crops, groups of near-duplicates, and what is dropped."""
