"""The un-annealed evidence lower bound on test clips: the one metric of fit that needs neither labels nor a judge."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vdsm.annealing import un_annealed
from vdsm.device import device_of, upload
from vdsm.disentangler import Disentangler
from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.pairs import Indices
from vdsm.evaluation.progress import Progress
from vdsm.evaluation.scores import Score, mean_score

CLIPS = 512
"""No further identity is measured after this many clips."""


@torch.no_grad()
def elbo_scores(
    model: Disentangler, clips: LabelledClips, length: int, batch_clips: int, sequence_stage: bool, seed: int,
    progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    """Return `elbo.frame` and, with a sequence stage, `elbo.sequence`: one-sample bounds in nats per pixel value.

    Clips of one identity are measured together, so that the interval can draw identities.
    """
    batches = _batches(identity_indices(clips.identities), batch_clips, seed)
    generator = torch.Generator().manual_seed(seed)
    weights = un_annealed(model.temperature)
    values: dict[str, list[Tensor]] = {name: [] for name in ("elbo.frame", "elbo.sequence")[: 1 + sequence_stage]}
    counts = [len(batch) for batch in batches.values()]
    progress.start("measuring the ELBO", sum(counts), unit="clips")
    device = device_of(model)
    stages: tuple[Any, ...] = (model.frame_model, model.sequence_model)
    for batch in batches.values():
        frames = stack(clips, batch, length, device=device)
        for found, stage in zip(values.values(), stages, strict=False):
            drawn = stage.draw_noise(len(batch), length, generator)
            noise = type(drawn)(*(upload(part, device) for part in drawn))
            found.append(-stage(frames, noise, weights).negative_elbo)
        progress.advance(len(batch))
    clusters = np.repeat(list(batches), counts)
    bounds = {name: torch.stack(found).cpu().double().numpy() for name, found in values.items()}
    return {name: mean_score(np.repeat(each, counts), clusters, None, seed) for name, each in bounds.items()}


def _batches(identities: Indices, batch_clips: int, seed: int) -> dict[int, Indices]:
    """Return identities in random order, each with its clips, until there are CLIPS clips."""
    batches: dict[int, Indices] = {}
    for identity in np.random.default_rng([seed, 5]).permutation(identities.max() + 1):
        if sum(map(len, batches.values())) >= CLIPS:
            break
        batches[int(identity)] = np.flatnonzero(identities == identity)[:batch_clips]
    return batches
