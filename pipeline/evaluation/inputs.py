"""What `vdsm evaluate` and `vdsm generate` start from: a run and its data, checked to belong together."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.cli import options
from cluster.cli.paths import expand_home
from cluster.cli.settings import Section
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.recipe import EvaluationConfig, Recipe
from preprocessing.dataset.manifest import clips_of

if TYPE_CHECKING:
    import torch

    from preprocessing.dataset.reader import ClipDataset
    from vdsm.config import ModelConfig
    from vdsm.disentangler import Disentangler

log = logging.getLogger(__name__)


class EvaluationRecipe(Section):
    """The settings of a recipe that control how a model is measured and shown. Without `--config`: those of the run."""

    seed: int = 0
    """Seed of all randomness: the same seed, run and data give the same result."""
    evaluation: EvaluationConfig = EvaluationConfig()


@dataclass(frozen=True)
class EvaluationInputs:
    """A trained model with data that fits it."""

    model: "Disentangler"
    recipe: Recipe
    """The run's recipe."""
    origin: dict[str, Any]
    """Origin of the model, as returned by `load_run`."""
    test: "ClipDataset"
    data_sha256: str

    @property
    def clip_frames(self) -> int:
        """Frames per clip with which the sequence stage was trained; without one, no more than all test clips have."""
        trained = self.recipe.training.stage2.clip_frames
        return trained if self.sequence_stage else min(trained, int(min(self.test.clip_frames)))

    @property
    def sequence_stage(self) -> bool:
        """Whether the checkpoint has a (partly) trained sequence stage."""
        return bool(self.origin["stage"] >= 2)

    def provenance(self) -> dict[str, Any]:
        """Return the fields of the run in the provenance of metrics.json."""
        origin = {name: self.origin[name] for name in ("run", "stage", "step", "finished", "checkpoint_sha256")}
        return origin | {
            "prior": "fitted" if self.model.fitted_priors else "published",
            "trained_on_data_sha256": self.origin["data_sha256"],
            "recipe": self.recipe.model_dump(mode="json"),
        }


def with_recipe_of_run(args: list[str], scratch: Path) -> list[str]:
    """Return command-line arguments that name a recipe: where `args` name none, the recipe of the run they name.

    Args:
        args: arguments of the command.
        scratch: folder for a copy of a recipe in S3; it must exist until the arguments are parsed.
    """
    run = options.value_of("run", args)
    if run is None or options.value_of("config", args) is not None:
        return args
    url = storage.join(expand_home(run), "config.yaml")
    if not storage.exists(url):
        return args  # `load` reports that the run is missing
    if not storage.is_remote(run):
        return ["--config", url, *args]
    storage.download(url, scratch / "config.yaml")
    return ["--config", str(scratch / "config.yaml"), *args]


def load(
    run: str, data: str, other_data: bool = False, refinement_steps: int = 0, prior: str = "fitted",
    device: "torch.device | None" = None, test_clips: int | None = None,
) -> EvaluationInputs:  # fmt: skip
    """Return the newest model of the run at `run`, by default on the CPU, with the test split of the dataset at `data`.

    `refinement_steps` and `prior` are as in `ready`, `test_clips` as in `test_split`.

    Raises:
        UserError: either is missing or damaged, the dataset is not that of the run (unless `other_data`), or
            its frames do not fit the model.
    """
    from pipeline.runs.store import load_run

    model, recipe, origin = load_run(run)
    test = test_split(data, test_clips)
    data_sha256 = check_data(test, model.config, run, origin, other_data)
    if origin["stage"] < 2:
        log.warning("%s has no sequence stage yet: swapping poses instead of dynamics codes", run)
    model = ready(model, origin, refinement_steps, prior)
    return EvaluationInputs(model if device is None else model.to(device), recipe, origin, test, data_sha256)


