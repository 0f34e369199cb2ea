"""The protocol: everything that is measured on a model with the test clips, and its controls."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from vdsm.disentangler import Disentangler
from vdsm.evaluation import frechet
from vdsm.evaluation.clips import LabelledClips, clips_per_batch
from vdsm.evaluation.controls import CONTROL_PHASES, control_scores
from vdsm.evaluation.cycle import ReencodedSwaps
from vdsm.evaluation.elbo import elbo_scores
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.inception import Inception, InceptionFeatures, inception_features
from vdsm.evaluation.judge import Judge, judge_clips
from vdsm.evaluation.judged_scores import Combinations, combinations, judge_scores, output_scores
from vdsm.evaluation.likeness import real_scores, transfer_scores
from vdsm.evaluation.measurement import Latents, Measurement, Swapped, collect_latents, summarise_swaps
from vdsm.evaluation.model import SwapModel, encode_clips
from vdsm.evaluation.moving_pixels import SWAPS_PHASE, Decoders, TrueSwap, moving_scores, moving_swap_scores
from vdsm.evaluation.outputs import SwapDecoder, decode_batches, judge_pairs, judged_outputs, slice_decoder
from vdsm.evaluation.pairs import Indices, Pairs, draw_pairs
from vdsm.evaluation.probes import probe_scores
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.reconstruction import reconstruction_scores, subsample
from vdsm.evaluation.renderer import RENDERER_PHASES, Renderer, renderer_scores
from vdsm.evaluation.scores import Score, entropy_scores
from vdsm.evaluation.swap_scores import swap_scores
from vdsm.evaluation.traits import TraitCollector, Traits, traits_of_clips


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """How much is measured."""

    clip_frames: int = 8
    """Frames of each clip."""
    pairs: int = 1000
    """Pairs of test clips."""
    probe_clips: int = 3000
    """Maximum number of training clips whose codes the probes learn from."""
    batch_clips: int | None = None
    """Clips in memory at once; None means as many as their length allows."""
    seed: int = 0
    """Seed of the pairs, the prior samples, the probes and the intervals."""
    sequence_stage: bool = True
    """Whether the model has a trained dynamics code; without it only poses are swapped."""

    @property
    def clips_at_once(self) -> int:
        """Clips in memory at once."""
        return self.batch_clips or clips_per_batch(self.clip_frames)


def phases(
    model: SwapModel, config: ProtocolConfig, *, judged: bool, train: bool, renderer: bool, inception: bool,
    true_swap: bool = False,
) -> list[str]:  # fmt: skip
    """Return the phases of progress that `measure` starts, in order; the flags say which arguments it is given."""
    found = ["encoding test clips", "describing real test clips"]
    if judged:
        found += ["judging real test clips", "swapping poses", "reconstructing"]
        if config.sequence_stage:
            found += ["swapping dynamics codes", "sampling identities", "sampling actions"]
        found += ["scoring the outputs", *CONTROL_PHASES, *(RENDERER_PHASES if renderer else ())]
    else:
        found += ["swapping"]
    if inception:
        found += ["Inception features of real clips", "Frechet distance of Inception features"]
    found += ["comparing reconstructions", "comparing moving pixels"]
    found += [SWAPS_PHASE] if true_swap else []
    if train:
        found += ["encoding training clips", "fitting probes"]
    if isinstance(model, Disentangler):
        found += ["measuring the ELBO"]
    return found


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
    true_swap: TrueSwap | None = None,
) -> Measurement:
    """Measure a model on the clips of the test split.

    Args:
        model: the model to measure.
        clips: the test split.
        judge: trained on the training split. None for data without an action label: only what needs no judge can be
            measured.
        config: how much is measured.
        progress: receives the phases listed by `phases`.
        train: the training split, from whose codes the probes learn; None skips the probes.
        renderer: the program that drew the data, as one more control.
        inception: network for the Frechet distance of its features; None skips that.
        true_swap: gives the clips that swaps should be, where they are known.
    """
    seed, length, size = config.seed, config.clip_frames, config.clips_at_once
    if isinstance(model, nn.Module):
        model.eval()  # otherwise batch norm and dropout would make a clip's score depend on the others, and on chance
    pairs = draw_pairs(clips, config.pairs, seed)
    codes = encode_clips(model, clips, length, size, progress, phase="encoding test clips")
    decoder = SwapDecoder(model, codes, length, size)
    latents = collect_latents(clips, codes)
    seen = None if train is None or judge is None else combinations(train, judge)
    real = traits_of_clips(clips, length, size, progress)
    scores, controls, swapped = _swaps(judge, clips, pairs, decoder, config, real, renderer, inception, progress, seen)
    scores |= real_scores(real, clips.identities, seed)
    compared = subsample(np.unique(pairs.dynamics_of))
    scores |= reconstruction_scores(
        clips, compared, length, lambda batch: decoder.pose_swap(batch, batch), size, seed, progress
    )
    scores |= moving_scores(clips, compared, length, _own_decoders(decoder, config), size, seed, progress)
    if true_swap is not None:
        some = pairs.part(subsample(np.arange(len(pairs))))
        swaps = _swap_decoders(decoder, some, config)
        scores |= moving_swap_scores(clips, some, length, true_swap, swaps, size, seed, progress)
    learned_from = None if train is None else _training_latents(model, train, config, progress)
    if learned_from is not None:
        probes, shuffled = probe_scores(learned_from, latents, seed, progress=progress)
        scores |= probes
        if judge is not None:
            controls["shuffled"] |= shuffled
    if isinstance(model, Disentangler):
        scores |= elbo_scores(model, clips, length, size, config.sequence_stage, seed, progress)
    if is_on_simplex(codes.static):
        scores["experts.in_use"] = experts_in_use(latents, seed)
    return Measurement(scores, controls, swapped, latents, decoder, expert_use(codes.static), learned_from)


def _swaps(
    judge: Judge | None,
    clips: LabelledClips,
    pairs: Pairs,
    decoder: SwapDecoder,
    config: ProtocolConfig,
    traits: Traits,
    renderer: Renderer | None,
    inception: Inception | None,
    progress: Progress,
    seen: Combinations | None,
) -> tuple[dict[str, Score], dict[str, dict[str, Score]], Swapped]:
    """Return the scores of what is decoded for the pairs, those of the controls, and the swaps."""
    seed, size, stage2 = config.seed, config.clips_at_once, config.sequence_stage
    reencoded = ReencodedSwaps(decoder.model)
    features = InceptionFeatures(inception) if inception else None
    collector = TraitCollector()
    observers = (reencoded, collector, *((features,) if features else ()))
    swap = decoder.swap if stage2 else decoder.pose_swap
    scores: dict[str, Score] = {}
    controls: dict[str, dict[str, Score]] = {}
    swapped = summarise_swaps(clips, pairs, {})
    if judge is None:
        decode_batches(len(pairs), slice_decoder(swap, pairs), size, "swapping", progress, *observers)
    else:
        real = judge_clips(judge, clips, config.clip_frames, size, progress)
        scores |= judge_scores(clips, real, seed)
        pose_swap = slice_decoder(decoder.pose_swap, pairs)
        pose_observers = () if stage2 else observers
        by_pose = judge_pairs(judge, pairs, pose_swap, size, "swapping poses", progress, *pose_observers)
        scores |= {f"pose_{name}": score for name, score in swap_scores(clips, pairs, by_pose.values, seed).items()}
        outputs = judged_outputs(judge, decoder, pairs, stage2, seed, progress, *observers)
        progress.start("scoring the outputs", outputs.frechet_resamples, unit="resamples")
        scores |= output_scores(clips, pairs, outputs, real, seed, progress, seen)
        controls = control_scores(clips, pairs, real, seed, progress, traits)
        if renderer is not None:
            controls["renderer"] = renderer_scores(
                judge, clips, pairs, renderer, real, config.clip_frames, size, seed, progress
            )
        swapped = summarise_swaps(clips, pairs, (outputs.swap or by_pose).values)
    scores |= transfer_scores(collector.traits, pairs, traits, clips.identities, seed)
    if stage2:
        scores |= reencoded.scores(pairs, decoder.codes, identity_indices(clips.identities), seed)
    if inception is not None and features is not None:
        real_features = inception_features(inception, clips, pairs.static_of, config.clip_frames, size, progress)
        clusters = identity_indices(clips.identities)[pairs.static_of]
        progress.start("Frechet distance of Inception features", frechet.RESAMPLES, unit="resamples")
        scores["frechet.inception.swap"] = frechet.frechet_score(
            features.features, real_features, clusters, seed, progress
        )
    return scores, controls, swapped


def _own_decoders(decoder: SwapDecoder, config: ProtocolConfig) -> Decoders:
    """Return the decoders of a clip from its own static code and from its poses or its one dynamics code."""
    found: dict[str, Callable[[Indices], Tensor]] = {"poses": lambda batch: decoder.pose_swap(batch, batch)}
    if config.sequence_stage:
        found["self_swap"] = lambda batch: decoder.swap(batch, batch)
    return found


def _swap_decoders(decoder: SwapDecoder, pairs: Pairs, config: ProtocolConfig) -> Decoders:
    """Return the decoders of the swaps of some pairs."""
    found: dict[str, Callable[[Indices], Tensor]] = {
        "pose_swap": lambda numbers: decoder.pose_swap(pairs.dynamics_of[numbers], pairs.static_of[numbers])
    }
    if config.sequence_stage:
        found["swap"] = lambda numbers: decoder.swap(pairs.dynamics_of[numbers], pairs.static_of[numbers])
    return found


def _training_latents(model: SwapModel, train: LabelledClips, config: ProtocolConfig, progress: Progress) -> Latents:
    """Return the codes of at most `config.probe_clips` training clips, from which probes and forests learn."""
    chosen = np.sort(np.random.default_rng([config.seed, 7]).permutation(len(train))[: config.probe_clips])
    codes = encode_clips(
        model, train, config.clip_frames, config.clips_at_once, progress, chosen, phase="encoding training clips"
    )
    return collect_latents(train, codes, chosen)


def is_on_simplex(static: Tensor) -> bool:
    """Whether static codes [N, K] are weights of experts: points of one simplex, or of several concatenated."""
    sums = static.sum(1)
    return bool((static >= 0).all() and sums.mean() > 0.5 and (sums - sums.mean()).abs().max() < 1e-3)


def experts_in_use(latents: Latents, seed: int) -> Score:
    """Return exp of the entropy of the mean static code, the effective number of experts: between 1 and K."""
    weights = latents.codes.static.double().numpy()
    clusters = identity_indices(latents.identities)
    return entropy_scores(weights / weights.sum(1, keepdims=True), clusters, seed)["h_y"].exponential()


def expert_use(static: Tensor) -> list[float]:
    """Return the mean weight of each expert in static codes [N, K], 1 in total; empty if the codes are not weights."""
    if not is_on_simplex(static):
        return []
    mean = static.double().mean(0)
    return [float(share) for share in mean / mean.sum()]
