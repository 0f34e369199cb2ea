"""`vdsm pairs`: the pairs of test clips by which a model is measured, for any system to make its clips from."""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import io
import json
import sys
from typing import Any

from pydantic import Field

from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.evaluation.inputs import EvaluationRecipe

FORMAT = 1
"""Version of pairs.json."""

HOW = """How to measure another system by these pairs
============================================

pairs.json and pairs.csv list what to make, by the keys of test clips of the dataset. Of each clip only the first
{length} frames are looked at, and every clip that you make has {length} frames of {shape} pixels.

  swap            the action of clip `dynamics_of`, done by the identity of clip `static_of`
  prior_static    the action of clip `dynamics_of`, by an identity drawn from your prior (`static_of` is empty)
  prior_dynamics  something drawn from your prior, by the identity of `static_of` (`dynamics_of` is empty)
  reconstruction  the clip itself, decoded from its own codes (both are the same)

All of the `swap` pairs are needed; of the other kinds make all or none. Reading a clip of the dataset needs numpy:

  from preprocessing.dataset.reader import ClipDataset
  test = ClipDataset(DATA, "test")
  frames = test.frames(test.keys.index(key))      # uint8 [T, H, W, C]

Write any number of .npz files into this folder, in any order, each with three arrays of the same length N:

  numpy.savez_compressed("part-0.npz",
      frames=...,        # uint8 [N, {length}, {height}, {width}, {channels}]
      dynamics_of=...,   # N keys, as numpy strings (dtype <U), empty where it was drawn from the prior
      static_of=...)     # N keys

Then

  vdsm evaluate --samples THIS_FOLDER --data DATA --out REPORT

writes metrics.json: judge, pairs and controls are those of `vdsm evaluate --run` with the same seed and settings.
A sample is nothing but its frames and keys: a file that holds Python objects is refused.
"""


class PairsCommand(EvaluationRecipe, Controls):
    """Write the fixed pairs of test clips, and how to measure any other system by them."""

    data: str
    """Dataset whose test split is measured."""
    out: str
    """Folder for pairs.json, pairs.csv and HOW.txt; may be s3://bucket/prefix."""
    clip_frames: int = Field(default=8, ge=1)
    """Frames of each clip that are looked at; a run has those of its `training.stage2.clip_frames`."""


def export(command: PairsCommand) -> None:
    """Write pairs.json, pairs.csv and HOW.txt.

    Raises:
        UserError: the data is missing or damaged, or has no clips of that length.
    """
    from pipeline.evaluate import checked_splits
    from pipeline.runs.store import data_hash
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.evaluation.pairs import draw_pairs
    from vdsm.evaluation.samples import donors_of

    test = ClipDataset(command.data, "test")
    checked_splits(command.data, test, command.clip_frames)
    storage.check_writable(command.out)
    if command.dry_run:
        sys.stdout.write(f"would write {command.evaluation.pairs} pairs of {len(test):,} test clips to {command.out}\n")
        return
    pairs = draw_pairs(test, command.evaluation.pairs, command.seed)
    rows = {
        kind: [{"dynamics_of": first, "static_of": second} for first, second in dict.fromkeys(donors)]
        for kind, donors in donors_of(test, pairs).items()
    }
    description = {
        "format": FORMAT,
        "data_sha256": data_hash(test.manifest),
        "pairs_sha256": pairs.sha256(test),
        "seed": command.seed,
        "clip_frames": command.clip_frames,
        "evaluation": command.evaluation.model_dump(mode="json"),
        "wanted": rows,
    }
    table = io.StringIO()
    writer = csv.DictWriter(table, ("kind", "dynamics_of", "static_of"), lineterminator="\n")
    writer.writeheader()
    writer.writerows({"kind": kind, **row} for kind, wanted in rows.items() for row in wanted)
    height, width, channels = test.manifest["clip_shape"][1:]
    how = HOW.format(
        length=command.clip_frames, shape=f"{height}x{width}", height=height, width=width, channels=channels
    )
    texts = {"pairs.json": json.dumps(description, indent=1) + "\n", "pairs.csv": table.getvalue(), "HOW.txt": how}
    for name, text in texts.items():
        storage.write_bytes(storage.join(command.out, name), text.encode())
    counts = ", ".join(f"{len(wanted):,} {kind}" for kind, wanted in rows.items())
    sys.stdout.write(f"{counts}\nwhat to make: {storage.join(command.out, 'pairs.json')}\n")
    sys.stdout.write(f"how: {storage.join(command.out, 'HOW.txt')}\n")


def read_description(folder: str) -> dict[str, Any]:
    """What pairs.json of a folder says; UserError if there is none of this version."""
    place = storage.join(folder, "pairs.json")
    try:
        found = json.loads(storage.read_bytes(place))
        wanted = {"format", "data_sha256", "pairs_sha256", "seed", "clip_frames", "evaluation"}
        if found["format"] != FORMAT or not wanted <= set(found):
            raise ValueError
    except MissingFileError:
        raise UserError(
            f"{place} is missing; write it with `vdsm pairs --out {folder}` and make the clips by it"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{place} is not a list of pairs of this version; write it again with `vdsm pairs`") from None
    return dict(found)


main = entry(PairsCommand, export, prog="vdsm pairs")


if __name__ == "__main__":
    main()
