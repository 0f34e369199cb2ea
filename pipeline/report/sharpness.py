"""The table of the sharpness: how the pixels that move compare with what they should be, each in one line."""

from dataclasses import dataclass

from pipeline.report.metric_format import Metric, Metrics

_SYSTEMS = {
    "swap": ("swaps", "Swaps by the dynamics code against the true swap, which is known for this data"),
    "pose_swap": ("swaps of poses", "Swaps by the poses of every frame against the true swap: stage 1 alone"),
    "self_swap": ("own codes", "Clips decoded from their own static and dynamics code against the clips themselves"),
    "poses": ("own poses", "Clips decoded from the pose of every frame: the reconstruction of stage 1"),
    "first_frame": ("first frame", "The first frame repeated, without any model"),
}
_MEASURES = {
    "psnr": ("PSNR in dB", "how far pixel values are off; higher is better."),
    "ssim": ("SSIM", "likeness of local patterns; 1 is perfect."),
    "gradient": ("edge error", "squared error of edges, relative to the real ones; 0 is perfect, 1 no edges."),
}


@dataclass(frozen=True)
class SharpnessRow:
    """One row of the table."""

    title: str
    name: str
    """Dotted name in metrics.json."""
    metric: Metric
    meaning: str


def sharpness_rows(metrics: Metrics) -> list[SharpnessRow]:
    """Return PSNR, SSIM and edge error, each of the swaps (else of own codes), of stage 1 and of a still.

    Metrics that were not measured have no row.
    """
    values = metrics["figures"]
    rows = []
    for measure, (what, meaning) in _MEASURES.items():
        for system in _shown(metrics):
            name = f"moving.{system}.{measure}"
            if name in values:
                title, compared = _SYSTEMS[system]
                rows.append(SharpnessRow(f"{what}, {title}", name, values[name], f"{compared}: {meaning}"))
    return rows


def _shown(metrics: Metrics) -> list[str]:
    """Return the systems of the table: against the true swap where that is known, else against the clip itself."""
    measured = {name.split(".")[1] for name in metrics["figures"] if name.startswith("moving.")}
    by_code = [system for system in ("swap", "self_swap") if system in measured][:1]
    return [*(by_code or ["pose_swap"]), "poses", "first_frame"]
