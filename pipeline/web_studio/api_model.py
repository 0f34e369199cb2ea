"""The part of the API that computes: transfer, grids, and blends of codes."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile

from cluster.errors import UserError
from pipeline.generation.media_files import encode
from pipeline.report.animation import animate_grid
from pipeline.report.images import Frames, enlarge, mosaic, to_rgba
from pipeline.web_studio.codes import CODE, SAMPLE
from pipeline.web_studio.factors import Walk
from pipeline.web_studio.rendering import Cell, Donor
from pipeline.web_studio.schema import (
    ACCEPTED,
    DOWNLOADS,
    MEDIA_TYPES,
    PAGES,
    SCALE,
    CollectionAnswer,
    ErrorAnswer,
    ExploreAnswer,
    ExploreRequest,
    FactorAnswer,
    FactorsAnswer,
    GridAnswer,
    GridRequest,
    Length,
    LimitsAnswer,
    MediaFormat,
    ModelAnswer,
    Part,
    ReadingAnswer,
    Sheet,
    TransferAnswer,
    WalkPart,
)
from pipeline.web_studio.settings import MOST_CELLS
from pipeline.web_studio.studio import Studio

REFUSALS: dict[int | str, dict[str, Any]] = {
    422: {"model": ErrorAnswer, "description": "The request is invalid; the answer says why in one line."},
    503: {"model": ErrorAnswer, "description": "Busy; repeat the request after `Retry-After` seconds."},
}
MEDIA: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}}
}
router = APIRouter(prefix="/api", responses=REFUSALS)


def studio_of(request: Request) -> Studio:
    """Return what the application was made with."""
    found: Studio = request.app.state.studio
    return found


Serving = Annotated[Studio, Depends(studio_of)]


@router.get("/model", summary="The model, what can be chosen, and the limits")
async def model(studio: Serving) -> ModelAnswer:
    """Return what a page needs to know at its start."""
    facts, settings = studio.facts, studio.settings
    return ModelAnswer(
        name=facts.name, frame_size=facts.frame_size, channels=facts.channels, clip_frames=facts.clip_frames,
        fps=facts.fps, has_runs=settings.runs is not None, pages=PAGES, formats=DOWNLOADS, accepts=ACCEPTED,
        collections=[
            CollectionAnswer(kind=kind, clips=len(clips.keys), labels=clips.vocabulary)
            for kind, clips in studio.shelf.collections.items()
        ],
        limits=LimitsAnswer(
            upload_bytes=settings.max_upload_mb * 10**6, video_seconds=settings.max_video_s,
            frame_pixels=settings.max_pixels,
        ),
    )  # fmt: skip


@router.post(
    "/transfer", response_model=TransferAnswer, responses=MEDIA, summary="Have one clip's figure do another's action"
)
async def transfer(
    studio: Serving,
    who: Annotated[str | None, Form(description="reference to the clip that gives the identity")] = None,
    how: Annotated[str | None, Form(description="reference to the clip that gives the action")] = None,
    who_file: Annotated[UploadFile | None, File(description="a video, picture or array in place of `who`")] = None,
    how_file: Annotated[UploadFile | None, File(description="a video or array in place of `how`")] = None,
    frames: Annotated[int | None, Form(ge=1, le=256, description=Length.description)] = None,
    format: Annotated[MediaFormat | None, Form(description="a media file instead of JSON")] = None,
) -> Any:
    """Return both clips, their reconstructions, and who is seen in one doing what is done in the other."""
    given = [await _given(studio, "who", who, who_file), await _given(studio, "how", how, how_file)]
    donors = [donor for _, donor in given]
    rendered = await studio.render(donors, [Cell([(0, 1.0)], [(1, 1.0)])], frames, read=format is None)
    (clip,) = rendered.clips
    if format is not None:
        return await _media(studio, to_rgba(clip), format, "transfer")

    def answer() -> TransferAnswer:
        readings = [studio.answer(name, donor, one) for (name, donor), one in zip(given, rendered.readings)]
        label = f"{readings[0].name} doing what {readings[1].name} does"
        result = Sheet.of_clip(clip, studio.facts.fps, label)
        return TransferAnswer(identity=readings[0], action=readings[1], result=result)

    return await asyncio.to_thread(answer)


@router.post("/read", summary="A clip as the model sees it, and its codes")
async def read(
    studio: Serving,
    of: Annotated[str | None, Form(description="reference to the clip")] = None,
    of_file: Annotated[UploadFile | None, File(description="a video, picture or array in place of `of`")] = None,
) -> ReadingAnswer:
    """Return the clip, its reconstruction, and a reference to its codes that other requests take."""
    name, donor = await _given(studio, "of", of, of_file)
    rendered = await studio.render([donor], [], None, read=True)
    return await asyncio.to_thread(studio.answer, name, donor, rendered.readings[0])


@router.post("/grid", response_model=GridAnswer, responses=MEDIA, summary="Several identities, several actions")
async def grid(studio: Serving, request: GridRequest) -> Any:
    """Return every identity performing every action, with the donors in the first row and column."""
    if request.cells > MOST_CELLS:
        raise UserError(f"the grid has {request.cells} clips; at most {MOST_CELLS} are generated, choose fewer")
    rows, columns = request.actions, request.identities
    references = list(dict.fromkeys([*columns, *rows]))
    donors = [await studio.donor(one) for one in references]
    cells = [
        Cell([(references.index(who), 1.0)], [(references.index(how), 1.0)]) for how in rows for who in columns
    ]  # fmt: skip
    rendered = await studio.render(donors, cells, request.frames, read=True)

    def shown(reference: str) -> Frames:
        number = references.index(reference)
        donor = donors[number]
        return donor if isinstance(donor, np.ndarray) else rendered.readings[number].reconstruction

    length = request.frames or studio.facts.clip_frames
    head: list[Frames | None] = [None, *(_repeated(shown(who), length) for who in columns)]
    body: list[list[Frames | None]] = [
        [_repeated(shown(how), length), *rendered.clips[row * len(columns) : (row + 1) * len(columns)]]
        for row, how in enumerate(rows)
    ]
    table = [head, *body]
    if request.format is not None:
        frames = mosaic(table, header_row=True, header_column=True)
        return await _media(studio, frames, request.format, "grid")
    label = f"{len(columns)} identities in columns, each performing the {len(rows)} actions of the rows"
    animation = await asyncio.to_thread(
        animate_grid, table, studio.facts.fps, label, studio.facts.frame_size, header_row=True, header_column=True
    )
    found = {name: reading.code.to_text() for name, reading in zip(references, rendered.readings)}
    return GridAnswer(grid=Sheet.of(animation), codes=found)


@router.get("/factors", summary="Traits of identities that can be changed alone")
async def factors(studio: Serving) -> FactorsAnswer:
    """Return the attributes of labelled clips or, without labels, the directions in which identities differ most."""
    found = (await studio.factors()).values()
    answers = [FactorAnswer(name=one.name, towards=list(one.ends)) for one in found]
    return FactorsAnswer(labelled=any(one.labelled for one in found), factors=answers)


@router.post("/explore", response_model=ExploreAnswer, responses=MEDIA, summary="A clip from blended codes")
async def explore(studio: Serving, request: ExploreRequest) -> Any:
    """Return the clip that blended static codes and blended dynamics codes give."""
    references = list(dict.fromkeys(part.of for part in [*request.static, *request.dynamics]))
    donors = [await studio.donor(one) for one in references]
    walk = None if request.walk is None else await _walk(studio, request.walk)
    cell = Cell(_mix(request.static, references), _mix(request.dynamics, references), walk)
    (clip,) = (await studio.render(donors, [cell], request.frames)).clips
    if request.format is not None:
        return await _media(studio, to_rgba(clip), request.format, "explore")
    sheet = await asyncio.to_thread(Sheet.of_clip, clip, studio.facts.fps, "clip of the blended codes")
    return ExploreAnswer(result=sheet)


async def _walk(studio: Studio, part: WalkPart) -> Walk:
    found = await studio.factors()
    if part.factor not in found:
        raise UserError(f"there is no factor {part.factor:.80}; the factors are in /api/factors")
    factor = found[part.factor]
    if part.towards not in factor.ends:
        raise UserError(f"{part.factor:.80} has no value {part.towards:.80}; its values are in /api/factors")
    return Walk(factor, part.towards, part.amount, studio.facts.static_groups)


def _mix(parts: Sequence[Part], references: Sequence[str]) -> list[tuple[int, float]]:
    if not sum(part.weight for part in parts):
        raise UserError("all weights of a blend are 0; raise one of them")
    return [(references.index(part.of), part.weight) for part in parts]


async def _given(studio: Studio, name: str, reference: str | None, upload: UploadFile | None) -> tuple[str, Donor]:
    """Return the name and the content of one of the two clips of a transfer."""
    if (reference is None) == (upload is None):
        raise UserError(f"give either {name} or {name}_file")
    if upload is not None:
        return (upload.filename or "upload")[:80], await studio.uploaded(upload, still=name != "how")
    assert reference is not None
    kind = reference.partition(":")[0]
    label = {CODE: "a clip of this link", SAMPLE: "a sample"}.get(kind, reference)
    return label, await studio.donor(reference)


def _repeated(clip: Frames, length: int) -> Frames:
    """Return a clip that is repeated, or cut, to a length."""
    return clip[np.arange(length) % len(clip)]


async def _media(studio: Studio, frames: Frames, media_format: MediaFormat, name: str) -> Response:
    """Return frames uint8 [T, H, W, 4] as a file."""
    scale = max(1, SCALE * 64 // max(64, frames.shape[1]))
    data = await asyncio.to_thread(encode, enlarge(frames, scale), media_format, studio.facts.fps)
    headers = {"content-disposition": f'attachment; filename="{name}.{media_format}"'}
    return Response(data, media_type=MEDIA_TYPES[media_format], headers=headers)
