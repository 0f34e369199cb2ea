"""A recipe as YAML in which each setting has its reason as a comment."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from cluster.cli.progress import format_duration
from cluster.cli.settings import Tree, settings_of
from cluster.errors import one_line
from pipeline.recipe import Recipe
from pipeline.recommendation.draft import SECTIONS, Draft
from pipeline.recommendation.hardware import Hardware
from pipeline.recommendation.kinds import kind_of
from pipeline.recommendation.reasons import reason_of
from pipeline.recommendation.survey import Survey
from pipeline.training.plan import StagePlan

WIDTH = 118
_STEPS = ("training.stage1", "training.stage2", "training.stage1.annealing", "training.stage2.annealing")


def recipe_text(
    draft: Draft,
    found: Survey,
    machine: Hardware,
    plans: Sequence[StagePlan],
    times: dict[int, float],
    data: str,
    name: str,
) -> str:
    """Return the recipe. The measured times are in comments only.

    Args:
        draft: values, reasons and warnings.
        found: what the data is like.
        machine: what it will be trained on.
        plans: what each stage will do.
        times: seconds per step by stage; empty if they were not measured.
        data: URL of the dataset.
        name: path or URL of the recipe.
    """
    lines = list(_comment(f"A recipe for {data}, by `vdsm recommend`:"))
    lines += ["#", f"#   {one_line(f'vdsm train --config {name} --data {data} --out runs --name first')}", "#"]
    for line in (*describe(found), *expected(machine, plans, times)):
        lines += _comment(line)
    for warning in draft.warnings:
        lines += _comment(f"WARNING: {warning}")
    lines += _comment(
        f"Comments say why. Settings without a number of this dataset are those of configs/{draft.base}, shown to work "
        f"on {kind_of(found).shown}."
    )
    for section in SECTIONS:
        lines += [f"{section}:", *_section(draft, draft.tree[section], section)]
    return "\n".join(lines) + "\n"


def describe(found: Survey) -> list[str]:
    """Return lines that say what the dataset is like."""
    height, width, channels = found.frame_shape
    videos = f" of {found.videos:,} videos" if found.videos is not None else ""
    frames = f"{found.min_frames}" + (f" to {found.max_frames}" if found.max_frames > found.min_frames else "")
    pixels = found.pixels
    labels = f"labels: {', '.join(found.labels)}; {found.identities:,} identities" if found.labels else "no labels"
    return [
        f"Data: {found.clips:,} training clips{videos} and {found.test_clips:,} test clips, {frames} frames of "
        f"{height}x{width}x{channels} at {found.fps:g} frames per second; {found.looks:,} distinct looks; {labels}.",
        f"Frames are {kind_of(found).seen} ({pixels.flat_share:.0%} of pixels equal their neighbour); "
        f"{pixels.moving_share:.1%} of pixels move from frame to frame, and {pixels.still_share:.0%} of {pixels.clips} "
        "sampled clips hardly move.",
    ]


def expected(machine: Hardware, plans: Sequence[StagePlan], times: dict[int, float]) -> list[str]:
    """Return lines about the memory and, if it was measured, the time that the training will take."""
    memory = max(plan.memory_bytes for plan in plans) / 1e9
    lines = [f"Memory: about {memory:.2f} GB for the model and the batch of each worker, besides its libraries."]
    if not times:
        return lines
    total = sum(plan.steps * times[plan.stage] for plan in plans)
    each = ", ".join(
        f"stage {plan.stage} {_roughly(plan.steps * times[plan.stage])} ({plan.steps:,} steps of "
        f"{times[plan.stage]:.2f} s)"
        for plan in plans
    )
    lines.append(
        f"Time: about {_roughly(total)} on this machine ({machine}): {each}, measured on one worker alone; validation, "
        "pictures and fitted priors come on top."
    )
    return lines


def _roughly(seconds: float) -> str:
    """Return a duration such as `42 s`, `3 min` or `5 h 07 min`."""
    return format_duration(seconds).partition(" min ")[0] + " min" * (60 <= round(seconds) < 3600)


def _section(draft: Draft, tree: Tree, path: str) -> Iterator[str]:
    """Yield the lines of a section, settings before the sections below it, in the order of their declaration."""
    indent = "  " * (path.count(".") + 1)
    names = sorted(tree, key=lambda name: (_is_section(f"{path}.{name}"), _position(path, name)))
    for name in names:
        below = f"{path}.{name}"
        if _is_section(below):
            if tree[name]:
                yield f"{indent}{name}:"
                yield from _section(draft, tree[name], below)
            continue
        reason = draft.reasons.get(below) or reason_of(below, draft.base)
        yield from _comment(reason[:1].upper() + reason[1:], indent)
        yield f"{indent}{name}: {_value(tree[name])}"


def _is_section(path: str) -> bool:
    """Return whether a path is a section whose settings are explained one by one."""
    return path in (*_STEPS, "training.appearance")


def _position(path: str, name: str) -> int:
    owner: type = Recipe
    for section in path.split("."):
        owner = settings_of(owner)[section].section or owner
    return list(settings_of(owner)).index(name)


def _comment(text: str, indent: str = "") -> Iterator[str]:
    """Yield lines of a comment. A name from a foreign dataset can hold what YAML takes for the end of a line."""
    prefix = f"{indent}# "
    yield from textwrap.wrap(
        one_line(text),
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _value(value: Any) -> str:
    """Return a value as YAML in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()
