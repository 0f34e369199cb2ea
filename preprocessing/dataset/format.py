"""The dataset format: version, file names, and the content of every JSON file.

    manifest.json                 the whole dataset; written last, so it marks the dataset as complete
    plan.json, inputs.jsonl       what the dataset depends on, and its inputs; written first
    rejects.jsonl, preview.html   inputs that could not be used in full, and an overview page
    train/shard-000000.tar        samples: `<key>.frames.npy` (uint8 [T, H, W, C], no pickle) and `<key>.json`
    train/shard-000000.json       the shard's index; written after the tar, so it marks the tar as complete
    appearance/train/shard-000000.npy   what its clips look like, to find clips that look alike

The typed dicts below are the only declaration of the JSON keys: the type checker holds every use to them, and
`preprocessing.dataset.schema` holds every file that is read to them. A reader needs no key that is `NotRequired`, and
older datasets lack some of these.
"""

import json
from typing import Annotated, Any, NotRequired, TypedDict

from preprocessing.clip import Factors, Label
from preprocessing.dataset.constraints import (
    Addition,
    Count,
    DecimalKey,
    Form,
    Length,
    Range,
    RelativePath,
    Sha256,
    Text,
)

VERSION = 2
"""Version of the format; raise it when shards, their index or the manifest change."""
READABLE_VERSIONS = (1, 2)
"""Versions that `ClipDataset` reads."""

MANIFEST = "manifest.json"
PLAN = "plan.json"
INPUTS = "inputs.jsonl"
REJECTS = "rejects.jsonl"
PREVIEW = "preview.html"
APPEARANCE = "appearance"

FRAMES_SUFFIX = ".frames.npy"
"""Ends the name of the tar member that holds a clip's frames."""
DESCRIPTION_SUFFIX = ".json"
"""Ends the name of the tar member that holds a clip's labels and provenance."""
SHARD_SUFFIX = ".tar"
INDEX_SUFFIX = ".json"


Key = Annotated[str, Form(r"[A-Za-z0-9_-]{1,1000}", "letters, digits, _ and - only")]
"""Key of a clip."""
Side = Annotated[int, Range(1, 2**31 - 1)]
"""Length of an axis of an array."""


class Description(TypedDict):
    """`<key>.json` in a shard."""

    labels: dict[Text, Label]
    identity: Text
    source: str
    start_s: float
    fps: float


class Sample(Description):
    """One clip in an index: its description, and the byte range of its frames."""

    key: Key
    shape: Annotated[list[Side], Length(4)]
    """[T, H, W, C]."""
    frames_crc32: Annotated[int, Range(0, 2**32 - 1)]
    """CRC-32 of the `.frames.npy` member."""
    frames_length: Count
    """Length of that member, in bytes."""
    frames_offset: Count
    """Offset of its content in the tar, in bytes."""


class PixelSums(TypedDict):
    """Exact sums over pixels, from which mean and standard deviation follow."""

    count: Count
    """Pixels per channel."""
    sum: list[Count]
    """Sum of the values, per channel."""
    sum_squares: list[Count]
    """Sum of the squared values, per channel."""


class ClipCounts(TypedDict):
    """Counts over the clips of one shard."""

    frames: Count
    seconds: float
    lengths: dict[DecimalKey, Count]
    """Frames per clip -> number of clips."""
    sizes: list[Annotated[list[Side], Length(3)]]
    """The distinct [H, W, C]."""
    labels: dict[str, dict[DecimalKey, Count]]
    """Label -> index into its vocabulary -> number of clips."""
    factors: dict[str, Annotated[list[float], Length(4)]]
    """Continuous factor -> minimum, maximum, sum, number of values."""
    pixels: PixelSums


class RejectRecord(TypedDict):
    """A line of `rejects.jsonl`: an input that is unusable, or usable only up to some point."""

    path: str
    reason: str
    where: str
    clips: Count
    split: str


class Appearance(TypedDict):
    """A .npy with a descriptor of each clip of a shard; see `preprocessing.appearance.descriptors`."""

    name: Text
    version: Count
    path: RelativePath
    """Path below the dataset's URL."""
    sha256: Sha256


class IndexHeader(TypedDict):
    """A shard's index without its samples. A shard whose inputs were all rejected has no tar: its size is 0."""

    schema_version: NotRequired[int]
    plan_sha256: NotRequired[str]
    shard: RelativePath
    split: str
    sha256: Sha256
    """SHA-256 of the tar."""
    size_bytes: Count
    """Length of the tar, in bytes."""
    clips: Count
    statistics: NotRequired[ClipCounts]
    rejects: NotRequired[list[RejectRecord]]
    appearance: NotRequired[Annotated[Appearance, Addition()]]
    """Lacking in a shard without clips, and in datasets of earlier versions, for which it is computed."""


