"""The protocol: everything that is measured of one model on the test clips, with its controls."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from vdsm.disentangler import Disentangler
from vdsm.evaluation.clips import LabelledClips, batch_of
from vdsm.evaluation.controls import control_scores
from vdsm.evaluation.cycle import EncodedAgain
from vdsm.evaluation.elbo import elbo_scores
from vdsm.evaluation.frechet import frechet_score
from vdsm.evaluation.inception import Inception, InceptionFeatures, inception_features
from vdsm.evaluation.judge import Judge, judge_clips
from vdsm.evaluation.judged_scores import judge_scores, output_scores
from vdsm.evaluation.measurement import Latents, Measurement, Swapped, latents_of, swapped_of
from vdsm.evaluation.model import SwapModel, encode_clips
from vdsm.evaluation.outputs import SwapDecoder, decode_batches, judge_pairs, judged_outputs, of_pairs
from vdsm.evaluation.pairs import Pairs, draw_pairs
from vdsm.evaluation.probes import probe_scores
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.reconstruction import reconstruction_scores, some_of
from vdsm.evaluation.renderer import Renderer, renderer_scores
from vdsm.evaluation.scores import Score, entropy_scores
from vdsm.evaluation.swap_scores import identities, swap_scores


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """How much is measured."""

    clip_frames: int = 8
    """Frames of each clip."""
    pairs: int = 1000
    """Pairs of test clips."""
    probe_clips: int = 3000
    """Most training clips whose codes the probes learn from."""
    batch_clips: int | None = None
    """Clips in memory at once; none means as many as their length allows."""
    seed: int = 0
    """Seed of the pairs, the prior samples, the probes and the intervals."""
    sequence_stage: bool = True
    """Whether the model has a trained dynamics code; without it only poses are swapped."""

    @property
    def clips_at_once(self) -> int:
        """Clips in memory at once."""
        return self.batch_clips or batch_of(self.clip_frames)


def measure(
    model: SwapModel,
    clips: LabelledClips,
    judge: Judge | None,
    config: ProtocolConfig,
    progress: Progress = NO_PROGRESS,
    *,
    train: LabelledClips | None = None,
    renderer: Renderer | None = None,
    inception: Inception | None = None,
) -> Measurement:
    """Measure a model on the clips of the test split.

    Args:
        model: what is measured.
        clips: the test split.
        judge: trained on the training split; none for data without an action label, of which only the cycle, the ELBO,
            the reconstruction and whatever probes there are labels for are measured.
        config: how much.
        progress: told how far it is.
        train: the training split, from whose codes the probes learn; none leaves them out.
        renderer: the program that drew the data, as one more control.
        inception: for the Frechet distance on its features; none leaves it out.
    """
    seed, length, size = config.seed, config.clip_frames, config.clips_at_once
    if isinstance(model, nn.Module):
        model.eval()  # or batch norm and dropout would make a clip's score depend on the others, and on chance
    pairs = draw_pairs(clips, config.pairs, seed)
    decoder = SwapDecoder(model, encode_clips(model, clips, length, size, progress), length, size)
    latents = latents_of(clips, decoder.codes)
    scores, controls, swapped = _swaps(judge, clips, pairs, decoder, config, renderer, inception, progress)
    some = some_of(np.unique(pairs.dynamics_of))
    scores |= reconstruction_scores(
        clips, some, length, lambda batch: decoder.pose_swap(batch, batch), size, seed, progress
    )
    if train is not None:
        probes, shuffled = _probes(model, train, latents, config, progress)
        scores |= probes
        if judge is not None:
            controls["shuffled"] |= shuffled
    if isinstance(model, Disentangler):
        scores |= elbo_scores(model, clips, length, size, config.sequence_stage, seed, progress)
    if on_simplex(decoder.codes.static):
        scores["experts.in_use"] = experts_in_use(latents, seed)
    return Measurement(scores, controls, swapped, latents, decoder, expert_use(decoder.codes.static))


def _swaps(
    judge: Judge | None,
    clips: LabelledClips,
    pairs: Pairs,
    decoder: SwapDecoder,
    config: ProtocolConfig,
    renderer: Renderer | None,
    inception: Inception | None,
    progress: Progress,
) -> tuple[dict[str, Score], dict[str, dict[str, Score]], Swapped]:
    """Scores of what is decoded for the pairs, of the controls, and the swaps."""
    seed, size, stage2 = config.seed, config.clips_at_once, config.sequence_stage
    again, pictures = EncodedAgain(decoder.model), InceptionFeatures(inception) if inception else None
    watches = (again, *((pictures,) if pictures else ()))
    swap = decoder.swap if stage2 else decoder.pose_swap
    scores: dict[str, Score] = {}
    controls: dict[str, dict[str, Score]] = {}
    swapped = swapped_of(clips, pairs, {})
    if judge is None:
        decode_batches(len(pairs), of_pairs(swap, pairs), size, "swapping", progress, *watches)
    else:
        real = judge_clips(judge, clips, config.clip_frames, size, progress)
        scores |= judge_scores(clips, real, seed)
        seen = () if stage2 else watches
        by_pose = judge_pairs(judge, pairs, of_pairs(decoder.pose_swap, pairs), size, "swapping poses", progress, *seen)
        scores |= {f"pose_{name}": score for name, score in swap_scores(clips, pairs, by_pose.values, seed).items()}
        outputs = judged_outputs(judge, decoder, pairs, stage2, seed, progress, *watches)
        scores |= output_scores(clips, pairs, outputs, real, seed)
        controls = control_scores(clips, pairs, real, seed)
        if renderer is not None:
            controls["renderer"] = renderer_scores(
                judge, clips, pairs, renderer, real, config.clip_frames, size, seed, progress
            )
        swapped = swapped_of(clips, pairs, (outputs.swap or by_pose).values)
    if stage2:
        scores |= again.scores(pairs, decoder.codes, identities(clips), seed)
    if inception is not None and pictures is not None:
        wanted = inception_features(inception, clips, pairs.static_of, config.clip_frames, size, progress)
        clusters = identities(clips)[pairs.static_of]
        scores["frechet.inception.swap"] = frechet_score(pictures.features, wanted, clusters, seed)
    return scores, controls, swapped


def _probes(
    model: SwapModel, train: LabelledClips, test: Latents, config: ProtocolConfig, progress: Progress
) -> tuple[dict[str, Score], dict[str, Score]]:
    """Scores of the probes, and of their answers given for other clips."""
    chosen = np.sort(np.random.default_rng([config.seed, 7]).permutation(len(train))[: config.probe_clips])
    codes = encode_clips(model, train, config.clip_frames, config.clips_at_once, progress, chosen)
    return probe_scores(latents_of(train, codes, chosen), test, config.seed, progress=progress)


def on_simplex(static: Tensor) -> bool:
    """Whether static codes [N, K] are weights of experts: points of one simplex, or of several side by side."""
    sums = static.sum(1)
    return bool((static >= 0).all() and sums.mean() > 0.5 and (sums - sums.mean()).abs().max() < 1e-3)


def experts_in_use(latents: Latents, seed: int) -> Score:
    """exp of the entropy of the mean static code, a number between 1 and K: how many experts share the work."""
    weights = latents.codes.static.double().numpy()
    who = np.unique(np.asarray(latents.identities), return_inverse=True)[1].astype(np.int64)
    return entropy_scores(weights / weights.sum(1, keepdims=True), who, seed)["h_y"].exponential()


def expert_use(static: Tensor) -> list[float]:
    """Mean weight of each expert in static codes [N, K], 1 in all; empty where codes are no weights."""
    if not on_simplex(static):
        return []
    mean = static.double().mean(0)
    return [float(share) for share in mean / mean.sum()]
