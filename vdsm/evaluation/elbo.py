"""The un-annealed evidence lower bound on test clips: the one metric of fit that needs neither labels nor a judge."""

import numpy as np
import torch

from vdsm.annealing import un_annealed
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
    values: dict[str, list[float]] = {name: [] for name in ("elbo.frame", "elbo.sequence")[: 1 + sequence_stage]}
    counts = [len(batch) for batch in batches.values()]
    progress.start("measuring the ELBO", sum(counts), unit="clips")
    for batch in batches.values():
        frames = stack(clips, batch, length)
        stage1, stage2 = model.frame_model, model.sequence_model
        noise = stage1.draw_noise(len(batch), length, generator)
        values["elbo.frame"].append(-float(stage1(frames, noise, weights).negative_elbo))
        if sequence_stage:
            drawn = stage2.draw_noise(len(batch), length, generator)
            values["elbo.sequence"].append(-float(stage2(frames, drawn, weights).negative_elbo))
        progress.advance(len(batch))
    clusters = np.repeat(list(batches), counts)
    return {name: mean_score(np.repeat(each, counts), clusters, None, seed) for name, each in values.items()}


def _batches(identities: Indices, batch_clips: int, seed: int) -> dict[int, Indices]:
    """Return identities in random order, each with its clips, until there are CLIPS clips."""
    batches: dict[int, Indices] = {}
    for identity in np.random.default_rng([seed, 5]).permutation(identities.max() + 1):
        if sum(map(len, batches.values())) >= CLIPS:
            break
        batches[int(identity)] = np.flatnonzero(identities == identity)[:batch_clips]
    return batches