class ShardIndex(IndexHeader):
    """A shard's index."""

    samples: list[Sample]


class IndexEntry(TypedDict):
    """Where an index is, as the manifest lists it."""

    index: RelativePath
    """Path below the dataset's URL."""
    index_sha256: Sha256


class PixelMoments(TypedDict):
    """Mean and standard deviation of the pixels per channel, in 0..255."""

    pixel_mean: NotRequired[list[float]]
    pixel_std: NotRequired[list[float]]


class ShardEntry(IndexEntry, PixelMoments):
    """A shard, as the manifest lists it."""

    path: RelativePath
    """Path of the tar below the dataset's URL."""
    split: str
    clips: Count
    frames: NotRequired[Count]
    size_bytes: Annotated[int, Range(1, 2**63 - 1)]
    sha256: Sha256


class FactorRange(TypedDict):
    """The values of a continuous factor."""

    min: float
    max: float
    mean: float


class SplitStatistics(PixelMoments):
    """Counts over the clips of a split."""

    frames: NotRequired[Count]
    seconds: NotRequired[float]
    clip_lengths: NotRequired[dict[DecimalKey, Count]]
    """Frames per clip -> number of clips."""
    label_counts: NotRequired[dict[str, list[Count]]]
    """Label -> number of clips per value of its vocabulary."""
    factors: NotRequired[dict[str, FactorRange]]


class SplitTotals(SplitStatistics):
    """A split in the manifest."""

    shards: NotRequired[Count]
    clips: NotRequired[Count]
    inputs: NotRequired[Count]
    rejects: NotRequired[Count]
    groups: NotRequired[Count]
    identities: NotRequired[Count]
    size_bytes: NotRequired[Count]


class FileHash(TypedDict):
    """A file below the dataset's URL and its SHA-256."""

    path: RelativePath
    sha256: Sha256


class Manifest(TypedDict):
    """`manifest.json`. Version 1 lacks `factors` and `empty`, among others."""

    schema_version: int
    plan_sha256: NotRequired[Sha256]
    configuration: NotRequired[dict[str, Any]]
    """The settings that decide the bytes; see `StoredPlan`."""
    source_sha256: NotRequired[Sha256]
    software: NotRequired[dict[str, str]]
    """Versions of Python and of the libraries that decode."""
    vocabulary: dict[Text, list[Text]]
    """Label -> names of its values."""
    factors: NotRequired[Factors]
    clip_shape: NotRequired[Annotated[list[int | None], Length(4)]]
    """[T, H, W, C]; T is None where clips differ in length."""
    splits: dict[str, SplitTotals]
    disjoint: NotRequired[dict[str, Count]]
    """Groups and identities found in two splits: none."""
    rejects: NotRequired[FileHash]
    shards: list[ShardEntry]
    empty: NotRequired[list[IndexEntry]]
    """Indexes of the shards whose inputs were all rejected."""


class StoredPlan(TypedDict):
    """`plan.json`: everything the bytes of a dataset depend on, with a hash in place of the long list of inputs."""

    schema_version: int
    configuration: dict[str, Any]
    """`seed`, `source` and `shards`: the settings that decide the bytes."""
    source_sha256: Sha256
    """SHA-256 of what all inputs share."""
    shards: Count
    inputs: Count
    inputs_sha256: Sha256
    """SHA-256 of the lines of `inputs.jsonl` without their last field."""


InputLine = list[Any]
"""A line of `inputs.jsonl`: key, path, split, group, estimated bytes, detail, version."""


def shard_path(split: str, number: int) -> str:
    """Return the path of a shard below the dataset's URL: `train/shard-000000.tar`."""
    return f"{split}/shard-{number:06d}{SHARD_SUFFIX}"


def index_path(shard: str) -> str:
    """Return the path of a shard's index: `train/shard-000000.tar` -> `train/shard-000000.json`."""
    return shard.removesuffix(SHARD_SUFFIX) + INDEX_SUFFIX


def appearance_path(shard: str) -> str:
    """Return the path of a shard's descriptors: `train/shard-000000.tar` -> `appearance/train/shard-000000.npy`."""
    return f"{APPEARANCE}/{shard.removesuffix(SHARD_SUFFIX)}.npy"


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # built once: there may be a million lines


def encode_json(content: Any) -> bytes:
    """Return one line of JSON whose bytes depend only on the content and the order of its keys."""
    return (_ENCODER.encode(content) + "\n").encode()
