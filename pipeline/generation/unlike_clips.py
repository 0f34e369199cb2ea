"""Warn of clips of the user that are unlike what the model was trained on."""

import logging

from pipeline.generation.donors import Donors
from pipeline.generation.request import GenerationRequest
from pipeline.generation.trained_model import TrainedModel
from pipeline.generation.unlike_text import describe_unlike
from vdsm.evaluation.clips import stack
from vdsm.familiarity import TrainingDistribution

log = logging.getLogger(__name__)


def warn_of_unlike_clips(trained: TrainedModel, donors: Donors, request: GenerationRequest) -> None:
    """Log a warning, with numbers, for each clip that the user named and that is unlike the training data."""
    given = donors.action_clips if request.dynamics_of else []
    given = [*given, *(clip for clip in donors.identity_clips if request.static_of and clip not in given)]
    model = trained.model
    if not given or model.fitted_priors is None:
        return
    training = TrainingDistribution(model)
    for clip in given:
        frames = stack(donors.clips, [clip], trained.clip_frames)
        found = training.compare(frames, model.reconstruct(frames))
        if found.unlike:
            log.warning(describe_unlike(donors.clips.keys[clip], float(found.share), float(found.psnr_db)))
