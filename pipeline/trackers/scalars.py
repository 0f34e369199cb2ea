"""Records of a training as scalars of a tracker, by tag."""

from collections.abc import Mapping
from typing import Any

TAGS = {
    "loss": "loss/annealed",
    "reconstruction": "loss/reconstruction",
    "kl_static": "kl/static",
    "kl_pose": "kl/pose",
    "kl_dynamics": "kl/dynamics",
    "static_consistency": "regulariser/static_consistency",
    "motion_consistency": "regulariser/motion_consistency",
    "dynamics_consistency": "regulariser/dynamics_consistency",
    "pose_distillation": "regulariser/pose_distillation",
    "weight_static": "weight/static",
    "weight_pose": "weight/pose",
    "weight_dynamics": "weight/dynamics",
    "temperature": "weight/temperature",
    "learning_rate": "optimiser/learning_rate",
    "gradient_norm": "optimiser/gradient_norm",
    "clips_per_s": "speed/clips_per_s",
    "data_wait_share": "speed/data_wait_share",
    "memory_gb": "speed/memory_gb",
}


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of a `train` or `validation` record by tag; none of any other record."""
    if record.get("kind") not in ("train", "validation"):
        return {}
    prefix = "validation/" if record["kind"] == "validation" else ""
    tags = {"elbo": "elbo", **TAGS} if prefix else TAGS
    return {prefix + tag: record[name] for name, tag in tags.items() if name in record}
