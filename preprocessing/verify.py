"""`vdsm verify`: is a dataset what its manifest says, byte for byte and clip for clip?"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import hashlib
import io
import json
import logging
import sys
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from cluster import command_line, storage
from cluster.errors import UserError
from cluster.settings import Controls
from preprocessing import manifest as manifests
from preprocessing import plan
from preprocessing.config import Section
from preprocessing.dataset import DamagedDataset, read_index, read_manifest

log = logging.getLogger(__name__)


class Damage(Exception):
    """The first thing that is wrong; the message names the shard and, where there is one, the clip."""


class VerifyCommand(Section, Controls):
    """Read every byte of a dataset and compare it with the manifest. Exit code 1 names the first damage."""

    data: str
    """Folder or s3://bucket/prefix of the dataset; `vdsm verify DATA` does as well."""


def main(argv: list[str] | None = None) -> None:
    """The command's entry."""
    command_line.run(_run, argv)


def _run(words: list[str]) -> None:
    if words and not words[0].startswith("-"):
        words = ["--data", *words]
    command = command_line.parse(VerifyCommand, words, prog="vdsm verify")
    content, _ = read_manifest(command.data)
    shards, clips = len(content["shards"]), sum(shard["clips"] for shard in content["shards"])
    if command.dry_run:
        size = sum(shard["size_bytes"] for shard in content["shards"])
        sys.stdout.write(f"{command.data}: would read {clips:,} clips in {shards} shards, {size / 1e6:,.1f} MB\n")
        return
    try:
        verify(command.data)
    except (Damage, DamagedDataset) as damage:
        sys.stderr.write(f"damaged: {' '.join(str(damage).split())}\n")
        raise SystemExit(1) from None
    sys.stdout.write(f"{command.data}: all {clips:,} clips in {shards} shards are as they were made\n")


def verify(url: str) -> None:
    """Re-hash, re-count and decode everything; check shapes, labels, and that no identity is in two splits.

    Raises:
        Damage: the first difference between the dataset and its manifest.
        DamagedDataset: an index is missing or changed.
        UserError: there is no dataset.
    """
    content, _ = read_manifest(url)
    expected = {shard["path"] for shard in content["shards"]} | {shard["index"] for shard in content["shards"]}
    for name in storage.list_files(url):
        if name.startswith(plan.SPLITS) and name not in expected:
            raise Damage(f"{name}: the manifest does not list this file")
    samples: dict[str, list[dict[str, Any]]] = {split: [] for split in content["splits"]}
    for number, shard in enumerate(content["shards"], start=1):
        samples[shard["split"]] += list(verify_shard(url, shard, content))
        log.info("%d/%d %s: %d clips, good", number, len(content["shards"]), shard["path"], shard["clips"])
    for split, totals in content["splits"].items():
        if len(samples[split]) != totals["clips"]:
            raise Damage(f"{split}: {len(samples[split])} clips, but the manifest says {totals['clips']}")
    try:
        manifests.check_disjoint(samples)
        shape = manifests.clip_shape([one for mine in samples.values() for one in mine])
    except UserError as error:
        raise Damage(str(error)) from None
    if shape != content["clip_shape"]:
        raise Damage(f"clips are {shape}, but the manifest says {content['clip_shape']}")


def verify_shard(url: str, shard: dict[str, Any], content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The samples of one shard, each after it was checked; then the shard as a whole."""
    path = shard["path"]
    index = read_index(url, shard)
    try:
        data = storage.read_bytes(storage.join(url, path))
    except storage.MissingFile:
        raise Damage(f"{path}: it is missing") from None
    # Clip by clip first, since a hash of the whole could not say which one is damaged.
    members = read_members(path, data)
    for sample in index:
        frames, about = (next(members, ("nothing", 0, b"")) for _ in range(2))
        verify_sample(path, sample, frames, about, content)
        yield sample
    extra = next(members, None)
    if extra is not None:
        raise Damage(f"{path}: {extra[0]} follows after the last clip of the index")
    if len(index) != shard["clips"]:
        raise Damage(f"{path}: its index has {len(index)} clips, but the manifest says {shard['clips']}")
    if len(data) != shard["size_bytes"]:
        raise Damage(f"{path}: it has {len(data)} bytes, but the manifest says {shard['size_bytes']}")
    if hashlib.sha256(data).hexdigest() != shard["sha256"]:
        raise Damage(
            f"{path}: its SHA-256 is not the one in the manifest (the damage is outside of the clips' contents)"
        )


def read_members(path: str, data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Name, offset and content of each member of a tar, in order."""
    last = "its beginning"
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                yield member.name, member.offset_data, data[member.offset_data : member.offset_data + member.size]
                last = member.name
    except tarfile.TarError as error:
        raise Damage(f"{path}: the tar breaks off after {last} ({error})") from None


def verify_sample(
    path: str,
    sample: dict[str, Any],
    frames: tuple[str, int, bytes],
    about: tuple[str, int, bytes],
    content: dict[str, Any],
) -> None:
    """Damage if the two members of a sample, each (name, offset, content), are not what the index says of it."""
    key = sample["key"]
    where = f"{path}: clip {key}"
    for member, name in ((frames, f"{key}.frames.npy"), (about, f"{key}.json")):
        if member[0] != name:
            raise Damage(f"{where}: {name} is missing, {member[0]} is in its place")
    if (frames[1], len(frames[2])) != (sample["frames_offset"], sample["frames_length"]):
        raise Damage(f"{where}: its frames are not where the index says, or cut short")
    if zlib.crc32(frames[2]) != sample["frames_crc32"]:
        raise Damage(f"{where}: its frames were changed")
    try:
        clip = np.load(io.BytesIO(frames[2]), allow_pickle=False)
    except ValueError as error:
        raise Damage(f"{where}: its frames cannot be decoded ({error})") from None
    if clip.dtype != np.uint8 or list(clip.shape) != sample["shape"]:
        raise Damage(f"{where}: frames are {clip.dtype} {list(clip.shape)}, but the index says uint8 {sample['shape']}")
    try:
        described = json.loads(about[2])
    except ValueError:
        raise Damage(f"{where}: its description is not JSON") from None
    if any(sample.get(name) != value for name, value in described.items()):
        raise Damage(f"{where}: its description is not the one in the index")
    for name, names in content["vocabulary"].items():
        if not 0 <= sample["labels"].get(name, -1) < len(names):
            raise Damage(f"{where}: label {name} is not in the vocabulary")


if __name__ == "__main__":
    main()
