"""The deployment that holds the model: codes of clips and clips of codes, of concurrent requests at once."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from ray import serve

from cluster.ray_internals import serve_replica_on_loopback
from pipeline.report.images import Frames
from pipeline.web_studio.codes import Code
from pipeline.web_studio.rendering import Cell, Donor, Encoded, Reading, Rendered, blend
from pipeline.web_studio.settings import StudioSettings
from pipeline.web_studio.studio_model import Decoded, StudioModel

WAIT_S = 0.004
"""Time that a request waits for others to be computed with it."""


class ModelReplica:
    """One copy of the model.

    Args:
        settings: which model, and the size of batches.
    """

    def __init__(self, settings: StudioSettings) -> None:
        serve_replica_on_loopback()
        self._model = StudioModel(settings)
        self._busy = asyncio.Lock()
        self._encode.set_max_batch_size(settings.batch_clips)  # type: ignore[attr-defined]
        self._decode.set_max_batch_size(settings.batch_clips)  # type: ignore[attr-defined]

    async def render(self, donors: Sequence[Donor], cells: Sequence[Cell], frames: int, *, read: bool) -> Rendered:
        """Generate a clip for each cell.

        Args:
            donors: what the cells are mixed from.
            cells: the clips to generate.
            frames: their length.
            read: whether to return the readings of all donors, with their reconstructions.
        """
        given = [one for one in donors if isinstance(one, np.ndarray)]
        encoded = iter(await asyncio.gather(*(self._encode(clip) for clip in given)))
        codes: list[Code] = []
        found: list[Reading | None] = []
        for donor in donors:
            if isinstance(donor, np.ndarray):
                reading = next(encoded)
                found.append(reading)
                codes.append(reading.code)
            else:
                codes.append(donor if isinstance(donor, Code) else self._model.sample(donor))
                found.append(None)
        statics, dynamics = [one.static for one in codes], [one.dynamics for one in codes]
        work = [(_static(statics, cell), blend(dynamics, cell.dynamics), frames) for cell in cells]
        unread = [code for code, reading in zip(codes, found, strict=True) if read and reading is None]
        own = [(code.static, code.dynamics, self._model.trained.clip_frames) for code in unread]
        clips = await asyncio.gather(*(self._decode(one) for one in [*work, *own]))
        decoded = iter(clips[len(work) :])
        readings = [
            reading or Reading(code, next(decoded), None, None, unlike=False)
            for code, reading in zip(codes if read else [], found)
        ]
        return Rendered(readings, list(clips[: len(work)]))

    async def static_codes(self, clips: list[Frames]) -> Encoded:
        """Return the static codes of clips; see `StudioModel.static_codes`."""
        async with self._busy:
            return await asyncio.to_thread(self._model.static_codes, clips)

    async def sampled_codes(self, count: int) -> NDArray[np.float32]:
        """Return static codes from the prior; see `StudioModel.sampled_codes`."""
        async with self._busy:
            return await asyncio.to_thread(self._model.sampled_codes, count)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=WAIT_S)
    async def _encode(self, clips: list[Frames]) -> list[Reading]:
        async with self._busy:
            return await asyncio.to_thread(self._model.encode, clips)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=WAIT_S)
    async def _decode(self, work: list[Decoded]) -> list[Frames]:
        async with self._busy:
            return await asyncio.to_thread(self._model.decode, work)


def _static(codes: Sequence[NDArray[np.float32]], cell: Cell) -> NDArray[np.float32]:
    blended = blend(codes, cell.static)
    return blended if cell.walk is None else cell.walk.apply(blended)
