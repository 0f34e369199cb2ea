"""The model of a run, with the test split of its data if the data is given."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.evaluation.inputs import chosen_device, load, ready
from pipeline.generation.request import GenerationRequest
from pipeline.runs.store import load_run

if TYPE_CHECKING:
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.disentangler import Disentangler


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode."""

    model: "Disentangler"
    clip_frames: int
    """Frames per clip with which the sequence stage was trained."""
    sequence_stage: bool
    """Whether the sequence stage is (partly) trained."""
    test: "ClipDataset | None"
    """The test split, or None without data."""


def load_model(request: GenerationRequest) -> TrainedModel:
    """Load the newest model of the run.

    Raises:
        UserError: the run or the data is missing or damaged, or they do not belong together.
    """
    device = chosen_device(request.device)
    if request.data is not None:
        inputs = load(request.run, request.data, request.other_data, request.refinement_steps, request.prior, device)
        return TrainedModel(inputs.model, inputs.clip_frames, inputs.sequence_stage, inputs.test)
    model, recipe, origin = load_run(request.run)
    model = ready(model, origin, request.refinement_steps, request.prior).to(device)
    return TrainedModel(model, recipe.training.stage2.clip_frames, origin["stage"] >= 2, None)
