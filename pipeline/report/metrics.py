"""metrics.json: every figure of an evaluation, and where it comes from."""

import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from vdsm.evaluation.clips import ACTION, static_attributes
from vdsm.evaluation.controls import CONTROLS
from vdsm.evaluation.judge import JUDGE_VERSION, JudgeConfig
from vdsm.evaluation.measurement import Measurement
from vdsm.evaluation.scores import RESAMPLES, Score

if TYPE_CHECKING:
    from pipeline.evaluate import EvaluateCommand
    from pipeline.evaluation_inputs import Inputs

SCHEMA_VERSION = 2
"""Version of the layout of metrics.json."""
_LIBRARIES = ("torch", "torchmetrics", "numpy", "pyro-ppl")

Metrics = dict[str, Any]


def metrics_of(
    measured: Measurement, inputs: "Inputs", command: "EvaluateCommand", judge_config: JudgeConfig, judge_key: str
) -> Metrics:
    """What metrics.json holds. Nothing in it depends on the clock or on the machine's load; the number of
    threads can change last digits, so it is named.

    `figures` and each of `controls` map a dotted name to {value, n, chance, low, high}.
    """
    test = inputs.test
    return {
        "schema_version": SCHEMA_VERSION,
        "swap_by": "dynamics code" if inputs.sequence_stage else "poses",
        "factors": {"action": ACTION, "static": static_attributes(test)},
        "vocabulary": test.vocabulary,
        "figures": _plain(measured.scores),
        "controls": {name: _plain(scores) for name, scores in measured.controls.items()},
        "control_descriptions": CONTROLS,
        "warnings": warnings_of(measured.scores, inputs.sequence_stage),
        "confusion": measured.swapped.confusion,
        "expert_use": [round(share, 6) for share in measured.expert_use],
        "wrong_swaps": len(measured.swapped.wrong),
        "provenance": {
            "run": inputs.info["run"],
            "stage": inputs.info["stage"],
            "step": inputs.info["step"],
            "finished": inputs.info["finished"],
            "checkpoint_sha256": inputs.info["checkpoint_sha256"],
            "data": command.data,
            "data_sha256": inputs.data_sha256,
            "trained_on_data_sha256": inputs.info["data_sha256"],
            "test_clips": len(test),
            "test_identities": len(set(test.identities)),
            "pairs_sha256": measured.swapped.pairs.sha256(test),
            "clip_frames": inputs.clip_frames,
            "judge": {"key": judge_key, "version": JUDGE_VERSION, "steps": judge_config.steps},
            "seed": command.seed,
            "bootstrap_resamples": RESAMPLES,
            "evaluation": command.evaluation.model_dump(mode="json"),
            "recipe": inputs.recipe.model_dump(mode="json"),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES},
        },
    }


def warnings_of(scores: dict[str, Score], sequence_stage: bool) -> list[str]:
    """What a reader must know before believing a single figure: one factor alone can be perfect in a useless model."""
    prefix = "" if sequence_stage else "pose_"
    found = []
    joint, action = scores.get(f"{prefix}swap.static.joint"), scores[f"{prefix}swap.action.accuracy"]
    if joint is not None and joint.chance is not None and joint.low <= max(2 * joint.chance, 0.02):
        found.append("The output does not follow the static code: the joint accuracy of the attributes is near chance.")
    if action.chance is not None and action.low <= 1.5 * action.chance:
        found.append("The output does not follow the dynamics code: the accuracy of the action is near chance.")
    for name, score in scores.items():
        judged = name.removeprefix("judge.").removesuffix(".accuracy")
        if name.startswith("judge.") and score.value < 0.95:
            found.append(f"The judge itself is right on only {score.value:.1%} of the real clips for {judged}.")
        leaked = name.removeprefix(f"{prefix}leakage.")
        if leaked != name and score.n and score.chance is not None and score.low > max(1.5 * score.chance, 0.3):
            found.append(f"The replaced {leaked} still shows in {score.value:.1%} of the swaps.")
    if not sequence_stage:
        found.append("There is no sequence stage yet: the poses of every frame were swapped, not one dynamics code.")
    return found


def _plain(scores: dict[str, Score]) -> dict[str, Any]:
    return {name: score.rounded() for name, score in sorted(scores.items()) if score.n}
