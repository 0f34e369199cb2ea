"""The dataset format: version, file names, and the content of every JSON file.

    manifest.json                 the whole dataset; written last, so it marks the dataset as complete
    plan.json, inputs.jsonl       what the dataset depends on, and its inputs; written first
    rejects.jsonl, preview.html   inputs that could not be used in full, and an overview page
    train/shard-000000.tar        samples: `<key>.frames.npy` (uint8 [T, H, W, C], no pickle) and `<key>.json`
    train/shard-000000.json       the shard's index; written after the tar, so it marks the tar as complete

The typed dicts below are the only declaration of the JSON keys; the type checker holds every use to them.
"""

import json
from typing import Any, TypedDict

from preprocessing.clip import Factors, Label

VERSION = 2
"""Version of the format; raise it when shards, their index or the manifest change."""
READABLE_VERSIONS = (1, 2)
"""Versions that `ClipDataset` reads."""

MANIFEST = "manifest.json"
PLAN = "plan.json"
INPUTS = "inputs.jsonl"
REJECTS = "rejects.jsonl"
PREVIEW = "preview.html"

FRAMES_SUFFIX = ".frames.npy"
"""Ends the name of the tar member that holds a clip's frames."""
DESCRIPTION_SUFFIX = ".json"
"""Ends the name of the tar member that holds a clip's labels and provenance."""
SHARD_SUFFIX = ".tar"
INDEX_SUFFIX = ".json"


class Description(TypedDict):
    """`<key>.json` in a shard."""

    labels: dict[str, Label]
    identity: str
    source: str
    start_s: float
    fps: float


class Sample(Description):
    """One clip in an index: its description, and the byte range of its frames."""

    key: str
    shape: list[int]
    """[T, H, W, C]."""
    frames_crc32: int
    """CRC-32 of the `.frames.npy` member."""
    frames_length: int
    """Length of that member, in bytes."""
    frames_offset: int
    """Offset of its content in the tar, in bytes."""


class PixelSums(TypedDict):
    """Exact sums over pixels, from which mean and standard deviation follow."""

    count: int
    """Pixels per channel."""
    sum: list[int]
    """Sum of the values, per channel."""
    sum_squares: list[int]
    """Sum of the squared values, per channel."""


class ClipCounts(TypedDict):
    """Counts over the clips of one shard."""

    frames: int
    seconds: float
    lengths: dict[str, int]
    """Frames per clip -> number of clips."""
    sizes: list[list[int]]
    """The distinct [H, W, C]."""
    labels: dict[str, dict[str, int]]
    """Label -> index into its vocabulary -> number of clips."""
    factors: dict[str, list[float]]
    """Continuous factor -> minimum, maximum, sum, number of values."""
    pixels: PixelSums


class RejectRecord(TypedDict):
    """A line of `rejects.jsonl`: an input that is unusable, or usable only up to some point."""

    path: str
    reason: str
    where: str
    clips: int
    split: str


class IndexHeader(TypedDict):
    """A shard's index without its samples. A shard whose inputs were all rejected has no tar: its size is 0."""

    schema_version: int
    plan_sha256: str
    shard: str
    split: str
    sha256: str
    """SHA-256 of the tar."""
    size_bytes: int
    """Length of the tar, in bytes."""
    clips: int
    statistics: ClipCounts
    rejects: list[RejectRecord]


class ShardIndex(IndexHeader):
    """A shard's index."""

    samples: list[Sample]


class IndexEntry(TypedDict):
    """Where an index is, as the manifest lists it."""

    index: str
    """Path below the dataset's URL."""
    index_sha256: str


class PixelMoments(TypedDict):
    """Mean and standard deviation of the pixels per channel, in 0..255."""

    pixel_mean: list[float]
    pixel_std: list[float]


class ShardEntry(IndexEntry, PixelMoments):
    """A shard, as the manifest lists it."""

    path: str
    """Path of the tar below the dataset's URL."""
    split: str
    clips: int
    frames: int
    size_bytes: int
    sha256: str


class FactorRange(TypedDict):
    """The values of a continuous factor."""

    min: float
    max: float
    mean: float


class SplitStatistics(PixelMoments):
    """Counts over the clips of a split."""

    frames: int
    seconds: float
    clip_lengths: dict[str, int]
    """Frames per clip -> number of clips."""
    label_counts: dict[str, list[int]]
    """Label -> number of clips per value of its vocabulary."""
    factors: dict[str, FactorRange]


class SplitTotals(SplitStatistics):
    """A split in the manifest."""

    shards: int
    clips: int
    inputs: int
    rejects: int
    groups: int
    identities: int
    size_bytes: int


class FileHash(TypedDict):
    """A file below the dataset's URL and its SHA-256."""

    path: str
    sha256: str


class Manifest(TypedDict):
    """`manifest.json`. Version 1 lacks `factors` and `empty`, among others."""

    schema_version: int
    plan_sha256: str
    configuration: dict[str, Any]
    """The settings that decide the bytes; see `StoredPlan`."""
    source_sha256: str
    software: dict[str, str]
    """Versions of Python and of the libraries that decode."""
    vocabulary: dict[str, list[str]]
    """Label -> names of its values."""
    factors: Factors
    clip_shape: list[int | None]
    """[T, H, W, C]; T is None where clips differ in length."""
    splits: dict[str, SplitTotals]
    disjoint: dict[str, int]
    """Groups and identities found in two splits: none."""
    rejects: FileHash
    shards: list[ShardEntry]
    empty: list[IndexEntry]
    """Indexes of the shards whose inputs were all rejected."""


class StoredPlan(TypedDict):
    """`plan.json`: everything the bytes of a dataset depend on, with a hash in place of the long list of inputs."""

    schema_version: int
    configuration: dict[str, Any]
    """`seed`, `source` and `shards`: the settings that decide the bytes."""
    source_sha256: str
    """SHA-256 of what all inputs share."""
    shards: int
    inputs: int
    inputs_sha256: str
    """SHA-256 of the lines of `inputs.jsonl` without their last field."""


InputLine = list[Any]
"""A line of `inputs.jsonl`: key, path, split, group, estimated bytes, detail, version."""


def shard_path(split: str, number: int) -> str:
    """Return the path of a shard below the dataset's URL: `train/shard-000000.tar`."""
    return f"{split}/shard-{number:06d}{SHARD_SUFFIX}"


def index_path(shard: str) -> str:
    """Return the path of a shard's index: `train/shard-000000.tar` -> `train/shard-000000.json`."""
    return shard.removesuffix(SHARD_SUFFIX) + INDEX_SUFFIX


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # built once: there may be a million lines


def encode_json(content: Any) -> bytes:
    """Return one line of JSON whose bytes depend only on the content and the order of its keys."""
    return (_ENCODER.encode(content) + "\n").encode()
