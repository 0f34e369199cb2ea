"""The deployment that holds the model: codes of clips and clips of codes, of concurrent requests at once."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from ray import serve

from cluster.ray_internals import serve_replica_on_loopback
from pipeline.report.images import Frames
from pipeline.web_studio.codes import Code
from pipeline.web_studio.rendering import Cell, Donor, Reading, Rendered, blend
from pipeline.web_studio.settings import StudioSettings

if TYPE_CHECKING:
    from torch import Tensor

WAIT_S = 0.004
"""Time that a request waits for others to be computed with it."""
Decoded = tuple[NDArray[np.float32], NDArray[np.float32], int]
"""Static code [K], dynamics code [D] and number of frames of a clip to decode."""


class ModelReplica:
    """One copy of the model.

    Args:
        settings: which model, and the size of batches.
    """

    def __init__(self, settings: StudioSettings) -> None:
        from pipeline.evaluation.inputs import use_all_cpus
        from pipeline.web_studio.model_facts import load
        from vdsm.familiarity import TrainingDistribution

        serve_replica_on_loopback()
        use_all_cpus()
        self._trained = load(settings)
        fitted = self._trained.model.fitted_priors is not None
        self._training = TrainingDistribution(self._trained.model) if fitted else None
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
                codes.append(donor if isinstance(donor, Code) else self._sample(donor))
                found.append(None)
        statics, dynamics = [one.static for one in codes], [one.dynamics for one in codes]
        work = [(blend(statics, cell.static), blend(dynamics, cell.dynamics), frames) for cell in cells]
        unread = [code for code, reading in zip(codes, found, strict=True) if read and reading is None]
        own = [(code.static, code.dynamics, self._trained.clip_frames) for code in unread]
        clips = await asyncio.gather(*(self._decode(one) for one in [*work, *own]))
        decoded = iter(clips[len(work) :])
        readings = [
            reading or Reading(code, next(decoded), None, None, unlike=False)
            for code, reading in zip(codes if read else [], found)
        ]
        return Rendered(readings, list(clips[: len(work)]))

    def _sample(self, seed: int) -> Code:
        import torch

        model, generator = self._trained.model, torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            static, dynamics = model.sample_static(1, generator), model.sample_dynamics(1, generator)
        return Code(static[0].cpu().numpy().astype(np.float32), dynamics[0].cpu().numpy().astype(np.float32))

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=WAIT_S)
    async def _encode(self, clips: list[Frames]) -> list[Reading]:
        async with self._busy:
            return await asyncio.to_thread(self._encode_all, clips)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=WAIT_S)
    async def _decode(self, work: list[Decoded]) -> list[Frames]:
        async with self._busy:
            return await asyncio.to_thread(self._decode_all, work)

    def _encode_all(self, clips: list[Frames]) -> list[Reading]:
        import torch

        from vdsm.device import device_of
        from vdsm.pixels import to_float, to_pixels

        model = self._trained.model
        with torch.inference_mode():
            frames = to_float(torch.from_numpy(np.stack(clips)).to(device_of(model)))
            codes = model.encode(frames)
            reconstructed = model.decode(codes.pose, codes.static)
            known = None if self._training is None else self._training.compare(frames, reconstructed)
            seen = to_pixels(reconstructed)
        static, dynamics = _numbers(codes.static), _numbers(codes.dynamics)
        readings = []
        for row in range(len(clips)):
            share, psnr, unlike = None, None, False
            if known is not None:
                share, psnr = float(known.share[row]), float(known.psnr_db[row])
                unlike = bool(known.unlike[row])
            readings.append(Reading(Code(static[row], dynamics[row]), seen[row], share, psnr, unlike))
        return readings

    def _decode_all(self, work: list[Decoded]) -> list[Frames]:
        import torch

        from vdsm.device import device_of
        from vdsm.pixels import to_pixels

        model = self._trained.model
        clips: dict[int, Frames] = {}
        with torch.inference_mode():
            for length in {frames for _, _, frames in work}:
                rows = [row for row, (_, _, frames) in enumerate(work) if frames == length]
                static, dynamics = (
                    torch.from_numpy(np.stack([work[row][part] for row in rows])).to(device_of(model))
                    for part in (0, 1)
                )
                found = to_pixels(model.decode(model.poses(dynamics, length), static))
                clips.update(zip(rows, found))
        return [clips[row] for row in range(len(work))]


def _numbers(codes: "Tensor") -> NDArray[np.float32]:
    return cast(NDArray[np.float32], codes.float().cpu().numpy())
