"""`vdsm verify`: check that a dataset matches its manifest, byte for byte and clip for clip."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import contextlib
import functools
import sys

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import entry
from cluster.cli.settings import Controls, Section
from cluster.extras import require
from cluster.ray_runtime import connect
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.format import COLUMNAR, TABLE
from preprocessing.dataset.inputs import describe_identities
from preprocessing.dataset.manifest import read_manifest
from preprocessing.dataset.upgrade import upgrade_dataset
from preprocessing.dataset.verify_dataset import VerifyShards, verify_dataset, verify_one_by_one
from preprocessing.dataset.verify_shard import VerificationError
from preprocessing.sharding.verify_tasks import verify_in_tasks


class VerifyCommand(Section, Controls):
    """Read every byte of a dataset and compare it with the manifest. Exit with code 1 on damage, naming the first."""

    data: Location
    """Folder or s3://bucket/prefix of the dataset; `vdsm verify DATA` works too."""
    decode: float = Field(default=1.0, ge=0, le=1)
    """Share of the clips, evenly spread, whose frames are decoded and checked one by one. Every byte is hashed in any
    case."""
    concurrency: int | None = Field(default=None, ge=1, le=10_000)
    """Number of shards verified at the same time, as Ray tasks, whose nodes must all reach the dataset. By default one
    after the other, in this process and without Ray."""
    upgrade: bool = False
    """Make format 3 of a dataset of format 2, in place: write a table of shards and columnar indexes beside the others,
    without reading a shard; then exit. Needs permission to write. A run may be resumed afterwards."""


def verify(command: VerifyCommand) -> None:
    """Verify the dataset, or print how much would be read."""
    try:
        _verify(command)
    except (VerificationError, DamagedDatasetError) as error:
        sys.stderr.write(f"damaged: {' '.join(str(error).split())}\n")
        raise SystemExit(1) from None


def _verify(command: VerifyCommand) -> None:
    if command.upgrade:
        _upgrade(command)
        return
    manifest, _ = read_manifest(command.data)
    shards, clips = len(manifest["shards"]), sum(shard["clips"] for shard in manifest["shards"])
    if command.dry_run:
        size = sum(shard["size_bytes"] for shard in manifest["shards"])
        sys.stdout.write(f"{command.data}: would read {clips:,} clips in {shards} shards, {size / 1e6:,.1f} MB\n")
        return
    with contextlib.ExitStack() as stack:
        verify_shards: VerifyShards = verify_one_by_one
        if command.concurrency is not None:
            require("ray")
            stack.enter_context(connect(num_cpus=command.concurrency))
            verify_shards = functools.partial(verify_in_tasks, limit=command.concurrency)
        progress = stack.enter_context(ProgressDisplay(phases=1))
        progress.start("verifying clips", clips, unit="clips")
        verify_dataset(command.data, command.decode, on_verified=progress.advance, verify_shards=verify_shards)
    sys.stdout.write(
        f"{command.data}: all {clips:,} clips in {shards} shards match the manifest; "
        f"{describe_identities(command.data, manifest)}\n"
    )


def _upgrade(command: VerifyCommand) -> None:
    manifest, _ = read_manifest(command.data)
    shards = len(manifest["shards"])
    if manifest["schema_version"] >= COLUMNAR:
        sys.stdout.write(f"{command.data}: has format {manifest['schema_version']} already\n")
    elif command.dry_run:
        sys.stdout.write(f"{command.data}: would write indexes of {shards:,} shards, and {TABLE}\n")
    else:
        with ProgressDisplay(phases=1) as progress:
            progress.start("writing indexes", shards, unit="shards")
            upgrade_dataset(command.data, on_upgraded=progress.advance)
        sys.stdout.write(f"{command.data}: {shards:,} shards have format {COLUMNAR} now\n")


def _name_data(args: list[str]) -> list[str]:
    """Accept the dataset as a positional argument."""
    return ["--data", *args] if args and not args[0].startswith("-") else args


main = entry(VerifyCommand, verify, prog="vdsm verify", prepare=_name_data)


if __name__ == "__main__":
    main()
