"""Which settings follow from a dataset and a machine, and why."""

from math import log2

from cluster.errors import UserError
from pipeline.recommendation.draft import Draft
from pipeline.recommendation.hardware import Hardware
from pipeline.recommendation.kinds import (
    DECODED,
    FAR,
    FEW_PAIRED,
    LONG_VIDEO_S,
    LONGEST,
    MEMORY_SHARE,
    MOST_THREADS,
    MOST_WORKERS,
    TOO_FEW_TO_SPARE,
    Kind,
    kind_of,
)
from pipeline.recommendation.survey import VIDEO_NEIGHBOURS, Survey
from pipeline.training.plan import plan_of

FRAME_SIZES = (32, 64, 128)


def choose(found: Survey, machine: Hardware) -> Draft:
    """Return the recipe for a dataset and a machine, without warnings.

    Raises:
        UserError: no model takes frames of that shape.
    """
    kind = kind_of(found)
    draft = Draft.of(kind.recipe)
    _choose_frames(draft, found)
    _choose_experts(draft, found, kind)
    _choose_pairs(draft, found)
    _choose_validation(draft, found)
    _choose_lengths(draft, found)
    _choose_steps(draft, found, kind)
    _choose_workers(draft, machine)
    _fit_memory(draft, machine)
    return draft


def _choose_frames(draft: Draft, found: Survey) -> None:
    height, width, channels = found.frame_shape
    if height != width or height not in FRAME_SIZES or channels not in (1, 3):
        raise UserError(
            f"the dataset's frames are {height}x{width}x{channels}; the model needs squares of 32, 64 or 128 pixels "
            "with 1 or 3 channels: shard again, with `size` and `channels` of the source"
        )
    draft.set("model.frame_size", height, "the size of the dataset's frames")
    draft.set("model.channels", channels, "grey" if channels == 1 else "colour")
    depth = round(log2(height / 4))
    encoder, decoder = ([*draft.get(f"model.{part}_channels")] for part in ("encoder", "decoder"))
    while len(encoder) < depth:  # another layer at the full size, as wide as the one that was there
        encoder, decoder = [encoder[0], *encoder], [*decoder, decoder[-1]]
    encoder, decoder = encoder[len(encoder) - depth :], decoder[:depth]
    why = f"{depth} layers, each of which halves the frame, down to 4 pixels; as wide as in configs/{draft.base}"
    draft.set("model.encoder_channels", encoder, why)
    draft.set("model.decoder_channels", decoder, f"{depth} layers, from 4 pixels up to the frame; likewise")


def _choose_experts(draft: Draft, found: Survey, kind: Kind) -> None:
    size = next(size for size in kind.experts if found.looks <= size.max_looks)
    draft.set(
        "model.num_experts", size.num_experts,
        f"{found.looks:,} distinct looks were found; {size.num_experts} experts in {size.static_groups} groups were "
        f"shown to work for {size.shown}. Too few blur people together",
    )  # fmt: skip
    draft.set("model.static_groups", size.static_groups, "attributes of a look are chosen independently of each other")


def _choose_pairs(draft: Draft, found: Survey) -> None:
    other = "another clip" if found.videos is None else "a clip of another video"
    seen = f"{found.paired_share:.0%} of clips look like {other}"
    far = found.pair_distance > FAR * found.pairs.random_distance
    is_doubtful = found.paired_share < FEW_PAIRED or far
    if is_doubtful and found.videos is not None and found.video_s >= LONG_VIDEO_S:
        pairing = "video"
        why = (
            f"two windows of one video, because videos are long ({found.video_s:.0f} s, the median), so that they show "
            f"several things, and only {seen}"
        )
    else:
        pairing = "appearance"
        distances = f"distance {found.pair_distance:.3f}, of two at random {found.pairs.random_distance:.3f}"
        why = f"two clips that look alike should show the same person doing different things; {seen} ({distances})"
    identities = "identity" in found.labels or found.identities not in (found.clips, found.videos)
    labels = (
        f". The {found.identities:,} identities of the dataset are not read; `identity` would" if identities else ""
    )
    draft.set("training.stage1.pairing", pairing, f"{why}. No label is read{labels}")
    if pairing == "appearance" and found.neighbours != draft.get("training.appearance.neighbours"):
        draft.set(
            "training.appearance.neighbours", found.neighbours,
            "neighbouring videos" if found.neighbours == VIDEO_NEIGHBOURS else "neighbouring clips",
        )  # fmt: skip
    if pairing != "appearance":
        draft.remove("training.appearance.descriptor")
    elif found.descriptor == "texture":
        draft.set(
            "training.appearance.descriptor", "texture", "the frames are grey: patterns, not colours, tell looks apart"
        )
    else:
        draft.set("training.appearance.descriptor", "colour", "people differ in the colours that they wear")


