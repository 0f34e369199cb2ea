"""The dataset format: version, file names, and the content of every JSON file.

    manifest.json                 the whole dataset; written last, so it marks the dataset as complete
    plan.json, inputs.jsonl       what the dataset depends on, and its inputs; written first
    rejects.jsonl, preview.html   inputs that could not be used in full, and an overview page
    train/shard-000000.tar        samples: `<key>.frames.npy` (uint8 [T, H, W, C], no pickle) and `<key>.json`
    train/shard-000000.json       the shard's index; written after the tar, so it marks the tar as complete
    train/shard-000000.arrow      format 3: the clips of the index, as columns, in place of the samples in the JSON
    shards.arrow                  format 3: the table of shards, in place of the list in the manifest
    appearance/train/shard-000000.npy   what its clips look like, to find clips that look alike

The typed dicts below are the only declaration of the JSON keys: the type checker holds every use to them, and
`preprocessing.dataset.schema` holds every file that is read to them. A reader needs no key that is `NotRequired`, and
older datasets lack some of these.
"""

import json
from typing import Annotated, Any, NotRequired, TypedDict

from preprocessing.clip import Factors, Label
from preprocessing.dataset.constraints import (
    KEY,
    Addition,
    Count,
    Length,
    Range,
    RelativePath,
    Sha256,
    Text,
)
from preprocessing.dataset.counts import ClipCounts, PixelMoments, Side, SplitStatistics

VERSION = 2
"""Version of the format that is written by default; raise it when shards, their index or the manifest change."""
READABLE_VERSIONS = (1, 2, 3)
"""Versions that `ClipDataset` reads."""
WRITABLE_VERSIONS = (2, 3)
"""Versions that `vdsm shard` writes."""
COLUMNAR = 3
"""The first version whose indexes and table of shards are Arrow files."""

MANIFEST = "manifest.json"
TABLE = "shards.arrow"
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
COLUMNS_SUFFIX = ".arrow"


Key = Annotated[str, KEY]
"""Key of a clip."""


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


class FileHash(TypedDict):
    """A file below the dataset's URL and its SHA-256."""

    path: RelativePath
    sha256: Sha256


class StoredFile(FileHash):
    """A file that is fetched as a whole."""

    size_bytes: Annotated[int, Range(1, 2**63 - 1)]


class IndexHeader(TypedDict):
    """A shard's index without its samples, which is all that format 3 has of it as JSON.

    A shard whose inputs were all rejected has no tar: its size is 0.
    """

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
    columns: NotRequired[Annotated[StoredFile, Addition()]]
    """Format 3: the Arrow file with the samples; lacking in a shard without clips."""


class ShardIndex(IndexHeader):
    """A shard's index."""

    samples: list[Sample]


class IndexEntry(TypedDict):
    """Where an index is, as the manifest lists it."""

    index: RelativePath
    """Path below the dataset's URL."""
    index_sha256: Sha256


class ShardEntry(IndexEntry, PixelMoments):
    """A shard, as the manifest lists it."""

    path: RelativePath
    """Path of the tar below the dataset's URL."""
    split: str
    clips: Count
    frames: NotRequired[Count]
    size_bytes: Annotated[int, Range(1, 2**63 - 1)]
    sha256: Sha256
    columns_sha256: NotRequired[Annotated[Sha256, Addition()]]
    """Format 3: SHA-256 of the Arrow index; see `columns_path`."""
    columns_bytes: NotRequired[Annotated[int, Range(1, 2**63 - 1), Addition()]]
    """Format 3: its length."""


class SplitTotals(SplitStatistics):
    """A split in the manifest."""

    shards: NotRequired[Count]
    clips: NotRequired[Count]
    inputs: NotRequired[Count]
    rejects: NotRequired[Count]
    groups: NotRequired[Count]
    identities: NotRequired[Count]
    size_bytes: NotRequired[Count]


class ShardTableFile(StoredFile):
    """The table of shards."""

    shards: Count
    """Its rows."""


class ManifestHead(TypedDict):
    """`manifest.json` without the shards. Version 1 lacks `factors` and `empty`, among others."""

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
    empty: NotRequired[list[IndexEntry]]
    """Indexes of the shards whose inputs were all rejected."""


class Manifest(ManifestHead):
    """The manifest in memory, and of formats 1 and 2 as a file."""

    shards: list[ShardEntry]
    """In memory a `ShardTable` for format 3, which makes an entry when it is asked for."""
    table: NotRequired[Annotated[ShardTableFile, Addition()]]
    """Format 3: where that table is."""


class TableManifest(ManifestHead):
    """`manifest.json` of format 3."""

    table: ShardTableFile


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


def columns_path(shard: str) -> str:
    """Return the path of a shard's Arrow index: `train/shard-000000.tar` -> `train/shard-000000.arrow`."""
    return shard.removesuffix(SHARD_SUFFIX) + COLUMNS_SUFFIX


def appearance_path(shard: str) -> str:
    """Return the path of a shard's descriptors: `train/shard-000000.tar` -> `appearance/train/shard-000000.npy`."""
    return f"{APPEARANCE}/{shard.removesuffix(SHARD_SUFFIX)}.npy"


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # built once: there may be a million lines


def encode_json(content: Any) -> bytes:
    """Return one line of JSON whose bytes depend only on the content and the order of its keys."""
    return (_ENCODER.encode(content) + "\n").encode()
