"""The model of a run, or an exported one, with the test split of its data if the data is given."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.evaluation.inputs import check_data, chosen_device, load, ready
from pipeline.generation.request import GenerationRequest
from pipeline.models.find import open_model, run_model

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
    fps: float | None = None
    """Frames per second of the training clips, where the model tells without its data."""


def load_model(request: GenerationRequest) -> TrainedModel:
    """Load the newest model of the run, or the exported model.

    Raises:
        UserError: the model or the data is missing or damaged, or they do not belong together.
    """
    source, device = request.source, chosen_device(request.device)
    if request.run is not None and request.data is not None:
        inputs = load(source, request.data, request.other_data, request.refinement_steps, request.prior, device)
        return TrainedModel(inputs.model, inputs.clip_frames, inputs.sequence_stage, inputs.test)
    model, facts = run_model(source) if request.run is not None else open_model(source)
    test = None
    if request.data is not None:
        from preprocessing.dataset.reader import ClipDataset

        test = ClipDataset(request.data, "test")
        check_data(test, model.config, source, facts.origin, request.other_data)
    origin = {"run": source, "stage": 2 if facts.sequence_stage else 1}
    model = ready(model, origin, request.refinement_steps, request.prior).to(device)
    return TrainedModel(model, facts.clip_frames, facts.sequence_stage, test, facts.fps)
