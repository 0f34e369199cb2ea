"""The progress of a run as Ray metrics, which every node of a cluster exports to Prometheus."""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

NAMES = {
    "overall_step": "Steps done, of both stages.",
    "loss": "Annealed loss, nats per pixel value.",
    "reconstruction": "Reconstruction loss, nats per pixel value.",
    "kl_static": "KL of the static code without its weight, nats per pixel value.",
    "kl_pose": "KL of the poses without its weight, nats per pixel value.",
    "kl_dynamics": "KL of the dynamics code without its weight, nats per pixel value.",
    "motion_consistency": "Distance of where clips move and where their poses move with another static code (stage 1).",
    "static_consistency": "Symmetric KL between the static codes of paired clips (stage 1), nats per pixel value.",
    "dynamics_consistency": "Symmetric KL between the dynamics codes of a clip and of its poses decoded with another "
    "static code (stage 2), nats per pixel value.",
    "pose_distillation": "KL of the poses of stage 2 from those of stage 1, nats per pixel value.",
    "gradient_norm": "Norm of the gradient before clipping.",
    "learning_rate": "Learning rate.",
    "clips_per_s": "Clips per second over all workers.",
    "data_wait_share": "Fraction of the time spent waiting for data.",
    "memory_gb": "Peak memory of any worker, in 10^9 bytes.",
    "elbo": "Un-annealed ELBO on the held-out clips, nats per pixel value.",
}
"""Description of each metric of a record; it is exported as `ray_vdsm_<name>` with the tags `run` and `stage`."""


class Gauges:
    """One gauge per metric, created when the metric is first shown."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def show(self, record: Mapping[str, Any]) -> None:
        """Set the gauges of the metrics in a `train` or `validation` record; ignore other records."""
        if record["kind"] not in ("train", "validation"):
            return
        # The terms of a validation have the same names as those of the training.
        names = ["elbo"] if record["kind"] == "validation" else [name for name in NAMES if name in record]
        for name in names:
            if name not in self._gauges:
                self._gauges[name] = Gauge(f"vdsm_{name}", description=NAMES[name], tag_keys=("run", "stage"))
            self._gauges[name].set(float(record[name]), tags={"run": self._run, "stage": str(record["stage"])})
