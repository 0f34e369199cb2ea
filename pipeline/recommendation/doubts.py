"""What about a dataset makes a good result doubtful, each with its number."""

from pipeline.recommendation.draft import Draft
from pipeline.recommendation.kinds import FAR, FEW_PAIRED, kind_of
from pipeline.recommendation.survey import Survey

SHORT_CLIP = 6
"""Clips with fewer frames hardly show a movement."""
MANY_STILL = 0.1
DISAGREEING = 0.7
"""A pair should show one identity at least this often, if identities are labelled."""
SAME_ACTION = 0.2
"""A pair should show one action at most this much more often than two clips at random."""


def doubts(found: Survey, draft: Draft) -> list[str]:
    """Return one line for each reason to expect little."""
    kind, lines = kind_of(found), []
    if found.clips < kind.few_clips:
        lines.append(
            f"{found.clips:,} training clips are few (at least {kind.few_clips:,} are better); add recordings, or "
            "start from a trained model (--training.start-from)"
        )
    if found.looks < kind.few_looks:
        lines.append(
            f"{found.looks:,} distinct looks are few (at least {kind.few_looks:,} are better): somebody who is not "
            "among them will come out as a blend of those who are"
        )
    if draft.get("training.validation_unit") == "clip":
        lines.append(
            f"validation holds out single clips, because none of {found.looks:,} distinct looks can be spared; its "
            "numbers say little about others"
        )
    lines += _about_pairs(found, draft) + _about_clips(found)
    if not found.test_clips:
        lines.append(
            "the dataset has no test split, so that the model cannot be evaluated on clips that it has not seen"
        )
    return lines


def _about_pairs(found: Survey, draft: Draft) -> list[str]:
    pairing, lines = draft.get("training.stage1.pairing"), []
    if found.videos is not None and found.videos == found.clips:
        lines.append(
            f"each of the {found.videos:,} videos gives a single clip, so that nobody is known to be seen twice; "
            "longer videos, or a shorter `clip_frames` of the source, give more"
        )
    if pairing == "appearance" and found.paired_share < FEW_PAIRED:
        lines.append(
            f"{1 - found.paired_share:.0%} of clips look like no clip of another video; they are paired with their own "
            "video or with themselves, which teaches the static code their action as well; film people more than once"
        )
    if pairing == "appearance" and found.pair_distance > FAR * found.pairs.random_distance:
        lines.append(
            f"pairs are hardly more alike (distance {found.pair_distance:.3f}) than clips at random "
            f"({found.pairs.random_distance:.3f}); look at them in the preview of the dataset"
        )
    same, chance = found.agreement.get("identity", 1.0), found.chance["identity"]
    if pairing == "appearance" and found.labels and chance < same < DISAGREEING:
        lines.append(
            f"by the labels, which are not read, only {same:.0%} of pairs show one identity; consider "
            "training.stage1.pairing: identity"
        )
    action = found.agreement.get("action", 0.0)
    if pairing == "appearance" and action > found.chance.get("action", 1.0) + SAME_ACTION:
        lines.append(
            f"by the labels, which are not read, {action:.0%} of pairs show one action (by chance "
            f"{found.chance['action']:.0%}), so that the static code may learn the action; consider "
            "training.stage1.pairing: identity"
        )
    return lines


def _about_clips(found: Survey) -> list[str]:
    lines = []
    if found.pixels.still_share > MANY_STILL:
        lines.append(
            f"{found.pixels.still_share:.0%} of {found.pixels.clips} sampled clips hardly move; drop them from the "
            "source: they only teach that nothing happens"
        )
    if found.min_frames < SHORT_CLIP:
        lines.append(
            f"the shortest clip has {found.min_frames} frames and all clips are cut to that; shard clips of one "
            "length, long enough to see what happens"
        )
    return lines
