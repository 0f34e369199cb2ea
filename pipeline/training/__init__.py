"""The training of both stages: order of the clips, steps, checkpoints, and the Ray Train job around them."""
