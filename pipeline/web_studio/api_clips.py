"""The part of the API that lists stored clips, by label."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from cluster.errors import UserError
from pipeline.report.animation import display_fps
from pipeline.web_studio.api_model import REFUSALS, Serving
from pipeline.web_studio.schema import ClipEntry, ClipPage, Sheet
from pipeline.web_studio.stored_clips import described

MOST_CLIPS = 48
"""Most clips of one answer."""
router = APIRouter(prefix="/api", responses=REFUSALS)


@router.get("/clips", summary="Clips of a collection, filtered by label")
async def clips(
    studio: Serving,
    kind: Annotated[str, Query(description="the collection, one of those in /api/model")],
    label: Annotated[
        list[str] | None,
        Query(description="`NAME:VALUE` or `identity:NAME`; clips with one value of each name", max_length=64),
    ] = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_CLIPS)] = 24,
) -> ClipPage:
    """Return some of the clips that match."""
    filters: dict[str, list[str]] = {}
    for one in label or []:
        name, separator, value = one.partition(":")
        if not separator:
            raise UserError(f"label={one:.80}: must be NAME:VALUE")
        filters.setdefault(name, []).append(value)

    def page() -> ClipPage:
        collection, rows = studio.shelf.collection(kind), studio.shelf.matching(kind, filters)
        found = []
        for row in rows[offset : offset + limit]:
            sheet = Sheet.of_clip(collection.frames(row), display_fps(float(collection.fps[row])), collection.keys[row])
            found.append(ClipEntry(**described(collection, kind, row), clip=sheet))
        return ClipPage(total=len(rows), offset=offset, clips=found)

    return await asyncio.to_thread(page)
