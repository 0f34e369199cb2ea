"""What a dataset is like, as far as a recipe depends on it: counts, lengths, colour, motion, and who looks alike.

Only the pixels, sources and times of the clips decide. Labels are counted, to report how well pairs agree with them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preprocessing.appearance.agreement import agreement
from preprocessing.appearance.descriptors import Name
from preprocessing.appearance.mining import MiningSettings
from preprocessing.appearance.pairs import MinedPairs, Video
from preprocessing.appearance.search import find_pairs
from preprocessing.dataset.reader import ClipDataset
from preprocessing.spread import evenly_spread
from vdsm.evaluation.identities import identity_indices

SAMPLED_CLIPS = 128
SAMPLED_SHARDS = 8
"""Shards that they are spread over, each of which is downloaded if it is in S3."""
MOVED = 16
"""A pixel moves from one frame to the next if a channel changes by more than this, of 255."""
STILL = 0.002
"""A clip is still if a smaller share of its pixels moves: about eight pixels of 64x64."""
VIDEO_NEIGHBOURS = 4
"""Neighbouring videos of a video among which pairs are looked for: with more than the videos of one person, pairs show
two people."""
GREY = 2.0
"""Colour frames are grey if the channels of a pixel differ by less than this on average, of 255."""


class PixelSurvey(NamedTuple):
    """What a sample of clips looks like."""

    clips: int
    """Number of clips in the sample."""
    flat_share: float
    """Share of pixels that equal their right neighbour, median over clips: high for drawings, low for photographs."""
    colourfulness: float
    """Mean difference between the largest and the smallest channel of a pixel, of 255, median over clips."""
    moving_share: float
    """Share of pixels that move from one frame to the next, median over clips."""
    still_share: float
    """Share of clips that are still."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A dataset; all counts are those of the training split."""

    clips: int
    test_clips: int
    identities: int
    labels: tuple[str, ...]
    """Names of the labels."""
    videos: int | None
    """Number of videos that the clips are windows of; None if sources are no videos."""
    video_s: float
    """Median time that the clips of a video cover, in seconds."""
    min_frames: int
    max_frames: int
    fps: float
    """Median of the clips."""
    frame_shape: tuple[int, int, int]
    """[H, W, C]"""
    pixels: PixelSurvey
    descriptor: Name
    """What clips were compared by: patterns if the frames are grey, colours otherwise."""
    neighbours: int
    """Number of neighbours of a clip, or of its video, among which its pairs were looked for."""
    pairs: MinedPairs
    """Clips that look alike by the descriptor."""
    looks: int
    """Number of groups of clips that are linked because they look alike or are of one video."""
    paired_share: float
    """Share of clips that look like a clip of another video."""
    pair_distance: float
    """Median cosine distance of these pairs; 0 if there are none."""
    agreement: Mapping[str, float]
    """Share of all pairs with the same identity, and with the same value of each label."""
    chance: Mapping[str, float]
    """The same for two clips at random."""

    @property
    def is_grey(self) -> bool:
        """Return whether the frames hold no colour, whatever the number of channels."""
        return _is_grey(self.frame_shape, self.pixels)


def survey(clips: ClipDataset, test_clips: int) -> Survey:
    """Look at the training split of a dataset. The result depends on the dataset alone."""
    video = Video.of(clips)
    pixels = _pixels(clips)
    descriptor: Name = "texture" if _is_grey(clips.frame_shape, pixels) else "colour"
    neighbours = VIDEO_NEIGHBOURS if video.most_windows() > 1 else MiningSettings.neighbours
    settings = MiningSettings(neighbours=neighbours, threads=len(os.sched_getaffinity(0)))
    pairs = find_pairs(clips, descriptor, settings)
    columns = {"identity": identity_indices(clips.identities), **clips.labels}
    return Survey(
        clips=len(clips),
        test_clips=test_clips,
        identities=len(set(clips.identities)),
        labels=tuple(clips.labels),
        videos=len(set(clips.sources)) if video.are_videos else None,
        video_s=_video_seconds(clips, video),
        min_frames=min(clips.clip_frames),
        max_frames=max(clips.clip_frames),
        fps=float(np.median(clips.fps)),
        frame_shape=clips.frame_shape,
        pixels=pixels,
        descriptor=descriptor,
        neighbours=neighbours,
        pairs=pairs,
        looks=len(np.unique(pairs.groups(video))),
        paired_share=_paired_share(pairs, video),
        pair_distance=_pair_distance(pairs, video),
        agreement=agreement(pairs, clips.identities, clips.labels),
        chance={name: _chance(values) for name, values in columns.items()},
    )


def _is_grey(frame_shape: tuple[int, int, int], pixels: PixelSurvey) -> bool:
    return frame_shape[2] == 1 or pixels.colourfulness < GREY


def _across(pairs: MinedPairs, video: Video) -> NDArray[np.bool_]:
    """Return which pairs are of two videos."""
    return ~video.same(pairs.firsts, pairs.partners)


def _paired_share(pairs: MinedPairs, video: Video) -> float:
    """Return the share of clips that have a pair in another video."""
    return len(np.unique(pairs.firsts[_across(pairs, video)])) / len(pairs)


def _pair_distance(pairs: MinedPairs, video: Video) -> float:
    """Return the median distance of these pairs; 0 if there are none."""
    distances = pairs.distances[_across(pairs, video)]
    return float(np.median(distances)) if len(distances) else 0.0


def _pixels(clips: ClipDataset) -> PixelSurvey:
    shards = np.asarray(clips.clip_shards)
    present = np.unique(shards)
    candidates = np.flatnonzero(np.isin(shards, present[evenly_spread(len(present), SAMPLED_SHARDS)]))
    rows = []
    for clip in candidates[evenly_spread(len(candidates), SAMPLED_CLIPS)].tolist():
        frames = clips.frames(clip).astype(np.int16)
        flat = (frames[:, :, 1:] == frames[:, :, :-1]).all(axis=-1).mean()
        colour = (frames.max(axis=-1) - frames.min(axis=-1)).mean()
        moving = (np.abs(np.diff(frames, axis=0)).max(axis=-1) > MOVED).mean() if len(frames) > 1 else 0.0
        rows.append((flat, colour, moving))
    flats, colours, moves = np.array(rows).T
    flat, colour, moving = (float(np.median(column)) for column in (flats, colours, moves))
    return PixelSurvey(len(rows), flat, colour, moving, float((moves < STILL).mean()))


def _video_seconds(clips: ClipDataset, video: Video) -> float:
    if not video.are_videos:
        return 0.0
    ends = clips.starts_s + np.asarray(clips.clip_frames) / clips.fps
    first, last = np.full(video.sources.max() + 1, np.inf), np.zeros(video.sources.max() + 1)
    np.minimum.at(first, video.sources, clips.starts_s)
    np.maximum.at(last, video.sources, ends)
    return float(np.median(last - first))


def _chance(values: NDArray[np.int64]) -> float:
    """Return the probability that two different clips have the same value."""
    counts = np.bincount(values)
    return float((counts * (counts - 1)).sum() / max(len(values) * (len(values) - 1), 1))
