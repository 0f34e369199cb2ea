"""Which outputs to write, where, and in which format."""

import mimetypes
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.generation.request import FORMATS, KINDS, NEEDS_SEQUENCE_STAGE, Format, GenerationRequest, Kind
from pipeline.generation.trained_model import TrainedModel


@dataclass(frozen=True)
class Outputs:
    """The outputs of one request."""

    urls: dict[Kind, str]
    """Kind -> URL of its file."""
    format: Format
    folder: str
    """URL of the folder that the files are in."""
    single: bool
    """Whether the request names one file, not the folder."""


def format_of_out(request: GenerationRequest) -> Format | None:
    """Return the format if `out` names one file, or None if it names a folder.

    Raises:
        UserError: `out` and `format` contradict each other, or it names a file of another type.
    """
    name = request.out.rpartition("/")[2]
    found: Format | None = next((one for one in FORMATS if name.lower().endswith(f".{one}")), None)
    if found is None and mimetypes.guess_type(name)[0] is not None and not Path(request.out).is_dir():
        known = ", ".join(f".{one}" for one in FORMATS)
        raise UserError(
            f"--out {request.out} ends in .{name.rpartition('.')[2]}, which is not written; "
            f"end it in {known}, or name a folder"
        )
    if found and request.format and request.format != found:
        raise UserError(f"--out {request.out} is a .{found}, but --format is {request.format}; omit one of them")
    return found


def plan_outputs(request: GenerationRequest, trained: TrainedModel, single: Format | None) -> Outputs:
    """Return the outputs that are requested and that the model can generate.

    Args:
        request: names the outputs.
        trained: the model.
        single: format of the one file that `out` names, as returned by `format_of_out`.

    Raises:
        UserError: a requested output needs a sequence stage, or `out` is one file for several outputs.
    """
    kinds = _kinds(request, trained)
    if single and len(kinds) > 1:
        raise UserError(f"--out {request.out} is one file for {len(kinds)} outputs; choose one of them with --what")
    if single:
        return Outputs({kinds[0]: request.out}, single, request.out.rpartition("/")[0] or ".", single=True)
    chosen: Format = request.format or "gif"
    return Outputs(
        {kind: storage.join(request.out, f"{kind}.{chosen}") for kind in kinds}, chosen, request.out, single=False
    )


def _kinds(request: GenerationRequest, trained: TrainedModel) -> list[Kind]:
    own_clips = bool(request.dynamics_of or request.static_of)
    what = request.what or ("transfer" if own_clips else "all")
    if what == "all":
        possible = [kind for kind in KINDS if trained.sequence_stage or kind not in NEEDS_SEQUENCE_STAGE]
        return possible if own_clips or trained.test is not None else [kind for kind in possible if kind == "samples"]
    if what in NEEDS_SEQUENCE_STAGE and not trained.sequence_stage:
        raise UserError(f"{request.source} has no sequence stage yet, which --what {what} needs; train it further")
    return [what]
