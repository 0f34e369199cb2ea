"""The clips that give actions and identities: clips of the user, or test clips of the data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import UserError
from pipeline.generation.request import GenerationRequest
from pipeline.generation.trained_model import TrainedModel
from pipeline.generation.user_clips import ClipList, concatenate, read_clips, select_clips
from pipeline.report import grids
from pipeline.report.animation import median_fps
from preprocessing.dataset.reader import ClipDataset


@dataclass(frozen=True)
class Donors:
    """Clips to generate from, in memory."""

    clips: ClipList
    action_clips: list[int]
    """Indices of the clips that give actions."""
    identity_clips: list[int]
    """Indices of the clips that give identities."""


def find_donors(request: GenerationRequest, trained: TrainedModel) -> Donors | None:
    """Return the requested clips, filled up with test clips of the data; None if there are neither.

    If only one side has clips and there is no data, every clip gives both its action and its identity.

    Raises:
        UserError: a clip is missing, unreadable, too short or of the wrong size.
    """
    actions = _requested_clips(request, trained, request.dynamics_of)
    still_frames = max(trained.clip_frames, request.length or 0)
    identities = _requested_clips(request, trained, request.static_of, still_frames)
    if trained.test is not None and (actions is None or identities is None):
        check_length(request, trained, min(trained.test.clip_frames))
        actions = actions or _test_actions(request, trained.test)
        identities = identities or _test_identities(request, trained.test)
    if actions is None or identities is None:
        both = actions or identities
        return None if both is None else Donors(both, list(range(len(both))), list(range(len(both))))
    split = len(actions)
    return Donors(concatenate([actions, identities]), list(range(split)), list(range(split, split + len(identities))))


def _requested_clips(
    request: GenerationRequest, trained: TrainedModel, names: Sequence[str], still_frames: int | None = None
) -> ClipList | None:
    """Return the clips that the user names, or None if there are none; see `read_clips`."""
    if not names:
        return None
    splits: list[ClipDataset] = []
    fps = request.clip_fps or trained.fps
    if trained.test is not None:
        splits = [trained.test, ClipDataset(str(request.data), "train")]
        fps = request.clip_fps or median_fps(trained.test)
    config = trained.model.config
    return concatenate(
        [
            read_clips(
                name,
                size=config.frame_size,
                channels=config.channels,
                min_frames=trained.clip_frames,
                fps=fps,
                splits=splits,
                still_frames=still_frames,
            )
            for name in names
        ]
    )


def _test_actions(request: GenerationRequest, test: ClipDataset) -> ClipList:
    return select_clips(test, [int(clip) for clip in grids.action_donors(test)[: request.rows]])


def _test_identities(request: GenerationRequest, test: ClipDataset) -> ClipList:
    donors = grids.identity_donors(test, len(test))
    chosen = np.sort(np.random.default_rng(request.seed).permutation(donors)[: request.columns])
    return select_clips(test, [int(clip) for clip in chosen])


def check_length(request: GenerationRequest, trained: TrainedModel, shortest: int) -> None:
    """Check that clips whose shortest has `shortest` frames are long enough.

    Raises:
        UserError: they are shorter than the clips in training, or shorter than `length` without a sequence stage.
    """
    length = request.length or trained.clip_frames
    where = f"{request.data or 'a clip'} has clips of {shortest} frames"
    if trained.clip_frames > shortest:
        raise UserError(f"{where}, but the model was trained with {trained.clip_frames}; give longer clips")
    if length > shortest and not trained.sequence_stage:
        raise UserError(f"{where}, but --length is {length}; give a smaller one, or train the sequence stage")
