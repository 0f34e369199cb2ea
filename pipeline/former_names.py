"""Former names of recipe settings and metrics. Old recipes, runs and studies are read under the current names."""

SETTINGS = {
    "training.stage1.annealing.agreement": "training.stage1.annealing.static_consistency",
    "training.stage2.annealing.agreement": "training.stage2.annealing.dynamics_consistency",
    "training.stage1.annealing.matching": "training.stage1.annealing.pose_distillation",
    "training.stage2.annealing.matching": "training.stage2.annealing.pose_distillation",
    "training.stage1.decoded_frames": "training.stage1.num_decoded_frames",
    "training.stage2.decoded_frames": "training.stage2.num_decoded_frames",
}
"""Former dotted path -> current dotted path."""

RECORDS = {
    1: {"disagreement": "static_consistency"},
    2: {"disagreement": "dynamics_consistency", "mismatch": "pose_distillation"},
}
"""By stage: former key of a record in metrics.jsonl -> current key."""
