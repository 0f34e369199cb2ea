"""Checks before any work: whether the clips suffice for the requested outputs."""

from collections.abc import Sequence

from cluster.errors import UserError
from pipeline.generation.donors import Donors, check_length
from pipeline.generation.request import GenerationRequest, Kind
from pipeline.generation.trained_model import TrainedModel


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
