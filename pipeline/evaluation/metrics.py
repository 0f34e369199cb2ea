"""metrics.json: every metric of an evaluation, and its provenance."""

import datetime
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from cluster.storage import api as storage
from pipeline.evaluation import schema
from vdsm.evaluation.clips import ACTION, LabelledClips, static_attributes
from vdsm.evaluation.controls import CONTROLS
from vdsm.evaluation.judge import JUDGE_VERSION, JudgeConfig
from vdsm.evaluation.measurement import Swapped
from vdsm.evaluation.scores import RESAMPLES, Score

_LIBRARIES = ("torch", "torchmetrics", "numpy", "pyro-ppl")

Metrics = dict[str, Any]


def build_metrics(
    clips: LabelledClips,
    scores: Mapping[str, Score],
    controls: Mapping[str, Mapping[str, Score]],
    swapped: Swapped,
    *,
    swap_by: str,
    provenance: Mapping[str, Any],
    seconds: float,
    expert_use: list[float],
    exploration: dict[str, Any] | None = None,
) -> Metrics:
    """Return the content of metrics.json, in the layout of `pipeline.evaluation.schema`.

    Nothing in it depends on the clock except `provenance.time`. The number of threads can change last digits, so the
    provenance has it.
    """
    metrics = {
        "schema_version": schema.SCHEMA_VERSION,
        "swap_by": swap_by,
        "factors": {"action": ACTION, "static": static_attributes(clips)},
        "vocabulary": clips.vocabulary,
        "figures": _plain(scores),
        "controls": {name: _plain(control) for name, control in controls.items()},
        "control_descriptions": {name: CONTROLS[name] for name in controls},
        "warnings": find_warnings(scores, swap_by),
        "confusion": dict(swapped.confusion),
        "expert_use": [round(share, 6) for share in expert_use],
        "wrong_swaps": len(swapped.wrong),
        "provenance": {**provenance, "pairs_sha256": swapped.pairs.sha256(clips), "time": _time(seconds)},
    }
    if exploration is not None:
        metrics["exploration"] = exploration
    schema.Metrics.model_validate(metrics)
    return metrics


def build_provenance(
    clips: LabelledClips,
    *,
    data: str,
    data_sha256: str,
    clip_frames: int,
    judge: tuple[str, JudgeConfig] | None,
    seed: int,
    evaluation: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the provenance that evaluations of runs and of samples share; `judge` is its key and its settings."""
    judge_provenance = {"key": judge[0], "version": JUDGE_VERSION, "steps": judge[1].steps} if judge else None
    return {
        "data": data,
        "data_sha256": data_sha256,
        "test_clips": len(clips),
        "test_identities": len(set(clips.identities)),
        "clip_frames": clip_frames,
        "judge": judge_provenance,
        "seed": seed,
        "bootstrap": {"resamples": RESAMPLES, "level": 0.95, "draws": "test identities"},
        "evaluation": dict(evaluation),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES},
    }


def _time(seconds: float) -> dict[str, Any]:
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"finished": finished, "seconds": round(seconds, 1)}


def write_metrics(out: str, metrics: Metrics) -> None:
    """Write metrics.json into the folder `out`."""
    text = json.dumps(metrics, indent=1, allow_nan=False) + "\n"
    storage.write_bytes(storage.join(out, "metrics.json"), text.encode())


def find_warnings(scores: Mapping[str, Score], swap_by: str) -> list[str]:
    """Return what a reader must know before trusting a single metric: a useless model can score perfectly in one."""
    prefix = "pose_" if swap_by == "poses" else ""
    found = []
    joint, action = scores.get(f"{prefix}swap.static.joint"), scores.get(f"{prefix}swap.action.accuracy")
    if joint is not None and joint.chance is not None and joint.low <= max(2 * joint.chance, 0.02):
        found.append("The output does not follow the static code: the joint accuracy of the attributes is near chance.")
    if action is not None and action.chance is not None and action.low <= 1.5 * action.chance:
        found.append("The output does not follow the dynamics code: the accuracy of the action is near chance.")
    for name, score in scores.items():
        judged = name.removeprefix("judge.").removesuffix(".accuracy")
        if name.startswith("judge.") and name != "judge.joint" and score.value < 0.95:
            found.append(f"The judge itself is right on only {score.value:.1%} of the real clips for {judged}.")
        above = score.n > 0 and score.chance is not None and score.low > max(1.5 * score.chance, 0.3)
        if name.startswith(f"{prefix}leakage.") and above:
            factor = name.removeprefix(f"{prefix}leakage.")
            found.append(f"The replaced {factor} still shows in {score.value:.1%} of the swaps.")
        if above and _is_misplaced(name, scores):
            _, code, factor, _ = name.split(".", 3)
            found.append(
                f"The {code} code holds the {factor} too: a linear probe reads it in {score.value:.1%} of clips."
            )
    gain = scores.get("moving.poses.gain" if swap_by == "poses" else "moving.self_swap.gain")
    if gain is not None and gain.n and gain.value <= 0:
        found.append(
            f"Where pixels move, a clip decoded from its own codes is {-gain.value:.1f} dB worse than its first frame "
            "repeated."
        )
    if action is None:
        found.append("The clips have no action label, so that nothing here was judged: see the metrics without labels.")
    if swap_by == "poses":
        found.append("There is no sequence stage yet: the poses of every frame were swapped, not one dynamics code.")
    return found


def _is_misplaced(name: str, scores: Mapping[str, Score]) -> bool:
    """Whether a metric is the linear probe of a label that its code should not hold."""
    parts = name.split(".")
    if parts[0] != "probe" or parts[-1] != "linear" or f"judge.{parts[2]}.accuracy" not in scores:
        return False
    return parts[1] == ("static" if parts[2] == ACTION else "dynamics")


def _plain(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: score.rounded() for name, score in sorted(scores.items()) if score.n}
