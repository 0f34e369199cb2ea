"""Checks before any work: whether the clips suffice for the requested outputs."""

from collections.abc import Sequence

from cluster.errors import UserError
from cluster.memory import memory_bytes
from pipeline.generation.donors import Donors, check_length
from pipeline.generation.request import GenerationRequest, Kind
from pipeline.generation.trained_model import TrainedModel

FLOAT_BYTES = 4


def check_memory(
    request: GenerationRequest, trained: TrainedModel, donors: Donors | None, kinds: Sequence[Kind]
) -> None:
    """Check that the largest of the requested outputs is not beyond the memory of this machine.

    Raises:
        UserError: it is.
    """
    size, channels = trained.model.config.frame_size, trained.model.config.channels
    frame_bytes = size * size * channels * (FLOAT_BYTES + request.scale**2)  # decoded, and drawn
    needed = frame_bytes * max(_num_frames(request, trained, donors, kind) for kind in kinds)
    total = memory_bytes()
    if total is not None and needed > total:
        raise UserError(
            f"this takes at least {needed / 1e9:,.1f} GB of memory and this machine has {total / 1e9:,.1f} GB; lower "
            "--rows, --columns, --length or --scale"
        )


def _num_frames(request: GenerationRequest, trained: TrainedModel, donors: Donors | None, kind: Kind) -> int:
    """Return the number of frames that an output shows, at least."""
    length = request.length or trained.clip_frames
    if kind == "samples":
        return (request.rows or 1) * request.columns * length
    assert donors is not None
    actions, identities = len(donors.action_clips), len(donors.identity_clips)
    rows = {"interpolation": min(request.rows or 1, identities), "reconstruction": identities}.get(kind, actions)
    columns = {"transfer": identities, "rollout": 1, "reconstruction": 1}.get(kind, request.columns)
    return rows * columns * length


def check_donors(
    request: GenerationRequest, trained: TrainedModel, donors: Donors | None, kinds: Sequence[Kind]
) -> None:
    """Check that the requested outputs can be generated from the donors.

    Raises:
        UserError: there are no donors, too few of them, or they are too short.
    """
    if donors is None:
        if list(kinds) != ["samples"]:
            raise UserError(
                f"there are no clips for --what {kinds[0]}; give --data, or clips of your own with --dynamics-of and "
                "--static-of"
            )
        return
    if list(kinds) == ["transfer"] and trained.test is None and not (request.dynamics_of and request.static_of):
        missing = "--static-of" if request.dynamics_of else "--dynamics-of"
        raise UserError(f"a transfer needs two sides: give {missing} too, or --data to use its test clips")
    if "interpolation" in kinds and len(donors.identity_clips) < 2:
        raise UserError("an interpolation needs two identities; give two clips to --static-of")
    if "interpolation" in kinds and request.columns < 2:
        raise UserError(f"--columns is {request.columns}; an interpolation needs at least 2 steps")
    check_length(request, trained, min(donors.clips.clip_frames))
