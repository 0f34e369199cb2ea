"""Training under Ray Train: the driver, its workers, and how they talk to each other."""
