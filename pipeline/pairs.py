"""`vdsm pairs`: the pairs of test clips on which a model is measured, for any other system to generate clips for."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.storage import api as storage
from cluster.storage.lock import output_lock
from pipeline.evaluation.inputs import EvaluationRecipe, test_split, training_split
from pipeline.evaluation.pairs_file import PairsDescription, write_pairs


class PairsCommand(EvaluationRecipe, Controls):
    """Write the fixed pairs of test clips, with instructions to measure any other system on them."""

    data: Location
    """Dataset whose test split is measured."""
    out: Location
    """Folder for pairs.json, pairs.csv, HOW.txt and make_samples.py; may be s3://bucket/prefix."""
    clip_frames: int = Field(default=8, ge=1)
    """Frames of each clip that count; a run is measured on as many as its `training.stage2.clip_frames`."""


def export(command: PairsCommand) -> None:
    """Write the pairs and print where they are.

    Raises:
        UserError: the data is missing or damaged, or has no clips of that length, or another process writes into the
            same folder.
    """
    from pipeline.runs.store import data_hash
    from vdsm.evaluation.pairs import draw_pairs

    with ProgressDisplay(1) as progress:
        progress.start("reading the dataset's indexes")
        test = test_split(command.data, command.evaluation.test_clips)
        training_split(command.data, test, command.clip_frames)
    storage.check_writable(command.out)
    if command.dry_run:
        sys.stdout.write(f"would write {command.evaluation.pairs} pairs of {len(test):,} test clips to {command.out}\n")
        return
    pairs = draw_pairs(test, command.evaluation.pairs, command.seed)
    description = PairsDescription(
        data_sha256=data_hash(test.manifest), pairs_sha256=pairs.sha256(test), seed=command.seed,
        clip_frames=command.clip_frames, evaluation=command.evaluation,
    )  # fmt: skip
    with output_lock(command.out):
        counts = write_pairs(command.out, test, pairs, description)
    sys.stdout.write(", ".join(f"{count:,} {kind}" for kind, count in counts.items()) + "\n")
    sys.stdout.write(f"clips to generate: {storage.join(command.out, 'pairs.json')}\n")
    sys.stdout.write(f"instructions:      {storage.join(command.out, 'HOW.txt')}\n")
    sys.stdout.write(f"complete example:  {storage.join(command.out, 'make_samples.py')}\n")


main = entry(PairsCommand, export, prog="vdsm pairs")


if __name__ == "__main__":
    main()
