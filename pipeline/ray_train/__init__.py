"""Training under Ray Train: the driver, its workers, and what they report to each other."""
