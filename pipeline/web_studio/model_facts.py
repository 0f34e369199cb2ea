"""Load the model of the studio, and check that it can be shown."""

from typing import TYPE_CHECKING

from cluster.errors import UserError
from pipeline.generation.request import GenerationRequest
from pipeline.web_studio.settings import ModelFacts, StudioSettings

if TYPE_CHECKING:
    from pipeline.generation.trained_model import TrainedModel


def load(settings: StudioSettings) -> "TrainedModel":
    """Return the model in evaluation mode, on its device.

    Raises:
        UserError: it is missing, damaged, or has no sequence stage.
    """
    from pipeline.generation.trained_model import load_model

    source, run = settings.source, settings.run
    request = GenerationRequest(run=run, model=None if run else source, out=".", device=settings.device)
    trained = load_model(request)
    if not trained.sequence_stage:
        raise UserError(f"{source} has no sequence stage yet, which every page of the studio needs; train it further")
    return trained


def facts_of(trained: "TrainedModel", settings: StudioSettings, fps: float | None = None) -> ModelFacts:
    """Return what the pages need to know of a model; `fps` is the rate of its data, if that is given."""
    from pipeline.report.animation import display_fps

    config = trained.model.config
    return ModelFacts(
        name=settings.source.rstrip("/").rpartition("/")[2],
        frame_size=config.frame_size,
        channels=1 if config.channels == 1 else 3,
        clip_frames=trained.clip_frames,
        fps=display_fps(fps or trained.fps),
        static_size=config.num_experts,
        static_groups=config.static_groups,
        dynamics_size=config.dynamics_size,
        fitted=trained.model.fitted_priors is not None,
    )
