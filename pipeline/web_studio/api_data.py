"""The part of the API about a dataset as a whole: pairs that look alike, and rejected inputs."""

import asyncio
import functools
from collections import Counter
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.report.animation import display_fps
from pipeline.web_studio.api_model import REFUSALS, Serving
from pipeline.web_studio.schema import ClipEntry, Sheet
from pipeline.web_studio.stored_clips import described
from preprocessing.appearance.agreement import agreement, describe
from preprocessing.appearance.descriptors import usual
from preprocessing.appearance.pairs import MinedPairs
from preprocessing.dataset import schema
from preprocessing.dataset.format import REJECTS, RejectRecord
from preprocessing.dataset.reader import ClipDataset

MOST_MINED = 50_000
"""Clips of the largest split that is searched for pairs at a request; a run of a larger one brings its pairs."""
MOST_REJECTS = 200
router = APIRouter(prefix="/api", responses=REFUSALS)


class PairEntry(BaseModel):
    """Two clips that look alike."""

    first: ClipEntry
    second: ClipEntry
    distance: float = Field(description="cosine distance of their descriptors")


class PairPage(BaseModel):
    """Some of the pairs."""

    total: int
    offset: int
    facts: list[str]
    pairs: list[PairEntry]


class RejectEntry(BaseModel):
    """An input that gave no clip, or not all of them."""

    path: str
    reason: str
    where: str
    clips: int
    split: str


class RejectPage(BaseModel):
    """Some of the rejected inputs."""

    total: int
    offset: int
    reasons: dict[str, int]
    rejects: list[RejectEntry]


@router.get("/pairs", summary="Pairs of training clips that look alike, found without labels")
async def pairs(
    studio: Serving, offset: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=24)] = 12
) -> PairPage:
    """Return some of the pairs, the closest first."""

    def page() -> PairPage:
        clips = _dataset(studio.shelf.datasets, "train")
        found = _pairs(studio.settings.run, clips)
        once = found.once[np.argsort(found.distances[found.once], kind="stable")]

        def entry(row: int) -> ClipEntry:
            sheet = Sheet.of_clip(clips.frames(row), display_fps(float(clips.fps[row])), clips.keys[row])
            return ClipEntry(**described(clips, "train", row), clip=sheet)

        shown = [
            PairEntry(
                first=entry(int(found.firsts[pair])), second=entry(int(found.partners[pair])),
                distance=float(found.distances[pair]),
            )
            for pair in once[offset : offset + limit]
        ]  # fmt: skip
        facts = describe(found, agreement(found, clips.identities, clips.labels))
        return PairPage(total=len(once), offset=offset, facts=facts, pairs=shown)

    return await asyncio.to_thread(page)


@router.get("/rejects", summary="Inputs that the dataset was made without")
async def rejects(studio: Serving, offset: Annotated[int, Query(ge=0)] = 0) -> RejectPage:
    """Return some of the records of rejects.jsonl, and how many there are of each reason."""

    def page() -> RejectPage:
        records = read_rejects(_dataset(studio.shelf.datasets, "train").url)
        reasons = dict(Counter(record.reason for record in records).most_common(50))
        shown = records[offset : offset + MOST_REJECTS]
        return RejectPage(total=len(records), offset=offset, reasons=reasons, rejects=shown)

    return await asyncio.to_thread(page)


def read_rejects(data: str) -> list[RejectEntry]:
    """Return the inputs that a dataset was made without; none if it does not say.

    Raises:
        UserError: the file is too long, or a line is no record of such an input.
    """
    try:
        content = schema.read(storage.join(data, REJECTS))
    except MissingFileError:
        return []
    if len(content) > schema.MAX_BYTES:
        raise UserError(f"{REJECTS} of the dataset has more than {schema.MAX_BYTES:,} bytes, which is the limit")
    try:
        found = [RejectEntry(**schema.parse(line, RejectRecord)) for line in content.splitlines() if line.strip()]
        for entry in found:
            entry.model_dump_json()  # half of a surrogate pair cannot be sent
        return found
    except ValueError:
        raise UserError(f"{REJECTS} of the dataset is damaged; run `vdsm verify` on it") from None


def _dataset(datasets: dict[str, ClipDataset], split: str) -> ClipDataset:
    if split not in datasets:
        raise UserError(
            "the studio was started without a dataset; start it with --data DATA to see its pairs and rejects"
        )
    return datasets[split]


@functools.lru_cache(maxsize=1)
def _pairs(run: str | None, clips: ClipDataset) -> MinedPairs:
    """Return the pairs of the run, or else those that the default settings find."""
    from pipeline.runs.pairs import run_pairs
    from pipeline.runs.store import read_recipe
    from preprocessing.appearance.mining import MiningSettings
    from preprocessing.appearance.search import find_pairs

    if run is not None and (found := run_pairs(read_recipe(run).training, clips, run)) is not None:
        return found
    if len(clips) > MOST_MINED:
        raise UserError(
            f"the dataset has {len(clips):,} training clips; pairs of more than {MOST_MINED:,} are shown only of a run "
            "that is paired by appearance (--run)"
        )
    return find_pairs(clips, usual(clips.frame_shape[-1]), MiningSettings())
