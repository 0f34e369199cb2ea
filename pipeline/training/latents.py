"""What the frozen image encoder reads in the training clips, inferred once for all steps of stage 2.

With `training.latent_memory_gb`. Encoding the frames anew in every step, and their doubles with another static code, is
most of the work of stage 2, and gives the same each time. The latents of a clip depend on the clip and the weights of
stage 1 alone, so a resumed run has those of before, at any number of workers.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.training.batches import to_model
from pipeline.training.distributed import DistributedContext
from pipeline.training.draws_of_keys import derive_seed
from pipeline.training.job import Job
from pipeline.training.order import Indices, Windows
from vdsm.device import upload
from vdsm.encoder import FrameLatents
from vdsm.sequence import SequenceModel, StoredLatents

FRAMES = 128
"""Most frames that are encoded together, of one clip or of several."""
SUMMED_ROWS = 2**16
"""Frames whose latents are summed over the ranks at once: a sum is a copy, on the device as well."""


class LatentStore:
    """Latents of all training clips, the same on every rank: f32 [F, S] for all F frames, one clip after the other."""

    def __init__(self, values: Tensor, offsets: Tensor, widths: tuple[int, ...]) -> None:
        self._values, self._offsets, self._widths = values, offsets, widths

    def of(self, windows: Windows, length: int, device: torch.device) -> StoredLatents:
        """Return the latents of the first `length` frames of some windows."""
        starts = self._offsets[torch.from_numpy(windows.clips)] + torch.from_numpy(windows.starts)
        rows = upload(self._values[starts[:, None] + torch.arange(length)], device)
        *latents, double = rows.split(self._widths, dim=-1)
        return StoredLatents(FrameLatents(*latents), double)


def bytes_needed(job: Job, clips: Indices) -> int:
    """Return how many bytes the latents of some clips take."""
    return 4 * sum(_widths(job)) * int(np.asarray(job.clips.clip_frames)[clips].sum())


def have_room(job: Job, needed_bytes: int) -> bool:
    """Return whether latents of so many bytes are stored."""
    return needed_bytes <= 1e9 * job.training.latent_memory_gb


@torch.no_grad()
def infer_latents(model: SequenceModel, job: Job, clips: Indices, world: DistributedContext) -> LatentStore:
    """Infer the latents of some clips. Each rank infers those of its part; all must call together."""
    lengths = np.asarray(job.clips.clip_frames, dtype=np.int64)[clips]
    starts = np.cumsum(lengths) - lengths
    offsets = torch.zeros(len(job.clips.keys), dtype=torch.int64)
    offsets[torch.from_numpy(clips)] = torch.from_numpy(starts)
    widths = _widths(job)
    values = torch.zeros(int(lengths.sum()), sum(widths))
    encoder, was_training = model.frame_model.encoder, model.frame_model.encoder.training
    encoder.eval()
    batches = _batches(lengths)
    for batch in batches[world.rows(len(batches))]:
        own = clips[batch]
        frames = torch.from_numpy(np.stack([job.clips.frames(int(clip)) for clip in own]))
        noise = torch.cat([_noise(job, int(clip)) for clip in own]).to(world.device)
        for begin in range(0, frames.shape[1], FRAMES):
            latents = encoder(to_model(frames[:, begin : begin + FRAMES], world.device))
            columns = [*latents]
            if widths[-1]:
                columns.append(model.doubled(latents.pose_loc, noise, _temperature(job)))
            found = torch.cat(columns, dim=-1).float().cpu()
            for rows, row in zip(found, starts[batch] + begin, strict=True):
                values[row : row + len(rows)] = rows
    encoder.train(was_training)
    for part in values.split(SUMMED_ROWS):
        part.copy_(world.sum(part))
    return LatentStore(values, offsets, widths)


def _batches(lengths: Indices) -> list[slice]:
    """Return the clips that are encoded together: neighbours of one length.

    They depend on nothing but the clips, so the latents are the same, bit for bit, at any number of workers.
    """
    found, first = [], 0
    for clip in range(1, len(lengths) + 1):
        is_full = (clip - first + 1) * lengths[first] > FRAMES
        if clip == len(lengths) or lengths[clip] != lengths[first] or is_full:
            found.append(slice(first, clip))
            first = clip
    return found


def _noise(job: Job, clip: int) -> Tensor:
    """Return the noise of the static code that a clip's double has: [1, K], the same in every run of this seed."""
    generator = torch.Generator().manual_seed(derive_seed(job.seed, "double", job.clips.keys[clip]))
    return torch.randn(1, job.model.num_experts, generator=generator)


def _temperature(job: Job) -> float:
    """Return the temperature of the end of the stage: that of a step would tie the latents to it."""
    return job.training.stage2.annealing.temperature.end


def _widths(job: Job) -> tuple[int, ...]:
    """Return the numbers of each kind per frame: those of `FrameLatents`, and of the double if there is one."""
    pose, experts = job.model.pose_size, job.model.num_experts
    return pose, pose, experts, experts, pose if job.training.stage2.annealing.dynamics_consistency else 0
