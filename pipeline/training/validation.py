"""The un-annealed ELBO on held-out identities."""

from collections.abc import Sequence

import torch

from pipeline.training.batches import Clips, to_model
from pipeline.training.distributed import DistributedContext
from pipeline.training.order import Windows, derive_seed
from pipeline.training.prefetch import PrefetchedBatches
from vdsm.annealing import un_annealed
from vdsm.frames import FrameModel
from vdsm.sequence import SequenceModel

TERMS = ("reconstruction", "kl_static", "kl_pose", "kl_dynamics")


@torch.no_grad()
def validate(
    module: FrameModel | SequenceModel,
    clips: Clips,
    batches: Sequence[Windows],
    *,
    window: int,
    seed: int,
    temperature: float,
    world: DistributedContext,
    stall_s: float = 600.0,
) -> dict[str, float]:
    """Return means over all clips of `batches`, in nats per pixel value: `elbo` and the terms of its negative.

    Each rank takes its part of every batch, so that each clip counts once at any number of workers. The noise is the
    same in every validation: differences between two of them come from the weights alone.

    Raises:
        StalledReaderError: no batch was read within `stall_s` seconds.
    """
    totals = torch.zeros(len(TERMS) + 1, dtype=torch.float64)
    weights = un_annealed(temperature)
    was_training = module.training
    module.eval()
    parts = [(number, batch.part(world.rows(len(batch.clips)))) for number, batch in enumerate(batches)]
    parts = [(number, part) for number, part in parts if len(part.clips)]
    try:
        with PrefetchedBatches(clips, [part for _, part in parts], window, stall_s=stall_s) as prefetched:
            for (number, part), (_, frames) in zip(parts, prefetched, strict=True):
                generator = torch.Generator().manual_seed(derive_seed(seed, "validation noise", number))
                noise = module.draw_noise(len(batches[number].clips), window, generator)
                noise = type(noise)(*map(world.local_rows, noise))
                terms = module(to_model(frames, world.device), noise, weights)
                values = torch.stack([getattr(terms, name) for name in TERMS]).double().cpu()
                totals += torch.cat([values, torch.ones(1)]) * len(part.clips)
    finally:
        module.train(was_training)
    totals = world.sum(totals)
    means = dict(zip(TERMS, (totals[:-1] / totals[-1]).tolist(), strict=True))
    return {"elbo": -sum(means.values()), **means}
