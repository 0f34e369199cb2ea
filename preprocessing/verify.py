"""`vdsm verify`: check that a dataset matches its manifest, byte for byte and clip for clip."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import entry
from cluster.cli.settings import Controls, Section
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.inputs import describe_identities
from preprocessing.dataset.manifest import read_manifest
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.dataset.verify_shard import VerificationError


class VerifyCommand(Section, Controls):
    """Read every byte of a dataset and compare it with the manifest. Exit with code 1 on damage, naming the first."""

    data: Location
    """Folder or s3://bucket/prefix of the dataset; `vdsm verify DATA` works too."""
    decode: float = Field(default=1.0, ge=0, le=1)
    """Share of the clips, evenly spread, whose frames are decoded and checked one by one. Every byte is hashed in any
    case."""


def verify(command: VerifyCommand) -> None:
    """Verify the dataset, or print how much would be read."""
    try:
        _verify(command)
    except (VerificationError, DamagedDatasetError) as error:
        sys.stderr.write(f"damaged: {' '.join(str(error).split())}\n")
        raise SystemExit(1) from None


def _verify(command: VerifyCommand) -> None:
    manifest, _ = read_manifest(command.data)
    shards, clips = len(manifest["shards"]), sum(shard["clips"] for shard in manifest["shards"])
    if command.dry_run:
        size = sum(shard["size_bytes"] for shard in manifest["shards"])
        sys.stdout.write(f"{command.data}: would read {clips:,} clips in {shards} shards, {size / 1e6:,.1f} MB\n")
        return
    with ProgressDisplay(phases=1) as progress:
        progress.start("verifying clips", clips, unit="clips")
        verify_dataset(command.data, command.decode, on_verified=progress.advance)
    sys.stdout.write(
        f"{command.data}: all {clips:,} clips in {shards} shards match the manifest; "
        f"{describe_identities(command.data, manifest)}\n"
    )


def _name_data(args: list[str]) -> list[str]:
    """Accept the dataset as a positional argument."""
    return ["--data", *args] if args and not args[0].startswith("-") else args


main = entry(VerifyCommand, verify, prog="vdsm verify", prepare=_name_data)


if __name__ == "__main__":
    main()
