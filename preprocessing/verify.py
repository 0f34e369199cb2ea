"""`vdsm verify`: is a dataset what its manifest says, byte for byte and clip for clip?

It only reads and lists, so read-only credentials are enough. Shards are looked at one by one, in little memory.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import hashlib
import json
import logging
import sys
from typing import Any

from pydantic import Field

from cluster.cli import run as command_line
from cluster.cli.settings import Controls, Section
from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.clip import SPLITS
from preprocessing.dataset.reader import DamagedDatasetError, read_manifest
from preprocessing.dataset.statistics import total
from preprocessing.dataset.verify_shard import DamageError, verify_shard
from preprocessing.sharding import output_lock, plan, rejects
from preprocessing.sharding.disjoint import check_disjoint
from preprocessing.sharding.manifest import clip_shape
from preprocessing.sharding.write_shard import Summary, read_index_bytes, summarize

log = logging.getLogger(__name__)


class VerifyCommand(Section, Controls):
    """Read every byte of a dataset and compare it with the manifest. Exit code 1 names the first damage."""

    data: str
    """Folder or s3://bucket/prefix of the dataset; `vdsm verify DATA` does as well."""
    decode: float = Field(default=1.0, ge=0, le=1)
    """Share of the clips, evenly spread, whose frames are decoded and checked one by one. Whatever it is, every byte is
    hashed."""


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
        verify(command.data, command.decode)
    except (DamageError, DamagedDatasetError) as damage:
        sys.stderr.write(f"damaged: {' '.join(str(damage).split())}\n")
        raise SystemExit(1) from None
    sys.stdout.write(
        f"{command.data}: all {clips:,} clips in {shards} shards are as they were made; no identity is in two splits\n"
    )


def verify(url: str, decode: float = 1.0) -> None:
    """Re-hash, re-count and decode; check shapes, labels, and that no group and no identity is in two splits.

    Args:
        decode: share of the clips that are decoded.

    Raises:
        DamageError: the first difference between the dataset and its manifest.
        DamagedDatasetError: an index is missing or changed.
        UserError: there is no dataset.
    """
    content, _ = read_manifest(url)
    if not isinstance(content.get("empty"), list):
        raise UserError(f"{url} is of an older format, which this program can read but not verify; make it again")
    _check_files(url, content)
    _check_inputs(url, content)
    summaries = []
    for number, shard in enumerate(content["shards"], start=1):
        summaries.append(verify_shard(url, shard, content, decode))
        log.info("%d/%d %s: %d clips, good", number, len(content["shards"]), shard["path"], shard["clips"])
    empty = [summarize(read_index_bytes(url, shard)) for shard in content["empty"]]
    try:
        identities = check_disjoint(url, content["shards"], summaries)
        shape = clip_shape(one.index["statistics"] for one in summaries)
    except DamagedDatasetError:
        raise
    except UserError as error:
        raise DamageError(str(error)) from None
    if shape != content["clip_shape"]:
        raise DamageError(f"clips are {shape}, but the manifest says {content['clip_shape']}")
    _check_totals(url, content, summaries, empty, identities)


def _check_files(url: str, content: dict[str, Any]) -> None:
    """No shard more than the manifest lists."""
    expected = {shard["path"] for shard in content["shards"]}
    expected |= {shard["index"] for shard in [*content["shards"], *content["empty"]]}
    for name in storage.list_files(url):
        if name.startswith(SPLITS) and name not in expected:
            raise DamageError(f"{name}: the manifest does not list this file")


def _check_inputs(url: str, content: dict[str, Any]) -> None:
    """The plan is the one that was followed, and its list of inputs has no group in two splits."""
    try:
        stored = storage.read_bytes(storage.join(url, output_lock.FILE))
        listed = storage.read_bytes(storage.join(url, output_lock.INPUTS))
    except MissingFileError as error:
        raise DamageError(str(error)) from None
    if hashlib.sha256(stored).hexdigest() != content["plan_sha256"]:
        raise DamageError(f"{output_lock.FILE}: its SHA-256 is not the one in the manifest")
    try:
        wanted = json.loads(stored)["inputs_sha256"]
        inputs = [json.loads(line) for line in listed.splitlines()]
        plan.check_groups((key, split, group) for key, _, split, group, *_ in inputs)
        found = hashlib.sha256(b"".join(plan.encode(known) for *known, _version in inputs)).hexdigest()
    except ValueError:
        raise DamageError(f"{output_lock.INPUTS}: it is no list of inputs") from None
    except UserError as error:
        raise DamageError(f"{output_lock.INPUTS}: {error}") from None
    if found != wanted:
        raise DamageError(f"{output_lock.INPUTS}: it does not list the inputs of {output_lock.FILE}")


def _check_totals(
    url: str, content: dict[str, Any], summaries: list[Summary], empty: list[Summary], identities: dict[str, int]
) -> None:
    """The manifest's counts are those of the shards, and the list of rejects is theirs."""
    for split, totals in content["splits"].items():
        mine = [one for one in summaries if one.index["split"] == split]
        counted = {
            "shards": len(mine),
            "clips": sum(one.index["clips"] for one in mine),
            "identities": identities.get(split, 0),
            "size_bytes": sum(one.index["size_bytes"] for one in mine),
            "rejects": sum(len(one.index["rejects"]) for one in [*mine, *empty] if one.index["split"] == split),
        } | total((one.index["statistics"] for one in mine), content["vocabulary"])
        for name, value in counted.items():
            if totals.get(name) != value:
                raise DamageError(f"{split}: {name} are {value}, but the manifest says {totals.get(name)}")
    try:
        listed = storage.read_bytes(storage.join(url, rejects.FILE))
    except MissingFileError:
        raise DamageError(f"{rejects.FILE}: it is missing") from None
    if hashlib.sha256(listed).hexdigest() != content["rejects"]["sha256"]:
        raise DamageError(f"{rejects.FILE}: its SHA-256 is not the one in the manifest")


if __name__ == "__main__":
    main()
