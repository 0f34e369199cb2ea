"""What `vdsm evaluate` and `vdsm generate` begin with: a run and its data, checked to belong together."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.cli import options
from cluster.cli.settings import Section
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.recipe import EvaluationConfig, Recipe

if TYPE_CHECKING:
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.disentangler import Disentangler

log = logging.getLogger(__name__)


class EvaluationRecipe(Section):
    """The settings of a recipe that say how a model is measured and shown. Without `--config`: the run's own."""

    seed: int = 0
    """Seed of everything random: the same seed, run and data give the same result."""
    evaluation: EvaluationConfig = EvaluationConfig()


@dataclass(frozen=True)
class EvaluationInputs:
    """A trained model with the data it can be shown."""

    model: "Disentangler"
    recipe: Recipe
    """The run's recipe."""
    info: dict[str, Any]
    """Where the model comes from, as `load_run` says it."""
    test: "ClipDataset"
    data_sha256: str

    @property
    def clip_frames(self) -> int:
        """Frames of a clip, as in the training of the sequence stage."""
        return self.recipe.training.stage2.clip_frames

    @property
    def sequence_stage(self) -> bool:
        """Whether the checkpoint has a (partly) trained sequence stage."""
        return bool(self.info["stage"] >= 2)

    def provenance(self) -> dict[str, Any]:
        """What metrics.json says of the run."""
        told = {name: self.info[name] for name in ("run", "stage", "step", "finished", "checkpoint_sha256")}
        return told | {
            "trained_on_data_sha256": self.info["data_sha256"], "recipe": self.recipe.model_dump(mode="json")
        }  # fmt: skip


def with_recipe_of_run(words: list[str], scratch: Path) -> list[str]:
    """A command line that names no recipe, with that of the run it names; any other as it is."""
    run = options.value_of("run", words)
    if run is None or options.value_of("config", words) is not None:
        return words
    place = storage.join(run, "config.yaml")
    if not storage.exists(place):
        return words  # the run is not there; `load` says so
    if not storage.is_s3(run):
        return ["--config", place, *words]
    storage.download(place, scratch / "config.yaml")
    return ["--config", str(scratch / "config.yaml"), *words]


def load(run: str, data: str, other_data: bool = False, refinement_steps: int = 0) -> EvaluationInputs:
    """The newest model of the run at `run` and the test split of the dataset at `data`.

    Raises:
        UserError: either is missing or damaged, the dataset is not the one of the training (unless `other_data`), or
            its frames do not fit the model.
    """
    from pipeline.runs.store import data_hash, load_run
    from preprocessing.dataset.reader import ClipDataset

    model, recipe, info = load_run(run)
    test = ClipDataset(data, "test")
    found = data_hash(test.manifest)
    if found != info["data_sha256"] and not other_data:
        raise UserError(
            f"{data} is not the data that {run} was trained on, {info['data']} (their hashes differ); "
            "name that one, or give --other-data to measure on this one"
        )
    wanted = [recipe.model.frame_size, recipe.model.frame_size, recipe.model.channels]
    if test.manifest["clip_shape"][1:] != wanted:
        shape = "x".join(str(size) for size in test.manifest["clip_shape"][1:])
        raise UserError(
            f"{data} has frames of {shape}, but the model of {run} was made for {'x'.join(map(str, wanted))}; "
            "name data of that size"
        )
    if info["stage"] < 2:
        log.warning("%s has no sequence stage yet: poses are swapped, not dynamics codes", run)
    return EvaluationInputs(ready(model, info, refinement_steps), recipe, info, test, found)


def ready(model: "Disentangler", info: dict[str, Any], refinement_steps: int) -> "Disentangler":
    """The model of `load_run` in evaluation mode; its `encode` refines static codes by what draws its swaps."""
    model.refinement_steps = refinement_steps
    model.refined_by = "dynamics" if info["stage"] >= 2 else "poses"
    return model.eval()


def use_all_cpus() -> None:
    """One torch thread for each CPU that this process may use, or as many as OMP_NUM_THREADS says."""
    import torch

    from vdsm.memory import keep_freed_memory

    keep_freed_memory()
    if not os.environ.get("OMP_NUM_THREADS", ""):
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
