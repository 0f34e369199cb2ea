"""A run on disk or in S3: its folder, lock, logs and checkpoints."""