def test_split(data: str, test_clips: int | None) -> "ClipDataset":
    """Return the test split of a dataset: its first shards, which hold `test_clips` clips or more; None means all."""
    from preprocessing.dataset.reader import ClipDataset

    test = ClipDataset(data, "test", most_clips=test_clips)
    everything = clips_of(test.manifest, "test")
    if len(test) < everything:
        log.info("measuring %d of %d test clips; evaluation.test_clips is %d", len(test), everything, test_clips)
    return test


def check_data(
    test: "ClipDataset", config: "ModelConfig", source: str, origin: Mapping[str, Any], other_data: bool
) -> str:
    """Check that data is that of a model, and return its hash; see `pipeline.runs.store.data_hash`.

    Args:
        test: a split of the data.
        config: settings of the model.
        source: where the model is, for messages.
        origin: `data_sha256`, that of the data it was trained on, and `data`, where that was, if known.
        other_data: allow other data, whose frames fit the model.

    Raises:
        UserError: it is other data, or its frames do not fit.
    """
    from pipeline.runs.store import data_hash

    data_sha256 = data_hash(test.manifest)
    if data_sha256 != origin.get("data_sha256") and not other_data:
        known = f", {origin['data']}" if "data" in origin else ""
        raise UserError(
            f"{test.url} is not the data that {source} was trained on{known} (their hashes differ); "
            "name that dataset, or pass --other-data to measure on this one"
        )
    expected = (config.frame_size, config.frame_size, config.channels)
    if test.frame_shape != expected:
        shape = "x".join(map(str, test.frame_shape))
        raise UserError(
            f"{test.url} has frames of {shape}, but the model of {source} expects {'x'.join(map(str, expected))}; "
            "use data of that size"
        )
    return data_sha256


def ready(model: "Disentangler", origin: dict[str, Any], refinement_steps: int, prior: str) -> "Disentangler":
    """Put a model of `load_run` into evaluation mode.

    Args:
        model: the model.
        origin: where it is from, as `load_run` returns it.
        refinement_steps: its `encode` refines static codes by so many steps, for the swaps of its stage; those of an
            adapted model are that of its person, whatever is encoded.
        prior: `published`, or `fitted` to sample from its fitted priors if it has them. An adapted model samples its
            person.
    """
    from vdsm.adaptation import is_adapted
    from vdsm.code_density import FittedPriors

    adapted = is_adapted(model)
    if prior == "published":
        model.fitted_priors = FittedPriors(model.fitted_priors.static) if adapted and model.fitted_priors else None
    elif model.fitted_priors is None:
        log.warning("%s has no fitted priors, so codes are sampled from the published ones", origin["run"])
    model.refinement_steps = 0 if adapted else refinement_steps
    model.refined_by = "dynamics" if origin["stage"] >= 2 else "poses"
    return model.eval()


def chosen_device(name: str) -> "torch.device":
    """Return the device named by an option `--device`, and have fp32 mean fp32 there.

    Raises:
        UserError: it is not here.
    """
    from vdsm.device import find_device
    from vdsm.float_formats import set_flags

    try:
        device = find_device(name)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    set_flags("fp32")
    return device


def training_split(data: str, test: "ClipDataset", length: int) -> "ClipDataset":
    """Return the training split, from which judge and probes learn.

    Args:
        data: URL of the dataset.
        test: its test split.
        length: frames per clip that are measured.

    Raises:
        UserError: the data does not allow an unbiased measurement; see `check_splits`.
    """
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.evaluation.clips import check_splits

    train = ClipDataset(data, "train")
    try:
        check_splits(train, test, length)
    except ValueError as error:
        raise UserError(f"{data}: {error}") from error
    return train


def use_all_cpus() -> None:
    """Use one torch thread per CPU of this process, or OMP_NUM_THREADS threads where that is set."""
    import torch

    from vdsm.memory import keep_freed_memory

    keep_freed_memory()
    if not os.environ.get("OMP_NUM_THREADS", ""):
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
