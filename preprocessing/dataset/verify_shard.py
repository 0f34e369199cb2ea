"""One shard looked at clip by clip, so that damage is named as exactly as can be."""

import contextlib
import hashlib
import io
import json
import mmap
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.sharding.write_shard import Summary, read_index_bytes, summarize

Member = tuple[str, int, bytes]
"""Name, offset and content of a file in a tar."""


class DamageError(Exception):
    """The first thing that is wrong; the message names the shard and, where there is one, the clip."""


def verify_shard(url: str, shard: dict[str, Any], content: dict[str, Any], decode: float) -> Summary:
    """Compare a shard with its index and with its entry in the manifest `content`; gives the summary of the index.

    Args:
        decode: share of its clips that are decoded.

    Raises:
        DamageError, DamagedDatasetError: it is not as it was made.
    """
    path = shard["path"]
    index = read_index_bytes(url, shard)
    samples = json.loads(index)["samples"]
    with _mapped(url, path) as data:
        # Clip by clip first, since a hash of the whole could not say which one is damaged.
        members = _members(path, data)
        for number, sample in enumerate(samples):
            pair = [next(members, ("nothing", 0, b"")) for _ in range(2)]
            chosen = int((number + 1) * decode) > int(number * decode)
            _verify_sample(path, sample, pair[0], pair[1], content, decode=chosen)
        extra = next(members, None)
        if extra is not None:
            raise DamageError(f"{path}: {extra[0]} follows after the last clip of the index")
        size, sha256 = len(data), hashlib.sha256(data).hexdigest()
    if len(samples) != shard["clips"]:
        raise DamageError(f"{path}: its index has {len(samples)} clips, but the manifest says {shard['clips']}")
    if size != shard["size_bytes"]:
        raise DamageError(f"{path}: it has {size} bytes, but the manifest says {shard['size_bytes']}")
    if sha256 != shard["sha256"]:
        raise DamageError(
            f"{path}: its SHA-256 is not the one in the manifest (the damage is outside of the clips' contents)"
        )
    summary = summarize(index)
    told = (summary.index["shard"], summary.index["split"], summary.index["sha256"], summary.index["clips"])
    if told != (path, shard["split"], sha256, len(samples)):
        raise DamageError(f"{shard['index']}: it is the index of another shard")
    return summary


@contextlib.contextmanager
def _mapped(url: str, path: str) -> Iterator[mmap.mmap]:
    """The bytes of a shard, not all of which need to be in memory."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(storage.join(url, path))
        try:
            if storage.is_s3(url):
                local = Path(folder) / "shard.tar"
                storage.download(storage.join(url, path), local)
            with local.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
        except (FileNotFoundError, MissingFileError):
            raise DamageError(f"{path}: it is missing") from None
        except (OSError, ValueError) as error:
            raise DamageError(f"{path}: it cannot be read ({error})") from None


def _members(path: str, data: mmap.mmap) -> Iterator[Member]:
    """The files in a tar, in order."""
    last = "its beginning"
    try:
        with tarfile.open(fileobj=data, mode="r:") as tar:
            for member in tar:
                yield member.name, member.offset_data, data[member.offset_data : member.offset_data + member.size]
                last = member.name
    except tarfile.TarError as error:
        raise DamageError(f"{path}: the tar breaks off after {last} ({error})") from None


def _verify_sample(
    path: str, sample: dict[str, Any], frames: Member, about: Member, content: dict[str, Any], *, decode: bool
) -> None:
    """DamageError if the two members of a sample are not what the index says of it."""
    key = sample["key"]
    where = f"{path}: clip {key}"
    for member, name in ((frames, f"{key}.frames.npy"), (about, f"{key}.json")):
        if member[0] != name:
            raise DamageError(f"{where}: {name} is missing, {member[0]} is in its place")
    if (frames[1], len(frames[2])) != (sample["frames_offset"], sample["frames_length"]):
        raise DamageError(f"{where}: its frames are not where the index says, or cut short")
    if zlib.crc32(frames[2]) != sample["frames_crc32"]:
        raise DamageError(f"{where}: its frames were changed")
    try:
        described = json.loads(about[2])
    except ValueError:
        raise DamageError(f"{where}: its description is not JSON") from None
    if any(sample.get(name) != value for name, value in described.items()):
        raise DamageError(f"{where}: its description is not the one in the index")
    for name, names in content["vocabulary"].items():
        if not 0 <= sample["labels"].get(name, -1) < len(names):
            raise DamageError(f"{where}: label {name} is not in the vocabulary")
    for name, kind in content["factors"].items():
        values = sample["labels"].get(name)
        if isinstance(values, list) != (kind == "frame") or values is None:
            raise DamageError(f"{where}: factor {name} has no value for each {kind}")
    if decode:
        _decode(where, sample, frames[2])


def _decode(where: str, sample: dict[str, Any], member: bytes) -> None:
    try:
        clip = np.load(io.BytesIO(member), allow_pickle=False)
    except ValueError as error:
        raise DamageError(f"{where}: its frames cannot be decoded ({error})") from None
    if clip.dtype != np.uint8 or list(clip.shape) != sample["shape"]:
        raise DamageError(
            f"{where}: frames are {clip.dtype} {list(clip.shape)}, but the index says uint8 {sample['shape']}"
        )
