"""The model card of an exported model: README.md as the Hugging Face Hub shows it."""

from collections.abc import Collection
from typing import Any

from pipeline.evaluation.schema import Metrics
from pipeline.recipe import Recipe
from pipeline.report.metric_format import format_interval, format_value, is_share
from pipeline.report.summary import GROUPS, headline_sentence
from vdsm.disentangler import Disentangler
from vdsm.model_folder import SAMPLE, ModelFacts

SHOWN = ("swap", "leakage", "pose_swap", "pose_leakage", "prior", "reconstruction", "likeness", "moving", "cycle")
"""Groups of metrics in a card, by the first part of their names; the report has all."""

_USAGE = """```python
import vdsm

model = vdsm.load("PATH")  # this folder, or hf://ORG/NAME
clip = model.swap(static_of="who.mp4", dynamics_of="how.mp4")  # uint8 [T, H, W, C]
```"""


def text(
    name: str, facts: ModelFacts, model: Disentangler, recipe: Recipe, metrics: Metrics | None, *, data: str,
    license_id: str, files: Collection[str],
) -> str:  # fmt: skip
    """Return a model card as Markdown.

    Args:
        name: the title.
        facts: how the model was trained.
        model: the model.
        recipe: the recipe of its run.
        metrics: its metrics, if they were measured.
        data: name of the dataset.
        license_id: identifier of the licence of the weights; empty for none.
        files: names of the files beside the card.
    """
    parts = [_front_matter(license_id), f"# {_plain(name)}", _summary(model, facts)]
    if SAMPLE in files:
        parts.append(f"![What the model generates]({SAMPLE})")
    parts += ["## Use", _USAGE, "## Data and training", _training(facts, model, recipe, data)]
    parts += ["## Metrics", *(_metrics(metrics) if metrics else ["None were measured when the model was exported."])]
    parts += ["## Limits", *_limits(model, facts, metrics), "## Licence", _license(license_id)]
    return "\n\n".join(parts) + "\n"


def _front_matter(license_id: str) -> str:
    lines = [f"license: {license_id}"] if license_id else []
    lines += ["library_name: vdsm", "pipeline_tag: video-to-video", "tags: [video, disentanglement, action-transfer]"]
    return "\n".join(["---", *lines, "---"])


def _summary(model: Disentangler, facts: ModelFacts) -> str:
    size, parameters = model.config.frame_size, sum(parameter.numel() for parameter in model.parameters())
    codes = "a static code (who is seen) and a dynamics code (what they do)"
    if not facts.sequence_stage:
        codes = "a static code (who is seen) and the poses of its frames; its sequence stage is not trained"
    return (
        f"A VDSM model ([Vowels, Camgoz and Bowden, CVPR 2021](https://arxiv.org/abs/2103.07292)) that separates clips "
        f"of {facts.clip_frames} frames of {size}x{size} pixels into {codes}, and decodes any combination of "
        f"them. {parameters:,} weights, {model.config.num_experts} experts."
    )


def _training(facts: ModelFacts, model: Disentangler, recipe: Recipe, data: str) -> str:
    rate = f", {facts.fps:g} frames per second" if facts.fps else ""
    training, rows = recipe.training, []
    rows.append(f"- Data: `{_plain(data)}` (content hash `{facts.origin['data_sha256']}`){rate}.")
    stages = [training.stage(number) for number in training.selected_stages]
    steps = " and ".join(f"{stage.steps:,} steps of {stage.batch_clips} clips" for stage in stages)
    rows.append(f"- Training: {steps}; stopped at stage {facts.origin['stage']}, step {facts.origin['step']}.")
    supervision = {"identity": "clips of the same identity (labels)", "none": "none"}
    pairs = supervision.get(training.stage1.pairing, f"pairs found without labels ({training.stage1.pairing})")
    rows.append(f"- Supervision: {pairs}. Seed {recipe.seed}.")
    priors = "fitted to the codes of training clips" if model.fitted_priors else "the published ones"
    rows.append(f"- Priors that samples are drawn from: {priors}.")
    rows.append(f"- Checkpoint: SHA-256 `{facts.origin['checkpoint_sha256']}`.")
    return "\n".join(rows)


def _metrics(metrics: Metrics) -> list[str]:
    content = metrics.model_dump(mode="json")
    ceiling: dict[str, Any] = content["controls"].get("perfect", {})
    parts = [
        headline_sentence(content),
        "The ceiling is what the same judge says of real clips in place of the model's: a perfect swap.",
    ]
    for group in SHOWN:
        rows = []
        for name, metric in content["figures"].items():
            if name.partition(".")[0] == group:
                share = is_share(name, content)
                best = format_value(ceiling[name]["value"], share) if name in ceiling else "–"
                cells = [_plain(name), format_value(metric["value"], share), format_interval(metric, share)]
                rows.append("| " + " | ".join([*cells, format_value(metric["chance"], share), best]) + " |")
        if rows:
            head = ["| metric | value | 95% interval | chance | ceiling |", "|---|---|---|---|---|"]
            parts += [f"### {GROUPS[group]}", "\n".join([*head, *rows])]
    return parts


def _limits(model: Disentangler, facts: ModelFacts, metrics: Metrics | None) -> list[str]:
    config, colours = model.config, {1: "grey", 3: "RGB"}
    rows = [
        f"- Frames are {config.frame_size}x{config.frame_size} pixels, {colours[config.channels]}; the first "
        f"{facts.clip_frames} frames of a clip are used.",
        "- The model knows what it was trained on. For a clip of something else it gives an answer, not a good one.",
        "- If it was trained on recordings of people, it can show a person doing what that person never did.",
    ]
    if not facts.sequence_stage:
        rows.append("- Without a sequence stage there are no dynamics codes, samples or continuations.")
    rows += [f"- {_plain(warning)}" for warning in (metrics.warnings if metrics else ())]
    if metrics:
        rows.append(f"- Measured on {metrics.provenance.test_clips:,} test clips of the same dataset, and on no other.")
    return ["\n".join(rows)]


def _license(license_id: str) -> str:
    if license_id:
        return f"Weights: {license_id}. The licence of the data may restrict their use further."
    return "No licence was given for the weights."


def _plain(value: str) -> str:
    """Return a text as one line without characters that Markdown or HTML give a meaning."""
    return " ".join("".join(" " if char in "|`<>[]*\\" or not char.isprintable() else char for char in value).split())
