"""The folder of `vdsm pairs`: fixed pairs of test clips in two formats, and how to make clips for them."""

import csv
import io
import json
from importlib import resources
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.recipe import EvaluationConfig

if TYPE_CHECKING:
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.evaluation.pairs import Pairs

FORMAT = 1
"""Version of pairs.json."""

HOW = """How to measure another system on these pairs
============================================

pairs.json and pairs.csv list the clips to generate, by the keys of test clips of the dataset. Only the first {length}
frames of each test clip count, and every generated clip has {length} frames of {shape} pixels.

  swap            the action of clip `dynamics_of`, performed by the identity of clip `static_of`
  prior_static    the action of clip `dynamics_of`, by an identity drawn from your prior (`static_of` is empty)
  prior_dynamics  a motion drawn from your prior, by the identity of `static_of` (`dynamics_of` is empty)
  reconstruction  the clip itself, decoded from its own codes (both keys are the same)

All `swap` pairs are required; of each other kind generate all or none.

make_samples.py is a complete program that does this; it needs Python and numpy, and a local copy of the dataset. Put
your system into its function `generate`, copy this folder once for each system, then

  python make_samples.py FOLDER DATA

If you write your own: a clip is the member <key>.frames.npy (uint8 [T, H, W, C]) of one of DATA/test/*.tar. Any number
of .npz files, in any order, hold three arrays of the same length N each:

  numpy.savez_compressed("part-0.npz",
      frames=...,        # uint8 [N, {length}, {height}, {width}, {channels}], 0 to 255
      dynamics_of=...,   # N keys, as numpy strings (dtype <U), empty where drawn from the prior
      static_of=...)     # N keys

Then

  vdsm evaluate --samples FOLDER --data DATA --out REPORT

checks all files, trains the judge and writes metrics.json and report.html. Judge, pairs and controls are those of
`vdsm evaluate --run` with the same seed and settings. If interrupted, rerun it to resume. A sample consists of frames
and keys only: a file that contains Python objects is refused.
"""


class PairsDescription(BaseModel):
    """What pairs.json records besides the list of clips to generate."""

    model_config = ConfigDict(frozen=True)

    data_sha256: str
    pairs_sha256: str
    seed: int
    clip_frames: int = Field(ge=1)
    evaluation: EvaluationConfig


def write_pairs(out: str, test: "ClipDataset", pairs: "Pairs", description: PairsDescription) -> dict[str, int]:
    """Write the files of `vdsm pairs` into the folder `out`; return the number of clips of each kind."""
    from vdsm.evaluation.samples import wanted_donors

    rows = {
        kind: [{"dynamics_of": first, "static_of": second} for first, second in dict.fromkeys(donors)]
        for kind, donors in wanted_donors(test, pairs).items()
    }
    content = {"format": FORMAT, **description.model_dump(mode="json"), "wanted": rows}
    table = io.StringIO()
    writer = csv.DictWriter(table, ("kind", "dynamics_of", "static_of"), lineterminator="\n")
    writer.writeheader()
    writer.writerows({"kind": kind, **row} for kind, wanted in rows.items() for row in wanted)
    height, width, channels = test.frame_shape
    how = HOW.format(
        length=description.clip_frames, shape=f"{height}x{width}", height=height, width=width, channels=channels
    )
    program = resources.files("pipeline.evaluation").joinpath("make_samples.py").read_text(encoding="utf-8")
    texts = {"make_samples.py": program, "HOW.txt": how, "pairs.csv": table.getvalue()}
    texts["pairs.json"] = json.dumps(content, indent=1) + "\n"
    for name, text in texts.items():
        storage.write_bytes(storage.join(out, name), text.encode())
    return {kind: len(wanted) for kind, wanted in rows.items()}


def read_pairs(folder: str) -> PairsDescription:
    """Return what pairs.json of a folder records.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    url = storage.join(folder, "pairs.json")
    try:
        content = json.loads(storage.read_bytes(url))
        if content["format"] != FORMAT:
            raise ValueError
        content["evaluation"].setdefault("test_clips", None)  # older than the setting: drawn from all
        return PairsDescription.model_validate(content)
    except MissingFileError:
        raise UserError(
            f"{url} is missing; write it with `vdsm pairs --out {folder}` and generate the clips that it lists"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{url} is not a list of pairs of this version; rerun `vdsm pairs`") from None
