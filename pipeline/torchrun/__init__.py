"""Training by torchrun, without Ray: every process is a rank, and rank 0 also locks and logs the run."""
