"""Numbers of every setting of every command: none may be so large that memory, timers or generators overflow."""

import importlib
import inspect
import math
import typing
from typing import Any

import pytest
from pydantic import BaseModel

from cluster.cli import settings
from cluster.cli.settings import MAX_NUMBER, Controls
from cluster.errors import UserError
from pipeline.cli import COMMANDS
from pipeline.tuning.space import Parameter
from pipeline.tuning.sweep import Sweep

GIVEN = {"reports": ["a", "b"], "space": {"model.pose_size": Parameter(choices=(2, 3))}}
"""Values of required settings that are no text."""


def command_class(name: str) -> type[BaseModel]:
    """Return the class of a command, or that of the files that `vdsm tune --sweep` reads."""
    if name == "sweep":
        return Sweep
    module = COMMANDS[name][0]
    found = importlib.import_module(module)
    classes = [kind for _, kind in inspect.getmembers(found, inspect.isclass) if kind.__module__ == module]
    return next(kind for kind in classes if issubclass(kind, Controls))


def kinds_in(annotation: Any) -> set[type]:
    """Return the types of numbers that a setting takes, alone or in a tuple."""
    if annotation in (int, float):
        return {annotation}
    return {kind for one in typing.get_args(annotation) for kind in kinds_in(one)}


def settings_with_numbers(command: type[BaseModel]) -> dict[str, Any]:
    """Return the annotations of settings that take numbers, by dotted path."""
    found = {}
    for path in settings.paths(command):
        annotation: Any = command
        for name in path.split("."):
            annotation = settings.settings_of(annotation)[name].annotation
        if kinds_in(annotation):
            found[path] = annotation
    return found


def refusal(command: type[BaseModel], path: str, value: object) -> str:
    """Return the error of one value, which must be one; all other settings have their defaults."""
    required = {
        name: GIVEN.get(name, "x")
        for name, setting in settings.settings_of(command).items()
        if setting.default is settings.REQUIRED
    }
    tree: Any = value
    for name in reversed(path.split(".")):
        tree = {name: tree}
    base = settings.merge(settings.defaults(command), required)
    with pytest.raises(UserError) as caught:
        settings.validated(command, settings.merge(base, tree), lambda _: "")
    return str(caught.value)


@pytest.mark.parametrize("name", [*COMMANDS, "sweep"])
def test_numbers_that_nothing_can_compute_with_are_refused_by_the_name_of_the_setting(name: str) -> None:
    command = command_class(name)
    for path, annotation in settings_with_numbers(command).items():
        values: list[int | float] = [2**63, -(2**63) - 1, 10**30]
        if not path.endswith("seed"):
            values += [10**12, -(10**12), MAX_NUMBER + 1]
        if float in kinds_in(annotation):
            values += [math.nan, math.inf, -math.inf, 1e12, 1e300]
        for value in values:
            several = typing.get_origin(annotation) is tuple
            error = refusal(command, path, [value] * 2 if several and "knots" not in path else value)
            assert path.rpartition(".")[2] in error, (path, value, error)
            assert "\n" not in error


SIZES = {
    "train": [
        *(f"model.{name}" for name in (
            "num_experts", "pose_size", "dynamics_size", "encoder_hidden", "static_hidden", "rnn_width", "rnn_layers",
            "encoder_channels", "decoder_channels",
        )),
        *(f"training.{name}" for name in ("num_workers", "threads_per_worker", "appearance.neighbours")),
        *(f"evaluation.{name}" for name in (
            "pairs", "judge_batch_clips", "dci_trees", "exploration_trees", "refinement_steps",
        )),
    ],
    "shard": [
        "shards.concurrency", "source.figures.clip_frames", "source.videos.clip_frames", "source.pendulum.clip_frames",
        "source.pendulum.clips_per_identity", *(f"source.moving_mnist.{name}" for name in (
            "clip_frames", "train_identities", "test_identities", "clips_per_identity",
        )),
    ],
    "sweep": ["trials", "concurrent_trials", "pairs"],
    "verify": ["concurrency"],
    "generate": ["refinement_steps", "scale"],
    "doctor": ["dashboard_port"],
    "dashboards": ["port"],
    "studio": ["port", "batch_clips", "max_upload_mb", "max_replicas", "max_pixels"],
}  # fmt: skip
"""Settings that a billion is too much for: something of that length would be allocated, listed, or started."""


@pytest.mark.parametrize("name", SIZES)
def test_a_size_of_a_billion_is_refused_with_the_bound(name: str) -> None:
    command = command_class(name)
    numbers = settings_with_numbers(command)
    for path in SIZES[name]:
        several = typing.get_origin(numbers[path]) is tuple
        error = refusal(command, path, [10**9, 4, 4] if several else 10**9)
        assert error.startswith(f"{path} is "), error
        bound = error.partition("must be ")[2]
        assert any(char.isdecimal() for char in bound), error
