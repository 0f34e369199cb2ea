"""One shard: a tar of samples, and beside it the index that is written last and so marks the tar as whole.

A sample is `<key>.frames.npy` (uint8 [T, H, W, C]) and `<key>.json`. The index holds the tar's hash and length, and for
every sample its labels and where its frames lie, so that readers get at any clip without reading the tar through.
"""

import hashlib
import io
import json
import math
import re
import tarfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from cluster import storage
from preprocessing.clip import Clip, Source
from preprocessing.plan import FORMAT, ShardPlan, encode

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_OWNER = "vdsm"

Stats = dict[str, Any]
"""The index: schema_version, plan_sha256, shard, split, sha256, size_bytes, clips, samples."""


def write_shard(url: str, plan_sha256: str, shard: ShardPlan, source: Source) -> Stats:
    """Make the shard's clips and store tar and index below the dataset `url`; gives the index."""
    clips = (clip for item in shard.items for clip in source.clips(item))
    data, contents = pack(clips, source)
    head = {"schema_version": FORMAT, "plan_sha256": plan_sha256, "shard": shard.path, "split": shard.split}
    stats = head | contents
    storage.write_bytes(storage.join(url, shard.path), data)
    storage.write_bytes(storage.join(url, shard.stats_path), encode(stats))
    return stats


def finished(url: str, plan_sha256: str, shard: ShardPlan) -> Stats | None:
    """The index of a shard that is there and whole as far as its length tells; None if it is to be written."""
    try:
        stats = json.loads(storage.read_bytes(storage.join(url, shard.stats_path)))
        if stats["plan_sha256"] == plan_sha256 and stats["shard"] == shard.path:
            return stats if storage.size(storage.join(url, shard.path)) == stats["size_bytes"] else None
    except (storage.MissingFile, ValueError, KeyError, TypeError):
        pass
    return None


def pack(clips: Iterable[Clip], source: Source) -> tuple[bytes, Stats]:
    """A tar with fixed metadata, whose bytes depend on the clips alone, and its index."""
    import webdataset

    buffer = io.BytesIO()
    samples: list[Stats] = []
    with webdataset.TarWriter(buffer, encoder=False, compress=False, mtime=0, user=_OWNER, group=_OWNER) as writer:
        for clip in clips:
            check(clip, source)
            frames = encode_frames(clip)
            about = describe(clip)
            writer.write({"__key__": clip.key, "frames.npy": frames, "json": encode(about)})
            shape = list(clip.frames.shape)
            samples.append(
                {"key": clip.key, "shape": shape, "frames_crc32": zlib.crc32(frames), "frames_length": len(frames)}
                | about
            )
    data = buffer.getvalue()
    offsets = member_offsets(data)
    for sample in samples:
        sample["frames_offset"] = offsets[f"{sample['key']}.frames.npy"]
    return data, {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "clips": len(samples),
        "samples": samples,
    }


def describe(clip: Clip) -> dict[str, Any]:
    """What the sample's `.json` says."""
    return {
        "labels": clip.labels,
        "identity": clip.identity,
        "source": clip.source,
        "start_s": clip.start_s,
        "fps": clip.fps,
    }


def encode_frames(clip: Clip) -> bytes:
    """The sample's `.frames.npy`."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(clip.frames), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def check(clip: Clip, source: Source) -> None:
    """ValueError if a source made something that is no clip."""
    if not _KEY.fullmatch(clip.key):
        raise ValueError(f"clip key {clip.key!r}: only letters, digits, _ and - are allowed")
    if clip.frames.dtype != np.uint8 or clip.frames.ndim != 4 or 0 in clip.frames.shape:
        raise ValueError(f"clip {clip.key}: frames are {clip.frames.dtype} {clip.frames.shape}, not uint8 [T, H, W, C]")
    if clip.labels.keys() != source.vocabulary.keys() | source.factors.keys():
        raise ValueError(f"clip {clip.key}: labels {sorted(clip.labels)} are not those of the source")
    for name, names in source.vocabulary.items():
        value = clip.labels[name]
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise ValueError(f"clip {clip.key}: label {name} is {value}; there are {len(names)} names")
    for name, kind in source.factors.items():
        value = clip.labels[name]
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list) != (kind == "frame") or (kind == "frame" and len(values) != len(clip.frames)):
            raise ValueError(f"clip {clip.key}: factor {name} needs one value per {kind}")
        if not all(math.isfinite(one) for one in values):
            raise ValueError(f"clip {clip.key}: factor {name} is not a finite number")


def member_offsets(data: bytes) -> dict[str, int]:
    """Where the content of each member of a tar begins, in bytes."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return {member.name: member.offset_data for member in tar}
