"""From a source to a finished dataset: plan, shards, rejects, manifest, preview."""
