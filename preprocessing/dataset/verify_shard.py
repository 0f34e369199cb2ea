"""Verification of one shard, clip by clip, so that an error names the damaged clip."""

import contextlib
import hashlib
import io
import mmap
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cluster.errors import one_line
from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.errors import MissingFileError
from cluster.storage.scratch import scratch_folder
from preprocessing.dataset import schema
from preprocessing.dataset.digests import digests
from preprocessing.dataset.errors import HASH_MISMATCH
from preprocessing.dataset.format import (
    DESCRIPTION_SUFFIX,
    FRAMES_SUFFIX,
    Appearance,
    ManifestHead,
    Sample,
    ShardEntry,
    ShardIndex,
    appearance_path,
    columns_path,
)
from preprocessing.dataset.index import ShardSummary, list_samples, read_columns, read_index, summarize
from preprocessing.dataset.statistics import check_counts
from preprocessing.npy_header import read_header


class VerificationError(Exception):
    """The first difference between a dataset and its manifest; the message names the shard and, if known, the clip."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class _Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    content: bytes


_NO_MEMBER = _Member("nothing", 0, b"")


def verify_shard(url: str, shard: ShardEntry, manifest: ManifestHead, decode: float) -> ShardSummary:
    """Compare a shard with its index and its entry in the manifest, and return the summary of the index.

    Args:
        url: the dataset.
        shard: the entry of the shard.
        manifest: the manifest, with or without the shards, for the labels that every clip must have.
        decode: share of the clips whose frames are decoded.

    Raises:
        VerificationError: the shard differs from its index or from the manifest.
        DamagedDatasetError: the index is missing or was changed.
    """
    path = shard["path"]
    index = read_index(url, shard, complete=True)
    samples = index["samples"]
    if "columns_sha256" in shard:
        _verify_columns(url, shard, index, manifest)
    try:
        check_counts(index["statistics"], manifest["vocabulary"])
    except schema.SchemaError as error:
        raise VerificationError(f"{shard['index']}: statistics{error}") from None
    with _map(url, path) as data:
        # Clip by clip first: a hash of all bytes could not tell which clip is damaged.
        members = _members(path, data)
        for number, sample in enumerate(samples):
            frames, description = next(members, _NO_MEMBER), next(members, _NO_MEMBER)
            chosen = int((number + 1) * decode) > int(number * decode)
            _verify_sample(path, sample, frames, description, manifest, decode=chosen)
        extra = next(members, None)
        if extra is not None:
            raise VerificationError(f"{path}: {extra.name} follows the last clip of the index")
        size, sha256 = len(data), hashlib.sha256(data).hexdigest()
    if len(samples) != shard["clips"]:
        raise VerificationError(f"{path}: its index has {len(samples)} clips, but the manifest says {shard['clips']}")
    if size != shard["size_bytes"]:
        raise VerificationError(f"{path}: it has {size} bytes, but the manifest says {shard['size_bytes']}")
    if sha256 != shard["sha256"]:
        raise VerificationError(f"{path}: {HASH_MISMATCH} (the damage is outside the clips)")
    if (index["shard"], index["split"], index["sha256"], index["clips"]) != (
        path,
        shard["split"],
        sha256,
        len(samples),
    ):
        raise VerificationError(f"{shard['index']}: it is the index of another shard")
    if "appearance" in index:
        _verify_appearance(url, path, index["appearance"], len(samples))
    elif storage.exists(storage.join(url, appearance_path(path))):  # datasets of earlier versions lack both
        raise VerificationError(f"{appearance_path(path)}: the index of its shard does not name this file")
    return summarize(index, shard["index_sha256"])


def _verify_columns(url: str, shard: ShardEntry, index: ShardIndex, manifest: ManifestHead) -> None:
    """Raise VerificationError if the Arrow index of a shard and its JSON index contradict each other, or the names."""
    path = columns_path(shard["path"])
    file = index.get("columns")
    if file is not None and (file["path"], file["sha256"]) != (path, shard["columns_sha256"]):
        raise VerificationError(f"{shard['index']}: it names another Arrow index than the table of shards")
    found = read_columns(url, shard, manifest)
    for name in ("key", "identity", "source"):
        names = [sample[name] for sample in index["samples"]]
        if not np.array_equal(found.hashes(name), digests(names)):
            raise VerificationError(f"{path}: its hashes of {name} are not those of the names")
    if file is None and list_samples(url, shard) != index["samples"]:  # written by an upgrade
        raise VerificationError(f"{path}: its clips are not those of {shard['index']}")


@contextlib.contextmanager
def _map(url: str, path: str) -> Iterator[mmap.mmap]:
    """Map the bytes of a shard, which need not fit into memory."""
    with scratch_folder() as folder:
        local = Path(storage.join(url, path))
        try:
            if storage.is_remote(url):
                local = folder / "shard"
                storage.download(storage.join(url, path), local)
            with storage.open_file(local) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
        except (FileNotFoundError, MissingFileError):
            raise VerificationError(f"{path}: it is missing") from None
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and os_errors.cause_of(error) is not None:
                os_errors.explain(error.filename or local, error)
            raise VerificationError(f"{path}: it cannot be read ({error})") from None


def _members(path: str, data: mmap.mmap) -> Iterator[_Member]:
    """Yield the files of a tar, in order."""
    last = "its beginning"
    try:
        with tarfile.open(fileobj=data, mode="r:") as tar:
            for member in tar:
                begin = member.offset_data
                yield _Member(member.name, begin, data[begin : begin + member.size])
                last = member.name
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the last two from numbers in its headers
        raise VerificationError(f"{path}: the tar ends unexpectedly after {last} ({error})") from None


def _verify_sample(
    path: str, sample: Sample, frames: _Member, description: _Member, manifest: ManifestHead, *, decode: bool
) -> None:
    """Raise VerificationError if the two members of a sample differ from the index."""
    key = sample["key"]
    clip = f"{path}: clip {key}"
    for member, name in ((frames, key + FRAMES_SUFFIX), (description, key + DESCRIPTION_SUFFIX)):
        if member.name != name:
            raise VerificationError(f"{clip}: {name} is missing; found {member.name} in its place")
    if (frames.offset, len(frames.content)) != (sample["frames_offset"], sample["frames_length"]):
        raise VerificationError(f"{clip}: its frames are at another offset than the index says, or cut short")
    if zlib.crc32(frames.content) != sample["frames_crc32"]:
        raise VerificationError(f"{clip}: its frames were changed")
    try:
        described = schema.parse(description.content, dict)
    except schema.SchemaError:
        raise VerificationError(f"{clip}: its description is not JSON") from None
    if any(sample.get(name) != value for name, value in described.items()):
        raise VerificationError(f"{clip}: its description differs from the index")
    for label, names in manifest["vocabulary"].items():
        value = sample["labels"].get(label, -1)
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise VerificationError(f"{clip}: label {label} is not in the vocabulary")
    for factor, kind in manifest["factors"].items():
        values = sample["labels"].get(factor)
        if isinstance(values, list) != (kind == "frame") or values is None:
            raise VerificationError(f"{clip}: factor {factor} lacks a value for each {kind}")
    if decode:
        _verify_frames(clip, sample, frames.content)


def _verify_appearance(url: str, shard: str, entry: Appearance, clips: int) -> None:
    """Raise VerificationError if the descriptors of a shard's clips are not those that its index names."""
    path = entry["path"]
    if path != appearance_path(shard):
        raise VerificationError(f"{path}: it holds the descriptors of another shard than {shard}, whose index names it")
    try:
        data = storage.read_bytes(storage.join(url, path))
    except MissingFileError:
        raise VerificationError(f"{path}: it is missing") from None
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise VerificationError(f"{path}: its SHA-256 does not match the index of its shard")
    try:
        header = read_header(io.BytesIO(data))
    except ValueError as error:
        raise VerificationError(f"{path}: it is not a .npy ({error})") from None
    if len(header.shape) != 2 or header.shape[0] != clips or header.dtype != np.dtype("<i2"):
        raise VerificationError(
            f"{path}: descriptors are {header.dtype} {list(header.shape)}, but they must be int16, a row for each of "
            f"{clips} clips"
        )
    if header.offset + header.values_bytes != len(data):
        raise VerificationError(f"{path}: it has {len(data)} bytes, not those of {list(header.shape)} values")


def _verify_frames(clip: str, sample: Sample, member: bytes) -> None:
    try:
        header = read_header(io.BytesIO(member))
        if header.dtype == np.uint8 and list(header.shape) == sample["shape"]:  # before memory is taken for them
            np.load(io.BytesIO(member), allow_pickle=False)
    except ValueError as error:
        raise VerificationError(f"{clip}: its frames cannot be decoded ({error})") from None
    if header.dtype != np.uint8 or list(header.shape) != sample["shape"]:
        raise VerificationError(
            f"{clip}: frames are {header.dtype} {list(header.shape)}, but the index says uint8 {sample['shape']}"
        )
    if header.offset + header.values_bytes != len(member):
        raise VerificationError(f"{clip}: its frames have {len(member)} bytes, not those of {sample['shape']} values")
