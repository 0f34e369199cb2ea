"""Verification of a dataset against its manifest: every byte, every clip, the totals, and the split of groups.

It only reads and lists, so read-only credentials suffice. Shards are verified one by one, in little memory.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.clip import SPLITS
from preprocessing.dataset import schema
from preprocessing.dataset.disjoint import check_disjoint, check_groups
from preprocessing.dataset.errors import HASH_MISMATCH, DamagedDatasetError, damaged_file
from preprocessing.dataset.format import (
    APPEARANCE,
    INPUTS,
    MANIFEST,
    PLAN,
    REJECTS,
    Manifest,
    ManifestHead,
    ShardEntry,
    StoredPlan,
    TableManifest,
    appearance_path,
    columns_path,
    encode_json,
)
from preprocessing.dataset.index import ShardSummary, read_index, summarize
from preprocessing.dataset.inputs import read_inputs
from preprocessing.dataset.manifest import read_manifest
from preprocessing.dataset.statistics import clip_shape, total
from preprocessing.dataset.verify_shard import VerificationError, verify_shard

VerifyShards = Callable[[str, Sequence[ShardEntry], ManifestHead, float], Iterator[tuple[ShardEntry, ShardSummary]]]
"""Takes the dataset, its shards, the manifest and the share of the clips whose frames are decoded."""


def verify_one_by_one(
    url: str, shards: Sequence[ShardEntry], head: ManifestHead, decode: float
) -> Iterator[tuple[ShardEntry, ShardSummary]]:
    """Verify each shard, and yield it with the summary of its index."""
    return ((shard, verify_shard(url, shard, head, decode)) for shard in shards)


def verify_dataset(
    url: str,
    decode: float = 1.0,
    *,
    on_verified: Callable[[int], None] | None = None,
    verify_shards: VerifyShards = verify_one_by_one,
) -> Manifest:
    """Verify a dataset and return its manifest.

    Hashes and counts are compared, shapes and labels checked, and no group or identity may be in two splits.

    Args:
        url: folder or s3:// prefix of the dataset.
        decode: share of the clips whose frames are decoded.
        on_verified: called with the number of clips of each verified shard.
        verify_shards: verifies shards in any order.

    Raises:
        VerificationError: the first difference between the dataset and its manifest that was found.
        DamagedDatasetError: an index is missing or was changed.
        UserError: there is no dataset, or its format is too old to be verified.
    """
    manifest, _ = read_manifest(url)
    if not isinstance(manifest.get("empty"), list):
        raise UserError(f"{url} has an older format, which can be read but not verified; shard the data again")
    try:
        schema.check(manifest, Manifest if "table" not in manifest else TableManifest, complete=True)
    except schema.SchemaError as error:
        raise damaged_file(url, MANIFEST, str(error)) from None
    _verify_files(url, manifest)
    _verify_inputs(url, manifest)
    found = {}
    for shard, summary in verify_shards(url, manifest["shards"], manifest, decode):
        found[shard["path"]] = summary
        if on_verified is not None:
            on_verified(shard["clips"])
    summaries = [found[shard["path"]] for shard in manifest["shards"]]
    empty = [summarize(read_index(url, entry, complete=True), entry["index_sha256"]) for entry in manifest["empty"]]
    try:
        identities = check_disjoint(url, manifest["shards"], summaries)
        shape = clip_shape(one.index["statistics"] for one in summaries)
    except DamagedDatasetError:
        raise
    except UserError as error:
        raise VerificationError(str(error)) from None
    if shape != manifest["clip_shape"]:
        raise VerificationError(f"clips are {shape}, but the manifest says {manifest['clip_shape']}")
    _verify_totals(manifest, summaries, empty, identities)
    _verify_rejects(url, manifest)
    return manifest


def _verify_files(url: str, manifest: Manifest) -> None:
    """Raise VerificationError if there is a shard, an index or descriptors that the manifest does not list."""
    shards = {shard["path"] for shard in manifest["shards"]}
    expected = shards | {entry["index"] for entry in [*manifest["shards"], *manifest["empty"]]}
    # Of format 2, too: an upgrade writes them before the manifest that lists them.
    expected |= {path for shard in shards for path in (appearance_path(shard), columns_path(shard))}
    for name in storage.list_files(url):
        if name.startswith((*SPLITS, f"{APPEARANCE}/")) and name not in expected:
            raise VerificationError(f"{name}: the manifest does not list this file")


def _verify_inputs(url: str, manifest: Manifest) -> None:
    """Verify that the plan is the one the manifest names, and that its inputs have no group in two splits."""
    try:
        plan = schema.read(storage.join(url, PLAN))
        lines = storage.read_bytes(storage.join(url, INPUTS))
    except MissingFileError as error:
        raise VerificationError(str(error)) from None
    if hashlib.sha256(plan).hexdigest() != manifest["plan_sha256"]:
        raise VerificationError(f"{PLAN}: {HASH_MISMATCH}")
    try:
        expected = schema.parse(plan, StoredPlan)["inputs_sha256"]
    except schema.SchemaError as error:
        raise VerificationError(f"{PLAN}: {error}") from None
    try:
        inputs = list(read_inputs(lines.splitlines()))
        check_groups((key, split, group) for key, _, split, group, *_ in inputs)
        found = hashlib.sha256(b"".join(encode_json(known) for *known, _version in inputs)).hexdigest()
    except ValueError:
        raise VerificationError(f"{INPUTS}: it is not a list of inputs") from None
    except UserError as error:
        raise VerificationError(f"{INPUTS}: {error}") from None
    if found != expected:
        raise VerificationError(f"{INPUTS}: it does not list the inputs of {PLAN}")


def _verify_totals(
    manifest: Manifest, summaries: list[ShardSummary], empty: list[ShardSummary], identities: dict[str, int]
) -> None:
    """Verify that the manifest's totals are those of the shards."""
    for split, totals in manifest["splits"].items():
        indexes = [one.index for one in summaries if one.index["split"] == split]
        rejecting = [*indexes, *(one.index for one in empty if one.index["split"] == split)]
        counted = {
            "shards": len(indexes),
            "clips": sum(index["clips"] for index in indexes),
            "identities": identities.get(split, 0),
            "size_bytes": sum(index["size_bytes"] for index in indexes),
            "rejects": sum(len(index["rejects"]) for index in rejecting),
            **total((index["statistics"] for index in indexes), manifest["vocabulary"]),
        }
        for name, value in counted.items():
            if totals.get(name) != value:
                raise VerificationError(f"{split}: {name} are {value}, but the manifest says {totals.get(name)}")


def _verify_rejects(url: str, manifest: Manifest) -> None:
    try:
        listed = storage.read_bytes(storage.join(url, REJECTS))
    except MissingFileError:
        raise VerificationError(f"{REJECTS}: it is missing") from None
    if hashlib.sha256(listed).hexdigest() != manifest["rejects"]["sha256"]:
        raise VerificationError(f"{REJECTS}: {HASH_MISMATCH}")
