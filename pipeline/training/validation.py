"""The un-annealed ELBO on held-out identities."""

from collections.abc import Sequence

import torch

from pipeline.training.batches import Clips, to_model
from pipeline.training.config import Noise
from pipeline.training.distributed import DistributedContext
from pipeline.training.draws import draw
from pipeline.training.draws_of_keys import derive_seed
from pipeline.training.order import Windows
from pipeline.training.prefetch import PrefetchedBatches, ShardReadAhead
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
    noise: Noise = "keyed",
    stall_s: float = 600.0,
    shards_ahead: int = 0,
) -> dict[str, float]:
    """Return means over all clips of `batches`, in nats per pixel value: `elbo` and the terms of its negative.

    Each rank takes its part of every batch, so that each clip counts once at any number of workers. The noise is the
    same in every validation: differences between two of them come from the weights alone.

    Up to `shards_ahead` shards are fetched before they are needed.

    Raises:
        StalledReaderError: no batch was read within `stall_s` seconds.
    """
    totals = torch.zeros(len(TERMS) + 1, dtype=torch.float64)
    weights = un_annealed(temperature)
    was_training = module.training
    module.eval()
    parts = [(number, batch.part(world.rows(len(batch.clips)))) for number, batch in enumerate(batches)]
    parts = [(number, part) for number, part in parts if len(part.clips)]
    prepared = range(len(parts) if shards_ahead else 0)
    read_ahead = ShardReadAhead(clips, lambda number: parts[number][1], prepared, shards_ahead)
    reached = iter(range(len(parts)))
    prefetched = PrefetchedBatches(
        clips, [part for _, part in parts], window, stall_s=stall_s, on_batch=lambda: read_ahead.reached(next(reached))
    )
    try:
        with read_ahead, prefetched:
            for (number, part), (_, frames) in zip(parts, prefetched, strict=True):
                drawn = draw(noise, derive_seed(seed, "validation noise", number), len(batches[number].clips), world)
                values = module.draw_noise(drawn.rows, window, drawn.generator)
                values = type(values)(*map(drawn.local, values))
                terms = module(to_model(frames, world.device), values, weights)
                means = torch.stack([getattr(terms, name) for name in TERMS]).double().cpu()
                totals += torch.cat([means, torch.ones(1)]) * len(part.clips)
    finally:
        module.train(was_training)
    totals = world.sum(totals)
    found = dict(zip(TERMS, (totals[:-1] / totals[-1]).tolist(), strict=True))
    return {"elbo": -sum(found.values()), **found}
