"""The training loop of both stages, free of Ray: order of the clips, steps, validation and the state of a run."""