def _choose_validation(draft: Draft, found: Survey) -> None:
    if found.looks < TOO_FEW_TO_SPARE:
        why = f"single clips, because none of {found.looks:,} distinct looks can be spared"
        draft.set("training.validation_unit", "clip", why)
        draft.set("training.validation_fraction", 0.05, "of the clips")
    else:
        draft.remove("training.validation_unit")
        draft.remove("training.validation_fraction")


def _choose_lengths(draft: Draft, found: Survey) -> None:
    shortest = found.min_frames
    length = f"clips have {shortest}" + (f" to {found.max_frames}" if found.max_frames > shortest else "") + " frames"
    first = min(draft.get("training.stage1.clip_frames"), max(1, shortest // 2))
    draft.set(
        "training.stage1.clip_frames", first,
        f"of each of the two clips; {length}, and a clip without a partner is paired with another part of itself",
    )  # fmt: skip
    if first < 2:  # nothing moves in one frame
        draft.remove("training.stage1.annealing.motion_consistency")
    if (draft.get("training.stage1.num_decoded_frames") or 0) > 2 * first:
        draft.remove("training.stage1.num_decoded_frames")
    second = min(shortest, LONGEST)
    seconds = f"; {second / found.fps:.1f} s, which must be enough to see what happens"
    draft.set("training.stage2.clip_frames", second, length + seconds)
    most, decoded = DECODED
    if second > most:
        why = f"of {second}, drawn anew in each step: decoding fewer frees time for more steps"
        draft.set("training.stage2.num_decoded_frames", decoded, why)
    elif (draft.get("training.stage2.num_decoded_frames") or 0) > second:
        draft.remove("training.stage2.num_decoded_frames")


def _choose_steps(draft: Draft, found: Survey, kind: Kind) -> None:
    least = [draft.get(f"training.stage{stage}.steps") for stage in (1, 2)]
    batch = draft.get("training.stage1.batch_clips")
    most, most_second = (max(most, fewest) for most, fewest in zip(kind.max_steps, least, strict=True))
    first = min(max(_in_hundreds(found.clips * kind.epochs / batch), least[0]), most)
    second = min(max(_in_hundreds(least[1] * first / least[0]), least[1]), most_second)
    limits = f"at least {least[0]:,}, as in configs/{draft.base}" + (f", at most {most:,}" if most > least[0] else "")
    why = f"each of {found.clips:,} clips is seen about {first * batch / found.clips:,.0f} times; {limits}"
    draft.set("training.stage1.steps", first, why)
    draft.set("training.stage2.steps", second, "in proportion to stage 1: poses are learned already")


def _in_hundreds(steps: float) -> int:
    return round(steps / 100) * 100


def _choose_workers(draft: Draft, machine: Hardware) -> None:
    batches = [draft.get(f"training.stage{stage}.batch_clips") for stage in (1, 2)]
    together = [draft.recipe().training.stage(stage).samples_together for stage in (1, 2)]
    shared = [batch // clips for batch, clips in zip(batches, together, strict=True)]
    most = machine.gpus or min(machine.cores, MOST_WORKERS)
    workers = next(count for count in range(most, 0, -1) if all(parts % count == 0 for parts in shared))
    threads = max(1, min(machine.cores // workers, MOST_THREADS))
    draft.set("training.num_workers", workers, f"this machine has {machine}; a worker takes its share of each batch")
    draft.set("training.threads_per_worker", threads, "cores that are left for each worker")
    if machine.gpus:
        draft.set("training.use_gpu", True, "one GPU for each worker")
    for stage, batch in zip((1, 2), batches):
        why = f"{batch // workers} for each worker; learning rates were found with this size"
        draft.set(f"training.stage{stage}.batch_clips", batch, why)


def _fit_memory(draft: Draft, machine: Hardware) -> None:
    """Split the batches of workers into parts until their estimated memory fits."""
    workers = draft.get("training.num_workers")
    available = machine.gpu_memory_bytes if machine.gpus else (machine.memory_bytes or 0) // workers
    if not available:
        return
    for stage in (1, 2):
        config = draft.recipe().training.stage(stage)
        share, parts = config.batch_clips // config.samples_together // workers, 1
        while (needed := _memory(draft, stage)) > MEMORY_SHARE * available and parts < share:
            parts = min(2 * parts, share)
            why = f"{needed / 1e9:.1f} GB for each worker would be too much; the gradient is the same"
            draft.set(f"training.stage{stage}.accumulation", parts, why)


def _memory(draft: Draft, stage: int) -> int:
    recipe = draft.recipe()
    return plan_of(recipe.model, recipe.training)[stage - 1].memory_bytes
